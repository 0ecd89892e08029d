//! An inode, and the bytes of its file.

use super::{DAMAGED, Ext4, number48};
use crate::source::{Trouble, le16, le32, slice};

const KIND: u16 = 0xf000;
const FOLDER: u16 = 0x4000;
const FILE: u16 = 0x8000;
const LINK: u16 = 0xa000;

const FLAG_COMPRESSED: u32 = 0x4;
const FLAG_ENCRYPTED: u32 = 0x800;
const FLAG_EXTENTS: u32 = 0x8_0000;
const FLAG_INLINE: u32 = 0x1000_0000;

/// Bytes in an inode for pointers, or for what is short enough to need none.
const HERE: usize = 60;

/// Deepest tree of extents, as in Linux.
const MAX_DEPTH: u16 = 5;

const EXTENT_MAGIC: u16 = 0xf30a;

/// A longer extent is one that was set aside and not written.
const EXTENT_WRITTEN: u16 = 32768;

/// What an inode says.
#[derive(Debug, Clone)]
pub(crate) struct Inode {
    mode: u16,
    flags: u32,
    /// Length of the file, bytes.
    pub(super) len: u64,
    here: Vec<u8>,
}

impl Inode {
    pub(super) fn is_folder(&self) -> bool {
        self.mode & KIND == FOLDER
    }

    pub(super) fn is_file(&self) -> bool {
        self.mode & KIND == FILE
    }

    pub(super) fn is_link(&self) -> bool {
        self.mode & KIND == LINK
    }

    /// A short link, or a short file where the file system keeps such, in place of pointers.
    fn is_here(&self) -> bool {
        self.flags & FLAG_INLINE != 0
            || (self.is_link() && self.len < HERE as u64 && self.flags & FLAG_EXTENTS == 0)
    }
}

impl Ext4<'_> {
    pub(super) fn inode(&self, number: u32) -> Result<Inode, Trouble> {
        let bytes = self.inode_bytes(number)?;
        let mode = le16(&bytes, 0);
        // The high half of a directory's length was something else once, and no directory needs it.
        let high = if mode & KIND == FILE { u64::from(le32(&bytes, 0x6c)) } else { 0 };
        Ok(Inode {
            mode,
            flags: le32(&bytes, 0x20),
            len: high << 32 | u64::from(le32(&bytes, 4)),
            here: slice(&bytes, 0x28, HERE).to_vec(),
        })
    }

    /// The first `len` bytes of a file, or as many as it has.
    pub(super) fn content(&self, inode: &Inode, len: u64) -> Result<Vec<u8>, Trouble> {
        if inode.flags & FLAG_ENCRYPTED != 0 {
            return Err(Trouble::Unsupported("an encrypted file"));
        }
        if inode.flags & FLAG_COMPRESSED != 0 {
            return Err(Trouble::Unsupported("a compressed file"));
        }
        let len = usize::try_from(inode.len.min(len)).map_err(|_| DAMAGED)?;
        if inode.is_here() {
            if len > HERE {
                return Err(Trouble::Unsupported("a file that goes on in its attributes"));
            }
            return Ok(slice(&inode.here, 0, len).to_vec());
        }
        let block = usize::try_from(self.block).map_err(|_| DAMAGED)?;
        let mut bytes = Vec::with_capacity(len);
        let mut index = 0_u32;
        while bytes.len() < len {
            let wanted = len.saturating_sub(bytes.len()).min(block);
            match self.find(inode, index)? {
                Some(number) => bytes.extend(self.block(number, 0, wanted)?),
                None => {
                    self.volume.work(wanted)?;
                    bytes.resize(bytes.len().saturating_add(wanted), 0);
                }
            }
            index = index.checked_add(1).ok_or(DAMAGED)?;
        }
        Ok(bytes)
    }

    /// Where a block of a file lies; `None` if it is a hole.
    fn find(&self, inode: &Inode, index: u32) -> Result<Option<u64>, Trouble> {
        match inode.flags & FLAG_EXTENTS {
            0 => self.find_by_map(inode, index),
            _ => self.find_by_extents(inode, index),
        }
    }

    /// From the root down, at each node into the last entry that does not begin behind the block.
    fn find_by_extents(&self, inode: &Inode, index: u32) -> Result<Option<u64>, Trouble> {
        let mut node = inode.here.clone();
        let mut depth = None;
        loop {
            let (magic, entries, below) = (le16(&node, 0), le16(&node, 2), le16(&node, 6));
            let is_next = depth.map_or(below <= MAX_DEPTH, |depth: u16| depth.checked_sub(1) == Some(below));
            if magic != EXTENT_MAGIC || !is_next {
                return Err(DAMAGED);
            }
            let entries = node.get(12..).unwrap_or_default().chunks_exact(12).take(usize::from(entries));
            let Some(entry) = entries.take_while(|entry| le32(entry, 0) <= index).last() else {
                return Ok(None);
            };
            if below == 0 {
                let skip = index.saturating_sub(le32(entry, 0));
                let len = le16(entry, 4);
                if len > EXTENT_WRITTEN || skip >= u32::from(len) {
                    return Ok(None);
                }
                return number48(entry, 8, 6).checked_add(u64::from(skip)).map(Some).ok_or(DAMAGED);
            }
            let child = number48(entry, 4, 8);
            depth = Some(below);
            node = self.block(child, 0, usize::try_from(self.block).map_err(|_| DAMAGED)?)?;
        }
    }

    /// Twelve pointers to blocks, then one to a block of pointers, one to a block of pointers to such, and one a level deeper.
    fn find_by_map(&self, inode: &Inode, index: u32) -> Result<Option<u64>, Trouble> {
        let per_block = self.block / 4;
        let mut index = u64::from(index);
        if index < 12 {
            let at = usize::try_from(index.saturating_mul(4)).map_err(|_| DAMAGED)?;
            return Ok(hole(le32(&inode.here, at)));
        }
        index = index.saturating_sub(12);
        let mut covered = per_block;
        for (level, at) in [(1_u32, 48_usize), (2, 52), (3, 56)] {
            if index >= covered {
                index = index.saturating_sub(covered);
                covered = covered.saturating_mul(per_block);
                continue;
            }
            let mut pointer = hole(le32(&inode.here, at));
            let mut below = covered;
            for _ in 0..level {
                let Some(block) = pointer else { return Ok(None) };
                below = below.checked_div(per_block).ok_or(DAMAGED)?;
                let entry = index.checked_div(below).ok_or(DAMAGED)?;
                index = index.checked_rem(below).ok_or(DAMAGED)?;
                pointer = hole(le32(&self.block(block, entry.saturating_mul(4), 4)?, 0));
            }
            return Ok(pointer);
        }
        Err(DAMAGED)
    }
}

fn hole(pointer: u32) -> Option<u64> {
    (pointer != 0).then_some(u64::from(pointer))
}
