//! Between rows and messages.

use image_api::{
    Any, Image, Operation, Timestamp, any_of, compute, from_json, google, operation::operation, rpc::Status,
};
use sqlx::{Row, any::AnyRow};

use super::CatalogError;
use crate::operation::{Kind, State};

/// All columns of `operations` that callers may see: never the source.
pub(super) const OPERATION_COLUMNS: &str = "id, kind, state, image_id, created_by, created_at, modified_at, error, response, folder_id, image_name, \
     idempotency_key";

/// An operation as callers see it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OperationRecord {
    pub(crate) id: String,
    pub(crate) kind: Kind,
    pub(crate) state: State,
    pub(crate) image_id: String,
    pub(crate) created_by: String,
    pub(crate) created_at: i64,
    pub(crate) modified_at: i64,
    pub(crate) error: Option<Status>,
    pub(crate) response: Option<Any>,
    pub(crate) about: About,
}

/// What an operation is about, also when it is gone.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct About {
    pub(crate) folder_id: String,
    /// Empty where the image had none.
    pub(crate) image_name: String,
    /// The key that the operation was asked for with, as the caller wrote it.
    pub(crate) key: Option<String>,
}

impl About {
    pub(super) fn of(row: &AnyRow) -> Self {
        let (by, key): (String, Option<String>) = (row.get("created_by"), row.get("idempotency_key"));
        let key = key.and_then(|key| Some(key.strip_prefix(&by)?.strip_prefix('/')?.to_owned()));
        Self { folder_id: row.get("folder_id"), image_name: row.get("image_name"), key }
    }
}

/// An image with what Compute Engine's API keeps of it besides.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shown {
    pub(crate) image: Image,
    /// Only the fields that our Image has no place for.
    pub(crate) google: google::Image,
}

impl OperationRecord {
    /// The message of the API.
    pub(crate) fn into_message(self) -> Operation {
        let metadata = match self.kind {
            Kind::Create => any_of(&compute::CreateImageMetadata { image_id: self.image_id }),
            Kind::Delete => any_of(&compute::DeleteImageMetadata { image_id: self.image_id }),
        };
        let response = || self.response.map(operation::Result::Response);
        Operation {
            id: self.id,
            description: self.kind.description().to_owned(),
            created_at: Some(timestamp(self.created_at)),
            created_by: self.created_by,
            modified_at: Some(timestamp(self.modified_at)),
            done: self.state.is_done(),
            metadata: Some(metadata),
            result: self.error.map(operation::Result::Error).or_else(response),
        }
    }
}

pub(super) fn operation_of(row: &AnyRow) -> Result<OperationRecord, CatalogError> {
    let id: String = row.get("id");
    let (kind, state) = kind_and_state(row)?;
    let damaged = |source| CatalogError::Json { table: "operations", id: id.clone(), source };
    let error = row.get::<Option<String>, _>("error").map(|text| from_json(text.as_bytes()));
    let response = row.get::<Option<String>, _>("response").map(|text| from_json(text.as_bytes()));
    Ok(OperationRecord {
        kind,
        state,
        image_id: row.get("image_id"),
        created_by: row.get("created_by"),
        created_at: row.get("created_at"),
        modified_at: row.get("modified_at"),
        about: About::of(row),
        error: error.transpose().map_err(damaged)?,
        response: response.transpose().map_err(damaged)?,
        id,
    })
}

pub(super) fn kind_and_state(row: &AnyRow) -> Result<(Kind, State), CatalogError> {
    let unknown = |column| CatalogError::Word { id: row.get("id"), column };
    let kind = Kind::from_word(&row.get::<String, _>("kind")).ok_or_else(|| unknown("kind"))?;
    let state = State::from_word(&row.get::<String, _>("state")).ok_or_else(|| unknown("state"))?;
    Ok((kind, state))
}

pub(super) fn image_of(row: &AnyRow) -> Result<Image, CatalogError> {
    let id: String = row.get("id");
    let attributes: String = row.get("attributes");
    let damaged = |source| CatalogError::Json { table: "images", id: id.clone(), source };
    let attributes: Image = from_json(attributes.as_bytes()).map_err(damaged)?;
    Ok(Image {
        folder_id: row.get("folder_id"),
        created_at: Some(timestamp(row.get("created_at"))),
        name: row.get("name"),
        family: row.get("family"),
        storage_size: row.get("storage_size"),
        min_disk_size: row.get("min_disk_size"),
        status: i32::try_from(row.get::<i64, _>("status")).unwrap_or_default(),
        id,
        ..attributes
    })
}

pub(super) fn shown_of(row: &AnyRow) -> Result<Shown, CatalogError> {
    let image = image_of(row)?;
    let google = row.get::<Option<String>, _>("google").map(|text| from_json(text.as_bytes()));
    let damaged = |source| CatalogError::Json { table: "images", id: image.id.clone(), source };
    let google = google.transpose().map_err(damaged)?.unwrap_or_default();
    Ok(Shown { image, google })
}

/// The part of an image that stands in its `attributes`.
pub(super) fn attributes_of(image: &Image) -> Image {
    Image {
        description: image.description.clone(),
        labels: image.labels.clone(),
        product_ids: image.product_ids.clone(),
        os: image.os.clone(),
        pooled: image.pooled,
        hardware_generation: image.hardware_generation,
        kms_key: image.kms_key.clone(),
        ..Image::default()
    }
}

pub(super) fn timestamp(micros: i64) -> Timestamp {
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or_default();
    Timestamp { seconds: micros.div_euclid(1_000_000), nanos }
}
