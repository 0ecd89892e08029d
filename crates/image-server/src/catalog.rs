//! Images and operations, durable, for one server on SQLite or for several on PostgreSQL.
//!
//! Each change is one transaction that locks what it reads; the state of an operation and its lease are written in one place only
//! ([`Catalog::advance`]) and only as [`transition`] says. Image READY and operation SUCCEEDED are one commit. Times are
//! microseconds since 1970, sizes bytes. An image whose creation ended in an error leaves no row.
//!
//! - [`database`]: SQLite and PostgreSQL, and why one SQL text serves both.
//! - [`admission`]: operations come in.
//! - [`leases`]: who works on them.
//! - [`blocks`]: which blocks and manifests are in use.
//!
//! The source URI is a secret: only [`read_job`] reads it, and the commit that ends the operation clears it.

mod access;
mod admission;
mod blocks;
mod changes;
mod counts;
mod database;
mod error;
mod images;
mod leases;
mod quota;
mod rows;
mod sql;

use std::{path::Path, time::SystemTime};

use image_api::{Any, Code, Image, any_of, compute::image, from_json, rpc::Status, to_json};
use image_ingest::SourceUri;
use sqlx::{AnyConnection, AnyPool, Row};

use crate::operation::{Event, Kind, Lease, Standing, State, transition};
pub(crate) use access::BindingsEdit;
pub(crate) use admission::{Admission, IdempotencyKey, NewImage};
pub(crate) use blocks::{Attempt, Published};
pub(crate) use changes::{Asked, ImageEdit, SeenOperation};
use database::{Dialect, Tx, for_update};
pub(crate) use error::CatalogError;
pub(crate) use images::{Column, Condition, Direction, ListQuery};
pub(crate) use leases::{Claimed, Ticket, Want};
pub(crate) use quota::{QueueLimits, Room};
#[cfg(test)]
pub(crate) use rows::About;
use rows::{OPERATION_COLUMNS, image_of, operation_of};
pub(crate) use rows::{OperationRecord, Shown};

/// The catalog; a clone shares its connections.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    pool: AnyPool,
    dialect: Dialect,
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
    /// Whether the image is wanted in a pool.
    pub(crate) pooled: bool,
}

/// Sizes of a stored image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) storage_size: u64,
    pub(crate) min_disk_size: u64,
}

/// What an operation leaves in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocks {
    /// Nothing.
    None,
    /// Blocks that no image has, to be collected.
    MayBeLeft,
}

/// What an event has made of an operation.
struct Advanced {
    standing: Standing,
    image_id: String,
}

impl Catalog {
    /// Opens the catalog in a file, makes it where it is missing, and brings its tables up to date. For a folder that the caller has
    /// locked: whoever worked on it before is no more, and the leases end.
    pub(crate) async fn open_file(path: &Path) -> Result<Self, CatalogError> {
        let catalog = Self::over(database::open_file(path).await?).await?;
        catalog.free_leases().await?;
        Ok(catalog)
    }

    /// As [`Catalog::open_file`], beside a server that may be running.
    pub(crate) async fn open_file_beside(path: &Path) -> Result<Self, CatalogError> {
        Self::over(database::open_file(path).await?).await
    }

    /// Opens the catalog at a URL, `sqlite:PATH` or `postgres://...`, and brings its tables up to date.
    pub(crate) async fn open_url(url: &str) -> Result<Self, CatalogError> {
        Self::over(database::open(url).await?).await
    }

    async fn over((pool, dialect): (AnyPool, Dialect)) -> Result<Self, CatalogError> {
        let migrated = sqlx::migrate!("./migrations").run(&pool).await;
        migrated.map_err(|source| CatalogError::Migration { source })?;
        Ok(Self { pool, dialect })
    }

    /// Closes every connection, and folds the log of SQLite into the database.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }

    /// The operation, without its source.
    pub(crate) async fn operation(&self, id: &str) -> Result<OperationRecord, CatalogError> {
        let mut connection = self.connection().await?;
        fetch_operation(&mut connection, id).await
    }

    /// A caller wants the operation to stop; gives the operation as it is then.
    pub(crate) async fn cancel(&self, id: &str) -> Result<OperationRecord, CatalogError> {
        let mut tx = self.begin().await?;
        self.advance(&mut tx, id, Event::Cancel).await?;
        let record = read_operation(&mut tx, id).await?;
        commit(tx).await?;
        Ok(record)
    }

    /// The content is stored, listed by a manifest: image READY and operation done, in one commit. Refused where a cancel came
    /// first, or another worker; and where the manifest is not `own`, that of this attempt, and no image has it any more.
    pub(crate) async fn publish(
        &self,
        ticket: &Ticket,
        sizes: Sizes,
        own: &str,
        manifest: &str,
    ) -> Result<Image, CatalogError> {
        let mut tx = self.begin().await?;
        if manifest != own {
            blocks::hold_manifest(&mut tx, manifest).await?;
        }
        let record = self.advance(&mut tx, &ticket.id, Event::Succeed(ticket.epoch)).await?;
        let sql = "UPDATE images SET status = $1, storage_size = $2, min_disk_size = $3, manifest = $4 WHERE id = $5";
        sqlx::query(sql)
            .bind(i64::from(i32::from(image::Status::Ready)))
            .bind(size_to_sql(sizes.storage_size))
            .bind(size_to_sql(sizes.min_disk_size))
            .bind(manifest)
            .bind(&record.image_id)
            .execute(&mut *tx)
            .await
            .map_err(CatalogError::database("publish an image"))?;
        let image = read_image(&mut tx, &record.image_id).await?;
        end(&mut tx, ticket, &record, None, Some(&any_of(&image))).await?;
        commit(tx).await?;
        Ok(image)
    }

    /// The creation ended in an error. After a cancel that error is CANCELLED: it is what the caller asked for.
    pub(crate) async fn failed(
        &self,
        ticket: &Ticket,
        error: &Status,
        blocks: Blocks,
    ) -> Result<(), CatalogError> {
        self.withdraw(ticket, Event::Fail(ticket.epoch), error, blocks).await
    }

    /// The creation stopped, because it was cancelled.
    pub(crate) async fn stopped(&self, ticket: &Ticket) -> Result<(), CatalogError> {
        self.withdraw(ticket, Event::Stopped(ticket.epoch), &cancelled(), Blocks::MayBeLeft).await
    }

    /// Operations that may have left something in the store.
    pub(crate) async fn leftovers(&self) -> Result<Vec<String>, CatalogError> {
        let rows = sqlx::query("SELECT id FROM operations WHERE leftovers = 1 ORDER BY id")
            .fetch_all(&self.pool)
            .await
            .map_err(CatalogError::database("list what was left over"))?;
        Ok(rows.iter().map(|row| row.get("id")).collect())
    }

    /// Nothing of theirs is in the store any more.
    pub(crate) async fn collected(&self, operations: &[String]) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        for id in operations {
            sqlx::query("UPDATE operations SET leftovers = 0 WHERE id = $1")
                .bind(id)
                .execute(&mut *tx)
                .await
                .map_err(CatalogError::database("note what was collected"))?;
        }
        commit(tx).await
    }

    /// The creation is over without an image, whose row goes with the same commit.
    async fn withdraw(
        &self,
        ticket: &Ticket,
        event: Event,
        error: &Status,
        blocks: Blocks,
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        let record = self.advance(&mut tx, &ticket.id, event).await?;
        remove_image(&mut tx, &record.image_id).await?;
        let error = if record.standing.state == State::Cancelled { &cancelled() } else { error };
        end(&mut tx, ticket, &record, Some(error), None).await?;
        note_leftovers(&mut tx, ticket, blocks).await?;
        commit(tx).await
    }

    /// The image that a deletion is about has no content any more: the store may be told.
    pub(crate) async fn unlist(&self, ticket: &Ticket) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        let record = self.advance(&mut tx, &ticket.id, Event::Renew(ticket.epoch)).await?;
        sqlx::query("UPDATE images SET manifest = NULL WHERE id = $1")
            .bind(&record.image_id)
            .execute(&mut *tx)
            .await
            .map_err(CatalogError::database("unlist an image"))?;
        commit(tx).await
    }

    /// The image is gone from the store: so are its row and the work.
    pub(crate) async fn deleted(&self, ticket: &Ticket, blocks: Blocks) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        let record = self.advance(&mut tx, &ticket.id, Event::Succeed(ticket.epoch)).await?;
        remove_image(&mut tx, &record.image_id).await?;
        end(&mut tx, ticket, &record, None, Some(&any_of(&()))).await?;
        note_leftovers(&mut tx, ticket, blocks).await?;
        commit(tx).await
    }

    /// The removal failed half-way: the image is in ERROR, and can be deleted once more.
    pub(crate) async fn not_deleted(&self, ticket: &Ticket, error: &Status) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        let record = self.advance(&mut tx, &ticket.id, Event::Fail(ticket.epoch)).await?;
        set_status(&mut tx, &record.image_id, image::Status::Error).await?;
        end(&mut tx, ticket, &record, Some(error), None).await?;
        commit(tx).await
    }

    /// The only place that writes an operation's state and epoch, and that ends a lease.
    async fn advance(&self, tx: &mut Tx, id: &str, event: Event) -> Result<Advanced, CatalogError> {
        let (now_stands, image_id) = self.standing(tx, id).await?;
        let standing = transition(now_stands, event)?;
        let mut sql = sql::Sql::new("UPDATE operations SET state = ");
        sql.push_bind(standing.state.word()).push(", epoch = ").push_bind(standing.epoch);
        if standing.state != now_stands.state {
            sql.push(", modified_at = ").push_bind(now());
        }
        if standing.lease == Lease::Free {
            sql.push(", lease_until = NULL");
        }
        sql.push(" WHERE id = ").push_bind(id.to_owned());
        if standing != now_stands {
            sql.execute(&mut **tx).await.map_err(CatalogError::database("change an operation"))?;
        }
        Ok(Advanced { standing, image_id })
    }

    async fn begin(&self) -> Result<Tx, CatalogError> {
        let begun = self.pool.begin_with(self.dialect.begin()).await;
        begun.map_err(CatalogError::database("begin a transaction"))
    }

    /// As [`Catalog::begin`], for what looks at more rows than it changes: how many operations wait, who has a name. One at a time.
    async fn begin_admission(&self) -> Result<Tx, CatalogError> {
        let mut tx = self.begin().await?;
        if let Some(lock) = self.dialect.admission() {
            let locked = sqlx::query(lock).execute(&mut *tx).await;
            locked.map_err(CatalogError::database("wait for an admission"))?;
        }
        Ok(tx)
    }

    async fn connection(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Any>, CatalogError> {
        self.pool.acquire().await.map_err(CatalogError::database("get a connection"))
    }
}

fn cancelled() -> Status {
    Status::new(Code::Cancelled, "the operation was cancelled")
}

/// Records how an operation ended, and forgets its source and its claims.
async fn end(
    tx: &mut Tx,
    ticket: &Ticket,
    ended: &Advanced,
    error: Option<&Status>,
    response: Option<&Any>,
) -> Result<(), CatalogError> {
    let unwritable = |source| CatalogError::Json { table: "operations", id: ticket.id.clone(), source };
    let error = error.map(to_json).transpose().map_err(unwritable)?;
    let response = response.map(to_json).transpose().map_err(unwritable)?;
    let sql = "UPDATE operations SET error = $1, response = $2, source_uri = NULL, source_version = NULL WHERE id = $3";
    sqlx::query(sql)
        .bind(error)
        .bind(response)
        .bind(&ticket.id)
        .execute(&mut **tx)
        .await
        .map_err(CatalogError::database("end an operation"))?;
    blocks::forget_claims(tx, &ended.image_id).await
}

async fn note_leftovers(tx: &mut Tx, ticket: &Ticket, blocks: Blocks) -> Result<(), CatalogError> {
    if blocks == Blocks::None {
        return Ok(());
    }
    let noted = sqlx::query("UPDATE operations SET leftovers = 1 WHERE id = $1").bind(&ticket.id);
    let noted = noted.execute(&mut **tx).await;
    noted.map(drop).map_err(CatalogError::database("note what is left over"))
}

async fn read_operation(tx: &mut Tx, id: &str) -> Result<OperationRecord, CatalogError> {
    fetch_operation(tx, id).await
}

async fn fetch_operation(on: &mut AnyConnection, id: &str) -> Result<OperationRecord, CatalogError> {
    let mut sql = sql::Sql::new("SELECT ");
    sql.push(OPERATION_COLUMNS).push(" FROM operations WHERE id = ").push_bind(id.to_owned());
    let row = sql.fetch_optional(on).await.map_err(CatalogError::database("read an operation"))?;
    operation_of(&row.ok_or_else(|| CatalogError::NoOperation { id: id.to_owned() })?)
}

/// The operation as a worker sees it, with its source.
async fn read_job(tx: &mut Tx, id: &str) -> Result<Job, CatalogError> {
    let sql = "SELECT o.id, o.kind, o.state, o.image_id, o.source_uri, o.wanted_disk_size, i.attributes \
               FROM operations o LEFT JOIN images i ON i.id = o.image_id WHERE o.id = $1";
    let row = sqlx::query(sql)
        .bind(id)
        .fetch_optional(&mut **tx)
        .await
        .map_err(CatalogError::database("read an operation"))?
        .ok_or_else(|| CatalogError::NoOperation { id: id.to_owned() })?;
    let (kind, state) = rows::kind_and_state(&row)?;
    let wanted: i64 = row.get("wanted_disk_size");
    let attributes =
        row.get::<Option<String>, _>("attributes").map(|text| from_json::<Image>(text.as_bytes()));
    let attributes = attributes.transpose().map_err(|source| {
        let id = row.get("image_id");
        CatalogError::Json { table: "images", id, source }
    })?;
    Ok(Job {
        kind,
        state,
        image_id: row.get("image_id"),
        source: row.get::<Option<String>, _>("source_uri").map(SourceUri::trusted),
        wanted_disk_size: u64::try_from(wanted).unwrap_or_default(),
        pooled: attributes.is_some_and(|image| image.pooled),
    })
}

/// An image, which stays as it is until the transaction ends.
async fn read_image(tx: &mut Tx, id: &str) -> Result<Image, CatalogError> {
    let lock = for_update(tx);
    fetch_image(tx, id, lock).await
}

async fn fetch_image(on: &mut AnyConnection, id: &str, lock: &str) -> Result<Image, CatalogError> {
    let mut sql = sql::Sql::new("SELECT * FROM images WHERE id = ");
    sql.push_bind(id.to_owned()).push(lock);
    let row = sql.fetch_optional(on).await.map_err(CatalogError::database("read an image"))?;
    image_of(&row.ok_or_else(|| CatalogError::NoImage { id: id.to_owned() })?)
}

async fn remove_image(tx: &mut Tx, id: &str) -> Result<(), CatalogError> {
    let removed = sqlx::query("DELETE FROM images WHERE id = $1").bind(id).execute(&mut **tx).await;
    removed.map(drop).map_err(CatalogError::database("remove an image"))
}

async fn set_status(tx: &mut Tx, id: &str, status: image::Status) -> Result<(), CatalogError> {
    let changed = sqlx::query("UPDATE images SET status = $1 WHERE id = $2")
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
pub(crate) mod tests;
