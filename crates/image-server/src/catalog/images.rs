//! Images for reading: one, or a page of a folder.

use std::collections::HashSet;

use super::{
    Catalog, CatalogError, Shown, fetch_image,
    rows::{image_of, shown_of},
    sql::Sql,
};
use image_api::{Image, compute::image};
use sqlx::{Row, any::AnyRow};

/// A column that a listing can be ordered by or filtered on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    Id,
    Name,
    Family,
    CreatedAt,
    Status,
}

impl Column {
    const fn sql(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Name => "name",
            Self::Family => "family",
            Self::CreatedAt => "created_at",
            Self::Status => "status",
        }
    }
}

/// Which way a listing is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Ascending,
    Descending,
}

/// `column IN values`, or its opposite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) column: Column,
    pub(crate) negated: bool,
    pub(crate) values: Vec<String>,
}

/// A page to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListQuery {
    pub(crate) folder_id: String,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) order: Column,
    pub(crate) direction: Direction,
    /// Value of the order's column, and id, of the last image of the page before.
    pub(crate) after: Option<(String, String)>,
    pub(crate) limit: i64,
}

/// Values in one statement: a database takes some ten thousands.
const LOOK_UP: usize = 1000;

impl Catalog {
    /// Those of these images that have content, or will.
    pub(crate) async fn with_content(&self, ids: Vec<String>) -> Result<HashSet<String>, CatalogError> {
        let mut found = HashSet::new();
        for ids in ids.chunks(LOOK_UP) {
            // CREATING and READY, as with names.
            let mut sql = Sql::new("SELECT id FROM images WHERE status IN (1, 2) AND id IN (");
            sql.push_list(ids.iter().cloned()).push(")");
            let rows = sql.fetch_all(&self.pool).await.map_err(CatalogError::database("look up images"))?;
            found.extend(rows.iter().map(|row| row.get::<String, _>("id")));
        }
        Ok(found)
    }

    /// An image.
    pub(crate) async fn image(&self, id: &str) -> Result<Image, CatalogError> {
        let mut connection = self.connection().await?;
        fetch_image(&mut connection, id, "").await
    }

    /// Images of a folder, at most `limit`, in a total order.
    pub(crate) async fn images(&self, list: &ListQuery) -> Result<Vec<Image>, CatalogError> {
        self.rows(list).await?.iter().map(image_of).collect()
    }

    /// As [`Catalog::images`], with what Compute Engine's API keeps of them.
    pub(crate) async fn images_shown(&self, list: &ListQuery) -> Result<Vec<Shown>, CatalogError> {
        self.rows(list).await?.iter().map(shown_of).collect()
    }

    /// The image of a name in a folder; one without a name by its id. Of several the one that is there or being made, which is
    /// one; else the newest of those that are going.
    pub(crate) async fn image_named(
        &self,
        folder_id: &str,
        name: &str,
    ) -> Result<Option<Shown>, CatalogError> {
        let failed = CatalogError::database("look up a name");
        // Each by an index of its own: one statement for both would read all of the folder.
        let by_name = "SELECT * FROM images WHERE folder_id = $1 AND name = $2 AND name <> '' \
                       ORDER BY CASE WHEN status IN (1, 2) THEN 0 ELSE 1 END, created_at DESC, id LIMIT 1";
        let by_id = "SELECT * FROM images WHERE id = $2 AND folder_id = $1 AND name = ''";
        for sql in [by_name, by_id] {
            let row = sqlx::query(sql).bind(folder_id).bind(name).fetch_optional(&self.pool).await;
            if let Some(row) = row.map_err(&failed)? {
                return shown_of(&row).map(Some);
            }
        }
        Ok(None)
    }

    async fn rows(&self, list: &ListQuery) -> Result<Vec<AnyRow>, CatalogError> {
        let mut query = Sql::new("SELECT * FROM images WHERE folder_id = ");
        query.push_bind(list.folder_id.clone());
        for Condition { column, negated, values } in &list.conditions {
            let verb = if *negated { " NOT IN (" } else { " IN (" };
            query.push(" AND ").push(column.sql()).push(verb);
            match column {
                // An unknown word is a status that no image has.
                Column::Status => query.push_list(values.iter().map(|value| {
                    image::Status::from_str_name(value).map_or(-1, |status| i64::from(i32::from(status)))
                })),
                _ => query.push_list(values.iter().cloned()),
            };
            query.push(")");
        }
        let (order, beyond, direction) = match list.direction {
            Direction::Ascending => (list.order.sql(), " > (", " ASC"),
            Direction::Descending => (list.order.sql(), " < (", " DESC"),
        };
        if let Some((value, id)) = &list.after {
            query.push(" AND (").push(order).push(", id)").push(beyond);
            match list.order {
                Column::CreatedAt | Column::Status => {
                    query.push_bind(value.parse::<i64>().unwrap_or_default())
                }
                _ => query.push_bind(value.clone()),
            };
            query.push(", ").push_bind(id.clone()).push(")");
        }
        query.push(" ORDER BY ").push(order).push(direction).push(", id").push(direction);
        query.push(" LIMIT ").push_bind(list.limit);
        query.fetch_all(&self.pool).await.map_err(CatalogError::database("list images"))
    }
}
