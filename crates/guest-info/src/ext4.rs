//! Reads files of ext2, ext3 and ext4 by their paths.
//!
//! Source: Linux, `Documentation/filesystems/ext4`. Read are what an installed system's settings lie in: directories, regular files
//! and symbolic links, by extents, by block maps, or in the inode. Nothing is read ahead of what a path leads to: a group's
//! descriptor is looked up where an inode wants it. Directories are searched from end to end, which needs no hash; the journal
//! is left alone, so a file that was written just before a power cut may look as it did before, and [`Ext4::is_clean`] says so.
//!
//! Refused: compressed and encrypted files, file systems whose descriptors lie apart (META_BG, above 16 TiB), what is longer than
//! its limit. A block of a file takes at most five steps to find, whatever the tree says: entries that all point at one node
//! cost nothing. Checksums are not compared: what is read decides nothing but advice.

mod inode;
mod path;
#[cfg(test)]
mod tests;

use crate::filesystem::Kind;
use crate::source::{Trouble, Volume, le16, le32};

pub(crate) const MAGIC: u16 = 0xef53;

const DAMAGED: Trouble = Trouble::Damaged("the ext4 file system");

/// Where the superblock lies, and how long it is.
const SUPERBLOCK: u64 = 1024;

/// Features without which nothing could be read.
const INCOMPAT_COMPRESSION: u32 = 0x1;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_JOURNAL_DEV: u32 = 0x8;
const INCOMPAT_META_BG: u32 = 0x10;
const INCOMPAT_64BIT: u32 = 0x80;
const INCOMPAT_DIRDATA: u32 = 0x1000;

/// What ext3 knows; more makes it ext4, as blkid sees it.
const COMPAT_JOURNAL: u32 = 0x4;
const EXT3_INCOMPAT: u32 = 0x2 | INCOMPAT_RECOVER | INCOMPAT_META_BG;
const EXT3_RO_COMPAT: u32 = 0x1 | 0x2 | 0x4;

/// Which of the three it is, from its superblock.
pub(crate) fn kind(superblock: &[u8]) -> Kind {
    let (compat, incompat, ro) = (le32(superblock, 0x5c), le32(superblock, 0x60), le32(superblock, 0x64));
    if incompat & !EXT3_INCOMPAT != 0 || ro & !EXT3_RO_COMPAT != 0 {
        Kind::Ext4
    } else if compat & COMPAT_JOURNAL != 0 {
        Kind::Ext3
    } else {
        Kind::Ext2
    }
}

/// A file system whose superblock makes sense.
pub(crate) struct Ext4<'v> {
    volume: Volume<'v>,
    block: u64,
    blocks: u64,
    first_block: u64,
    inodes: u32,
    inodes_per_group: u32,
    inode_len: u64,
    descriptor_len: u64,
    is_clean: bool,
}

impl<'v> Ext4<'v> {
    pub(crate) fn open(volume: Volume<'v>) -> Result<Self, Trouble> {
        let bytes = volume.bytes(SUPERBLOCK, 1024)?;
        if le16(&bytes, 0x38) != MAGIC {
            return Err(DAMAGED);
        }
        let incompat = le32(&bytes, 0x60);
        if incompat & INCOMPAT_JOURNAL_DEV != 0 {
            return Err(Trouble::Unsupported("a journal without its file system"));
        }
        if incompat & INCOMPAT_META_BG != 0 {
            return Err(Trouble::Unsupported("an ext4 whose group descriptors lie apart"));
        }
        if incompat & (INCOMPAT_COMPRESSION | INCOMPAT_DIRDATA) != 0 {
            return Err(Trouble::Unsupported("an ext4 with compression or data in directories"));
        }
        let block = match le32(&bytes, 0x18) {
            shift @ 0..=6 => 1024_u64.checked_shl(shift).ok_or(DAMAGED)?,
            _ => return Err(DAMAGED),
        };
        let is_64bit = incompat & INCOMPAT_64BIT != 0;
        let high = if is_64bit { u64::from(le32(&bytes, 0x150)) } else { 0 };
        let blocks = high << 32 | u64::from(le32(&bytes, 4));
        let descriptor_len = match (is_64bit, u64::from(le16(&bytes, 0xfe))) {
            (false, _) => 32,
            (true, len @ 64..=1024) if len.is_power_of_two() => len,
            (true, _) => return Err(DAMAGED),
        };
        // Revision 0 has no field for it.
        let inode_len = match le32(&bytes, 0x4c) {
            0 => 128,
            _ => u64::from(le16(&bytes, 0x58)),
        };
        let inodes_per_group = le32(&bytes, 0x28);
        if !(128..=block).contains(&inode_len) || inodes_per_group == 0 || blocks == 0 {
            return Err(DAMAGED);
        }
        Ok(Self {
            volume,
            block,
            blocks,
            first_block: u64::from(le32(&bytes, 0x14)),
            inodes: le32(&bytes, 0),
            inodes_per_group,
            inode_len,
            descriptor_len,
            is_clean: incompat & INCOMPAT_RECOVER == 0,
        })
    }

    /// False if the journal holds what the file system does not.
    pub(crate) fn is_clean(&self) -> bool {
        self.is_clean
    }

    /// `len` bytes of a block, from `skip` on.
    fn block(&self, number: u64, skip: u64, len: usize) -> Result<Vec<u8>, Trouble> {
        if number == 0 || number >= self.blocks || skip.saturating_add(len as u64) > self.block {
            return Err(DAMAGED);
        }
        let at = number.checked_mul(self.block).and_then(|at| at.checked_add(skip)).ok_or(DAMAGED)?;
        self.volume.bytes(at, len)
    }

    /// The bytes of an inode that all of them have.
    fn inode_bytes(&self, number: u32) -> Result<Vec<u8>, Trouble> {
        let index = number.checked_sub(1).filter(|_| number <= self.inodes).ok_or(DAMAGED)?;
        let group = u64::from(index.checked_div(self.inodes_per_group).ok_or(DAMAGED)?);
        let index = u64::from(index.checked_rem(self.inodes_per_group).ok_or(DAMAGED)?);
        // The descriptors follow the superblock, from the next block on.
        let table = self.first_block.checked_add(1).and_then(|block| block.checked_mul(self.block));
        let at = group.checked_mul(self.descriptor_len).and_then(|skip| table?.checked_add(skip));
        let descriptor = self
            .volume
            .bytes(at.ok_or(DAMAGED)?, 64.min(usize::try_from(self.descriptor_len).unwrap_or(32)))?;
        let high = if self.descriptor_len >= 64 { u64::from(le32(&descriptor, 0x28)) } else { 0 };
        let first = high << 32 | u64::from(le32(&descriptor, 8));
        let skip = index.checked_mul(self.inode_len).ok_or(DAMAGED)?;
        let block =
            skip.checked_div(self.block).and_then(|blocks| first.checked_add(blocks)).ok_or(DAMAGED)?;
        self.block(block, skip.checked_rem(self.block).ok_or(DAMAGED)?, 128)
    }
}

/// A 48-bit number of an extent: the low half, and where the high one lies.
fn number48(bytes: &[u8], low: usize, high: usize) -> u64 {
    u64::from(le16(bytes, high)) << 32 | u64::from(le32(bytes, low))
}
