//! The grain directory and the grain tables, read in steps.
//!
//! Source: *Virtual Disk Format 5.0*, "Grain Directory" and "Grain Table". A directory entry is the sector of a table (0: no table),
//! a table entry the sector of a grain (0: none, 1: zeroes where the header allows it); both are u32. A step asks for one part
//! of the directory, or for as many tables as fit; tables that follow one another in the file are one run.

use bytes::Bytes;

use super::header::{TABLE_ENTRIES, Valid};
use super::mapper::{MARKER_LEN, Mapper, Placed};
use super::{Details, SECTOR};
use crate::limits::METADATA_STEP;
use crate::span::Window;
use crate::{Image, Item, Open, OpenError, Span, State, Stored, Warning};

/// Bytes of a directory entry and of a table entry.
const ENTRY: usize = 4;

/// A grain table: [`TABLE_ENTRIES`] entries.
type Table = [u8; 2048];

/// Bytes of a table.
const TABLE_LEN: u64 = size_of::<Table>() as u64;

/// A grain table entry that means zeroes.
const ZERO_GRAIN: u32 = 1;

/// No table starts before this: header and descriptor take a sector each at least.
const FIRST_TABLE: u64 = 2 * SECTOR;

/// Most tables in a step.
const TABLES_PER_STEP: u64 = METADATA_STEP / TABLE_LEN;

/// A table without grains is told from others by comparing this many bytes at a time.
const EMPTY: [u8; 64] = [0; 64];

/// How far the directory has been read.
pub(super) struct Tables {
    disk: Valid,
    file: Window,
    /// What of the directory has not been asked for.
    directory: Span,
    /// Directory entries handled: the index of the next one.
    index: u64,
    /// Tables asked for.
    tables: u64,
    mapper: Mapper,
    details: Details,
    warnings: Vec<Warning>,
}

impl Tables {
    /// Starts at the directory, which must lie inside the file.
    pub(super) fn new(
        disk: Valid,
        file: Window,
        details: Details,
        warnings: Vec<Warning>,
    ) -> Result<Self, OpenError> {
        let entries = disk.virtual_size.div_ceil(table_covers(&disk));
        let directory = Span::new(disk.directory_start, entries.saturating_mul(ENTRY as u64));
        if directory.end() > file.len {
            return Err(OpenError::Truncated {
                what: Item::The("VMDK grain directory"),
                span: directory,
                file_len: file.len,
            });
        }
        let mapper = Mapper::new(disk, file);
        Ok(Self { disk, file, directory, index: 0, tables: 0, mapper, details, warnings })
    }

    /// Asks for the next part of the directory; finishes after the last one.
    pub(super) fn next(mut self) -> Result<Open<Image>, OpenError> {
        if self.directory.is_empty() {
            return self.finish();
        }
        let start = self.directory.start;
        let want = self.file.at(start, self.directory.len.min(METADATA_STEP));
        self.directory = Span::between(want.span.end(), self.directory.end());
        Ok(Open::need_one(want, move |part| self.directory_part(part)))
    }

    /// Asks for the first tables that entries of `part` point to.
    fn directory_part(mut self, mut part: Bytes) -> Result<Open<Image>, OpenError> {
        let mut runs: Vec<Stored> = Vec::new();
        let mut tables = 0;
        let mut taken: usize = 0;
        for (entry, index) in entries(&part).zip(self.index..) {
            if entry != 0 {
                if tables == TABLES_PER_STEP {
                    break;
                }
                tables = tables.saturating_add(1);
                let span = self.table_span(entry, index)?;
                match runs.last_mut() {
                    Some(last) if last.span.end() == span.start => {
                        last.span.len = last.span.len.saturating_add(span.len);
                    }
                    _ => runs.push(self.file.at(span.start, span.len)),
                }
            }
            taken = taken.saturating_add(ENTRY);
        }
        let now = part.split_to(taken);
        if runs.is_empty() {
            self.tables(&now, &[])?;
            return self.next();
        }
        Ok(Open::need(runs, move |answers| {
            self.tables(&now, &answers)?;
            if part.is_empty() { self.next() } else { self.directory_part(part) }
        }))
    }

    /// The bytes of the table that directory entry `index` points to.
    fn table_span(&mut self, sector: u32, index: u64) -> Result<Span, OpenError> {
        let what = Item::Entry("grain directory", index);
        let span = Span::new(u64::from(sector).saturating_mul(SECTOR), TABLE_LEN);
        if span.start < FIRST_TABLE {
            let expected = "0 or a sector past header and descriptor";
            return Err(OpenError::Field { what, found: u64::from(sector), expected });
        }
        if span.end() > self.file.len {
            return Err(OpenError::Truncated { what, span, file_len: self.file.len });
        }
        // Bounds the time that a directory which points to one table again and again can take.
        self.tables = self.tables.saturating_add(1);
        if self.tables.saturating_mul(TABLE_LEN) > self.file.len {
            return Err(OpenError::Shared { what: Item::The("VMDK grain tables"), file_len: self.file.len });
        }
        Ok(span)
    }

    /// Maps what directory entries cover. `answers` hold, in order, the tables of those that are not 0.
    fn tables(&mut self, directory: &[u8], answers: &[Bytes]) -> Result<(), OpenError> {
        let mut tables = answers.iter().flat_map(|run| run.as_chunks().0);
        for entry in entries(directory) {
            match entry {
                0 => self.mapper.gap(table_covers(&self.disk), State::Hole),
                _ => self.table(tables.next().ok_or(OpenError::Answer)?)?,
            }
            self.index = self.index.saturating_add(1);
        }
        self.mapper.check_memory()
    }

    fn table(&mut self, table: &Table) -> Result<(), OpenError> {
        if table.chunks(EMPTY.len()).all(|chunk| chunk == EMPTY) {
            self.mapper.gap(table_covers(&self.disk), State::Hole);
            return Ok(());
        }
        for (sector, entry) in entries(table).zip(0_u64..) {
            if self.mapper.remaining() == 0 {
                break;
            }
            let item = Item::EntryOf("grain table", self.index, entry);
            match sector {
                0 => self.mapper.gap(self.disk.grain_len, State::Hole),
                ZERO_GRAIN if self.disk.zero_grains => self.mapper.gap(self.disk.grain_len, State::Zero),
                sector => self.mapper.grain(sector, item)?,
            }
        }
        Ok(())
    }

    /// The image; before that, where grains are compressed, a look at the marker of the one that ends the file: a file that was
    /// cut there has all its tables and would be found out only after gigabytes.
    fn finish(self) -> Result<Open<Image>, OpenError> {
        let Self { disk, file, mapper, details, warnings, .. } = self;
        let (map, last) = mapper.finish();
        let mut image = Image::new(disk.virtual_size, map, crate::Details::Vmdk(details));
        image.warnings = warnings;
        let Some(last) = last else { return Ok(Open::Ready(image)) };
        Ok(Open::need_one(file.at(last.start, MARKER_LEN), move |marker| {
            check_marker(&marker, last, file.len)?;
            Ok(Open::Ready(image))
        }))
    }
}

fn check_marker(marker: &[u8], grain: Placed, file_len: u64) -> Result<(), OpenError> {
    let (sector, rest) = marker.split_first_chunk().ok_or(OpenError::Answer)?;
    let len = rest.first_chunk().ok_or(OpenError::Answer)?;
    let (sector, len) = (u64::from_le_bytes(*sector), u32::from_le_bytes(*len));
    if sector != grain.guest / SECTOR {
        return Err(OpenError::Field {
            what: Item::The("sector in the marker of the last grain"),
            found: sector,
            expected: "the sector that its grain table entry stands for",
        });
    }
    let span = Span::new(grain.start, MARKER_LEN.saturating_add(u64::from(len)));
    if span.end() > file_len {
        return Err(OpenError::Truncated { what: grain.entry, span, file_len });
    }
    Ok(())
}

/// Guest bytes that one table covers.
fn table_covers(disk: &Valid) -> u64 {
    disk.grain_len.saturating_mul(u64::from(TABLE_ENTRIES)).max(1)
}

fn entries(table: &[u8]) -> impl Iterator<Item = u32> {
    table.as_chunks().0.iter().map(|entry| u32::from_le_bytes(*entry))
}
