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
    /// The labels are not those that the caller saw.
    #[error("the labels of image {id} were changed meanwhile")]
    Changed { id: String },
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
    /// Whether the database is away, full or busy, so that the same call may work in a moment: not whether it said that we are
    /// wrong, or holds what we cannot read.
    pub(crate) fn is_outage(&self) -> bool {
        let Self::Database { source, .. } = self else { return false };
        match source {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => true,
            sqlx::Error::Database(error) => error.code().is_some_and(|code| is_of_an_outage(&code)),
            _ => false,
        }
    }

    /// Wraps a database error with what was tried.
    pub(crate) fn database(action: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| Self::Database { action, source }
    }
}

/// PostgreSQL has codes of five letters, of which the first two are the class
/// (<https://www.postgresql.org/docs/15/errcodes-appendix.html>); SQLite numbers, whose lowest byte is the primary code
/// (<https://sqlite.org/rescode.html>).
fn is_of_an_outage(code: &str) -> bool {
    if let Ok(number) = code.parse::<u32>()
        && code.len() < 5
    {
        // BUSY, LOCKED, IOERR, FULL, CANTOPEN.
        return matches!(number & 0xff, 5 | 6 | 10 | 13 | 14);
    }
    // Connections, resources, an operator's hand, the system, and a transaction that another one ended. A server that has become
    // a replica takes no writes; one whose transaction stood still for too long has ended it, as has one that waited for a lock.
    matches!(code.get(..2), Some("08" | "53" | "57" | "58" | "40"))
        || matches!(code, "25006" | "25P03" | "55P03")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_outages() {
        let is = is_of_an_outage;
        // Busy; of a snapshot; a disk that fails, in three ways; full; no such file.
        for sqlite in ["5", "517", "10", "778", "8714", "13", "14"] {
            assert!(is(sqlite), "{sqlite}");
        }
        // A connection, too many, a full disk, a stop, a crash, a start, a deadlock, a replica, a lock.
        for postgres in ["08006", "53300", "53100", "57P01", "57P02", "57P03", "40P01", "25006", "55P03"] {
            assert!(is(postgres), "{postgres}");
        }
        // Wrong statements and broken rules stay so.
        for ours in ["1", "19", "2067", "1811", "11", "42601", "23505", "22P02", "25P02", "XX000"] {
            assert!(!is(ours), "{ours}");
        }
        assert!(!CatalogError::UnsupportedUrl.is_outage());
        assert!(!CatalogError::database("read")(sqlx::Error::RowNotFound).is_outage());
    }
}
