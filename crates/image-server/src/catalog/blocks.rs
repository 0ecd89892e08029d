//! Which blocks running creations have claimed, which ones a collection has condemned, and which manifests are in use: the durable
//! side of [`block_store::Ledger`], and the progress from which another worker continues.
//!
//! Claims and sentences are committed before the other side is read, each in a transaction of its own: see there for why that
//! suffices. Claims are fenced by the epoch of the lease, and go with the commit that ends the operation: with a
//! published image its manifest takes their place in that same commit. Cost: about 100 bytes a part while an ingest runs, and a commit
//! for as many parts as came together.

use std::collections::{BTreeMap, HashSet};

use block_store::QUARANTINE;
use disk_convert::BlockId;
use image_api::compute::image;
use sqlx::Row;

use super::{Catalog, CatalogError, Ticket, Tx, commit, database::for_update, sql::Sql};
use crate::operation::Kind;

/// A published image, for whoever checks the store.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) image_id: String,
    pub(crate) manifest: String,
    pub(crate) storage_size: u64,
}

/// The name of the manifest that one attempt at a creation saves: no other attempt ever has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) image_id: String,
    pub(crate) epoch: i64,
}

impl std::fmt::Display for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.image_id, self.epoch)
    }
}

impl Attempt {
    /// Reads a name. `None` for those that others gave.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (image_id, epoch) = name.rsplit_once('.')?;
        Some(Self { image_id: image_id.to_owned(), epoch: epoch.parse().ok()? })
    }
}

impl Catalog {
    /// The operation that makes an image.
    pub(super) async fn creation(&self, tx: &mut Tx, attempt: &Attempt) -> Result<Ticket, CatalogError> {
        let row = sqlx::query("SELECT id FROM operations WHERE image_id = $1 AND kind = $2")
            .bind(&attempt.image_id)
            .bind(Kind::Create.word())
            .fetch_optional(&mut **tx)
            .await
            .map_err(CatalogError::database("look up a creation"))?;
        let row = row.ok_or_else(|| CatalogError::NoImage { id: attempt.image_id.clone() })?;
        Ok(Ticket { id: row.get("id"), epoch: attempt.epoch })
    }

    /// Begins to read a source of this version; gives what is known of it, and forgets what is known of another one.
    pub(crate) async fn begin_reading(
        &self,
        attempt: &Attempt,
        version: &str,
    ) -> Result<BTreeMap<u32, Option<BlockId>>, CatalogError> {
        let failed = CatalogError::database("read the progress of an ingest");
        let mut tx = self.begin().await?;
        let ticket = self.creation(&mut tx, attempt).await?;
        self.fence(&mut tx, &ticket).await?;
        let row = sqlx::query("SELECT source_version FROM operations WHERE id = $1").bind(&ticket.id);
        let row = row.fetch_one(&mut *tx).await.map_err(&failed)?;
        let same = row.get::<Option<String>, _>("source_version").is_some_and(|was| was == version);
        // What is not known to be stored is read again; its claim is made anew then.
        let stale = match same && !version.is_empty() {
            true => "DELETE FROM ingest_blocks WHERE image_id = $1 AND stored = 0",
            false => "DELETE FROM ingest_blocks WHERE image_id = $1",
        };
        sqlx::query(stale).bind(&attempt.image_id).execute(&mut *tx).await.map_err(&failed)?;
        sqlx::query("UPDATE operations SET source_version = $1 WHERE id = $2")
            .bind(version)
            .bind(&ticket.id)
            .execute(&mut *tx)
            .await
            .map_err(&failed)?;
        let rows = sqlx::query("SELECT part, block_id FROM ingest_blocks WHERE image_id = $1")
            .bind(&attempt.image_id)
            .fetch_all(&mut *tx)
            .await
            .map_err(&failed)?;
        commit(tx).await?;
        let known = rows.iter().map(|row| {
            let unknown = |column| CatalogError::Word { id: ticket.id.clone(), column };
            let part = u32::try_from(row.get::<i64, _>("part")).map_err(|_| unknown("part"))?;
            let block = row.get::<Option<String>, _>("block_id");
            let block = block.map(|block| parse_id(&block).ok_or_else(|| unknown("block_id")));
            Ok((part, block.transpose()?))
        });
        known.collect()
    }

    /// Claims the blocks of parts, and notes that others are stored. Gives those of the claimed blocks that are condemned.
    pub(crate) async fn claim_blocks(
        &self,
        attempt: &Attempt,
        claims: &[(u32, Option<BlockId>)],
        stored: &[u32],
    ) -> Result<HashSet<BlockId>, CatalogError> {
        let failed = CatalogError::database("note the progress of an ingest");
        let mut tx = self.begin().await?;
        let ticket = self.creation(&mut tx, attempt).await?;
        self.fence(&mut tx, &ticket).await?;
        if !claims.is_empty() {
            let mut sql = Sql::new("INSERT INTO ingest_blocks (image_id, part, block_id, stored) VALUES ");
            for (number, (part, block)) in claims.iter().enumerate() {
                sql.push(if number == 0 { "(" } else { ", (" });
                sql.push_bind(attempt.image_id.clone()).push(", ").push_bind(i64::from(*part)).push(", ");
                sql.push_bind(block.map(hex::encode)).push(", 0)");
            }
            sql.push(" ON CONFLICT (image_id, part) DO UPDATE SET block_id = excluded.block_id, stored = 0");
            sql.execute(&mut *tx).await.map_err(&failed)?;
        }
        if !stored.is_empty() {
            let mut sql = Sql::new("UPDATE ingest_blocks SET stored = 1 WHERE image_id = ");
            sql.push_bind(attempt.image_id.clone()).push(" AND part IN (");
            sql.push_list(stored.iter().map(|part| i64::from(*part))).push(")");
            sql.execute(&mut *tx).await.map_err(&failed)?;
        }
        commit(tx).await?;
        let blocks: Vec<BlockId> = claims.iter().filter_map(|(_, block)| *block).collect();
        self.condemned(&blocks).await
    }

    /// Those of these blocks that a collection has condemned, and whose sentence has not run out.
    pub(crate) async fn condemned(&self, blocks: &[BlockId]) -> Result<HashSet<BlockId>, CatalogError> {
        let mut sql = Sql::new("SELECT block_id FROM condemned_blocks WHERE condemned_at > ");
        sql.push(self.dialect.now()).push(" - ").push_bind(quarantine());
        self.blocks_in(sql, " AND block_id IN (", blocks).await
    }

    /// Those of these blocks that ingests have claimed.
    pub(crate) async fn claimed(&self, blocks: &[BlockId]) -> Result<HashSet<BlockId>, CatalogError> {
        let sql = Sql::new("SELECT DISTINCT block_id FROM ingest_blocks");
        self.blocks_in(sql, " WHERE block_id IN (", blocks).await
    }

    /// Every block that an ingest has claimed.
    pub(crate) async fn all_claimed(&self) -> Result<HashSet<BlockId>, CatalogError> {
        let sql = Sql::new("SELECT DISTINCT block_id FROM ingest_blocks WHERE block_id IS NOT NULL");
        let rows = sql.fetch_all(&self.pool).await.map_err(CatalogError::database("list claims"))?;
        Ok(rows.iter().filter_map(|row| parse_id(row.get("block_id"))).collect())
    }

    async fn blocks_in(
        &self,
        mut sql: Sql,
        before: &str,
        blocks: &[BlockId],
    ) -> Result<HashSet<BlockId>, CatalogError> {
        if blocks.is_empty() {
            return Ok(HashSet::new());
        }
        sql.push(before).push_list(blocks.iter().map(hex::encode)).push(")");
        let rows = sql.fetch_all(&self.pool).await.map_err(CatalogError::database("look up blocks"))?;
        Ok(rows.iter().filter_map(|row| parse_id(row.get("block_id"))).collect())
    }

    /// Condemns blocks; gives those that no other collection has condemned.
    pub(crate) async fn condemn(
        &self,
        collector: &str,
        blocks: &[BlockId],
    ) -> Result<Vec<BlockId>, CatalogError> {
        if blocks.is_empty() {
            return Ok(Vec::new());
        }
        let mut sql = Sql::new("INSERT INTO condemned_blocks (block_id, collector, condemned_at) VALUES ");
        for (number, block) in blocks.iter().enumerate() {
            sql.push(if number == 0 { "(" } else { ", (" }).push_bind(hex::encode(block)).push(", ");
            sql.push_bind(collector.to_owned()).push(", ").push(self.dialect.now()).push(")");
        }
        sql.push(" ON CONFLICT (block_id) DO UPDATE SET collector = excluded.collector, ");
        sql.push("condemned_at = excluded.condemned_at WHERE condemned_blocks.condemned_at <= ");
        sql.push(self.dialect.now()).push(" - ").push_bind(quarantine()).push(" RETURNING block_id");
        let mut tx = self.begin().await?;
        let rows = sql.fetch_all(&mut *tx).await.map_err(CatalogError::database("condemn blocks"))?;
        commit(tx).await?;
        Ok(rows.iter().filter_map(|row| parse_id(row.get("block_id"))).collect())
    }

    /// Lifts the sentences that this collector has passed.
    pub(crate) async fn acquit(&self, collector: &str, blocks: &[BlockId]) -> Result<(), CatalogError> {
        if blocks.is_empty() {
            return Ok(());
        }
        let mut sql = Sql::new("DELETE FROM condemned_blocks WHERE collector = ");
        sql.push_bind(collector.to_owned()).push(" AND block_id IN (");
        sql.push_list(blocks.iter().map(hex::encode)).push(")");
        let lifted = sql.execute(&self.pool).await;
        lifted.map(drop).map_err(CatalogError::database("lift a sentence"))
    }

    /// The names of manifests that are in use: of images, and of the attempts that may still become one.
    pub(crate) async fn manifests(&self) -> Result<HashSet<String>, CatalogError> {
        let failed = CatalogError::database("list manifests");
        // First the attempts: one that is published in between is in both.
        let attempts = "SELECT image_id, epoch FROM operations \
                        WHERE kind = 'CREATE' AND state IN ('QUEUED', 'RUNNING', 'CANCELLING')";
        let attempts = sqlx::query(attempts).fetch_all(&self.pool).await.map_err(&failed)?;
        let images = "SELECT manifest FROM images WHERE manifest IS NOT NULL";
        let images = sqlx::query(images).fetch_all(&self.pool).await.map_err(&failed)?;
        let attempts = attempts
            .iter()
            .map(|row| Attempt { image_id: row.get("image_id"), epoch: row.get("epoch") }.to_string());
        Ok(attempts.chain(images.iter().map(|row| row.get("manifest"))).collect())
    }

    /// The images that are READY, by their identifiers.
    pub(crate) async fn published(&self) -> Result<Vec<Published>, CatalogError> {
        let rows = sqlx::query("SELECT id, manifest, storage_size FROM images WHERE status = $1 ORDER BY id")
            .bind(i64::from(i32::from(image::Status::Ready)))
            .fetch_all(&self.pool)
            .await
            .map_err(CatalogError::database("list images"))?;
        let published = rows.iter().map(|row| Published {
            image_id: row.get("id"),
            // Nothing is READY without: an empty name is one that the store does not have.
            manifest: row.get::<Option<String>, _>("manifest").unwrap_or_default(),
            storage_size: u64::try_from(row.get::<i64, _>("storage_size")).unwrap_or_default(),
        });
        Ok(published.collect())
    }

    /// Which catalog this is; decided when it is asked for the first time.
    pub(crate) async fn identity(&self) -> Result<String, CatalogError> {
        let failed = CatalogError::database("read which catalog this is");
        let mut tx = self.begin_admission().await?;
        let known = sqlx::query("SELECT id FROM catalog_identity").fetch_optional(&mut *tx).await;
        if let Some(row) = known.map_err(&failed)? {
            return Ok(row.get("id"));
        }
        let id = uuid::Uuid::new_v4().to_string();
        let noted =
            sqlx::query("INSERT INTO catalog_identity (id) VALUES ($1)").bind(&id).execute(&mut *tx).await;
        noted.map_err(&failed)?;
        commit(tx).await?;
        Ok(id)
    }

    /// The manifest that holds the content of an image.
    pub(crate) async fn manifest(&self, image_id: &str) -> Result<String, CatalogError> {
        let row = sqlx::query("SELECT manifest FROM images WHERE id = $1").bind(image_id);
        let row = row.fetch_optional(&self.pool).await.map_err(CatalogError::database("read an image"))?;
        let manifest = row.and_then(|row| row.get::<Option<String>, _>("manifest"));
        manifest.ok_or_else(|| CatalogError::NoImage { id: image_id.to_owned() })
    }
}

/// Fails unless an image has this manifest; it keeps it until the transaction ends.
pub(super) async fn hold_manifest(tx: &mut Tx, manifest: &str) -> Result<(), CatalogError> {
    let lock = for_update(tx);
    let mut sql = Sql::new("SELECT id FROM images WHERE manifest = ");
    sql.push_bind(manifest.to_owned()).push(lock);
    let rows = sql.fetch_all(&mut **tx).await.map_err(CatalogError::database("look for a manifest"))?;
    match rows.is_empty() {
        true => Err(CatalogError::ContentGone { manifest: manifest.to_owned() }),
        false => Ok(()),
    }
}

/// The operation has ended: its claims have, too.
pub(super) async fn forget_claims(tx: &mut Tx, image_id: &str) -> Result<(), CatalogError> {
    let gone = sqlx::query("DELETE FROM ingest_blocks WHERE image_id = $1").bind(image_id);
    let gone = gone.execute(&mut **tx).await;
    gone.map(drop).map_err(CatalogError::database("forget the claims of an ingest"))
}

fn quarantine() -> i64 {
    i64::try_from(QUARANTINE.as_micros()).unwrap_or(i64::MAX / 2)
}

fn parse_id(text: &str) -> Option<BlockId> {
    let mut id = [0; 32];
    hex::decode_to_slice(text, &mut id).is_ok().then_some(id)
}
