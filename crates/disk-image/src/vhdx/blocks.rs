//! From the block allocation table and the sector bitmaps to an extent map.
//!
//! Source: \[MS-VHDX\] 2.5. The table is read in whole chunks: the entries of the blocks that one sector bitmap covers, and the
//! bitmap's own. Only entries of blocks that the disk has are looked at.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use bytes::Bytes;

use super::header::Header;
use super::metadata::Metadata;
use super::regions::Regions;
use super::{Details, DiskType, HEADER_SECTION, MIB};
use crate::bitmap::{BitOrder, each_run};
use crate::claims::Claims;
use crate::limits::METADATA_STEP;
use crate::span::Window;
use crate::{ExtentMapBuilder, Image, Item, Open, OpenError, Span, State};

/// Bytes of an entry.
const ENTRY: u64 = 8;

/// Sectors that one sector bitmap covers.
const SECTORS_PER_BITMAP: u64 = 1 << 23;

/// Bits 3-19 of an entry: reserved. The place, in MiB, stands above them.
const RESERVED: u64 = 0x000f_fff8;

/// Most blocks handled at once, unless a chunk has more: the list of them is short against a step of the table.
const MOST_BLOCKS: usize = 1 << 15;

const TABLE: &str = "VHDX block allocation table";

/// How far the table has been read.
pub(super) struct Blocks {
    file: Window,
    /// What of the table has not been asked for.
    table: Span,
    /// Payload blocks in a chunk.
    ratio: u64,
    metadata: Metadata,
    /// Entries handled: the index of the next one.
    index: u64,
    /// Guest bytes of the blocks whose entries were handled.
    guest: u64,
    claims: Claims,
    map: ExtentMapBuilder,
    details: Details,
}

/// A block, by its entry.
struct Block {
    guest_len: u64,
    stored: Content,
}

enum Content {
    Hole,
    Zero,
    /// Where it begins.
    Whole(u64),
    /// The same, of a block that has a bitmap.
    Partial(u64),
}

impl Blocks {
    pub(super) fn new(
        file: Window,
        header: &Header,
        regions: &Regions,
        metadata: &Metadata,
    ) -> Result<Self, OpenError> {
        let mut claims = Claims::new(metadata.block_size);
        claims.claim(HEADER_SECTION, Item::The("VHDX header section"))?;
        // A log without entries may still have its place.
        if !header.log.is_empty() && header.log.end() > file.len {
            let what = Item::The("VHDX log");
            return Err(OpenError::Truncated { what, span: header.log, file_len: file.len });
        }
        claims.claim(header.log, Item::The("VHDX log offset"))?;
        for (place, what) in &regions.all {
            claims.claim(*place, *what)?;
        }
        let Metadata { block_size, virtual_size, logical_sector_size, .. } = *metadata;
        let chunk = SECTORS_PER_BITMAP.saturating_mul(logical_sector_size.into());
        // Blocks have 2^20 to 2^28 bytes, chunks 2^32 or 2^35.
        let ratio = chunk.checked_div(block_size).unwrap_or(1).max(1);
        let blocks = virtual_size.div_ceil(block_size);
        let chunks = blocks.div_ceil(ratio);
        let bitmaps = match metadata.disk_type {
            DiskType::Differencing => {
                ratio.saturating_mul(chunks).saturating_sub(blocks).saturating_add(chunks)
            }
            _ => chunks.saturating_sub(1),
        };
        let needed = blocks.saturating_add(bitmaps).saturating_mul(ENTRY);
        if needed > regions.bat.len {
            return Err(OpenError::Field {
                what: Item::The("length of the VHDX block allocation table"),
                found: regions.bat.len,
                expected: "room for an entry for each block",
            });
        }
        let details = Details {
            disk_type: metadata.disk_type,
            block_size,
            logical_sector_size,
            physical_sector_size: metadata.physical_sector_size,
            id: metadata.id,
            data_write_id: header.data_write_id,
        };
        Ok(Self {
            file,
            table: Span::new(regions.bat.start, needed),
            ratio,
            metadata: *metadata,
            index: 0,
            guest: 0,
            claims,
            map: ExtentMapBuilder::new(),
            details,
        })
    }

    /// Bytes of the entries of a chunk: at most 256 KiB.
    fn chunk_len(&self) -> u64 {
        self.ratio.saturating_add(1).saturating_mul(ENTRY)
    }

    /// Asks for the next chunks of the table; finishes after the last one.
    pub(super) fn next(mut self) -> Result<Open<Image>, OpenError> {
        if self.table.is_empty() {
            let Self { metadata, map, details, .. } = self;
            let virtual_size = metadata.virtual_size;
            let details = crate::Details::Vhdx(details);
            return Ok(Open::Ready(Image::new(virtual_size, map.finish(virtual_size), details)));
        }
        let chunk = self.chunk_len();
        let step = METADATA_STEP.checked_div(chunk).unwrap_or(1).max(1).saturating_mul(chunk);
        let want = Span::new(self.table.start, self.table.len.min(step));
        self.table = Span::between(want.end(), self.table.end());
        Ok(Open::need_one(self.file.stored(want), move |part| self.part(part)))
    }

    /// Handles the first chunks of `part`, and asks for the bitmaps that they need.
    fn part(mut self, mut part: Bytes) -> Result<Open<Image>, OpenError> {
        let (mut wants, mut blocks) = (Vec::new(), Vec::new());
        let mut asked: u64 = 0;
        while !part.is_empty() && blocks.len() < MOST_BLOCKS && asked.saturating_add(MIB) <= METADATA_STEP {
            let len = usize::try_from(self.chunk_len()).unwrap_or(usize::MAX).min(part.len());
            let bitmaps = self.chunk(&part.split_to(len), &mut blocks)?;
            asked = bitmaps.iter().fold(asked, |sum, bitmap| sum.saturating_add(bitmap.len));
            wants.extend(bitmaps);
        }
        let go_on = |walk: Self| if part.is_empty() { walk.next() } else { walk.part(part) };
        if wants.is_empty() {
            self.push(&blocks, &[])?;
            return go_on(self);
        }
        let wants = wants.into_iter().map(|want| self.file.stored(want)).collect();
        Ok(Open::need(wants, move |bitmaps| {
            self.push(&blocks, &bitmaps)?;
            go_on(self)
        }))
    }

    /// Adds the blocks of a chunk, and says where the bitmaps of those are that need one.
    fn chunk(&mut self, entries: &[u8], blocks: &mut Vec<Block>) -> Result<Vec<Span>, OpenError> {
        let (mut bitmaps, mut partial) = (Vec::new(), Vec::new());
        for (number, entry) in (0_u64..).zip(entries.as_chunks().0) {
            let entry = u64::from_le_bytes(*entry);
            let what = Item::Entry(TABLE, self.index);
            if number == self.ratio {
                bitmaps = self.sector_bitmap(entry, &partial, what)?;
            } else if self.guest < self.metadata.virtual_size {
                let block = self.payload(entry, what)?;
                if matches!(block.stored, Content::Partial(_)) {
                    partial.push(number);
                }
                self.guest = self.guest.saturating_add(block.guest_len);
                blocks.push(block);
            }
            self.index = self.index.saturating_add(1);
        }
        Ok(bitmaps)
    }

    /// What the entry of a payload block says.
    fn payload(&mut self, entry: u64, what: Item) -> Result<Block, OpenError> {
        let guest_len = self.metadata.block_size.min(self.metadata.virtual_size.saturating_sub(self.guest));
        let field = |expected| Err(OpenError::Field { what, found: entry, expected });
        let stored = match entry & 7 {
            0 => Content::Hole,
            1..=3 => Content::Zero,
            6 => Content::Whole(self.place(entry, self.metadata.block_size, guest_len, what)?),
            7 if self.metadata.disk_type != DiskType::Differencing => {
                return field("no partially present block, as there is no parent");
            }
            7 => Content::Partial(self.place(entry, self.metadata.block_size, guest_len, what)?),
            _ => return field("a state that is not reserved: 0 to 3, 6 or 7"),
        };
        Ok(Block { guest_len, stored })
    }

    /// The parts of the sector bitmap that belong to the partially present blocks of a chunk, given by their numbers in it.
    fn sector_bitmap(&mut self, entry: u64, partial: &[u64], what: Item) -> Result<Vec<Span>, OpenError> {
        let field = |expected| Err(OpenError::Field { what, found: entry, expected });
        let start = match entry & 7 {
            0 if partial.is_empty() => return Ok(Vec::new()),
            0 => return field("a sector bitmap, as a block of its chunk is partially present"),
            6 if self.metadata.disk_type == DiskType::Differencing => self.place(entry, MIB, MIB, what)?,
            6 => return field("no sector bitmap, as there is no parent"),
            _ => return field("a state that is not reserved: 0 or 6"),
        };
        // A chunk's bitmap has 2^20 bytes, so each of its 16 to 32768 blocks has a share of whole bytes.
        let share = MIB.checked_div(self.ratio).unwrap_or(MIB);
        let of = |number: &u64| Span::new(start.saturating_add(number.saturating_mul(share)), share);
        Ok(partial.iter().map(of).collect())
    }

    /// Where the entry points to: `len` bytes, of which `needed` must be in the file.
    fn place(&mut self, entry: u64, len: u64, needed: u64, what: Item) -> Result<u64, OpenError> {
        if entry & RESERVED != 0 {
            return Err(OpenError::Field { what, found: entry, expected: "bits 3-19 to be 0" });
        }
        let start = (entry >> 20).saturating_mul(MIB);
        let span = Span::new(start, needed);
        if span.end() > self.file.len {
            return Err(OpenError::Truncated { what, span, file_len: self.file.len });
        }
        let whole = Span::new(start, len);
        self.claims.claim(if whole.end() > self.file.len { span } else { whole }, what)?;
        Ok(start)
    }

    /// Maps blocks; `bitmaps` are those of the partially present ones.
    fn push(&mut self, blocks: &[Block], bitmaps: &[Bytes]) -> Result<(), OpenError> {
        let mut bitmaps = bitmaps.iter();
        let sector = u64::from(self.metadata.logical_sector_size);
        for &Block { guest_len, ref stored } in blocks {
            match *stored {
                Content::Hole => self.map.push(guest_len, State::Hole),
                Content::Zero => self.map.push(guest_len, State::Zero),
                Content::Whole(start) => {
                    self.map.push(guest_len, State::Data(self.file.at(start, guest_len)))
                }
                Content::Partial(mut start) => {
                    let bitmap = bitmaps.next().ok_or(OpenError::Answer)?;
                    let sectors = guest_len.checked_div(sector).unwrap_or(0);
                    each_run(bitmap, sectors, BitOrder::LowFirst, |sectors, is_here| {
                        let len = sectors.saturating_mul(sector);
                        let state = if is_here { State::Data(self.file.at(start, len)) } else { State::Hole };
                        self.map.push(len, state);
                        start = start.saturating_add(len);
                    });
                    self.map.check_memory()?;
                }
            }
        }
        self.map.check_memory()
    }
}
