//! What all who write to a block store know together: which manifests are in use, which blocks are about to be listed by one, and
//! which are about to be removed.
//!
//! A block that an ingest finds in the store is not sent again. From there to the manifest that lists it, nothing in the store says
//! that it is needed, so a collection could remove it in between. Hence two notes, each durable before the other side is
//! looked at, so that of an ingest and a collection that meet at least one sees the other:
//!
//! | ingest | collection |
//! |---|---|
//! | 1. claims the block | 1. condemns the block |
//! | 2. waits while the block is condemned | 2. spares what is claimed, and what manifests list by now |
//! | 3. looks for it in the store, or sends it | 3. removes the rest, and lifts the sentence |
//! | 4. its manifest is in use from the moment its claims end | |
//!
//! A collection may die between 2 and 3, and an object store knows no fencing: a removal is therefore sent within
//! [`SENTENCE`] of the sentence or not at all, and a sentence counts for [`QUARANTINE`], after which ingests go on and other
//! collections judge anew. What is left is a collection that the system stops for longer than the difference exactly between its look
//! at the clock and its next packet; [`crate::BlockStore::check`] would find what that removes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use disk_convert::BlockId;
use tokio::time::Instant;

/// Within this time of a sentence removals are sent: a batch of them takes a second or two where the store is well.
pub const SENTENCE: Duration = Duration::from_secs(20);
/// How long a sentence counts: what was sent at the last moment has long arrived, or was given up.
pub const QUARANTINE: Duration = Duration::from_secs(60);
/// Pause of an ingest that waits for a condemned block.
pub const CONDEMNED_PAUSE: Duration = Duration::from_millis(250);

/// The ledger cannot be read or written, or what wants to write has lost the right to.
#[derive(Debug, thiserror::Error)]
#[error("the ledger of blocks failed")]
pub struct LedgerError(#[source] pub Box<dyn Error + Send + Sync>);

/// Knowledge that all writers of one block store share.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Names of the manifests that are in use: of Images, and of ingests that may still become one. `None`: all that are stored.
    ///
    /// A manifest that leaves the one kind for the other is never missing.
    ///
    /// # Errors
    ///
    /// If the ledger fails; so do all verbs.
    async fn manifests(&self) -> Result<Option<HashSet<String>>, LedgerError>;

    /// Condemns blocks; gives those that this call has condemned, which are not those that others have.
    async fn condemn(&self, blocks: &[BlockId]) -> Result<Vec<BlockId>, LedgerError>;

    /// Those of these blocks that ingests have claimed.
    async fn claimed(&self, blocks: &[BlockId]) -> Result<HashSet<BlockId>, LedgerError>;

    /// Lifts sentences that this ledger's owner has passed.
    async fn acquit(&self, blocks: &[BlockId]) -> Result<(), LedgerError>;

    /// The claims of an ingest that will save the manifest `name`.
    fn claims(&self, name: &str) -> Arc<dyn Claims>;
}

/// The claims of one ingest. They end with its manifest in use, or with the ingest.
#[async_trait]
pub trait Claims: Send + Sync {
    /// Begins to read a source of this version. Gives the parts that an earlier ingest of the same work has stored from the same
    /// version: the id of each block, `None` for zeroes. An empty version is never the same.
    async fn begin(&self, version: &str) -> Result<BTreeMap<u32, Option<BlockId>>, LedgerError>;

    /// Notes that `part` is this block, or zero; returns when the block will not be removed any more.
    async fn claim(&self, part: u32, block: Option<BlockId>) -> Result<(), LedgerError>;

    /// Notes, some time soon, that the block of `part` is in the store.
    fn stored(&self, part: u32);
}

/// A ledger for the writers of one process, forgotten with it.
#[derive(Default)]
pub(crate) struct MemoryLedger {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// How many claims there are on a block.
    claimed: HashMap<BlockId, usize>,
    condemned: HashMap<BlockId, Instant>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn manifests(&self) -> Result<Option<HashSet<String>>, LedgerError> {
        Ok(None)
    }

    async fn condemn(&self, blocks: &[BlockId]) -> Result<Vec<BlockId>, LedgerError> {
        let mut state = lock(&self.state);
        let now = Instant::now();
        let free = |block: &&BlockId| state.condemned.get(*block).is_none_or(|at| *at + QUARANTINE < now);
        let mine: Vec<BlockId> = blocks.iter().filter(free).copied().collect();
        state.condemned.extend(mine.iter().map(|block| (*block, now)));
        Ok(mine)
    }

    async fn claimed(&self, blocks: &[BlockId]) -> Result<HashSet<BlockId>, LedgerError> {
        let state = lock(&self.state);
        Ok(blocks.iter().filter(|block| state.claimed.contains_key(*block)).copied().collect())
    }

    async fn acquit(&self, blocks: &[BlockId]) -> Result<(), LedgerError> {
        let mut state = lock(&self.state);
        for block in blocks {
            state.condemned.remove(block);
        }
        Ok(())
    }

    fn claims(&self, _name: &str) -> Arc<dyn Claims> {
        Arc::new(MemoryClaims { state: self.state.clone(), mine: Mutex::default() })
    }
}

struct MemoryClaims {
    state: Arc<Mutex<State>>,
    mine: Mutex<HashSet<BlockId>>,
}

#[async_trait]
impl Claims for MemoryClaims {
    async fn begin(&self, _version: &str) -> Result<BTreeMap<u32, Option<BlockId>>, LedgerError> {
        Ok(BTreeMap::new())
    }

    async fn claim(&self, _part: u32, block: Option<BlockId>) -> Result<(), LedgerError> {
        let Some(block) = block else { return Ok(()) };
        if self.mine.lock().unwrap_or_else(PoisonError::into_inner).insert(block) {
            *lock(&self.state).claimed.entry(block).or_default() += 1;
        }
        let condemned =
            || lock(&self.state).condemned.get(&block).is_some_and(|at| at.elapsed() < QUARANTINE);
        while condemned() {
            tokio::time::sleep(CONDEMNED_PAUSE).await;
        }
        Ok(())
    }

    fn stored(&self, _part: u32) {}
}

impl Drop for MemoryClaims {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        for block in self.mine.get_mut().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Some(count) = state.claimed.get_mut(block) {
                *count -= 1;
                if *count == 0 {
                    state.claimed.remove(block);
                }
            }
        }
    }
}
