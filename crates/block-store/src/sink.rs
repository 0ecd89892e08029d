//! A disk into the store: each 4 MiB block of raw content under its id, then the manifest.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use disk_convert::{
    BLOCK_SIZE, BlockId, Part, PartRules, PartSize, Payload, Sink, SinkError, SinkFault, Workers, Zeroes,
    block_id, is_zero,
};
use tokio_util::sync::CancellationToken;

use crate::{BlockStore, Manifest};

/// Stores the raw content of a disk. Blocks that are zero, or stored already, are not sent.
///
/// After `abort`, or when it is dropped, the blocks that it stored wait for [`BlockStore::collect`].
pub struct BlockSink {
    store: BlockStore,
    id: Box<str>,
    virtual_size: u64,
    workers: Workers,
    cancel: CancellationToken,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    blocks: BTreeMap<u64, BlockId>,
    /// What this sink keeps from being collected; each id once.
    claimed: HashSet<BlockId>,
}

impl BlockSink {
    pub(crate) fn new(
        store: BlockStore,
        id: &str,
        virtual_size: u64,
        workers: Workers,
        cancel: CancellationToken,
    ) -> Self {
        Self { store, id: id.into(), virtual_size, workers, cancel, taken: Mutex::default() }
    }

    /// Notes that block `index` has this id. True if the block may still have to be stored.
    fn note(&self, index: u64, id: BlockId) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.blocks.insert(index, id);
        let new = taken.claimed.insert(id);
        if new {
            self.store.claim(id);
        }
        new
    }
}

#[async_trait]
impl Sink for BlockSink {
    type Output = Manifest;

    fn rules(&self) -> PartRules {
        PartRules { size: PartSize::Exactly(BLOCK_SIZE), zeroes: Zeroes::SkipParts, in_flight: 8 }
    }

    async fn put(&self, part: Part) -> Result<(), SinkError> {
        let Payload::Data(content) = part.payload else { return Ok(()) };
        let hashed = content.clone();
        let id = self.workers.run(move || (!is_zero(&hashed)).then(|| block_id(&hashed))).await;
        let failed = |error| SinkError::new(&*self.id, Some(part.offset), SinkFault::Io).because(error);
        let Some(id) = id.map_err(failed)? else { return Ok(()) };
        if self.note(u64::from(part.number), id) {
            let stored = self.store.put_block(&id, content, &self.cancel).await;
            stored.map_err(|error| error.into_sink_error(Some(part.offset)))?;
        }
        Ok(())
    }

    async fn finish(&self, _len: u64) -> Result<Manifest, SinkError> {
        let blocks = std::mem::take(&mut self.taken.lock().unwrap_or_else(PoisonError::into_inner).blocks);
        let manifest = Manifest::new(self.virtual_size, blocks);
        let saved = self.store.save(&self.id, &manifest, &self.cancel).await;
        saved.map_err(|error| error.into_sink_error(None))?;
        Ok(manifest)
    }

    async fn abort(&self) {}
}

impl Drop for BlockSink {
    fn drop(&mut self) {
        let taken = self.taken.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.store.release(&taken.claimed);
    }
}
