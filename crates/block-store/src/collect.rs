//! Removes what nobody uses: manifests that the ledger does not name, and the blocks that no manifest in use lists.
//!
//! Mark and sweep over the whole store, beside running ingests of any number of processes (how, see [`crate::Ledger`]): time grows
//! with the number of manifests and blocks, memory by 32 bytes for each block listed. The order is what makes it safe: the store is
//! listed first, so that nothing younger is looked at, and the ledger is asked again after each sentence.

use std::collections::HashSet;

use disk_convert::BlockId;
use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::{BlockStore, BlockStoreError, SENTENCE};

/// Blocks that are judged together: each batch asks the ledger four times.
const BATCH: usize = 256;
/// Removals in flight.
const REMOVALS: usize = 16;

/// What a collection did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Blocks that manifests list.
    pub kept: u64,
    /// Blocks removed.
    pub removed: u64,
    /// Bytes removed.
    pub bytes: u64,
    /// Blocks that another collection had condemned: it removes them, or a later one does.
    pub left: u64,
}

/// What manifests in use list, as far as they were read.
#[derive(Default)]
struct Listed {
    manifests: HashSet<String>,
    blocks: HashSet<BlockId>,
}

impl BlockStore {
    /// Removes every manifest that is not in use, and every block that neither a manifest in use lists nor an ingest has claimed.
    ///
    /// A cancelled collection has removed some of them, and nothing else.
    ///
    /// # Errors
    ///
    /// If a manifest in use is damaged (then no block is removed: it may list anything), or the store or the ledger fails.
    pub async fn collect(&self, cancel: &CancellationToken) -> Result<Collected, BlockStoreError> {
        let blocks = self.stored_blocks(cancel).await?;
        self.remove_unused_manifests(cancel).await?;
        let mut listed = Listed::default();
        self.read_lists(&mut listed, cancel).await?;
        let unlisted: Vec<(BlockId, u64)> =
            blocks.into_iter().filter(|(id, _)| !listed.blocks.contains(id)).collect();
        let mut collected = Collected { kept: listed.blocks.len() as u64, ..Collected::default() };
        for batch in unlisted.chunks(BATCH) {
            self.judge(batch, &mut listed, &mut collected, cancel).await?;
        }
        Ok(collected)
    }

    /// Condemns a batch, spares what turns out to be needed, and removes the rest.
    async fn judge(
        &self,
        batch: &[(BlockId, u64)],
        listed: &mut Listed,
        collected: &mut Collected,
        cancel: &CancellationToken,
    ) -> Result<(), BlockStoreError> {
        let until = Instant::now() + SENTENCE;
        let ids: Vec<BlockId> = batch.iter().map(|(id, _)| *id).collect();
        let mine: HashSet<BlockId> = self.ledger().condemn(&ids).await?.into_iter().collect();
        // First the claims, then the manifests: an ingest that ends in between is in the one or in the other.
        let claimed = self.ledger().claimed(&ids).await?;
        self.read_lists(listed, cancel).await?;
        let doomed = batch
            .iter()
            .filter(|(id, _)| mine.contains(id) && !claimed.contains(id) && !listed.blocks.contains(id));
        let remove = async |id: BlockId, size: u64| {
            let removed = timeout_at(until, self.remove_block(&id, cancel)).await;
            (id, size, removed.unwrap_or(Err(BlockStoreError::Slow { limit: SENTENCE })))
        };
        let removals: Vec<_> = doomed.map(|&(id, size)| remove(id, size)).collect();
        let removals: Vec<_> = stream::iter(removals).buffer_unordered(REMOVALS).collect().await;
        let mut failed = None;
        let mut unclear = HashSet::new();
        for (id, size, removed) in removals {
            match removed {
                Ok(()) => {
                    collected.removed += 1;
                    collected.bytes += size;
                }
                // What was not answered may still happen: the sentence stays, and runs out.
                Err(error) => {
                    unclear.insert(id);
                    failed = Some(error);
                }
            }
        }
        collected.left += (batch.len() - mine.len()) as u64;
        let clear: Vec<BlockId> = mine.into_iter().filter(|id| !unclear.contains(id)).collect();
        self.ledger().acquit(&clear).await?;
        failed.map_or(Ok(()), Err)
    }

    /// Reads the manifests in use that were not read before.
    async fn read_lists(
        &self,
        listed: &mut Listed,
        cancel: &CancellationToken,
    ) -> Result<(), BlockStoreError> {
        let names: Vec<String> = match self.ledger().manifests().await? {
            Some(names) => names.into_iter().collect(),
            None => self.stored_manifests(cancel).await?,
        };
        for name in names {
            if listed.manifests.contains(&name) {
                continue;
            }
            match self.load(&name, cancel).await {
                Ok(manifest) => {
                    listed.blocks.extend(manifest.blocks().values());
                    listed.manifests.insert(name);
                }
                // Of an ingest that has not saved it yet, or of an Image that was deleted meanwhile: it lists nothing.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The names of manifests are never used twice: what is not in use now will never be.
    async fn remove_unused_manifests(&self, cancel: &CancellationToken) -> Result<(), BlockStoreError> {
        let stored = self.stored_manifests(cancel).await?;
        let Some(used) = self.ledger().manifests().await? else { return Ok(()) };
        for name in stored.iter().filter(|name| !used.contains(*name)) {
            self.delete(name, cancel).await?;
        }
        Ok(())
    }
}
