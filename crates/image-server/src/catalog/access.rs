//! Access bindings of images, and the tokens that were given out.

use image_api::{
    Operation,
    access::{
        AccessBinding, AccessBindingAction, AccessBindingDelta, AccessBindingsOperationResult,
        SetAccessBindingsMetadata, Subject, UpdateAccessBindingsMetadata,
    },
    any_of,
};

use super::{
    Catalog, CatalogError, Tx,
    changes::{Asked, NewChange, add_change, known_change},
    commit, now, read_image,
};
use crate::limits;

/// Role, and type and id of the subject.
type BindingRow = (String, String, String);

/// What becomes of the bindings of an image.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum BindingsEdit {
    /// These, and no others.
    Set(Vec<AccessBinding>),
    /// What there is, with these changes in their order.
    Update(Vec<AccessBindingDelta>),
}

impl Catalog {
    /// Bindings of an image in a total order, beyond the first `skip`, at most `limit`.
    pub(crate) async fn bindings(
        &self,
        image_id: &str,
        skip: i64,
        limit: i64,
    ) -> Result<Vec<AccessBinding>, CatalogError> {
        let sql = "SELECT role_id, subject_type, subject_id FROM access_bindings WHERE image_id = $1 \
                   ORDER BY role_id, subject_type, subject_id LIMIT $2 OFFSET $3";
        let rows: Vec<BindingRow> = sqlx::query_as(sql)
            .bind(image_id)
            .bind(limit)
            .bind(skip)
            .fetch_all(&self.pool)
            .await
            .map_err(CatalogError::database("list access bindings"))?;
        Ok(rows.into_iter().map(binding_of).collect())
    }

    /// Changes the bindings of an image; gives the operation, which is done.
    pub(crate) async fn change_bindings(
        &self,
        image_id: &str,
        edit: BindingsEdit,
        asked: Asked<'_>,
    ) -> Result<Operation, CatalogError> {
        let mut tx = self.begin_admission().await?;
        if let Some(known) = known_change(&mut tx, asked.key).await? {
            return Ok(known);
        }
        // The image may be gone since the caller's rights were looked up.
        read_image(&mut tx, image_id).await?;
        let resource_id = image_id.to_owned();
        let (description, metadata, deltas) = match edit {
            BindingsEdit::Set(wanted) => {
                let there = all_bindings(&mut tx, image_id).await?;
                let deltas = difference(&there, wanted);
                ("Set image access bindings", any_of(&SetAccessBindingsMetadata { resource_id }), deltas)
            }
            BindingsEdit::Update(deltas) => {
                let metadata = any_of(&UpdateAccessBindingsMetadata { resource_id });
                ("Update image access bindings", metadata, deltas)
            }
        };
        let mut effective_deltas = Vec::new();
        for delta in deltas {
            if apply(&mut tx, image_id, &delta).await? {
                effective_deltas.push(delta);
            }
        }
        let found = all_bindings(&mut tx, image_id).await?.len();
        if found > limits::ACCESS_BINDINGS {
            return Err(CatalogError::TooManyBindings { found, limit: limits::ACCESS_BINDINGS });
        }
        let response = any_of(&AccessBindingsOperationResult { effective_deltas });
        let operation =
            add_change(&mut tx, NewChange { image_id, description, metadata, response }, asked).await?;
        commit(tx).await?;
        Ok(operation)
    }

    /// Remembers a token by its digest, and forgets those that have expired.
    pub(crate) async fn add_token(
        &self,
        digest: &str,
        account_id: &str,
        expires_at: i64,
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM iam_tokens WHERE expires_at <= $1")
            .bind(now())
            .execute(&mut *tx)
            .await
            .map_err(CatalogError::database("forget expired tokens"))?;
        sqlx::query("INSERT INTO iam_tokens (digest, account_id, expires_at) VALUES ($1, $2, $3)")
            .bind(digest)
            .bind(account_id)
            .bind(expires_at)
            .execute(&mut *tx)
            .await
            .map_err(CatalogError::database("add a token"))?;
        commit(tx).await
    }

    /// Whose token it is, as long as it is good.
    pub(crate) async fn account_of_token(&self, digest: &str) -> Result<Option<String>, CatalogError> {
        let row: Option<(String,)> =
            sqlx::query_as("SELECT account_id FROM iam_tokens WHERE digest = $1 AND expires_at > $2")
                .bind(digest)
                .bind(now())
                .fetch_optional(&self.pool)
                .await
                .map_err(CatalogError::database("look up a token"))?;
        Ok(row.map(|(account_id,)| account_id))
    }
}

async fn all_bindings(tx: &mut Tx, image_id: &str) -> Result<Vec<AccessBinding>, CatalogError> {
    let sql = "SELECT role_id, subject_type, subject_id FROM access_bindings WHERE image_id = $1";
    let rows: Vec<BindingRow> = sqlx::query_as(sql)
        .bind(image_id)
        .fetch_all(&mut **tx)
        .await
        .map_err(CatalogError::database("list access bindings"))?;
    Ok(rows.into_iter().map(binding_of).collect())
}

/// True if there is a difference.
async fn apply(tx: &mut Tx, image_id: &str, delta: &AccessBindingDelta) -> Result<bool, CatalogError> {
    let binding = delta.access_binding.clone().unwrap_or_default();
    let subject = binding.subject.unwrap_or_default();
    let sql = match delta.action() {
        AccessBindingAction::Remove => {
            "DELETE FROM access_bindings WHERE image_id = $1 AND role_id = $2 AND subject_type = $3 AND subject_id = $4"
        }
        _ => {
            "INSERT INTO access_bindings (image_id, role_id, subject_type, subject_id) VALUES ($1, $2, $3, $4) \
             ON CONFLICT DO NOTHING"
        }
    };
    let done = sqlx::query(sql)
        .bind(image_id)
        .bind(binding.role_id)
        .bind(subject.r#type)
        .bind(subject.id)
        .execute(&mut **tx)
        .await
        .map_err(CatalogError::database("change access bindings"))?;
    Ok(done.rows_affected() > 0)
}

/// What leads from one set to the other.
fn difference(there: &[AccessBinding], wanted: Vec<AccessBinding>) -> Vec<AccessBindingDelta> {
    let delta = |action: AccessBindingAction, binding| AccessBindingDelta {
        action: action.into(),
        access_binding: Some(binding),
    };
    let gone = there.iter().filter(|binding| !wanted.contains(binding)).cloned();
    let mut deltas: Vec<_> = gone.map(|binding| delta(AccessBindingAction::Remove, binding)).collect();
    deltas.extend(wanted.into_iter().map(|binding| delta(AccessBindingAction::Add, binding)));
    deltas
}

fn binding_of((role_id, subject_type, subject_id): BindingRow) -> AccessBinding {
    AccessBinding { role_id, subject: Some(Subject { id: subject_id, r#type: subject_type }) }
}
