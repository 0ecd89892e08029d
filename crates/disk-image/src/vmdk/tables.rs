//! The grain directory and the grain tables, read in steps.
//!
//! What their entries mean is in `shape.rs`. A step asks for one part of the directory, or for as many tables as fit; tables that
//! follow one another in the file are one run.

use bytes::Bytes;

use super::SECTOR;
use super::mapper::{MARKER_LEN, Mapper, Placed};
use super::shape::{Grain, Shape};
use crate::limits::METADATA_STEP;
use crate::span::Window;
use crate::{ExtentMap, Item, Open, OpenError, Span, State, Stored};

/// A table without grains is told from others by comparing this many bytes at a time.
const EMPTY: [u8; 64] = [0; 64];

/// How far the directory has been read.
pub(super) struct Tables {
    file: Window,
    /// What of the directory has not been asked for.
    directory: Span,
    /// Directory entries handled: the index of the next one.
    index: u64,
    mapper: Mapper,
}

impl Tables {
    /// Starts at the directory, which must lie inside the file. `extent` is where the guest bytes of this file lie in the disk.
    pub(super) fn new(shape: Shape, file: Window, extent: Span) -> Result<Self, OpenError> {
        let directory = shape.directory();
        if directory.end() > file.len {
            return Err(OpenError::Truncated {
                what: Item::The("VMDK grain directory"),
                span: directory,
                file_len: file.len,
            });
        }
        Ok(Self { file, directory, index: 0, mapper: Mapper::new(shape, file, extent)? })
    }

    /// Asks for the next part of the directory; finishes after the last one.
    pub(super) fn next(mut self) -> Result<Open<ExtentMap>, OpenError> {
        if self.directory.is_empty() {
            return self.finish();
        }
        let start = self.directory.start;
        let want = self.file.at(start, self.directory.len.min(METADATA_STEP));
        self.directory = Span::between(want.span.end(), self.directory.end());
        Ok(Open::need_one(want, move |part| self.directory_part(part)))
    }

    /// Asks for the first tables that entries of `part` point to.
    fn directory_part(mut self, mut part: Bytes) -> Result<Open<ExtentMap>, OpenError> {
        let kind = self.mapper.shape().kind;
        let per_step = METADATA_STEP.checked_div(kind.table_len()).unwrap_or(1);
        let mut runs: Vec<Stored> = Vec::new();
        let mut tables = 0;
        let mut taken: usize = 0;
        for (entry, index) in entries(&part, kind.entry_len()).zip(self.index..) {
            if entry != 0 {
                if tables == per_step {
                    break;
                }
                tables = tables.saturating_add(1);
                let span = self.table_span(entry, index)?;
                let want = self.file.stored(span);
                match runs.last_mut() {
                    Some(last) if last.span.end() == want.span.start => {
                        last.span.len = last.span.len.saturating_add(want.span.len);
                    }
                    _ => runs.push(want),
                }
            }
            taken = taken.saturating_add(kind.entry_len());
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

    /// The bytes of the table that directory entry `index` points to; no other entry may point there.
    fn table_span(&mut self, entry: u64, index: u64) -> Result<Span, OpenError> {
        let what = Item::Entry("grain directory", index);
        let kind = self.mapper.shape().kind;
        let span = Span::new(kind.table(entry, what)?, kind.table_len());
        if span.end() > self.file.len {
            return Err(OpenError::Truncated { what, span, file_len: self.file.len });
        }
        self.mapper.claim(span, what)?;
        Ok(span)
    }

    /// Maps what directory entries cover. `answers` hold, in order, the tables of those that are not 0.
    fn tables(&mut self, directory: &[u8], answers: &[Bytes]) -> Result<(), OpenError> {
        let kind = self.mapper.shape().kind;
        let covers = self.mapper.shape().table_covers();
        let table_len = usize::try_from(kind.table_len()).unwrap_or(usize::MAX);
        let mut tables = answers.iter().flat_map(|run| run.chunks_exact(table_len));
        for entry in entries(directory, kind.entry_len()) {
            match entry {
                0 => self.mapper.gap(covers, State::Hole),
                _ => self.table(tables.next().ok_or(OpenError::Answer)?)?,
            }
            self.index = self.index.saturating_add(1);
        }
        self.mapper.check_memory()
    }

    fn table(&mut self, table: &[u8]) -> Result<(), OpenError> {
        let (kind, grain_len) = (self.mapper.shape().kind, self.mapper.shape().grain_len);
        if table.chunks(EMPTY.len()).all(|chunk| chunk == EMPTY) {
            self.mapper.gap(self.mapper.shape().table_covers(), State::Hole);
            return Ok(());
        }
        for (entry, number) in entries(table, kind.entry_len()).zip(0_u64..) {
            if self.mapper.remaining() == 0 {
                break;
            }
            let item = Item::EntryOf("grain table", self.index, number);
            match kind.grain(entry, grain_len, item)? {
                Grain::Hole => self.mapper.gap(grain_len, State::Hole),
                Grain::Zero => self.mapper.gap(grain_len, State::Zero),
                Grain::At(start) => self.mapper.grain(start, entry, item)?,
            }
        }
        Ok(())
    }

    /// The map; before that, where grains are compressed, a look at the marker of the one that ends the file: a file that was
    /// cut there has all its tables and would be found out only after gigabytes.
    fn finish(self) -> Result<Open<ExtentMap>, OpenError> {
        let Self { file, mapper, .. } = self;
        let (map, last) = mapper.finish();
        let Some(last) = last else { return Ok(Open::Ready(map)) };
        Ok(Open::need_one(file.at(last.start, MARKER_LEN), move |marker| {
            check_marker(&marker, last, file.len)?;
            Ok(Open::Ready(map))
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

/// The entries of a directory or table, each `len` bytes.
fn entries(table: &[u8], len: usize) -> impl Iterator<Item = u64> {
    table.chunks_exact(len).map(|entry| match (entry.first_chunk(), entry.first_chunk()) {
        (_, Some(eight)) => u64::from_le_bytes(*eight),
        (Some(four), None) => u64::from(u32::from_le_bytes(*four)),
        (None, None) => 0,
    })
}
