//! How much there is of everything, for whoever watches the server.

use sqlx::Row;

use super::{Catalog, CatalogError};

/// Operations of a kind in a state, by the catalog's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OperationCount {
    pub(crate) kind: String,
    pub(crate) state: String,
    pub(crate) count: i64,
}

/// Images, and the bytes of their blocks, those that several have in common counted for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ImageCount {
    pub(crate) count: i64,
    pub(crate) storage_size: i64,
}

impl Catalog {
    /// Fails where the database does not answer.
    pub(crate) async fn ping(&self) -> Result<(), CatalogError> {
        let answer = sqlx::query("SELECT 1").execute(&self.pool).await;
        answer.map(drop).map_err(CatalogError::database("answer"))
    }

    /// Operations since the catalog was made. Time goes with their number.
    pub(crate) async fn count_operations(&self) -> Result<Vec<OperationCount>, CatalogError> {
        let sql =
            "SELECT kind, state, COUNT(*) AS found FROM operations GROUP BY kind, state ORDER BY kind, state";
        let rows = sqlx::query(sql)
            .fetch_all(&self.pool)
            .await
            .map_err(CatalogError::database("count operations"))?;
        let count = |row: &sqlx::any::AnyRow| OperationCount {
            kind: row.get("kind"),
            state: row.get("state"),
            count: row.get("found"),
        };
        Ok(rows.iter().map(count).collect())
    }

    /// Images that are there or being made.
    pub(crate) async fn count_images(&self) -> Result<ImageCount, CatalogError> {
        let sql =
            "SELECT COUNT(*) AS found, CAST(COALESCE(SUM(storage_size), 0) AS BIGINT) AS bytes FROM images";
        let row =
            sqlx::query(sql).fetch_one(&self.pool).await.map_err(CatalogError::database("count images"))?;
        Ok(ImageCount { count: row.get("found"), storage_size: row.get("bytes") })
    }
}
