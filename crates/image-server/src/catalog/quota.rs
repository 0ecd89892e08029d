//! What a folder may ask for and store: the length of the queue, the rate of Creates, bytes.
//!
//! Checked in the commit that uses them up, so that several callers, and several servers, cannot have the same room twice.

use image_api::compute::image;
use sqlx::Row;

use super::{Catalog, CatalogError, NewImage, Tx, commit, now, size_to_sql};
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
    /// one. The reservation ends with the row, however the creation does.
    pub(crate) async fn reserve(&self, image_id: &str, bytes: u64, quota: u64) -> Result<Room, CatalogError> {
        let mut tx = self.begin().await?;
        let sql = "SELECT folder_id, (SELECT CAST(COALESCE(SUM(others.storage_size), 0) AS BIGINT) FROM images others \
                   WHERE others.folder_id = images.folder_id AND others.id <> images.id) AS used \
                   FROM images WHERE id = ? AND status = ?";
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
        sqlx::query("UPDATE images SET storage_size = ? WHERE id = ?")
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
    let found: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM images WHERE folder_id = ? AND created_at > ?")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalog::{Admission, Sizes},
        uri::SourceUri,
    };

    fn new_image(folder_id: &str, limits: QueueLimits) -> NewImage {
        NewImage {
            image: image_api::Image { folder_id: folder_id.to_owned(), ..image_api::Image::default() },
            source: SourceUri::trusted("https://s/b/k".to_owned()),
            wanted_disk_size: 0,
            created_by: "token-1".to_owned(),
            key: None,
            limits,
        }
    }

    async fn catalog() -> (tempfile::TempDir, Catalog) {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open_file(&dir.path().join("catalog.sqlite")).await.unwrap();
        (dir, catalog)
    }

    /// Operation and image.
    async fn admit(
        catalog: &Catalog,
        folder_id: &str,
        limits: QueueLimits,
    ) -> Result<(String, String), CatalogError> {
        match catalog.admit_create(new_image(folder_id, limits)).await? {
            Admission::New(record) => Ok((record.id, record.image_id)),
            Admission::Known(record) => panic!("{record:?}"),
        }
    }

    const WIDE: QueueLimits = QueueLimits { unfinished: 100, creates_per_second: 100 };

    #[tokio::test]
    async fn room_is_given_once() {
        let (_dir, catalog) = catalog().await;
        let (first, first_image) = admit(&catalog, "a", WIDE).await.unwrap();
        let (_, second) = admit(&catalog, "a", WIDE).await.unwrap();
        let (_, elsewhere) = admit(&catalog, "b", WIDE).await.unwrap();
        assert_eq!(catalog.reserve(&first_image, 60, 100).await.unwrap(), Room::Reserved);
        let lacking = Room::Lacking { folder_id: "a".to_owned(), used: 60 };
        assert_eq!(catalog.reserve(&second, 41, 100).await.unwrap(), lacking);
        assert_eq!(catalog.reserve(&elsewhere, 100, 100).await.unwrap(), Room::Reserved);
        // Once more, after a restart, is not twice.
        assert_eq!(catalog.reserve(&first_image, 60, 100).await.unwrap(), Room::Reserved);
        assert_eq!(catalog.reserve(&second, 40, 100).await.unwrap(), Room::Reserved);
        // What is there in the end counts, not what might have come.
        catalog.start(&first).await.unwrap();
        catalog.publish(&first, Sizes { storage_size: 10, min_disk_size: 4 << 20 }).await.unwrap();
        assert_eq!(catalog.reserve(&second, 90, 100).await.unwrap(), Room::Reserved);
        assert!(matches!(catalog.reserve(&first_image, 1, 100).await, Err(CatalogError::NoImage { .. })));
        catalog.close().await;
    }

    #[tokio::test]
    async fn the_queue_has_an_end_and_a_folder_a_rate() {
        let (_dir, catalog) = catalog().await;
        let short = QueueLimits { unfinished: 2, creates_per_second: 100 };
        admit(&catalog, "a", short).await.unwrap();
        admit(&catalog, "b", short).await.unwrap();
        let full = admit(&catalog, "c", short).await.unwrap_err();
        assert!(matches!(full, CatalogError::QueueFull { found: 2, limit: 2 }), "{full:?}");
        assert!(full.to_string().contains("(limit queued-operations)"), "{full}");
        let slow = QueueLimits { creates_per_second: 1, ..WIDE };
        for _ in 0..10 {
            admit(&catalog, "d", slow).await.unwrap();
        }
        let fast = admit(&catalog, "d", slow).await.unwrap_err();
        assert!(matches!(fast, CatalogError::TooFast { found: 10, limit: 10, .. }), "{fast:?}");
        assert!(fast.to_string().contains("(limit creates-per-second)"), "{fast}");
        admit(&catalog, "e", slow).await.unwrap();
        catalog.close().await;
    }
}
