//! What the catalog refuses, and what breaks in it.

use image_api::JsonError;

use crate::operation::Refused;

/// Why the catalog did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatalogError {
    /// The database failed.
    #[error("the catalog cannot {action}")]
    Database { action: &'static str, source: sqlx::Error },
    /// The tables could not be brought up to date.
    #[error("the catalog's tables cannot be brought up to date")]
    Migration { source: sqlx::migrate::MigrateError },
    /// A database of another kind. The URL is not repeated: it may hold a password.
    #[error("the database URL is of an unsupported kind, expected sqlite:PATH or postgres://...")]
    UnsupportedUrl,
    /// A column holds JSON that is not what this version writes.
    #[error("the row {id} of {table} is damaged")]
    Json { table: &'static str, id: String, source: JsonError },
    /// A column holds a word or number that this version does not know.
    #[error("the row {id} of operations is damaged: unknown {column}")]
    Word { id: String, column: &'static str },
    /// No such image.
    #[error("image {id} not found")]
    NoImage { id: String },
    /// No such operation.
    #[error("operation {id} not found")]
    NoOperation { id: String },
    /// Another image of the folder has the name.
    #[error("image with name {name} already exists: {image_id}")]
    NameTaken { name: String, image_id: String },
    /// The key was used for something else.
    #[error("the idempotency key was used with another request")]
    KeyReused,
    /// Too many operations wait.
    #[error("found {found} unfinished operations, expected fewer than {limit} (limit queued-operations)")]
    QueueFull { found: i64, limit: i64 },
    /// Too many images of a folder are new.
    #[error(
        "{found} images of the folder were created in the last {seconds} s, expected fewer than {limit} \
         (limit creates-per-second)"
    )]
    TooFast { found: i64, limit: i64, seconds: u64 },
    /// The image is not in a state that can be deleted.
    #[error("image {id} is {status}, expected READY or ERROR")]
    NotDeletable { id: String, status: &'static str },
    /// The image is not in a state that can be changed.
    #[error("image {id} is {status}, expected READY")]
    NotChangeable { id: String, status: &'static str },
    /// Too many bindings on one image.
    #[error("found {found} access bindings, expected at most {limit}")]
    TooManyBindings { found: usize, limit: usize },
    /// The image that had the content has been deleted meanwhile.
    #[error("the image that this one was made of is not there any more")]
    ContentGone { manifest: String },
    /// The state machine refuses.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl CatalogError {
    /// Wraps a database error with what was tried.
    pub(crate) fn database(action: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| Self::Database { action, source }
    }
}
