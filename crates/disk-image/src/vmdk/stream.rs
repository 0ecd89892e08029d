//! A streamOptimized VMDK, written in one pass: what VMware exports, and imports.
//!
//! Source: *Virtual Disk Format 5.0*, "Stream-Optimized Compressed Sparse Extents". In this order: header, embedded descriptor; the
//! grains in guest order, each a zlib stream behind a marker with its sector and length; behind the last grain of each grain table its
//! marker and the table; marker and grain directory; marker and footer, which is the header with the directory's place; an
//! end-of-stream marker. Everything begins at a sector. Grains that are zero throughout are left out, and so are tables without a
//! grain. Version 3, grains of 64 KiB, no redundant directory: those are for files that are changed in place.
//!
//! The content id is a checksum over where the grains lie and over the Adler-32 that ends each stream, so it is the same for the same
//! disk, and changes when the content does.
//!
//! Refused: disks of no bytes (a header without capacity says that there is nothing but a descriptor), and those whose file might
//! be longer than 32 bits count sectors. Cost: 4 bytes for each 32 MiB of the disk, and the table that is being filled.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "what is computed with was checked: a disk's extents, and lengths of our own frames"
)]

use bytes::Bytes;

use super::SECTOR;
use super::footer::FOOTER;
use super::header::{Header, TABLE_ENTRIES};
use super::mapper::MARKER_LEN;
use super::scan::{GRAIN_DIRECTORY, GRAIN_TABLE};
use crate::crc32c::crc32c;
use crate::limits::MAX_VIRTUAL_SIZE;
use crate::{Codec, ExtentMap, Frame, PackedLayout, Placed, Span, Unsettled};

/// Bytes in a grain: what all writers use.
const GRAIN: u64 = 64 << 10;

/// Where the grains begin: as in the files of VMware, in which header and descriptor take a grain.
const HEAD_LEN: u64 = GRAIN;

/// Sectors of the descriptor, as there. The text takes one.
const DESCRIPTOR_SECTORS: u64 = 20;

/// Guest bytes of a grain table.
const TABLE_COVERS: u64 = GRAIN * TABLE_ENTRIES as u64;

/// Bytes of a table and its marker.
const TABLE_LEN: u64 = SECTOR + 4 * TABLE_ENTRIES as u64;

/// Bytes of a grain's stream and its marker: one sector more than a grain. What does not shrink is stored in blocks of at least 5000
/// bytes, at 5 bytes each, and zlib takes 6 bytes.
const MAX_GRAIN_LEN: u64 = GRAIN + SECTOR;

/// Geometry that BIOSes give disks of more than 4 GiB. Nothing depends on it.
const HEADS: u64 = 255;
const TRACK_SECTORS: u64 = 63;
const MAX_CYLINDERS: u64 = 65535;

/// Why there is no streamOptimized VMDK for a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The disk has no byte.
    #[error("a VMDK cannot hold a disk of no bytes")]
    Empty,
    /// The disk is above the limit of [`crate::limits::MAX_VIRTUAL_SIZE`].
    #[error("the virtual size is {0}, the limit is {MAX_VIRTUAL_SIZE}")]
    VirtualSize(u64),
    /// The file may become longer than its pointers reach.
    #[error("the disk stores so much that a VMDK of it may take {0} bytes, a stream has at most 2 TiB")]
    TooMuchData(u64),
}

/// The layout of a streamOptimized VMDK.
#[derive(Debug)]
pub struct Stream {
    header: Header,
    max_len: u64,
    /// Where the next marker stands.
    end: u64,
    /// The content id so far.
    cid: u32,
    table: Table,
    /// The first sector of each table; 0 for one without a grain.
    directory: Vec<u8>,
    /// Head and tail, by their offset; nothing before the layout is sealed.
    literals: Vec<(u64, Bytes)>,
}

/// The grain table that is being filled.
#[derive(Debug, Default)]
struct Table {
    /// Its directory entry.
    index: usize,
    /// The first sector of each grain; empty if there is no grain yet.
    entries: Vec<u8>,
}

impl Stream {
    /// The layout of a disk, of which no grain has its place yet.
    ///
    /// # Errors
    ///
    /// If the disk has no byte, or too many.
    pub fn new(map: &ExtentMap) -> Result<Self, StreamError> {
        let guest_len = map.guest_len();
        if guest_len == 0 {
            return Err(StreamError::Empty);
        }
        if guest_len > MAX_VIRTUAL_SIZE {
            return Err(StreamError::VirtualSize(guest_len));
        }
        let directory = vec![0; small(guest_len.div_ceil(TABLE_COVERS) * 4)];
        let tail = SECTOR + (directory.len() as u64).next_multiple_of(SECTOR) + 3 * SECTOR;
        let (grains, tables) = (stored_units(map, GRAIN), stored_units(map, TABLE_COVERS));
        let max_len = HEAD_LEN + grains * MAX_GRAIN_LEN + tables * TABLE_LEN + tail;
        if max_len / SECTOR > u64::from(u32::MAX) {
            return Err(StreamError::TooMuchData(max_len));
        }
        let (capacity, grain_size) = (guest_len.div_ceil(SECTOR), GRAIN / SECTOR);
        Ok(Self {
            header: Header::of_stream(capacity, grain_size, DESCRIPTOR_SECTORS, HEAD_LEN / SECTOR),
            max_len,
            end: HEAD_LEN,
            cid: crc32c(&[&capacity.to_le_bytes()]),
            table: Table::default(),
            directory,
            literals: Vec::new(),
        })
    }

    /// Takes what stands behind everything else so far, and tells where.
    fn append(&mut self, bytes: u64) -> u64 {
        let at = self.end;
        self.end = (at + bytes).next_multiple_of(SECTOR);
        at
    }

    /// The table that was being filled and its marker, which stand where everything else ends; nothing if it has no grain.
    fn end_table(&mut self) -> Vec<u8> {
        let Table { index, entries } = std::mem::take(&mut self.table);
        if entries.is_empty() {
            return Vec::new();
        }
        let at = self.append(TABLE_LEN);
        put(&mut self.directory, index, at / SECTOR + 1);
        let mut bytes = marker(entries.len() as u64 / SECTOR, GRAIN_TABLE);
        bytes.extend(entries);
        bytes
    }

    fn descriptor(&self) -> String {
        let capacity = self.header.capacity();
        let cylinders = capacity.div_ceil(HEADS * TRACK_SECTORS).min(MAX_CYLINDERS);
        // Of the disk beneath, ffffffff says that there is none.
        let cid = self.cid.min(u32::MAX - 1);
        format!(
            "# Disk DescriptorFile\n\
             version=1\n\
             encoding=\"UTF-8\"\n\
             CID={cid:08x}\n\
             parentCID=ffffffff\n\
             createType=\"streamOptimized\"\n\
             \n\
             # Extent description\n\
             RW {capacity} SPARSE \"disk.vmdk\"\n\
             \n\
             # The Disk Data Base\n\
             #DDB\n\
             \n\
             ddb.adapterType = \"lsilogic\"\n\
             ddb.geometry.cylinders = \"{cylinders}\"\n\
             ddb.geometry.heads = \"{HEADS}\"\n\
             ddb.geometry.sectors = \"{TRACK_SECTORS}\"\n\
             ddb.virtualHWVersion = \"4\"\n"
        )
    }
}

impl PackedLayout for Stream {
    fn unit_len(&self) -> u64 {
        GRAIN
    }

    fn codec(&self) -> Codec {
        Codec::Zlib
    }

    fn max_frame_len(&self) -> u64 {
        MAX_GRAIN_LEN - MARKER_LEN
    }

    fn gap_within(&self) -> u64 {
        0
    }

    fn head_len(&self) -> u64 {
        HEAD_LEN
    }

    fn max_len(&self) -> u64 {
        self.max_len
    }

    fn places_zeroes(&self) -> bool {
        false
    }

    fn place(&mut self, guest: u64, frame: Frame, bytes: &[u8]) -> Placed {
        let index = small(guest / TABLE_COVERS);
        let mut lead = match self.table.index == index {
            true => Vec::new(),
            false => self.end_table(),
        };
        let len = frame.len(GRAIN);
        let at = self.append(MARKER_LEN + len);
        let table = &mut self.table;
        table.index = index;
        table.entries.resize(small(TABLE_LEN - SECTOR), 0);
        put(&mut table.entries, small(guest % TABLE_COVERS / GRAIN), at / SECTOR);
        // A stream ends in the checksum of its content.
        let check = bytes.last_chunk::<4>().map_or(&[][..], <[u8; 4]>::as_slice);
        self.cid = crc32c(&[&self.cid.to_le_bytes(), &guest.to_le_bytes(), check]);
        lead.extend((guest / SECTOR).to_le_bytes());
        lead.extend(u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        Placed { offset: at + MARKER_LEN, lead: lead.into() }
    }

    fn unsettled(&self) -> Unsettled {
        Unsettled { gap: Span::new(self.end, 0), end: self.end }
    }

    fn seal(&mut self) -> u64 {
        let mut head = self.header.encode();
        head.extend(self.descriptor().into_bytes());
        let table = self.end;
        let last = self.end_table();
        let directory = std::mem::take(&mut self.directory);
        let sectors = (directory.len() as u64).div_ceil(SECTOR);
        let directory_at = self.append(SECTOR + directory.len() as u64);
        let footer_at = self.append(2 * SECTOR);
        let mut footer = marker(1, FOOTER);
        footer.extend(self.header.with_directory(directory_at / SECTOR + 1).encode());
        let literals = [
            (0, head),
            (table, last),
            (directory_at, marker(sectors, GRAIN_DIRECTORY)),
            (directory_at + SECTOR, directory),
            (footer_at, footer),
        ];
        let literals = literals.into_iter().filter(|(_, bytes)| !bytes.is_empty());
        self.literals = literals.map(|(at, bytes)| (at, bytes.into())).collect();
        // A marker of zeroes ends the stream.
        self.append(SECTOR);
        self.end
    }

    fn literal_from(&self, at: u64) -> Option<(u64, Bytes)> {
        let (start, bytes) = self.literals.iter().find(|(start, bytes)| start + bytes.len() as u64 > at)?;
        let from = at.max(*start);
        Some((from, bytes.slice(small(from - start)..)))
    }
}

/// How many units of `len` bytes hold stored bytes.
fn stored_units(map: &ExtentMap, len: u64) -> u64 {
    let (mut units, mut next) = (0, 0);
    for extent in map.iter().filter(|extent| extent.state.is_stored()) {
        let (first, end) = ((extent.guest.start / len).max(next), extent.guest.end().div_ceil(len));
        units += end.saturating_sub(first);
        next = next.max(end);
    }
    units
}

/// The marker of what takes so many sectors behind it.
fn marker(sectors: u64, kind: u32) -> Vec<u8> {
    let mut bytes = sectors.to_le_bytes().to_vec();
    bytes.extend([0; 4]);
    bytes.extend(kind.to_le_bytes());
    bytes.resize(small(SECTOR), 0);
    bytes
}

/// Sets an entry of a directory or table to a sector, of which the file has at most 2^32.
fn put(entries: &mut [u8], index: usize, sector: u64) {
    if let Some(entry) = entries.as_chunks_mut().0.get_mut(index) {
        *entry = u32::try_from(sector).unwrap_or(u32::MAX).to_le_bytes();
    }
}

/// A length in memory.
fn small(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
