//! From the block allocation table and the sector bitmaps to an extent map.
//!
//! Source: *Virtual Hard Disk Image Format Specification* 1.0, "Block Allocation Table and Data Blocks". An entry is the sector at
//! which a block begins, or all ones. The bitmap, padded to whole sectors, comes first. Only entries of blocks that the disk has
//! are looked at.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use bytes::Bytes;

use super::footer::Footer;
use super::header::Header;
use super::{Details, SECTOR};
use crate::bitmap::{BitOrder, each_run};
use crate::claims::Claims;
use crate::limits::METADATA_STEP;
use crate::span::Window;
use crate::{ExtentMapBuilder, Image, Item, Open, OpenError, Span, State};

/// An entry without a block.
const UNALLOCATED: u32 = u32::MAX;

/// Bytes of an entry.
const ENTRY: usize = 4;

/// Most blocks handled at once: the list of them is short against a step of the table.
const MOST_BLOCKS: usize = 1 << 16;

/// How error messages call the table.
const TABLE: &str = "VHD block allocation table";

/// How far the table has been read.
pub(super) struct Blocks {
    file: Window,
    /// What of the table has not been asked for.
    table: Span,
    /// Where the footer begins.
    end: u64,
    block_size: u64,
    /// Bytes of a bitmap.
    bitmap_len: u64,
    order: BitOrder,
    virtual_size: u64,
    /// Entries handled: the index of the next one.
    index: u64,
    claims: Claims,
    map: ExtentMapBuilder,
    details: Details,
}

/// Guest bytes of a block, and where it is stored if it is.
struct Block {
    guest_len: u64,
    /// Where the sectors begin.
    data: Option<u64>,
}

impl Blocks {
    pub(super) fn new(
        file: Window,
        header: &Header,
        footer: &Footer,
        place: Span,
        virtual_size: u64,
    ) -> Result<Self, OpenError> {
        let block_size = header.block_size;
        let bitmap_len = (block_size / SECTOR).div_ceil(8).next_multiple_of(SECTOR);
        let mut claims = Claims::new(bitmap_len.saturating_add(block_size));
        claims.claim(place, Item::The("VHD footer"))?;
        claims.claim(Span::new(0, Footer::LEN), Item::The("copy of the VHD footer"))?;
        claims.claim(footer.header(place)?, Item::The("data offset in the VHD footer"))?;
        claims.claim(header.table, Item::The("table offset in the VHD header"))?;
        let needed = virtual_size.div_ceil(block_size).saturating_mul(ENTRY as u64);
        Ok(Self {
            file,
            table: Span::new(header.table.start, needed),
            end: place.start,
            block_size,
            bitmap_len,
            order: if footer.has_old_bitmaps() { BitOrder::LowFirst } else { BitOrder::HighFirst },
            virtual_size,
            index: 0,
            claims,
            map: ExtentMapBuilder::new(),
            details: footer.details(Some(block_size)),
        })
    }

    /// Claims something else that the file holds.
    pub(super) fn claim(&mut self, span: Span, what: Item) -> Result<(), OpenError> {
        self.claims.claim(span, what)
    }

    /// Asks for the next part of the table; finishes after the last one.
    pub(super) fn next(mut self) -> Result<Open<Image>, OpenError> {
        if self.table.is_empty() {
            let Self { virtual_size, map, details, .. } = self;
            return Ok(Open::Ready(Image::new(
                virtual_size,
                map.finish(virtual_size),
                crate::Details::Vhd(details),
            )));
        }
        let want = Span::new(self.table.start, self.table.len.min(METADATA_STEP));
        self.table = Span::between(want.end(), self.table.end());
        Ok(Open::need_one(self.file.stored(want), move |part| self.part(part)))
    }

    /// Asks for the first bitmaps that entries of `part` point to.
    fn part(mut self, mut part: Bytes) -> Result<Open<Image>, OpenError> {
        let most = METADATA_STEP.checked_div(self.bitmap_len).unwrap_or(1).max(1);
        let (mut wants, mut blocks) = (Vec::new(), Vec::new());
        let mut taken: usize = 0;
        for entry in part.as_chunks().0 {
            let sector = u32::from_be_bytes(*entry);
            if blocks.len() == MOST_BLOCKS || sector != UNALLOCATED && wants.len() as u64 == most {
                break;
            }
            let guest_start = self.index.saturating_mul(self.block_size);
            let guest_len = self.block_size.min(self.virtual_size.saturating_sub(guest_start));
            let mut data = None;
            if sector != UNALLOCATED {
                let bitmap = self.place(sector, guest_len)?;
                wants.push(self.file.stored(bitmap));
                data = Some(bitmap.end());
            }
            blocks.push(Block { guest_len, data });
            self.index = self.index.saturating_add(1);
            taken = taken.saturating_add(ENTRY);
        }
        let rest = part.split_off(taken.min(part.len()));
        let go_on = |walk: Self| if rest.is_empty() { walk.next() } else { walk.part(rest) };
        if wants.is_empty() {
            self.push(&blocks, &[])?;
            return go_on(self);
        }
        Ok(Open::need(wants, move |bitmaps| {
            self.push(&blocks, &bitmaps)?;
            go_on(self)
        }))
    }

    /// The bitmap of the block that the current entry points to. The last block need not be longer than the disk.
    fn place(&mut self, sector: u32, guest_len: u64) -> Result<Span, OpenError> {
        let what = Item::Entry(TABLE, self.index);
        let bitmap = Span::new(u64::from(sector).saturating_mul(SECTOR), self.bitmap_len);
        let span = |data: u64| Span::new(bitmap.start, self.bitmap_len.saturating_add(data));
        if span(guest_len).end() > self.end {
            return Err(OpenError::Truncated { what, span: span(guest_len), file_len: self.end });
        }
        let whole = span(self.block_size);
        let claimed = if whole.end() > self.end { span(guest_len) } else { whole };
        self.claims.claim(claimed, what)?;
        Ok(bitmap)
    }

    /// Maps blocks; `bitmaps` are those of the stored ones.
    fn push(&mut self, blocks: &[Block], bitmaps: &[Bytes]) -> Result<(), OpenError> {
        let mut bitmaps = bitmaps.iter();
        for &Block { guest_len, data } in blocks {
            let Some(data) = data else {
                self.map.push(guest_len, State::Hole);
                continue;
            };
            let bitmap = bitmaps.next().ok_or(OpenError::Answer)?;
            let mut at = data;
            each_run(bitmap, guest_len / SECTOR, self.order, |sectors, is_here| {
                let len = sectors.saturating_mul(SECTOR);
                let state = if is_here { State::Data(self.file.at(at, len)) } else { State::Hole };
                self.map.push(len, state);
                at = at.saturating_add(len);
            });
            self.map.check_memory()?;
        }
        self.map.check_memory()
    }
}
