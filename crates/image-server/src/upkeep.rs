//! What an operator does to a catalog and its store, beside servers that run: `gc` and `fsck`.
//!
//! Both work on the catalog and the store as servers do, with the same ledger; neither needs a server to stop. Where the store is the
//! embedded one, it is reached through the server that has it, or started here. Cost: see `block_store`.

use std::{collections::HashMap, collections::HashSet, fmt};

use block_store::{BlockStore, BlockStoreError, Checked, Collected, Depth, Sum};
use disk_convert::{GuestDigest, Workers};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, ServerError,
    catalog::{Catalog, Published},
    embedded::Embedded,
    pool::{self, DiskCopy, PoolError, PoolFolder},
    server::{self, DirLock},
};

/// A catalog and its store, without a server.
pub struct Upkeep {
    catalog: Catalog,
    blocks: BlockStore,
    workers: Workers,
    pool: Option<PoolFolder>,
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
    /// The pool.
    #[error("the pool cannot be checked")]
    Pool {
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
    /// Copies in the pool, where there is one.
    pub pooled: Option<Pooled>,
    /// What is wrong, a sentence each.
    pub faults: Vec<String>,
}

/// What is in a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pooled {
    /// Copies of images that are READY.
    pub copies: u64,
    /// Bytes that they take on disk.
    pub bytes: u64,
    /// Copies that no image needs; the server or gc removes them.
    pub strays: u64,
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
        let pool = match config.pool.as_deref() {
            Some(dir) => Some(PoolFolder::open(dir, &server::identity_of(&catalog).await?)?),
            None => None,
        };
        Ok(Self { catalog, blocks, workers, pool, embedded: place.embedded, _lock: lock })
    }

    /// Removes the manifests and blocks that nobody uses, and the copies in the pool that no image needs.
    ///
    /// # Errors
    ///
    /// If catalog, store or pool fail; some may be removed then, and nothing else is.
    pub async fn gc(&self, cancel: &CancellationToken) -> Result<Collected, UpkeepError> {
        if let Some(pool) = &self.pool {
            pool.sweep(&self.catalog).await.map_err(unusable)?;
        }
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
        let pooled = match &self.pool {
            Some(pool) => Some(self.check_pool(pool, &published, depth, &mut faults, cancel).await?),
            None => None,
        };
        Ok(Report {
            images: published.len() as u64,
            referenced: checked.referenced,
            stored: checked.stored,
            claimed: checked.claimed,
            unused: checked.unused,
            pooled,
            faults,
        })
    }

    /// Holds the copies in the pool against what they are copies of. That one is missing is no fault: another server may have it.
    async fn check_pool(
        &self,
        pool: &PoolFolder,
        published: &[Published],
        depth: Depth,
        faults: &mut Vec<String>,
        cancel: &CancellationToken,
    ) -> Result<Pooled, UpkeepError> {
        let strays = pool.strays(&self.catalog).await.map_err(unusable)?;
        let mut sums = Pooled { strays: strays.len() as u64, ..Pooled::default() };
        let names: HashMap<&str, &str> =
            published.iter().map(|image| (image.image_id.as_str(), image.manifest.as_str())).collect();
        for copy in pool.copies().map_err(|error| unusable(pool::unreadable(error)))? {
            let Some(name) = names.get(copy.image_id.as_str()) else { continue };
            sums.copies += 1;
            sums.bytes += copy.allocated;
            // Whatever is wrong with the manifest was found already.
            let Ok(manifest) = self.blocks.load(name, cancel).await else { continue };
            let (id, found, expected) = (&copy.image_id, copy.len, manifest.virtual_size());
            if found != expected {
                faults.push(format!("the copy of {id} in the pool has {found} bytes, expected {expected}"));
            } else if depth == Depth::Content {
                faults.extend(content_fault(&copy, manifest.guest_digest(), &self.workers, cancel).await);
            }
        }
        Ok(sums)
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

fn unusable(error: PoolError) -> UpkeepError {
    UpkeepError::Pool { source: Box::new(error) }
}

/// What is wrong with the content of a copy.
async fn content_fault(
    copy: &DiskCopy,
    expected: GuestDigest,
    workers: &Workers,
    cancel: &CancellationToken,
) -> Option<String> {
    let id = &copy.image_id;
    match pool::digest(copy, workers, cancel).await {
        Ok(found) if found == expected => None,
        Ok(_) => Some(format!("the copy of {id} in the pool is not what the image consists of")),
        // Removed with its image since it was listed.
        Err(_) if !copy.path.exists() => None,
        Err(error) => Some(format!("the copy of {id} in the pool cannot be read: {error}")),
    }
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
        if let Some(Pooled { copies, bytes, strays }) = self.pooled {
            writeln!(f, "pooled      {copies} copies, {bytes} bytes; {strays} not needed")?;
        }
        write!(f, "faults      {}", self.faults.len())?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_copy_that_is_gone_has_no_fault() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.raw");
        let copy = DiskCopy { image_id: "a".to_owned(), path: path.clone(), len: 512, allocated: 512 };
        let (workers, cancel) = (Workers::new(Some(1)).unwrap(), CancellationToken::new());
        let fault = async || content_fault(&copy, GuestDigest([0; 32]), &workers, &cancel).await;
        // Deleted while it was looked at.
        assert_eq!(fault().await, None);
        std::fs::write(&path, [7; 512]).unwrap();
        assert!(fault().await.unwrap().ends_with("is not what the image consists of"));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(fault().await.unwrap().contains("cannot be read"));
    }
}
