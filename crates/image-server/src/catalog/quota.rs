//! What a folder may ask for and store: the length of the queue, the rate of Creates, bytes.
//!
//! Checked in the commit that uses them up, so that several callers, and several servers, cannot have the same room twice.

use image_api::compute::image;
use sqlx::Row;

use super::{Attempt, Catalog, CatalogError, NewImage, Tx, commit, now, size_to_sql};
use crate::limits;

/// What of the queue a Create may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueLimits {
    /// Operations that have not ended, over all folders.
    pub(crate) unfinished: i64,
    /// Images that may be created in a folder each second, on average over [`limits::CREATE_WINDOW`].
    pub(crate) creates_per_second: u32,
}

/// Whether a folder has room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// It has, and the image may fill it.
    Reserved,
    /// Its other images store so many bytes.
    Lacking { folder_id: String, used: u64 },
}

impl Catalog {
    /// Reserves room for what an image that is being made can come to: its `storageSize`, until it is published with the real
    /// one. The reservation ends with the row, however the creation does. Refused where another worker has the operation.
    pub(crate) async fn reserve(
        &self,
        attempt: &Attempt,
        bytes: u64,
        quota: u64,
    ) -> Result<Room, CatalogError> {
        let image_id = &attempt.image_id;
        let mut tx = self.begin_admission().await?;
        let ticket = self.creation(&mut tx, attempt).await?;
        self.fence(&mut tx, &ticket).await?;
        let sql = "SELECT folder_id, (SELECT CAST(COALESCE(SUM(others.storage_size), 0) AS BIGINT) FROM images others \
                   WHERE others.folder_id = images.folder_id AND others.id <> images.id) AS used \
                   FROM images WHERE id = $1 AND status = $2";
        let creating = i64::from(i32::from(image::Status::Creating));
        let row = sqlx::query(sql)
            .bind(image_id)
            .bind(creating)
            .fetch_optional(&mut *tx)
            .await
            .map_err(CatalogError::database("sum up a folder"))?
            .ok_or_else(|| CatalogError::NoImage { id: image_id.to_owned() })?;
        let used = u64::try_from(row.get::<i64, _>("used")).unwrap_or_default();
        if used.saturating_add(bytes) > quota {
            return Ok(Room::Lacking { folder_id: row.get("folder_id"), used });
        }
        sqlx::query("UPDATE images SET storage_size = $1 WHERE id = $2")
            .bind(size_to_sql(bytes))
            .bind(image_id)
            .execute(&mut *tx)
            .await
            .map_err(CatalogError::database("reserve room"))?;
        commit(tx).await?;
        Ok(Room::Reserved)
    }
}

/// Fails where the queue is full, or the folder asks too fast.
pub(super) async fn check(tx: &mut Tx, new: &NewImage) -> Result<(), CatalogError> {
    let QueueLimits { unfinished: limit, creates_per_second } = new.limits;
    let sql = "SELECT COUNT(*) FROM operations WHERE state IN ('QUEUED', 'RUNNING', 'CANCELLING')";
    let found: i64 = sqlx::query_scalar(sql)
        .fetch_one(&mut **tx)
        .await
        .map_err(CatalogError::database("count operations"))?;
    if found >= limit {
        return Err(CatalogError::QueueFull { found, limit });
    }
    let window = limits::CREATE_WINDOW;
    let since = now() - i64::try_from(window.as_micros()).unwrap_or(i64::MAX);
    let found: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM images WHERE folder_id = $1 AND created_at > $2")
            .bind(&new.image.folder_id)
            .bind(since)
            .fetch_one(&mut **tx)
            .await
            .map_err(CatalogError::database("count images"))?;
    let limit = i64::from(creates_per_second).saturating_mul(window.as_secs().cast_signed());
    match found < limit {
        true => Ok(()),
        false => Err(CatalogError::TooFast { found, limit, seconds: window.as_secs() }),
    }
}
