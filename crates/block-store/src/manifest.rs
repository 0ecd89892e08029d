//! The list of an Image's blocks, and its form in the store.
//!
//! All numbers are little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | magic, `imgblk\0\x01`; the last byte is the version |
//! | 8 | virtual size, bytes |
//! | 8 | storage size, bytes |
//! | 32 | guest digest |
//! | 4 | number of entries |
//! | 36 each | block index (4), block id (32); ascending |
//! | 32 | SHA-256 of all that stands before |
//!
//! A block that is not listed is zero. 36 bytes for 4 MiB of content: a full 1 TiB disk has a manifest of 9 MiB.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes};
use disk_convert::{BLOCK_SIZE, BlockId, GuestDigest, Summary, Summed, block_id};
use disk_image::Span;
use disk_image::limits::MAX_VIRTUAL_SIZE;

const MAGIC: [u8; 8] = *b"imgblk\0\x01";
const HEAD_LEN: usize = 8 + 8 + 8 + 32 + 4;
const ENTRY_LEN: usize = 4 + 32;
const TRAILER_LEN: usize = 32;

/// What a stored Image consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    virtual_size: u64,
    storage_size: u64,
    guest_digest: GuestDigest,
    blocks: BTreeMap<u64, BlockId>,
}

/// What is wrong with the bytes of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Other bytes than a manifest of this version.
    #[error("it does not begin as a manifest of a known version")]
    Magic,
    /// Shorter or longer than its head says.
    #[error("it is {found} bytes long, expected {expected}")]
    Length {
        /// Length in bytes.
        found: u64,
        /// Length by the head.
        expected: u64,
    },
    /// The trailer does not fit the rest.
    #[error("its checksum does not match its content")]
    Checksum,
    /// The virtual size is not that of a disk.
    #[error("it names a virtual size of {0} bytes")]
    VirtualSize(u64),
    /// Indices do not ascend, or lie past the end of the disk.
    #[error("its entry {0} is out of order or past the end of the disk")]
    Entry(usize),
    /// Storage size or guest digest do not follow from the blocks.
    #[error("its sizes and digest do not follow from its blocks")]
    Sums,
}

impl Summed for Manifest {
    fn summary(&self) -> Summary {
        Summary { guest_digest: self.guest_digest, storage_size: self.storage_size }
    }
}

impl Manifest {
    /// The manifest of a disk of `virtual_size` bytes with these blocks, by their index; all others are zero.
    pub fn new(virtual_size: u64, blocks: BTreeMap<u64, BlockId>) -> Self {
        let storage_size = blocks.keys().map(|index| block_span(virtual_size, *index).len).sum();
        let guest_digest = GuestDigest::of_blocks(virtual_size, &blocks);
        Self { virtual_size, storage_size, guest_digest, blocks }
    }

    /// Bytes that the guest sees.
    pub fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// Bytes of the blocks that are not zero.
    pub fn storage_size(&self) -> u64 {
        self.storage_size
    }

    /// Identifies the content.
    pub fn guest_digest(&self) -> GuestDigest {
        self.guest_digest
    }

    /// The blocks that are not zero, by their index.
    pub fn blocks(&self) -> &BTreeMap<u64, BlockId> {
        &self.blocks
    }

    /// The guest bytes of a block. The last block of a disk is as long as the disk is.
    pub fn block_span(&self, index: u64) -> Span {
        block_span(self.virtual_size, index)
    }

    /// The form in the store.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(HEAD_LEN + self.blocks.len() * ENTRY_LEN + TRAILER_LEN);
        out.put_slice(&MAGIC);
        out.put_u64_le(self.virtual_size);
        out.put_u64_le(self.storage_size);
        out.put_slice(&self.guest_digest.0);
        // Both fit: 64 TiB, the largest virtual size, are 2^24 blocks.
        out.put_u32_le(u32::try_from(self.blocks.len()).unwrap_or(u32::MAX));
        for (index, id) in &self.blocks {
            out.put_u32_le(u32::try_from(*index).unwrap_or(u32::MAX));
            out.put_slice(id);
        }
        let trailer = block_id(&out);
        out.put_slice(&trailer);
        out.into()
    }

    /// Reads the form in the store. Everything in it is checked, the sums by making them again.
    ///
    /// # Errors
    ///
    /// If these are not the bytes of a whole, undamaged manifest.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let found = bytes.len() as u64;
        let Some((mut head, mut entries)) = bytes.split_at_checked(HEAD_LEN) else {
            return Err(ManifestError::Length { found, expected: (HEAD_LEN + TRAILER_LEN) as u64 });
        };
        if !head.starts_with(&MAGIC) {
            return Err(ManifestError::Magic);
        }
        head.advance(MAGIC.len());
        let virtual_size = head.get_u64_le();
        let storage_size = head.get_u64_le();
        let mut guest_digest = [0; 32];
        head.copy_to_slice(&mut guest_digest);
        let count = head.get_u32_le() as usize;

        let expected = (HEAD_LEN + TRAILER_LEN) as u64 + count as u64 * ENTRY_LEN as u64;
        if found != expected {
            return Err(ManifestError::Length { found, expected });
        }
        let (content, trailer) = bytes.split_at(bytes.len() - TRAILER_LEN);
        if trailer != block_id(content) {
            return Err(ManifestError::Checksum);
        }
        if virtual_size == 0 || virtual_size > MAX_VIRTUAL_SIZE {
            return Err(ManifestError::VirtualSize(virtual_size));
        }
        let mut blocks = BTreeMap::new();
        let mut next = 0;
        for entry in 0..count {
            let index = u64::from(entries.get_u32_le());
            let mut id = [0; 32];
            entries.copy_to_slice(&mut id);
            if index < next || index >= virtual_size.div_ceil(BLOCK_SIZE) {
                return Err(ManifestError::Entry(entry));
            }
            next = index + 1;
            blocks.insert(index, id);
        }
        let manifest = Self::new(virtual_size, blocks);
        if (manifest.storage_size, manifest.guest_digest.0) != (storage_size, guest_digest) {
            return Err(ManifestError::Sums);
        }
        Ok(manifest)
    }
}

fn block_span(virtual_size: u64, index: u64) -> Span {
    Span::new(index * BLOCK_SIZE, BLOCK_SIZE).intersect(Span::new(0, virtual_size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let blocks = [(0, [1; 32]), (7, [2; 32]), (9, [1; 32])].into();
        Manifest::new(9 * BLOCK_SIZE + 512, blocks)
    }

    #[test]
    fn the_last_block_is_as_long_as_the_disk() {
        assert_eq!(manifest().storage_size(), 2 * BLOCK_SIZE + 512);
    }

    #[test]
    fn comes_back_as_it_was() {
        assert_eq!(Manifest::decode(&manifest().encode()), Ok(manifest()));
        let empty = Manifest::new(512, BTreeMap::new());
        assert_eq!(Manifest::decode(&empty.encode()), Ok(empty));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let good = manifest().encode();
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 1;
            assert!(Manifest::decode(&bad).is_err(), "byte {at}");
            assert!(Manifest::decode(&good[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_right_checksum_does_not_excuse_wrong_content() {
        let resign = |mut bytes: Vec<u8>| {
            let end = bytes.len() - TRAILER_LEN;
            let trailer = block_id(&bytes[..end]);
            bytes[end..].copy_from_slice(&trailer);
            Manifest::decode(&bytes)
        };
        let good = manifest().encode().to_vec();
        let mut sums = good.clone();
        sums[16] ^= 1;
        assert_eq!(resign(sums), Err(ManifestError::Sums));
        let mut order = good.clone();
        order[HEAD_LEN + ENTRY_LEN] = 10;
        assert_eq!(resign(order), Err(ManifestError::Entry(1)));
        let mut size = good;
        size[8..16].fill(0xff);
        assert_eq!(resign(size), Err(ManifestError::VirtualSize(u64::MAX)));
    }
}
