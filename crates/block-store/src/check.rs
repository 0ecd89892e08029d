//! Whether the store holds what the manifests say: `fsck`.
//!
//! Reads lists and manifests, and the blocks too where asked. Time grows with their number; memory by 40 bytes for each block.

use std::collections::{HashMap, HashSet};

use disk_convert::{BlockId, Workers, block_id};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use crate::{BlockStore, BlockStoreError, Manifest};

/// Blocks that are read at once.
const READS: usize = 8;

/// How much of the store is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Manifests, and the lengths of blocks.
    Lengths,
    /// The content of every block too.
    Content,
}

/// A fault, by what has it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// An Image's manifest is not there.
    #[error("the manifest {0} is missing")]
    NoManifest(String),
    /// An Image's manifest is no whole manifest.
    #[error("the manifest {0} is damaged")]
    Manifest(String),
    /// A manifest lists a block that is not there.
    #[error("the block {} of the manifest {manifest} is missing", hex::encode(.block))]
    NoBlock {
        /// The manifest.
        manifest: String,
        /// The block.
        block: BlockId,
    },
    /// A block is shorter or longer than the disk has it.
    #[error("the block {} of the manifest {manifest} has {found} bytes, expected {expected}", hex::encode(.block))]
    Length {
        /// The manifest.
        manifest: String,
        /// The block.
        block: BlockId,
        /// Bytes stored.
        found: u64,
        /// Bytes of the disk.
        expected: u64,
    },
    /// A block holds other bytes than its name says.
    #[error("the block {} holds other bytes than its name says", hex::encode(.0))]
    Content(BlockId),
}

impl Fault {
    /// The manifest that has it, where that is one.
    pub fn manifest(&self) -> Option<&str> {
        match self {
            Self::NoManifest(name) | Self::Manifest(name) => Some(name),
            Self::NoBlock { manifest, .. } | Self::Length { manifest, .. } => Some(manifest),
            Self::Content(_) => None,
        }
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checked {
    /// Manifests that were to be looked at.
    pub manifests: u64,
    /// Blocks that they list, each once, and their bytes.
    pub referenced: Sum,
    /// Blocks in the store.
    pub stored: Sum,
    /// Blocks that no manifest lists and that ingests may be about to list.
    pub claimed: Sum,
    /// Blocks that nobody uses.
    pub unused: Sum,
    /// The storage size of each manifest, bytes.
    pub sizes: Vec<(String, u64)>,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

/// Blocks, and how many bytes they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    /// How many.
    pub blocks: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Sum {
    fn add(&mut self, bytes: u64) {
        self.blocks += 1;
        self.bytes += bytes;
    }
}

impl BlockStore {
    /// Checks these manifests and all blocks. `claimed` are the blocks that running ingests have claimed.
    ///
    /// Beside running ingests and deletions a list may be older than a manifest: ask for the manifests before, and check a fault twice.
    ///
    /// # Errors
    ///
    /// If the store fails; what it lacks is a [`Fault`].
    pub async fn check(
        &self,
        manifests: impl IntoIterator<Item = String>,
        claimed: &HashSet<BlockId>,
        depth: Depth,
        workers: &Workers,
        cancel: &CancellationToken,
    ) -> Result<Checked, BlockStoreError> {
        let mut checked = Checked::default();
        let mut loaded = Vec::new();
        for name in manifests {
            checked.manifests += 1;
            match self.load(&name, cancel).await {
                Ok(manifest) => loaded.push((name, manifest)),
                Err(error) if error.is_not_found() => checked.faults.push(Fault::NoManifest(name)),
                Err(BlockStoreError::Manifest { .. }) => checked.faults.push(Fault::Manifest(name)),
                Err(error) => return Err(error),
            }
        }
        let stored: HashMap<BlockId, u64> = self.stored_blocks(cancel).await?.into_iter().collect();
        let mut listed = HashSet::new();
        for (name, manifest) in &loaded {
            checked.sizes.push((name.clone(), manifest.storage_size()));
            compare(name, manifest, &stored, &mut listed, &mut checked);
        }
        for (id, size) in &stored {
            checked.stored.add(*size);
            match (listed.contains(id), claimed.contains(id)) {
                (true, _) => {}
                (false, true) => checked.claimed.add(*size),
                (false, false) => checked.unused.add(*size),
            }
        }
        if depth == Depth::Content {
            let mut ids: Vec<BlockId> = listed.into_iter().filter(|id| stored.contains_key(id)).collect();
            ids.sort_unstable();
            let reads: Vec<_> = ids.into_iter().map(|id| self.check_content(id, workers, cancel)).collect();
            let faults: Vec<_> = stream::iter(reads).buffered(READS).try_collect().await?;
            checked.faults.extend(faults.into_iter().flatten());
        }
        Ok(checked)
    }

    async fn check_content(
        &self,
        id: BlockId,
        workers: &Workers,
        cancel: &CancellationToken,
    ) -> Result<Option<Fault>, BlockStoreError> {
        let content = match self.get_block(&id, cancel).await {
            Ok(content) => content,
            // Its Image was deleted meanwhile.
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let found = workers.run(move || block_id(&content)).await;
        Ok((found.ok() != Some(id)).then_some(Fault::Content(id)))
    }
}

fn compare(
    name: &str,
    manifest: &Manifest,
    stored: &HashMap<BlockId, u64>,
    listed: &mut HashSet<BlockId>,
    checked: &mut Checked,
) {
    for (index, block) in manifest.blocks() {
        if !listed.insert(*block) {
            continue;
        }
        let expected = manifest.block_span(*index).len;
        checked.referenced.add(expected);
        let (manifest, block) = (name.to_owned(), *block);
        match stored.get(&block) {
            None => checked.faults.push(Fault::NoBlock { manifest, block }),
            Some(&found) if found != expected => {
                checked.faults.push(Fault::Length { manifest, block, found, expected });
            }
            Some(_) => {}
        }
    }
}
