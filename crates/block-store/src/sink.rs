//! A disk into the store: each 4 MiB block of raw content under its id, then the manifest.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use disk_convert::{
    BLOCK_SIZE, BlockId, Part, PartRules, PartSize, Payload, Sink, SinkError, SinkFault, Workers, Zeroes,
    block_id, is_zero,
};
use tokio_util::sync::CancellationToken;

use crate::{BlockStore, BlockStoreError, Claims, Manifest};

/// Stores the raw content of a disk. Blocks that are zero, or stored already, are not sent.
///
/// After `abort`, or when it is dropped, the blocks that it stored wait for [`BlockStore::collect`].
pub struct BlockSink {
    store: BlockStore,
    name: Box<str>,
    virtual_size: u64,
    workers: Workers,
    cancel: CancellationToken,
    claims: Arc<dyn Claims>,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    blocks: BTreeMap<u64, BlockId>,
    /// Parts that an earlier ingest of the same work has stored.
    known: HashSet<u32>,
    /// Ids that this sink has stored or is storing: the same content twice in a disk is sent once.
    sent: HashMap<BlockId, Arc<tokio::sync::Mutex<bool>>>,
}

impl BlockSink {
    pub(crate) fn new(
        store: BlockStore,
        name: &str,
        virtual_size: u64,
        workers: Workers,
        cancel: CancellationToken,
    ) -> Self {
        let claims = store.ledger().claims(name);
        Self { store, name: name.into(), virtual_size, workers, cancel, claims, taken: Mutex::default() }
    }

    /// Takes over what an earlier ingest of the same work has stored from the same version of the source: those parts are not asked
    /// for again. Gives how many. An empty version is not the same as any; what was read of another version is forgotten.
    ///
    /// # Errors
    ///
    /// If the ledger fails.
    pub async fn resume(&self, version: &str) -> Result<usize, BlockStoreError> {
        let known = self.claims.begin(version).await?;
        let mut taken = self.taken();
        taken.blocks.extend(known.iter().filter_map(|(part, id)| Some((u64::from(*part), (*id)?))));
        taken.known.extend(known.keys());
        Ok(known.len())
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims a block and has it in the store when it returns.
    async fn keep(&self, part: u32, id: Option<BlockId>, content: Bytes) -> Result<(), BlockStoreError> {
        self.claims.claim(part, id).await?;
        if let Some(id) = id {
            let sent = self.taken().sent.entry(id).or_default().clone();
            // Whoever has the same content waits: its part is stored when the block is, not before.
            let mut sent = sent.lock().await;
            if !*sent {
                self.store.put_block(&id, content, &self.cancel).await?;
                *sent = true;
            }
            self.taken().blocks.insert(u64::from(part), id);
        }
        self.claims.stored(part);
        Ok(())
    }
}

#[async_trait]
impl Sink for BlockSink {
    type Output = Manifest;

    fn rules(&self) -> PartRules {
        PartRules { size: PartSize::Exactly(BLOCK_SIZE), zeroes: Zeroes::SkipParts, in_flight: 8 }
    }

    fn wants(&self, part: u32) -> bool {
        !self.taken().known.contains(&part)
    }

    async fn put(&self, part: Part) -> Result<(), SinkError> {
        let Payload::Data(content) = part.payload else { return Ok(()) };
        let hashed = content.clone();
        let id = self.workers.run(move || (!is_zero(&hashed)).then(|| block_id(&hashed))).await;
        let failed = |error| SinkError::new(&*self.name, Some(part.offset), SinkFault::Io).because(error);
        let id = id.map_err(failed)?;
        tokio::select! {
            biased;
            kept = self.keep(part.number, id, content) => kept.map_err(|error| error.into_sink_error(Some(part.offset))),
            () = self.cancel.cancelled() => Err(SinkError::new(&*self.name, Some(part.offset), SinkFault::Cancelled)),
        }
    }

    async fn finish(&self, len: u64) -> Result<Manifest, SinkError> {
        if len != self.virtual_size {
            return Err(SinkError::new(&*self.name, None, SinkFault::Protocol));
        }
        let blocks = std::mem::take(&mut self.taken().blocks);
        let manifest = Manifest::new(self.virtual_size, blocks);
        let saved = self.store.save(&self.name, &manifest, &self.cancel).await;
        saved.map_err(|error| error.into_sink_error(None))?;
        Ok(manifest)
    }

    async fn abort(&self) {}
}
