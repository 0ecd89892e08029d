//! The catalog as the ledger of the block store: what all servers know together of blocks that are about to be listed or removed.
//!
//! Claims of parts that come together are one commit: while one is under way the next ones gather, so that an ingest waits
//! for the database a few times a second and not for each block. A database that is away is waited for, until the ingest is
//! stopped: its lease runs out before long.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use block_store::{CONDEMNED_PAUSE, Claims, Ledger, LedgerError};
use disk_convert::BlockId;
use tracing::{info, warn};

use crate::catalog::{Attempt, Catalog, CatalogError};

/// Pause before a commit is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Parts of one commit: what is in flight is less.
const BATCH: usize = 128;

/// The ledger of one process.
pub(crate) struct CatalogLedger {
    catalog: Catalog,
    /// Whose sentences are its own.
    collector: String,
}

impl CatalogLedger {
    pub(crate) fn new(catalog: Catalog) -> Self {
        Self { catalog, collector: uuid::Uuid::new_v4().to_string() }
    }
}

fn failed(error: CatalogError) -> LedgerError {
    LedgerError(Box::new(error))
}

#[async_trait]
impl Ledger for CatalogLedger {
    async fn manifests(&self) -> Result<Option<HashSet<String>>, LedgerError> {
        self.catalog.manifests().await.map(Some).map_err(failed)
    }

    async fn condemn(&self, blocks: &[BlockId]) -> Result<Vec<BlockId>, LedgerError> {
        self.catalog.condemn(&self.collector, blocks).await.map_err(failed)
    }

    async fn claimed(&self, blocks: &[BlockId]) -> Result<HashSet<BlockId>, LedgerError> {
        self.catalog.claimed(blocks).await.map_err(failed)
    }

    async fn acquit(&self, blocks: &[BlockId]) -> Result<(), LedgerError> {
        self.catalog.acquit(&self.collector, blocks).await.map_err(failed)
    }

    fn claims(&self, name: &str) -> Arc<dyn Claims> {
        // A name that is no attempt's is nobody's: its claims are refused like those of a lost lease.
        let attempt = Attempt::parse(name).unwrap_or(Attempt { image_id: name.to_owned(), epoch: -1 });
        let catalog = self.catalog.clone();
        Arc::new(CatalogClaims {
            catalog,
            attempt,
            waiting: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        })
    }
}

/// The claims of one attempt at an ingest.
struct CatalogClaims {
    catalog: Catalog,
    attempt: Attempt,
    waiting: Mutex<Waiting>,
    /// Held while a commit is under way.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Waiting {
    claims: BTreeMap<u32, Option<BlockId>>,
    stored: Vec<u32>,
    /// Blocks of parts that were committed, and whether they were condemned then, until whoever waits for the part takes the answer.
    answers: HashMap<u32, bool>,
}

impl CatalogClaims {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits what has gathered. What fails gathers again.
    async fn commit(&self) -> Result<(), CatalogError> {
        let (claims, stored) = {
            let mut waiting = self.waiting();
            let rest = match waiting.claims.keys().nth(BATCH).copied() {
                Some(first) => waiting.claims.split_off(&first),
                None => BTreeMap::new(),
            };
            (std::mem::replace(&mut waiting.claims, rest), std::mem::take(&mut waiting.stored))
        };
        let listed: Vec<_> = claims.iter().map(|(part, block)| (*part, *block)).collect();
        match self.catalog.claim_blocks(&self.attempt, &listed, &stored).await {
            Ok(condemned) => {
                let answer = |(part, block): (u32, Option<BlockId>)| {
                    (part, block.is_some_and(|block| condemned.contains(&block)))
                };
                self.waiting().answers.extend(claims.into_iter().map(answer));
                Ok(())
            }
            Err(error) => {
                let mut waiting = self.waiting();
                waiting.claims.extend(claims);
                waiting.stored.extend(stored);
                Err(error)
            }
        }
    }

    /// Commits until the claim of `part` is in; whether its block is condemned.
    async fn committed(&self, part: u32) -> Result<bool, CatalogError> {
        loop {
            // Whoever comes first commits for all who have come by then.
            let turn = self.turn.lock().await;
            if let Some(condemned) = self.waiting().answers.remove(&part) {
                return Ok(condemned);
            }
            match self.commit().await {
                Err(error @ CatalogError::Database { .. }) => {
                    drop(turn);
                    wait_for_catalog(&error).await;
                }
                done => done?,
            }
        }
    }

    async fn until_acquitted(&self, block: BlockId) {
        info!(block = %hex::encode(block), "a block that is being collected is waited for");
        loop {
            tokio::time::sleep(CONDEMNED_PAUSE).await;
            // A catalog that is away says nothing: the block stays condemned.
            if matches!(self.catalog.condemned(&[block]).await, Ok(condemned) if condemned.is_empty()) {
                return;
            }
        }
    }
}

async fn wait_for_catalog(error: &CatalogError) {
    warn!(error = error as &dyn std::error::Error, "an ingest waits for the catalog");
    tokio::time::sleep(RETRY_PAUSE).await;
}

#[async_trait]
impl Claims for CatalogClaims {
    async fn begin(&self, version: &str) -> Result<BTreeMap<u32, Option<BlockId>>, LedgerError> {
        loop {
            match self.catalog.begin_reading(&self.attempt, version).await {
                Err(error @ CatalogError::Database { .. }) => wait_for_catalog(&error).await,
                done => return done.map_err(failed),
            }
        }
    }

    async fn claim(&self, part: u32, block: Option<BlockId>) -> Result<(), LedgerError> {
        self.waiting().claims.insert(part, block);
        let condemned = self.committed(part).await.map_err(failed)?;
        if let Some(block) = block.filter(|_| condemned) {
            self.until_acquitted(block).await;
        }
        Ok(())
    }

    fn stored(&self, part: u32) {
        // Goes with the next claims. What is lost with the last ones is read again.
        self.waiting().stored.push(part);
    }
}

#[cfg(test)]
mod tests;
