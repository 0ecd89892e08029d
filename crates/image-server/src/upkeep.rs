//! What an operator does to a catalog and its store, beside servers that run: `gc` and `fsck`.
//!
//! Both work on the catalog and the store as servers do, with the same ledger; neither needs a server to stop. Where the store is the
//! embedded one, it is reached through the server that has it, or started here. Cost: see `block_store`.

use std::{collections::HashMap, collections::HashSet, fmt};

use block_store::{BlockStore, BlockStoreError, Checked, Collected, Depth, Sum};
use disk_convert::Workers;
use tokio_util::sync::CancellationToken;

use crate::{
    Config, ServerError,
    catalog::{Catalog, Published},
    embedded::Embedded,
    server::{self, DirLock},
};

/// A catalog and its store, without a server.
pub struct Upkeep {
    catalog: Catalog,
    blocks: BlockStore,
    workers: Workers,
    embedded: Option<Embedded>,
    /// Held where no server runs on the folder.
    _lock: Option<DirLock>,
}

/// Why upkeep ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpkeepError {
    /// The catalog.
    #[error("the catalog cannot be read or written")]
    Catalog {
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store of blocks.
    #[error("the store of blocks failed")]
    Store {
        /// How.
        source: BlockStoreError,
    },
}

/// What `fsck` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Images that are READY.
    pub images: u64,
    /// Blocks that they list, each once.
    pub referenced: Sum,
    /// Blocks in the store.
    pub stored: Sum,
    /// Blocks that only running ingests have claimed.
    pub claimed: Sum,
    /// Blocks that nobody uses; gc removes them.
    pub unused: Sum,
    /// What is wrong, a sentence each.
    pub faults: Vec<String>,
}

impl Upkeep {
    /// Opens catalog and store where a server with this configuration has them.
    ///
    /// # Errors
    ///
    /// As [`crate::Server::start`].
    pub async fn open(config: Config) -> Result<Self, ServerError> {
        let workers = Workers::new(config.jobs).map_err(|source| ServerError::Workers { source })?;
        let lock = match server::make_dir(&config.data_dir) {
            Ok(lock) => Some(lock),
            Err(ServerError::Locked { .. }) => None,
            Err(error) => return Err(error),
        };
        let opened = match &config.database_url {
            Some(url) => Catalog::open_url(url).await,
            None => Catalog::open_file_beside(&server::catalog_path(&config.data_dir)).await,
        };
        let catalog = opened.map_err(|source| ServerError::Catalog { source: Box::new(source) })?;
        let beside = lock.is_none();
        let place = server::open_storage(config.storage, &config.data_dir, beside).await?;
        let blocks = server::open_blocks(&place.store, &place.bucket, &catalog).await?;
        Ok(Self { catalog, blocks, workers, embedded: place.embedded, _lock: lock })
    }

    /// Removes the manifests and blocks that nobody uses.
    ///
    /// # Errors
    ///
    /// If catalog or store fail; some may be removed then, and nothing else is.
    pub async fn gc(&self, cancel: &CancellationToken) -> Result<Collected, UpkeepError> {
        let leftovers = self.catalog.leftovers().await.map_err(catalog)?;
        let collected = self.blocks.collect(cancel).await.map_err(|source| UpkeepError::Store { source })?;
        if collected.left == 0 {
            self.catalog.collected(&leftovers).await.map_err(catalog)?;
        }
        Ok(collected)
    }

    /// Checks that the store holds what every READY image consists of.
    ///
    /// # Errors
    ///
    /// If catalog or store fail; what they lack is a fault.
    pub async fn fsck(&self, depth: Depth, cancel: &CancellationToken) -> Result<Report, UpkeepError> {
        let published = self.catalog.published().await.map_err(catalog)?;
        let claimed = self.catalog.all_claimed().await.map_err(catalog)?;
        let manifests: HashSet<String> = published.iter().map(|image| image.manifest.clone()).collect();
        let checked = self.blocks.check(manifests, &claimed, depth, &self.workers, cancel).await;
        let checked = checked.map_err(|source| UpkeepError::Store { source })?;
        let mut faults = size_faults(&published, &checked);
        if !checked.faults.is_empty() {
            // An image that was deleted meanwhile lacks nothing.
            let still = self.catalog.published().await.map_err(catalog)?;
            let still: HashSet<&str> = still.iter().map(|image| image.manifest.as_str()).collect();
            let real = checked
                .faults
                .iter()
                .filter(|fault| fault.manifest().is_none_or(|name| still.contains(name)));
            faults.extend(real.map(ToString::to_string));
        }
        Ok(Report {
            images: published.len() as u64,
            referenced: checked.referenced,
            stored: checked.stored,
            claimed: checked.claimed,
            unused: checked.unused,
            faults,
        })
    }

    /// Closes the catalog, and the store if it was started here.
    pub async fn close(self) {
        self.catalog.close().await;
        if let Some(embedded) = self.embedded {
            embedded.stop().await;
        }
    }
}

fn catalog(error: crate::catalog::CatalogError) -> UpkeepError {
    UpkeepError::Catalog { source: Box::new(error) }
}

/// Images whose size in the catalog is not that of their content.
fn size_faults(published: &[Published], checked: &Checked) -> Vec<String> {
    let sizes: HashMap<&str, u64> = checked.sizes.iter().map(|(name, size)| (name.as_str(), *size)).collect();
    let wrong = published.iter().filter_map(|image| {
        let found = *sizes.get(image.manifest.as_str())?;
        let (id, expected) = (&image.image_id, image.storage_size);
        (found != expected)
            .then(|| format!("the image {id} has {found} bytes in its manifest, {expected} in the catalog"))
    });
    wrong.collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, name: &str, sum: Sum| {
            writeln!(f, "{name:<11} {} blocks, {} bytes", sum.blocks, sum.bytes)
        };
        writeln!(f, "images      {}", self.images)?;
        line(f, "referenced", self.referenced)?;
        line(f, "stored", self.stored)?;
        line(f, "claimed", self.claimed)?;
        line(f, "unused", self.unused)?;
        write!(f, "faults      {}", self.faults.len())?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}
