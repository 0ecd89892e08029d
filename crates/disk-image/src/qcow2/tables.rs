//! From the L1 and L2 tables to an extent map.
//!
//! Source: QEMU `docs/interop/qcow2.rst`, section "Cluster mapping". Both levels are streamed in steps: the L1 table leaves the list
//! of L2 tables that exist, and each L2 table leaves runs in the map. Only what maps the virtual disk is looked at: entries
//! past its end belong to saved VM state.
//!
//! Refused: a pointer that is not aligned, has reserved bits, or leads past the end of the file; an L2 table that is used twice
//! or lies on another table, because a file of 70 KiB could then ask for hours of work. Cost: 12 bytes an L2 table, and the map.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::limits::MAX_MAP_MEMORY;
use crate::qcow2::header::{Checked, ENTRY, Header};
use crate::span::Window;
use crate::{Details, ExtentMapBuilder, Image, Item, Open, OpenError, Span, State, Warning};

/// Guest disks are made of sectors of this size, and compressed clusters are counted in them.
const SECTOR: u64 = 512;

/// Bits 9-55 of an L1 entry or a standard L2 entry: the offset in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Bits of an L1 entry that must be 0. Bit 63 says that the refcount is 1, and need not be right.
const L1_RESERVED: u64 = 0x7f00_0000_0000_01ff;
/// Bits of a standard L2 entry that must be 0.
const L2_RESERVED: u64 = 0x3f00_0000_0000_01fe;
/// Bit 62 of an L2 entry.
const COMPRESSED: u64 = 1 << 62;
/// Bit 0 of a standard L2 entry: reads as zero.
const ZERO: u64 = 1;

/// How error messages call the tables.
const L1_TABLE: &str = "L1 table";
const L2_TABLE: &str = "L2 table";

/// Reads the tables of a file, about `step` bytes at a time.
pub(super) fn read(checked: Checked, file: Window, step: u64) -> Result<Open<Image>, OpenError> {
    let geometry = Geometry::new(checked.header, file);
    Walk { checked, geometry, step, tables: Tables::default(), map: ExtentMapBuilder::new() }.l1(0)
}

/// What is known so far. Handed from step to step.
struct Walk {
    checked: Checked,
    geometry: Geometry,
    step: u64,
    tables: Tables,
    map: ExtentMapBuilder,
}

/// The L2 tables that exist, in guest order.
#[derive(Default)]
struct Tables {
    /// Which L1 entry points to the table.
    index: Vec<u32>,
    /// Where the table starts.
    start: Vec<u64>,
}

impl Walk {
    /// Reads the L1 table from entry `first` on.
    fn l1(mut self, first: u64) -> Result<Open<Image>, OpenError> {
        let whole = self.checked.header.l1_table();
        let at = whole.start.saturating_add(first.saturating_mul(ENTRY));
        let want = Span::between(at, whole.end().min(at.saturating_add(self.step)));
        if want.is_empty() {
            self.check_overlaps()?;
            return self.l2(0);
        }
        Ok(Open::need_one(self.geometry.file.stored(want), move |bytes| {
            for (index, entry) in (first..).zip(entries(&bytes)) {
                if let Some(start) = self.geometry.l2_table(entry, index)? {
                    self.tables.push(index, start);
                }
            }
            self.check_memory()?;
            self.l1(first.saturating_add(want.len / ENTRY))
        }))
    }

    /// Reads the L2 tables from the `first` one on.
    fn l2(mut self, first: usize) -> Result<Open<Image>, OpenError> {
        let cluster = self.geometry.cluster;
        let count = usize::try_from(self.step.div_ceil(cluster)).unwrap_or(1);
        let Some(starts) = self.tables.start.get(first..).filter(|rest| !rest.is_empty()) else {
            return Ok(Open::Ready(self.finish()));
        };
        let mut wants: Vec<Span> = Vec::new();
        let mut next = first;
        for &start in starts.iter().take(count) {
            match wants.last_mut() {
                Some(last) if last.end() == start => last.len = last.len.saturating_add(cluster),
                _ => wants.push(Span::new(start, cluster)),
            }
            next = next.saturating_add(1);
        }
        let wants = wants.into_iter().map(|want| self.geometry.file.stored(want)).collect();
        Ok(Open::need(wants, move |answers| {
            let tables = answers.iter().flat_map(|bytes| bytes.chunks_exact(self.geometry.cluster_usize()));
            let indices = self.tables.index.get(first..).unwrap_or_default().iter();
            for (table, &index) in tables.zip(indices) {
                self.geometry.push_table(&mut self.map, table, index.into())?;
                check_memory(&self.map, &self.tables)?;
            }
            self.l2(next)
        }))
    }

    fn finish(self) -> Image {
        let Self { checked, geometry, map, .. } = self;
        let header = checked.header;
        let virtual_size = geometry.guest_len.next_multiple_of(SECTOR);
        let mut warnings = Vec::new();
        if virtual_size != geometry.guest_len {
            warnings.push(Warning::PartialSector(geometry.guest_len));
        }
        if header.is_dirty() {
            warnings.push(Warning::Dirty);
        }
        if header.is_corrupt() {
            warnings.push(Warning::Corrupt);
        }
        if header.nb_snapshots > 0 {
            warnings.push(Warning::Snapshots(header.nb_snapshots));
        }
        let mut image = Image::new(virtual_size, map.finish(virtual_size), Details::Qcow2(checked.details()));
        image.warnings = warnings;
        image
    }

    fn check_memory(&self) -> Result<(), OpenError> {
        check_memory(&self.map, &self.tables)
    }

    /// Refuses an L2 table that is used twice, or lies on the L1 or the refcount table. Clusters are aligned, so two tables of one
    /// cluster either are the same or do not meet.
    fn check_overlaps(&self) -> Result<(), OpenError> {
        let header = &self.checked.header;
        let others = [
            (header.l1_table(), Item::The("L1 table")),
            (header.refcount_table(), Item::The("refcount table")),
        ];
        for (&index, &start) in self.tables.index.iter().zip(&self.tables.start) {
            let table = Span::new(start, self.geometry.cluster);
            if let Some((_, other)) = others.iter().find(|(span, _)| !span.intersect(table).is_empty()) {
                let what = Item::Entry(L1_TABLE, index.into());
                return Err(OpenError::Overlap { what, other: *other, at: start });
            }
        }
        match self.tables.shared() {
            Some((first, second, at)) => Err(OpenError::Overlap {
                what: Item::Entry(L1_TABLE, second.into()),
                other: Item::Entry(L1_TABLE, first.into()),
                at,
            }),
            None => Ok(()),
        }
    }
}

fn check_memory(map: &ExtentMapBuilder, tables: &Tables) -> Result<(), OpenError> {
    let found = map.memory().saturating_add(tables.memory());
    if found > MAX_MAP_MEMORY {
        return Err(OpenError::Limit {
            what: Item::The("memory of the extent map"),
            found: found as u64,
            limit: MAX_MAP_MEMORY as u64,
        });
    }
    Ok(())
}

impl Tables {
    fn push(&mut self, index: u64, start: u64) {
        // An L1 table has at most 2^22 entries.
        self.index.push(u32::try_from(index).unwrap_or(u32::MAX));
        self.start.push(start);
    }

    fn memory(&self) -> usize {
        size_of_val(self.start.as_slice()).saturating_add(size_of_val(self.index.as_slice()))
    }

    /// Two L1 entries that point to one table, and where it is.
    fn shared(&self) -> Option<(u32, u32, u64)> {
        let mut sorted = self.start.clone();
        sorted.sort_unstable();
        let twice = sorted.windows(2).find_map(|pair| match pair {
            [a, b] if a == b => Some(*a),
            _ => None,
        })?;
        let mut users =
            self.index.iter().zip(&self.start).filter(|(_, start)| **start == twice).map(|(i, _)| *i);
        Some((users.next()?, users.next()?, twice))
    }
}

/// What decoding of an entry depends on.
struct Geometry {
    header: Header,
    /// Where the tables and the clusters lie.
    file: Window,
    /// Bytes in a cluster.
    cluster: u64,
    /// Guest bytes that exist, by the header.
    guest_len: u64,
    /// Bits of a compressed entry that hold its offset; the sector count stands above them.
    offset_bits: u32,
}

impl Geometry {
    fn new(header: Header, file: Window) -> Self {
        Self {
            header,
            file,
            cluster: header.cluster_size(),
            guest_len: header.size,
            // `cluster_bits` was checked to be 9 to 21.
            offset_bits: 70_u32.saturating_sub(header.cluster_bits),
        }
    }

    fn cluster_usize(&self) -> usize {
        usize::try_from(self.cluster).unwrap_or(usize::MAX)
    }

    /// Where the L2 table of an L1 entry starts; `None` if it does not exist.
    fn l2_table(&self, entry: u64, index: u64) -> Result<Option<u64>, OpenError> {
        let start = entry & OFFSET;
        let fault =
            |expected| OpenError::Field { what: Item::Entry(L1_TABLE, index), found: entry, expected };
        if entry & L1_RESERVED != 0 {
            return Err(fault("bits 0-8 and 56-62 to be 0"));
        }
        if start == 0 {
            return Ok(None);
        }
        if !start.is_multiple_of(self.cluster) {
            return Err(fault("a multiple of the cluster size"));
        }
        self.check_inside(Item::Entry(L1_TABLE, index), Span::new(start, self.cluster))?;
        Ok(Some(start))
    }

    /// Appends the guest clusters of the L2 table that L1 entry `index` points to.
    fn push_table(&self, map: &mut ExtentMapBuilder, table: &[u8], index: u64) -> Result<(), OpenError> {
        let reach = self.header.l2_reach();
        let first = index.saturating_mul(reach);
        map.push(first.saturating_sub(map.guest_len()), State::Hole);
        let mut left = self.guest_len.saturating_sub(first);
        for (number, entry) in (0..).zip(entries(table)) {
            if left == 0 {
                break;
            }
            let visible = left.min(self.cluster);
            map.push(visible, self.state(entry, visible, (index, number))?);
            left = left.saturating_sub(visible);
        }
        Ok(())
    }

    /// What an L2 entry says of a cluster of which the guest sees `visible` bytes.
    fn state(&self, entry: u64, visible: u64, at: (u64, u64)) -> Result<State, OpenError> {
        if entry == 0 {
            return Ok(State::Hole);
        }
        if entry & COMPRESSED != 0 {
            return self.compressed(entry, at);
        }
        let start = entry & OFFSET;
        if entry & L2_RESERVED != 0 {
            return Err(fault(at, entry, "bits 1-8 and 56-61 to be 0"));
        }
        if !start.is_multiple_of(self.cluster) {
            return Err(fault(at, entry, "a multiple of the cluster size"));
        }
        if entry & ZERO != 0 {
            // A zero cluster may keep its place in the file; nothing is read from there.
            return match self.header.version {
                2 => Err(fault(at, entry, "no zero flag, as this is version 2")),
                _ => Ok(State::Zero),
            };
        }
        if start == 0 {
            return Err(fault(at, entry, "an offset above 0"));
        }
        let span = Span::new(start, visible);
        self.check_inside(Item::EntryOf(L2_TABLE, at.0, at.1), span)?;
        Ok(State::Data(self.file.stored(span)))
    }

    fn compressed(&self, entry: u64, at: (u64, u64)) -> Result<State, OpenError> {
        let descriptor = entry & (COMPRESSED - 1);
        let start = descriptor & (1_u64 << self.offset_bits).saturating_sub(1);
        let more_sectors = descriptor >> self.offset_bits;
        if start >> 56 != 0 {
            return Err(fault(at, entry, "offset bits above 55 to be 0"));
        }
        if start < self.cluster {
            return Err(fault(at, entry, "an offset past the header's cluster"));
        }
        // At most 2 cluster sizes past an offset below 2^56.
        let sectors_end =
            (start / SECTOR).saturating_add(more_sectors).saturating_add(1).saturating_mul(SECTOR);
        // A writer need not fill up the last sector of the file, and some count one too many.
        let least = Span::between(start, sectors_end.saturating_sub(SECTOR).max(start.saturating_add(1)));
        self.check_inside(Item::EntryOf(L2_TABLE, at.0, at.1), least)?;
        let span = Span::between(start, sectors_end.min(self.file.len));
        Ok(State::Encoded {
            stored: self.file.stored(span),
            encoding: self.header.compression(),
            unit_len: self.cluster,
            skip: 0,
        })
    }

    fn check_inside(&self, what: Item, span: Span) -> Result<(), OpenError> {
        if span.end() > self.file.len {
            return Err(OpenError::Truncated { what, span, file_len: self.file.len });
        }
        Ok(())
    }
}

fn fault((table, entry): (u64, u64), found: u64, expected: &'static str) -> OpenError {
    OpenError::Field { what: Item::EntryOf(L2_TABLE, table, entry), found, expected }
}

/// The entries of a table, or of a piece of one.
fn entries(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks().0.iter().map(|&entry| u64::from_be_bytes(entry))
}
