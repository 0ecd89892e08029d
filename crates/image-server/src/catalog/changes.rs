//! Changes of an image that are done when they are accepted, and all operations on an image as callers see them.
//!
//! A change is one transaction: what it changes, and the row of `changes` that is its Operation for ever. It has no states,
//! so [`crate::operation::transition`] has no say in it.

use std::collections::BTreeMap;

use image_api::{
    Any, Image, Operation, any_of, compute::UpdateImageMetadata, compute::image, from_json,
    operation::operation, to_json,
};

use sqlx::{AnyConnection, Row, any::AnyRow};

use super::{
    Attempt, Catalog, CatalogError, IdempotencyKey, Shown, Tx, commit, fetch_operation, now, read_image,
    rows::{About, attributes_of, shown_of, timestamp},
    size_to_sql,
};
use crate::{
    ids,
    operation::{Kind, State},
};

/// Who asks for a change, and by which key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) by: &'a str,
    pub(crate) key: Option<&'a IdempotencyKey>,
}

/// What becomes of an image; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ImageEdit {
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) labels: Option<BTreeMap<String, String>>,
    pub(crate) min_disk_size: Option<i64>,
    pub(crate) family: Option<String>,
    /// What the labels must be for the change to happen.
    pub(crate) labels_were: Option<BTreeMap<String, String>>,
}

/// An operation, and what decides who may see it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SeenOperation {
    pub(crate) image_id: String,
    pub(crate) created_at: i64,
    pub(crate) state: State,
    pub(crate) about: About,
    pub(crate) message: Operation,
}

/// A change as it goes into its row.
pub(super) struct NewChange<'a> {
    pub(super) image_id: &'a str,
    pub(super) description: &'a str,
    pub(super) metadata: Any,
    pub(super) response: Any,
}

const CHANGE: &str = "SELECT id, image_id, description, created_by, created_at, metadata, response, folder_id, \
                      image_name, idempotency_key FROM changes WHERE id = $1";

impl Catalog {
    /// The change that a key stands for already: for a call that gets no further. A change looks for itself.
    pub(crate) async fn known_change(
        &self,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<Operation>, CatalogError> {
        if key.is_none() {
            return Ok(None);
        }
        let mut on = self.connection().await?;
        known_change(&mut on, key).await
    }

    /// Changes a READY image; gives the operation, which is done.
    pub(crate) async fn update_image(
        &self,
        image_id: &str,
        edit: ImageEdit,
        asked: Asked<'_>,
    ) -> Result<Operation, CatalogError> {
        let mut tx = self.begin_admission().await?;
        if let Some(known) = known_change(&mut tx, asked.key).await? {
            return Ok(known);
        }
        let mut image = read_image(&mut tx, image_id).await?;
        if image.status() != image::Status::Ready {
            let status = image.status().as_str_name();
            return Err(CatalogError::NotChangeable { id: image_id.to_owned(), status });
        }
        if edit.labels_were.is_some_and(|labels| labels != image.labels) {
            return Err(CatalogError::Changed { id: image_id.to_owned() });
        }
        image.name = edit.name.unwrap_or(image.name);
        image.family = edit.family.unwrap_or(image.family);
        image.description = edit.description.unwrap_or(image.description);
        image.labels = edit.labels.unwrap_or(image.labels);
        image.min_disk_size = edit.min_disk_size.unwrap_or(image.min_disk_size);
        check_name_of(&mut tx, &image).await?;
        let unwritable = |source| CatalogError::Json { table: "images", id: image_id.to_owned(), source };
        let attributes = to_json(&attributes_of(&image)).map_err(unwritable)?;
        sqlx::query(
            "UPDATE images SET name = $1, min_disk_size = $2, attributes = $3, family = $5 WHERE id = $4",
        )
        .bind(image.name.as_str())
        .bind(image.min_disk_size)
        .bind(attributes)
        .bind(image_id)
        .bind(image.family.as_str())
        .execute(&mut *tx)
        .await
        .map_err(CatalogError::database("change an image"))?;
        let change = NewChange {
            image_id,
            description: "Update image",
            metadata: any_of(&UpdateImageMetadata { image_id: image_id.to_owned() }),
            response: any_of(&image),
        };
        let operation = add_change(&mut tx, change, asked).await?;
        commit(tx).await?;
        Ok(operation)
    }

    /// An operation of either kind.
    pub(crate) async fn any_operation(&self, id: &str) -> Result<SeenOperation, CatalogError> {
        let mut on = self.connection().await?;
        match read_change(&mut on, id).await? {
            Some(change) => Ok(change),
            None => fetch_operation(&mut on, id).await.map(SeenOperation::from),
        }
    }

    /// Operations on an image, the newest first: at most `limit`, and those beyond `after` (time and id).
    pub(crate) async fn operations_of(
        &self,
        image_id: &str,
        after: Option<(i64, String)>,
        limit: i64,
    ) -> Result<Vec<SeenOperation>, CatalogError> {
        let (before, before_id) = after.unwrap_or((i64::MAX, String::new()));
        let mut on = self.connection().await?;
        let sql = "SELECT created_at, id, 0 AS is_change FROM operations \
                   WHERE image_id = $1 AND (created_at < $2 OR created_at = $2 AND id < $3) \
                   UNION ALL SELECT created_at, id, 1 FROM changes \
                   WHERE image_id = $1 AND (created_at < $2 OR created_at = $2 AND id < $3) \
                   ORDER BY 1 DESC, 2 DESC LIMIT $4";
        let page: Vec<(i64, String, i32)> = sqlx::query_as(sql)
            .bind(image_id)
            .bind(before)
            .bind(before_id)
            .bind(limit)
            .fetch_all(&mut *on)
            .await
            .map_err(CatalogError::database("list operations"))?;
        let mut operations = Vec::with_capacity(page.len());
        for (_, id, is_change) in page {
            let change = if is_change == 1 { read_change(&mut on, &id).await? } else { None };
            operations.push(match change {
                Some(change) => change,
                None => fetch_operation(&mut on, &id).await?.into(),
            });
        }
        Ok(operations)
    }

    /// The newest READY image of a family, if there is one.
    pub(crate) async fn latest_of_family(
        &self,
        folder_id: &str,
        family: &str,
    ) -> Result<Option<Shown>, CatalogError> {
        let sql = "SELECT * FROM images WHERE folder_id = $1 AND family = $2 AND family <> '' AND status = $3 \
                   ORDER BY created_at DESC, id DESC LIMIT 1";
        let newest = sqlx::query(sql)
            .bind(folder_id)
            .bind(family)
            .bind(i64::from(i32::from(image::Status::Ready)))
            .fetch_optional(&self.pool)
            .await
            .map_err(CatalogError::database("find the latest image"))?;
        newest.as_ref().map(shown_of).transpose()
    }

    /// How far an operation is, of 100: by the last part that its ingest has come to.
    pub(crate) async fn progress(&self, seen: &SeenOperation) -> Result<i32, CatalogError> {
        match seen.state {
            State::Queued => return Ok(0),
            State::Running | State::Cancelling => {}
            State::Succeeded | State::Failed | State::Cancelled => return Ok(100),
        }
        let sql = "SELECT o.parts, CAST((SELECT COALESCE(MAX(b.part), -1) FROM ingest_blocks b \
                   WHERE b.image_id = o.image_id) AS BIGINT) FROM operations o WHERE o.id = $1";
        let row: Option<(i64, i64)> = sqlx::query_as(sql)
            .bind(&seen.message.id)
            .fetch_optional(&self.pool)
            .await
            .map_err(CatalogError::database("read how far an operation is"))?;
        // A copy of an image has no parts, and is over soon.
        let (parts, last) = row.unwrap_or_default();
        let percent = if parts > 0 { (last + 1).saturating_mul(100) / parts } else { 0 };
        // What is not done has something to do.
        Ok(i32::try_from(percent.clamp(0, 99)).unwrap_or_default())
    }

    /// Notes of how many parts the source of a creation consists, for [`Catalog::progress`].
    pub(crate) async fn note_parts(&self, attempt: &Attempt, parts: u64) -> Result<(), CatalogError> {
        let noted =
            sqlx::query("UPDATE operations SET parts = $1 WHERE image_id = $2 AND kind = $3 AND epoch = $4")
                .bind(size_to_sql(parts))
                .bind(&attempt.image_id)
                .bind(Kind::Create.word())
                .bind(attempt.epoch)
                .execute(&self.pool)
                .await;
        noted.map(drop).map_err(CatalogError::database("note the parts of a source"))
    }
}

impl From<super::OperationRecord> for SeenOperation {
    fn from(record: super::OperationRecord) -> Self {
        Self {
            image_id: record.image_id.clone(),
            created_at: record.created_at,
            state: record.state,
            about: record.about.clone(),
            message: record.into_message(),
        }
    }
}

/// The operation that a key stands for already.
pub(super) async fn known_change(
    on: &mut AnyConnection,
    key: Option<&IdempotencyKey>,
) -> Result<Option<Operation>, CatalogError> {
    let Some(key) = key else { return Ok(None) };
    if let Some((id, request_digest)) = key_of_change(on, key).await? {
        if request_digest != key.request_digest {
            return Err(CatalogError::KeyReused);
        }
        return Ok(read_change(on, &id).await?.map(|change| change.message));
    }
    let other: Option<(String,)> = sqlx::query_as(
        "SELECT id FROM operations WHERE idempotency_key = $1 AND state NOT IN ('FAILED', 'CANCELLED')",
    )
    .bind(key.key.as_str())
    .fetch_optional(on)
    .await
    .map_err(CatalogError::database("look up an idempotency key"))?;
    if other.is_some() { Err(CatalogError::KeyReused) } else { Ok(None) }
}

/// Records a change in the commit that makes it; gives its operation.
pub(super) async fn add_change(
    tx: &mut Tx,
    change: NewChange<'_>,
    asked: Asked<'_>,
) -> Result<Operation, CatalogError> {
    let (id, created_at) = (ids::new_id(), now());
    let unwritable = |source| CatalogError::Json { table: "changes", id: id.clone(), source };
    let metadata = to_json(&change.metadata).map_err(unwritable)?;
    let response = to_json(&change.response).map_err(unwritable)?;
    let sql = "INSERT INTO changes (id, image_id, description, created_by, created_at, idempotency_key, \
               request_digest, metadata, response, folder_id, image_name) \
               SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, folder_id, name FROM images WHERE images.id = $2";
    sqlx::query(sql)
        .bind(id.as_str())
        .bind(change.image_id)
        .bind(change.description)
        .bind(asked.by)
        .bind(created_at)
        .bind(asked.key.map(|key| key.key.as_str()))
        .bind(asked.key.map(|key| key.request_digest.as_str()))
        .bind(metadata)
        .bind(response)
        .execute(&mut **tx)
        .await
        .map_err(CatalogError::database("add a change"))?;
    Ok(Operation {
        id,
        description: change.description.to_owned(),
        created_at: Some(timestamp(created_at)),
        created_by: asked.by.to_owned(),
        modified_at: Some(timestamp(created_at)),
        done: true,
        metadata: Some(change.metadata),
        result: Some(operation::Result::Response(change.response)),
    })
}

pub(super) async fn key_of_change(
    on: &mut AnyConnection,
    key: &IdempotencyKey,
) -> Result<Option<(String, String)>, CatalogError> {
    sqlx::query_as("SELECT id, request_digest FROM changes WHERE idempotency_key = $1")
        .bind(key.key.as_str())
        .fetch_optional(on)
        .await
        .map_err(CatalogError::database("look up an idempotency key"))
}

async fn read_change(on: &mut AnyConnection, id: &str) -> Result<Option<SeenOperation>, CatalogError> {
    let row = sqlx::query(CHANGE)
        .bind(id)
        .fetch_optional(on)
        .await
        .map_err(CatalogError::database("read an operation"))?;
    row.as_ref().map(change_of).transpose()
}

fn change_of(row: &AnyRow) -> Result<SeenOperation, CatalogError> {
    let (id, created_at): (String, i64) = (row.get("id"), row.get("created_at"));
    let damaged = |source| CatalogError::Json { table: "changes", id: id.clone(), source };
    let metadata: Any = from_json(row.get::<String, _>("metadata").as_bytes()).map_err(damaged)?;
    let response: Any = from_json(row.get::<String, _>("response").as_bytes()).map_err(damaged)?;
    let at = Some(timestamp(created_at));
    let message = Operation {
        id,
        description: row.get("description"),
        created_at: at,
        created_by: row.get("created_by"),
        modified_at: at,
        done: true,
        metadata: Some(metadata),
        result: Some(operation::Result::Response(response)),
    };
    let (image_id, about) = (row.get("image_id"), About::of(row));
    // It was over when it was accepted.
    Ok(SeenOperation { image_id, created_at, state: State::Succeeded, about, message })
}

/// One name in a folder, among the images that exist or will.
async fn check_name_of(tx: &mut Tx, image: &Image) -> Result<(), CatalogError> {
    if image.name.is_empty() {
        return Ok(());
    }
    let sql = "SELECT id FROM images WHERE folder_id = $1 AND name = $2 AND id <> $3 AND status IN (1, 2)";
    let taken: Option<(String,)> = sqlx::query_as(sql)
        .bind(image.folder_id.as_str())
        .bind(image.name.as_str())
        .bind(image.id.as_str())
        .fetch_optional(&mut **tx)
        .await
        .map_err(CatalogError::database("look up a name"))?;
    match taken {
        Some((image_id,)) => Err(CatalogError::NameTaken { name: image.name.clone(), image_id }),
        None => Ok(()),
    }
}
