//! How operations come into the catalog: names, keys and the length of the queue are checked in the same commit.

use image_api::{Image, compute::image, google, to_json};
use image_ingest::SourceUri;
use sqlx::{AnyConnection, Row};

use super::{
    Catalog, CatalogError, OperationRecord, QueueLimits, Tx, changes::key_of_change, commit, fetch_operation,
    now, quota, read_image, read_operation, rows, set_status,
};
use crate::{
    ids,
    operation::{Kind, State},
};

/// A caller's key, and the digest of what it was sent with.
#[derive(Clone, Debug)]
pub(crate) struct IdempotencyKey {
    pub(crate) key: String,
    pub(crate) request_digest: String,
}

/// An image to make.
#[derive(Debug)]
pub(crate) struct NewImage {
    /// What the caller said; identifier, time, status and sizes are the catalog's.
    pub(crate) image: Image,
    /// What Compute Engine's API keeps of it besides.
    pub(crate) google: google::Image,
    pub(crate) source: SourceUri,
    /// 0 means what the content needs.
    pub(crate) wanted_disk_size: i64,
    pub(crate) created_by: String,
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) limits: QueueLimits,
}

/// What became of a call.
#[derive(Debug)]
pub(crate) enum Admission {
    /// A new operation, which a worker must take.
    New(OperationRecord),
    /// The operation that the key stands for already.
    Known(OperationRecord),
}

impl Catalog {
    /// The operation that a key stands for already: for a call that gets no further, because what it names is gone by now. An
    /// admission looks for itself.
    pub(crate) async fn known(
        &self,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<OperationRecord>, CatalogError> {
        let Some(key) = key else { return Ok(None) };
        let mut on = self.connection().await?;
        Ok(match look_up(&mut on, key).await? {
            Some(Stands::For(record)) => Some(*record),
            Some(Stands::ForNothing { .. }) | None => None,
        })
    }

    /// Accepts an image: CREATING, with a queued operation.
    pub(crate) async fn admit_create(&self, new: NewImage) -> Result<Admission, CatalogError> {
        let mut tx = self.begin_admission().await?;
        if let Some(known) = known_or_freed(&mut tx, new.key.as_ref()).await? {
            return Ok(Admission::Known(known));
        }
        quota::check(&mut tx, &new).await?;
        check_name(&mut tx, &new.image).await?;
        let (image_id, created_at) = (ids::new_id(), now());
        let unwritable = |source| CatalogError::Json { table: "images", id: image_id.clone(), source };
        let attributes = to_json(&rows::attributes_of(&new.image)).map_err(unwritable)?;
        let has_more = new.google != google::Image::default();
        let google = has_more.then(|| to_json(&new.google)).transpose().map_err(unwritable)?;
        let sql = "INSERT INTO images (id, folder_id, name, family, created_at, status, storage_size, min_disk_size, \
                   attributes, google) VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $8, $9)";
        sqlx::query(sql)
            .bind(&image_id)
            .bind(&new.image.folder_id)
            .bind(&new.image.name)
            .bind(&new.image.family)
            .bind(created_at)
            .bind(i64::from(i32::from(image::Status::Creating)))
            .bind(new.wanted_disk_size)
            .bind(attributes)
            .bind(google)
            .execute(&mut *tx)
            .await
            .map_err(CatalogError::database("add an image"))?;
        let operation = NewOperation {
            kind: Kind::Create,
            image_id: &image_id,
            created_by: &new.created_by,
            source: Some(&new.source),
            wanted_disk_size: new.wanted_disk_size,
            key: new.key.as_ref(),
        };
        let record = add_operation(&mut tx, &operation).await?;
        commit(tx).await?;
        Ok(Admission::New(record))
    }

    /// Accepts the removal of an image: DELETING, with a queued operation.
    pub(crate) async fn admit_delete(
        &self,
        image_id: &str,
        created_by: &str,
        key: Option<&IdempotencyKey>,
    ) -> Result<Admission, CatalogError> {
        let mut tx = self.begin_admission().await?;
        if let Some(known) = known_or_freed(&mut tx, key).await? {
            return Ok(Admission::Known(known));
        }
        let image = read_image(&mut tx, image_id).await?;
        if !matches!(image.status(), image::Status::Ready | image::Status::Error) {
            let status = image.status().as_str_name();
            return Err(CatalogError::NotDeletable { id: image_id.to_owned(), status });
        }
        set_status(&mut tx, image_id, image::Status::Deleting).await?;
        let operation =
            NewOperation { kind: Kind::Delete, image_id, created_by, source: None, wanted_disk_size: 0, key };
        let record = add_operation(&mut tx, &operation).await?;
        commit(tx).await?;
        Ok(Admission::New(record))
    }
}

struct NewOperation<'a> {
    kind: Kind,
    image_id: &'a str,
    created_by: &'a str,
    source: Option<&'a SourceUri>,
    wanted_disk_size: i64,
    key: Option<&'a IdempotencyKey>,
}

async fn add_operation(tx: &mut Tx, new: &NewOperation<'_>) -> Result<OperationRecord, CatalogError> {
    let (id, created_at) = (ids::new_id(), now());
    let sql = "INSERT INTO operations (id, kind, state, image_id, created_by, created_at, modified_at, source_uri, \
               wanted_disk_size, idempotency_key, request_digest, folder_id, image_name) \
               SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, folder_id, name FROM images WHERE images.id = $4";
    sqlx::query(sql)
        .bind(&id)
        .bind(new.kind.word())
        .bind(State::Queued.word())
        .bind(new.image_id)
        .bind(new.created_by)
        .bind(created_at)
        .bind(created_at)
        .bind(new.source.map(SourceUri::expose))
        .bind(new.wanted_disk_size)
        .bind(new.key.map(|key| key.key.as_str()))
        .bind(new.key.map(|key| key.request_digest.as_str()))
        .execute(&mut **tx)
        .await
        .map_err(CatalogError::database("add an operation"))?;
    read_operation(tx, &id).await
}

/// What a key of an operation stands for.
enum Stands {
    For(Box<OperationRecord>),
    /// Its operation ended in an error: the caller who tries again wants a new attempt, not the old error.
    ForNothing {
        operation: String,
    },
}

/// The operation that the key stands for. One that stands for nothing any more is freed, by the commit of the new operation only.
async fn known_or_freed(
    tx: &mut Tx,
    key: Option<&IdempotencyKey>,
) -> Result<Option<OperationRecord>, CatalogError> {
    let Some(key) = key else { return Ok(None) };
    match look_up(tx, key).await? {
        Some(Stands::For(record)) => Ok(Some(*record)),
        Some(Stands::ForNothing { operation }) => {
            sqlx::query("UPDATE operations SET idempotency_key = NULL WHERE id = $1")
                .bind(&operation)
                .execute(&mut **tx)
                .await
                .map_err(CatalogError::database("free an idempotency key"))?;
            Ok(None)
        }
        None => Ok(None),
    }
}

async fn look_up(on: &mut AnyConnection, asked: &IdempotencyKey) -> Result<Option<Stands>, CatalogError> {
    if key_of_change(on, asked).await?.is_some() {
        return Err(CatalogError::KeyReused);
    }
    let row = sqlx::query("SELECT id, request_digest FROM operations WHERE idempotency_key = $1")
        .bind(&asked.key)
        .fetch_optional(&mut *on)
        .await
        .map_err(CatalogError::database("look up an idempotency key"))?;
    let Some(row) = row else { return Ok(None) };
    let record = fetch_operation(on, row.get("id")).await?;
    if matches!(record.state, State::Failed | State::Cancelled) {
        return Ok(Some(Stands::ForNothing { operation: record.id }));
    }
    if row.get::<Option<String>, _>("request_digest").as_ref() != Some(&asked.request_digest) {
        return Err(CatalogError::KeyReused);
    }
    Ok(Some(Stands::For(Box::new(record))))
}

async fn check_name(tx: &mut Tx, image: &Image) -> Result<(), CatalogError> {
    if image.name.is_empty() {
        return Ok(());
    }
    let sql = "SELECT id FROM images WHERE folder_id = $1 AND name = $2 AND status IN (1, 2)";
    let taken: Option<String> = sqlx::query_scalar(sql)
        .bind(&image.folder_id)
        .bind(&image.name)
        .fetch_optional(&mut **tx)
        .await
        .map_err(CatalogError::database("look up a name"))?;
    match taken {
        Some(image_id) => Err(CatalogError::NameTaken { name: image.name.clone(), image_id }),
        None => Ok(()),
    }
}
