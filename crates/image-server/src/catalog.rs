//! Images and operations, durable: SQLite in WAL mode, every commit synced.
//!
//! Source: <https://sqlite.org/wal.html>, <https://sqlite.org/pragma.html#pragma_synchronous>. Each change is one
//! `BEGIN IMMEDIATE` transaction, so that what it reads is what it changes; the state of an operation is written in one
//! place only ([`Catalog::advance`]) and only as [`transition`] says. Image READY and operation SUCCEEDED are one commit.
//! Times are microseconds since 1970, sizes bytes. An image whose creation ended in an error leaves no row.
//!
//! The source URI is a secret: only [`Catalog::job`] reads it, and the commit that ends the operation clears it.

mod admission;
mod counts;
mod error;
mod images;
mod quota;
mod rows;

use std::{
    fs::File,
    io,
    os::unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    path::Path,
    str::FromStr,
    time::SystemTime,
};

use image_api::{Any, Code, Image, any_of, compute::image, rpc::Status, to_json};
use sqlx::{
    Row, Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};

use crate::{
    limits,
    operation::{Event, Kind, State, transition},
    uri::SourceUri,
};
pub(crate) use admission::{Admission, IdempotencyKey, NewImage};
pub(crate) use error::CatalogError;
pub(crate) use images::{Column, Condition, Direction, ListQuery};
pub(crate) use quota::{QueueLimits, Room};
pub(crate) use rows::OperationRecord;
use rows::{OPERATION_COLUMNS, image_of, operation_of};

type Tx = Transaction<'static, Sqlite>;

/// The catalog; a clone shares its connections.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    pool: SqlitePool,
}

/// What a worker needs to know about an operation.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) kind: Kind,
    pub(crate) state: State,
    pub(crate) image_id: String,
    pub(crate) source: Option<SourceUri>,
    /// What the caller asked for; 0 means what the content needs.
    pub(crate) wanted_disk_size: u64,
}

/// Sizes of a stored image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) storage_size: u64,
    pub(crate) min_disk_size: u64,
}

/// An operation that may have left a manifest or blocks in the store, and the image that it did not make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leftover {
    pub(crate) operation_id: String,
    pub(crate) image_id: String,
}

/// What a creation without an image leaves in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocks {
    /// It ended before the first block.
    None,
    /// Blocks that no image has, to be collected.
    MayBeLeft,
}

impl Catalog {
    /// Opens the catalog in a file, makes it where it is missing, and brings its tables up to date.
    pub(crate) async fn open_file(path: &Path) -> Result<Self, CatalogError> {
        Self::open(SqliteConnectOptions::new().filename(path)).await
    }

    /// Opens the catalog at a URL: `sqlite:PATH`.
    pub(crate) async fn open_url(url: &str) -> Result<Self, CatalogError> {
        if !url.starts_with("sqlite:") {
            return Err(CatalogError::UnsupportedUrl);
        }
        let options =
            SqliteConnectOptions::from_str(url).map_err(CatalogError::database("read the database URL"))?;
        Self::open(options).await
    }

    async fn open(options: SqliteConnectOptions) -> Result<Self, CatalogError> {
        let options = options
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(limits::CATALOG_BUSY);
        make_private(options.get_filename())
            .map_err(sqlx::Error::Io)
            .map_err(CatalogError::database("make the catalog"))?;
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options)
            .await
            .map_err(CatalogError::database("open the catalog"))?;
        sqlx::migrate!("./migrations")
            .run(&pool)
            .await
            .map_err(|source| CatalogError::Migration { source })?;
        Ok(Self { pool })
    }

    /// Closes every connection and folds the log into the database.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }

    /// The operation, without its source.
    pub(crate) async fn operation(&self, id: &str) -> Result<OperationRecord, CatalogError> {
        let mut tx = self.begin().await?;
        read_operation(&mut tx, id).await
    }

    /// The operation as a worker sees it, with its source.
    pub(crate) async fn job(&self, id: &str) -> Result<Job, CatalogError> {
        let sql =
            "SELECT id, kind, state, image_id, source_uri, wanted_disk_size FROM operations WHERE id = ?";
        let row = sqlx::query(sql)
            .bind(id)
            .fetch_optional(&self.pool)
            .await
            .map_err(CatalogError::database("read an operation"))?
            .ok_or_else(|| CatalogError::NoOperation { id: id.to_owned() })?;
        let (kind, state) = rows::kind_and_state(&row)?;
        let wanted: i64 = row.get("wanted_disk_size");
        Ok(Job {
            kind,
            state,
            image_id: row.get("image_id"),
            source: row.get::<Option<String>, _>("source_uri").map(SourceUri::trusted),
            wanted_disk_size: u64::try_from(wanted).unwrap_or_default(),
        })
    }

    /// Puts back into the queue what a server that is no more was working on; gives every unfinished operation, oldest
    /// first. Only for a start, when nobody works yet.
    pub(crate) async fn requeue(&self) -> Result<Vec<String>, CatalogError> {
        let mut tx = self.begin().await?;
        let sql = "SELECT id FROM operations WHERE state IN ('QUEUED', 'RUNNING', 'CANCELLING') ORDER BY created_at, id";
        let ids: Vec<String> = sqlx::query_scalar(sql)
            .fetch_all(&mut *tx)
            .await
            .map_err(CatalogError::database("list unfinished operations"))?;
        for id in &ids {
            self.advance(&mut tx, id, Event::Requeue).await?;
        }
        commit(tx).await?;
        Ok(ids)
    }

    /// A worker begins.
    pub(crate) async fn start(&self, id: &str) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        self.advance(&mut tx, id, Event::Start).await?;
        commit(tx).await
    }

    /// A caller wants the operation to stop; gives the operation as it is then.
    pub(crate) async fn cancel(&self, id: &str) -> Result<OperationRecord, CatalogError> {
        let mut tx = self.begin().await?;
        self.advance(&mut tx, id, Event::Cancel).await?;
        let record = read_operation(&mut tx, id).await?;
        commit(tx).await?;
        Ok(record)
    }

    /// The content is stored: image READY and operation done, in one commit. Refused where a cancel came first.
    pub(crate) async fn publish(&self, id: &str, sizes: Sizes) -> Result<Image, CatalogError> {
        let mut tx = self.begin().await?;
        let record = self.advance(&mut tx, id, Event::Succeed).await?;
        let sql = "UPDATE images SET status = ?, storage_size = ?, min_disk_size = ? WHERE id = ?";
        sqlx::query(sql)
            .bind(i64::from(i32::from(image::Status::Ready)))
            .bind(size_to_sql(sizes.storage_size))
            .bind(size_to_sql(sizes.min_disk_size))
            .bind(&record.image_id)
            .execute(&mut *tx)
            .await
            .map_err(CatalogError::database("publish an image"))?;
        let image = read_image(&mut tx, &record.image_id).await?;
        end(&mut tx, id, None, Some(&any_of(&image))).await?;
        commit(tx).await?;
        Ok(image)
    }

    /// The creation ended in an error. After a cancel that error is CANCELLED: it is what the caller asked for.
    pub(crate) async fn failed(&self, id: &str, error: &Status, blocks: Blocks) -> Result<(), CatalogError> {
        self.withdraw(id, Event::Fail, error, blocks).await
    }

    /// The creation stopped, because it was cancelled.
    pub(crate) async fn stopped(&self, id: &str) -> Result<(), CatalogError> {
        self.withdraw(id, Event::Stopped, &cancelled(), Blocks::MayBeLeft).await
    }

    /// Operations that may have left something in the store.
    pub(crate) async fn leftovers(&self) -> Result<Vec<Leftover>, CatalogError> {
        let rows = sqlx::query("SELECT id, image_id FROM operations WHERE leftovers = 1")
            .fetch_all(&self.pool)
            .await
            .map_err(CatalogError::database("list what was left over"))?;
        let leftover =
            |row: &SqliteRow| Leftover { operation_id: row.get("id"), image_id: row.get("image_id") };
        Ok(rows.iter().map(leftover).collect())
    }

    /// Nothing of theirs is in the store any more.
    pub(crate) async fn collected(&self, leftovers: &[Leftover]) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        for leftover in leftovers {
            sqlx::query("UPDATE operations SET leftovers = 0 WHERE id = ?")
                .bind(&leftover.operation_id)
                .execute(&mut *tx)
                .await
                .map_err(CatalogError::database("note what was collected"))?;
        }
        commit(tx).await
    }

    /// The creation is over without an image, whose row goes with the same commit.
    async fn withdraw(
        &self,
        id: &str,
        event: Event,
        error: &Status,
        blocks: Blocks,
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        let record = self.advance(&mut tx, id, event).await?;
        remove_image(&mut tx, &record.image_id).await?;
        let error = if record.state == State::Cancelled { &cancelled() } else { error };
        end(&mut tx, id, Some(error), None).await?;
        if blocks == Blocks::MayBeLeft {
            sqlx::query("UPDATE operations SET leftovers = 1 WHERE id = ?")
                .bind(id)
                .execute(&mut *tx)
                .await
                .map_err(CatalogError::database("note what is left over"))?;
        }
        commit(tx).await
    }

    /// The image is gone from the store: so are its row and the work.
    pub(crate) async fn deleted(&self, id: &str) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        let record = self.advance(&mut tx, id, Event::Succeed).await?;
        remove_image(&mut tx, &record.image_id).await?;
        end(&mut tx, id, None, Some(&any_of(&()))).await?;
        commit(tx).await
    }

    /// The removal failed half-way: the image is in ERROR, and can be deleted once more.
    pub(crate) async fn not_deleted(&self, id: &str, error: &Status) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        let record = self.advance(&mut tx, id, Event::Fail).await?;
        set_status(&mut tx, &record.image_id, image::Status::Error).await?;
        end(&mut tx, id, Some(error), None).await?;
        commit(tx).await
    }

    /// The only place that writes an operation's state. Gives the operation with its new state.
    async fn advance(&self, tx: &mut Tx, id: &str, event: Event) -> Result<OperationRecord, CatalogError> {
        let mut record = read_operation(tx, id).await?;
        let next = transition(record.kind, record.state, event)?;
        if next != record.state {
            (record.state, record.modified_at) = (next, now());
            sqlx::query("UPDATE operations SET state = ?, modified_at = ? WHERE id = ?")
                .bind(next.word())
                .bind(record.modified_at)
                .bind(id)
                .execute(&mut **tx)
                .await
                .map_err(CatalogError::database("change an operation"))?;
        }
        Ok(record)
    }

    async fn begin(&self) -> Result<Tx, CatalogError> {
        self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(CatalogError::database("begin a transaction"))
    }
}

/// Makes the file, where it is missing, for the owner alone: pre-signed URLs stand in it. SQLite gives what it makes beside it
/// the same mode.
fn make_private(path: &Path) -> io::Result<()> {
    // A database in memory, by the name that the driver gives it.
    if path.as_os_str().as_bytes().starts_with(b"file:") {
        return Ok(());
    }
    match File::options().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

fn cancelled() -> Status {
    Status::new(Code::Cancelled, "the operation was cancelled")
}

/// Records how an operation ended, and forgets its source.
async fn end(
    tx: &mut Tx,
    id: &str,
    error: Option<&Status>,
    response: Option<&Any>,
) -> Result<(), CatalogError> {
    let unwritable = |source| CatalogError::Json { table: "operations", id: id.to_owned(), source };
    let error = error.map(to_json).transpose().map_err(unwritable)?;
    let response = response.map(to_json).transpose().map_err(unwritable)?;
    sqlx::query("UPDATE operations SET error = ?, response = ?, source_uri = NULL WHERE id = ?")
        .bind(error)
        .bind(response)
        .bind(id)
        .execute(&mut **tx)
        .await
        .map_err(CatalogError::database("end an operation"))?;
    Ok(())
}

async fn read_operation(tx: &mut Tx, id: &str) -> Result<OperationRecord, CatalogError> {
    let mut query = sqlx::QueryBuilder::new("SELECT ");
    query.push(OPERATION_COLUMNS).push(" FROM operations WHERE id = ").push_bind(id);
    let row =
        query.build().fetch_optional(&mut **tx).await.map_err(CatalogError::database("read an operation"))?;
    operation_of(&row.ok_or_else(|| CatalogError::NoOperation { id: id.to_owned() })?)
}

async fn read_image(tx: &mut Tx, id: &str) -> Result<Image, CatalogError> {
    let row = sqlx::query("SELECT * FROM images WHERE id = ?")
        .bind(id)
        .fetch_optional(&mut **tx)
        .await
        .map_err(CatalogError::database("read an image"))?;
    image_of(&row.ok_or_else(|| CatalogError::NoImage { id: id.to_owned() })?)
}

async fn remove_image(tx: &mut Tx, id: &str) -> Result<(), CatalogError> {
    let removed = sqlx::query("DELETE FROM images WHERE id = ?").bind(id).execute(&mut **tx).await;
    removed.map(drop).map_err(CatalogError::database("remove an image"))
}

async fn set_status(tx: &mut Tx, id: &str, status: image::Status) -> Result<(), CatalogError> {
    let changed = sqlx::query("UPDATE images SET status = ? WHERE id = ?")
        .bind(i64::from(i32::from(status)))
        .bind(id)
        .execute(&mut **tx)
        .await;
    changed.map(drop).map_err(CatalogError::database("change an image"))
}

async fn commit(tx: Tx) -> Result<(), CatalogError> {
    tx.commit().await.map_err(CatalogError::database("commit"))
}

/// SQL has signed integers only; no size of an image reaches 2^63.
fn size_to_sql(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// Microseconds since 1970.
fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
