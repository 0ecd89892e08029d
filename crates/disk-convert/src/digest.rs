//! The guest digest: one value for a disk's content, whatever its format and however sparse it is.
//!
//! SHA-256 over the virtual size (u64, little-endian) and the SHA-256 of every 4 MiB block of the raw content in order, the
//! last block as long as it is. Blocks are hashed on all workers; runs of unallocated blocks cost 32 bytes of hashing each.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use disk_image::{ExtentMap, ObjectMap};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::assemble::to_usize;
use crate::{
    ConvertError, Disk, FilledPart, Options, Part, PartRules, PartSize, Payload, PutNow, Sink, SinkError,
    Zeroes, convert, is_zero,
};

/// Size of a block of raw content, bytes: 4 MiB.
pub const BLOCK_SIZE: u64 = 4 << 20;

/// SHA-256 of a block's content.
pub type BlockId = [u8; 32];

/// Identifies the content of a virtual disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct GuestDigest(pub [u8; 32]);

impl GuestDigest {
    /// The digest of a disk of `virtual_size` bytes whose blocks, by their index, have these ids; all others are zero.
    pub fn of_blocks(virtual_size: u64, ids: &BTreeMap<u64, BlockId>) -> Self {
        let zero_block = block_id(&vec![0; to_usize(BLOCK_SIZE)]);
        let mut digest = Sha256::new_with_prefix(virtual_size.to_le_bytes());
        for index in 0..virtual_size.div_ceil(BLOCK_SIZE) {
            match ids.get(&index) {
                Some(id) => digest.update(id),
                None => match virtual_size - index * BLOCK_SIZE {
                    BLOCK_SIZE.. => digest.update(zero_block),
                    tail => digest.update(block_id(&vec![0; to_usize(tail)])),
                },
            }
        }
        Self(digest.finalize().into())
    }
}

impl std::fmt::Display for GuestDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for GuestDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GuestDigest({self})")
    }
}

/// The id of a block with this content.
pub fn block_id(content: &[u8]) -> BlockId {
    Sha256::digest(content).into()
}

/// The most that the blocks of a disk can take that are not zero, bytes: all blocks in which anything is stored. Time goes with the
/// runs of the map.
pub fn storage_bound(map: &ExtentMap) -> u64 {
    // First block that is not counted yet.
    let mut next = 0;
    let mut bytes = 0;
    for extent in map.iter().filter(|extent| extent.state.is_stored()) {
        let first = (extent.guest.start / BLOCK_SIZE).max(next);
        let end = extent.guest.end().div_ceil(BLOCK_SIZE);
        if first < end {
            bytes += (end * BLOCK_SIZE).min(map.guest_len()) - first * BLOCK_SIZE;
            next = end;
        }
    }
    bytes
}

/// What reading a whole disk tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Identifies the content.
    pub guest_digest: GuestDigest,
    /// Bytes of the blocks that are not zero throughout.
    pub storage_size: u64,
}

/// Reads the whole disk and says what it holds. Proves on the way that everything can be read and decoded.
///
/// # Errors
///
/// As [`convert()`].
pub async fn digest(
    disk: &Disk,
    options: &Options,
    cancel: &CancellationToken,
) -> Result<Summary, ConvertError> {
    let virtual_size = disk.image().virtual_size();
    let sink = DigestSink { virtual_size, blocks: Mutex::default() };
    convert(disk, &ObjectMap::raw(virtual_size), sink, options, cancel).await
}

struct DigestSink {
    virtual_size: u64,
    blocks: Mutex<Blocks>,
}

/// The blocks of a disk that are not zero, as far as they were seen.
#[derive(Default)]
pub(crate) struct Blocks {
    ids: BTreeMap<u64, BlockId>,
    storage_size: u64,
}

impl Blocks {
    /// Hashes the content of block `index` outside of the lock. Gives how many zeroes it left out.
    pub(crate) fn take(blocks: &Mutex<Self>, index: u64, bytes: &[u8]) -> u64 {
        if is_zero(bytes) {
            return bytes.len() as u64;
        }
        let id = block_id(bytes);
        let mut blocks = blocks.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.ids.insert(index, id);
        blocks.storage_size += bytes.len() as u64;
        0
    }

    pub(crate) fn summary(&self, virtual_size: u64) -> Summary {
        let guest_digest = GuestDigest::of_blocks(virtual_size, &self.ids);
        Summary { guest_digest, storage_size: self.storage_size }
    }
}

#[async_trait]
impl Sink for DigestSink {
    type Output = Summary;

    fn rules(&self) -> PartRules {
        PartRules { size: PartSize::Exactly(BLOCK_SIZE), zeroes: Zeroes::SkipParts, in_flight: 2 }
    }

    async fn put(&self, part: Part) -> Result<(), SinkError> {
        if let Payload::Data(bytes) = &part.payload {
            Blocks::take(&self.blocks, part.number.into(), bytes);
        }
        Ok(())
    }

    fn blocking(&self) -> Option<&dyn PutNow> {
        Some(self)
    }

    async fn finish(&self, _len: u64) -> Result<Summary, SinkError> {
        Ok(self.blocks.lock().unwrap_or_else(PoisonError::into_inner).summary(self.virtual_size))
    }

    async fn abort(&self) {}
}

impl PutNow for DigestSink {
    fn put_now(&self, part: &FilledPart<'_>) -> Result<u64, SinkError> {
        Ok(Blocks::take(&self.blocks, part.number.into(), part.bytes))
    }
}

#[cfg(test)]
mod tests {
    use disk_image::{ExtentMapBuilder, State, Stored};

    use super::*;

    #[test]
    fn a_block_counts_once_and_the_last_one_as_long_as_it_is() {
        let mut map = ExtentMapBuilder::new();
        for at in 0..4 {
            map.push(512, State::Data(Stored::image(at << 20, 512)));
            map.push(512, State::Zero);
        }
        map.push(BLOCK_SIZE * 3 - 4096 + 1024, State::Hole);
        map.push(512, State::Data(Stored::image(0, 512)));
        let map = map.finish(BLOCK_SIZE * 3 + 2048);
        assert_eq!(storage_bound(&map), BLOCK_SIZE + 2048);
    }
}
