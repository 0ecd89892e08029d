//! Removes the blocks that no manifest lists.
//!
//! Mark and sweep over the whole store: time grows with the number of manifests and blocks, memory by 32 bytes for each block
//! listed. While it runs, no ingest of this process stores a block; those that ingests have claimed stay.

use std::collections::HashSet;

use disk_convert::BlockId;
use tokio_util::sync::CancellationToken;

use crate::{BlockStore, BlockStoreError};

/// What a collection did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Blocks that manifests list.
    pub kept: u64,
    /// Blocks removed.
    pub removed: u64,
    /// Bytes removed.
    pub bytes: u64,
}

impl BlockStore {
    /// Removes every block that neither a manifest lists nor a running ingest of this process has claimed.
    ///
    /// A cancelled collection has removed some of them, and nothing else.
    ///
    /// # Errors
    ///
    /// If a manifest is damaged (then nothing is removed: it may list anything), or the store fails.
    pub async fn collect(&self, cancel: &CancellationToken) -> Result<Collected, BlockStoreError> {
        let _closed = self.gate().write().await;
        let mut listed: HashSet<BlockId> = HashSet::new();
        for manifest in self.list(&self.manifests_prefix(), cancel).await? {
            let id = manifest.0.rsplit('/').next().unwrap_or_default();
            match self.load(id, cancel).await {
                Ok(manifest) => listed.extend(manifest.blocks().values()),
                // Images are deleted meanwhile: one that is gone lists nothing.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let mut collected = Collected { kept: listed.len() as u64, ..Collected::default() };
        for (key, size) in self.list(&self.blocks_prefix(), cancel).await? {
            let mut id = [0; 32];
            let name = key.rsplit('/').next().unwrap_or_default();
            // What is not named like a block is not ours to remove.
            if hex::decode_to_slice(name, &mut id).is_err() || listed.contains(&id) || self.is_claimed(&id) {
                continue;
            }
            let (store, bucket) = self.object_store();
            store.delete(bucket, &key, cancel).await?;
            collected.removed += 1;
            collected.bytes += size;
        }
        Ok(collected)
    }

    /// Keys and sizes below a prefix.
    async fn list(
        &self,
        prefix: &str,
        cancel: &CancellationToken,
    ) -> Result<Vec<(String, u64)>, BlockStoreError> {
        let (store, bucket) = self.object_store();
        let mut all = Vec::new();
        let mut next = None;
        loop {
            let page = store.list(bucket, prefix, next.as_ref(), cancel).await?;
            all.extend(page.objects.into_iter().map(|object| (object.key, object.size)));
            next = page.next;
            if next.is_none() {
                return Ok(all);
            }
        }
    }
}
