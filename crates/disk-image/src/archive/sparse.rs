//! The map of a sparse member: which of its bytes the archive holds, and that the others are holes.
//!
//! Source: the manual of GNU tar 1.35, "Sparse Formats". Old GNU format: a header of type `S` has four entries of offset and length and
//! the real size, blocks of 21 entries follow while each says so. PAX format 0.0 and 0.1: records of an extended header. PAX
//! format 1.0: decimal numbers, one a line, at the start of the content, filled up to a block. What is stored lies one run
//! behind the other in all of them.
//!
//! Refused: runs that do not ascend, share bytes or reach past the member's end, a map that does not tell of exactly the bytes
//! stored, blocks without an entry, and more than [`MAX_ARCHIVE_RUNS`](crate::limits::MAX_ARCHIVE_RUNS). Cost: 16 bytes a run.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::tar::{BLOCK, check_runs, decimal, number};
use crate::fields::Fields;
use crate::{Item, OpenError, Span};

/// Where the header has its entries, its flag that more follow, and the real size.
const HEADER_ENTRIES: (usize, usize) = (386, 4);
const HEADER_MORE: usize = 482;
const HEADER_REAL_SIZE: usize = 483;

/// The same in a block that follows.
const BLOCK_ENTRIES: (usize, usize) = (0, 21);
const BLOCK_MORE: usize = 504;

/// Bytes of an entry, half of which are the offset.
const ENTRY: usize = 24;

/// How errors call an entry.
const MAP: &str = "sparse map";

/// What a sparse member holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SparseMap {
    /// Length of the file, bytes.
    pub(crate) real_size: u64,
    /// What of it is stored: not empty, ascending, apart.
    pub(crate) runs: Vec<Span>,
    /// Bytes in the runs.
    stored: u64,
    /// Entries read.
    entries: u64,
}

impl SparseMap {
    /// The map of a file of which nothing is stored so far.
    pub(super) fn new(real_size: u64) -> Self {
        Self { real_size, runs: Vec::new(), stored: 0, entries: 0 }
    }

    /// Adds an entry.
    pub(super) fn add(&mut self, offset: u64, len: u64) -> Result<(), OpenError> {
        let what = Item::Entry(MAP, self.entries);
        self.entries = self.entries.saturating_add(1);
        // What is empty or goes on where the last one ended makes no run, and still takes time. One more than runs: the end.
        check_runs(usize::try_from(self.entries.saturating_sub(1)).unwrap_or(usize::MAX))?;
        let run = Span::new(offset, len);
        if run.end() > self.real_size {
            let expected = "a run that ends where the file does, or before";
            return Err(OpenError::Field { what, found: run.end(), expected });
        }
        let last = self.runs.last().map_or(0, Span::end);
        if run.start < last {
            return Err(OpenError::Field { what, found: offset, expected: "a run behind the one before it" });
        }
        // Writers end the map with an empty run where the file ends.
        if run.is_empty() {
            return Ok(());
        }
        self.stored = self.stored.saturating_add(len);
        match self.runs.last_mut() {
            Some(before) if before.end() == run.start => before.len = before.len.saturating_add(len),
            _ => self.runs.push(run),
        }
        check_runs(self.runs.len())
    }

    /// Fails unless the runs are as long as what is stored.
    pub(crate) fn check(&self, stored: u64) -> Result<(), OpenError> {
        if self.stored == stored {
            return Ok(());
        }
        let expected = "as many bytes as the runs of its map have";
        Err(OpenError::Field { what: Item::The("length of a sparse member"), found: stored, expected })
    }

    /// The start of the map in an old GNU header, and whether blocks follow.
    pub(crate) fn of_header(header: &[u8]) -> Result<(Self, bool), OpenError> {
        let fields = Fields(header);
        let real_size = fields.slice(HEADER_REAL_SIZE, ENTRY / 2);
        let real_size = number(real_size).ok_or(OpenError::Field {
            what: Item::The("real size of a sparse member"),
            found: Fields(real_size).be64(0),
            expected: "a number",
        })?;
        let mut map = Self::new(real_size);
        map.add_entries(fields, HEADER_ENTRIES)?;
        Ok((map, fields.bytes(HEADER_MORE) != [0]))
    }

    /// Adds a block of the old GNU format, and tells whether another one follows.
    pub(crate) fn add_block(&mut self, block: &[u8]) -> Result<bool, OpenError> {
        let fields = Fields(block);
        let before = self.entries;
        self.add_entries(fields, BLOCK_ENTRIES)?;
        // Else blocks could follow without end.
        if self.entries == before {
            let (what, expected) = (Item::Entry(MAP, before), "an entry in each block of the map");
            return Err(OpenError::Field { what, found: fields.be64(0), expected });
        }
        Ok(fields.bytes(BLOCK_MORE) != [0])
    }

    fn add_entries(&mut self, fields: Fields<'_>, (at, count): (usize, usize)) -> Result<(), OpenError> {
        let entries = fields.slice(at, count.saturating_mul(ENTRY));
        for entry in entries.chunks_exact(ENTRY) {
            let (offset, len) = entry.split_at(ENTRY / 2);
            if len.first() == Some(&0) {
                break;
            }
            let (Some(offset), Some(len)) = (number(offset), number(len)) else {
                return Err(OpenError::Field {
                    what: Item::Entry(MAP, self.entries),
                    found: Fields(entry).be64(0),
                    expected: "an offset and a length",
                });
            };
            self.add(offset, len)?;
        }
        Ok(())
    }
}

/// A map of PAX format 1.0, block by block.
#[derive(Debug, Default)]
pub(super) struct Text {
    /// Numbers that are still to come; unknown before the first one, which says how many entries there are.
    left: Option<u64>,
    /// The offset of the entry whose length comes next.
    offset: Option<u64>,
    /// Digits of a number that the last block cut.
    digits: Vec<u8>,
}

impl Text {
    /// Adds the entries of a block, and tells whether another one follows.
    pub(super) fn add_block(&mut self, map: &mut SparseMap, block: &[u8]) -> Result<bool, OpenError> {
        let mut lines = block.split(|&byte| byte == b'\n').peekable();
        while let Some(line) = lines.next() {
            self.digits.extend(line);
            if lines.peek().is_none() {
                break;
            }
            // No number has as many digits as a block has bytes, so this stays small.
            let line = std::mem::take(&mut self.digits);
            let what = Item::Entry(MAP, map.entries);
            let found = Fields(&line).be64(0);
            let number = decimal(&line).ok_or(OpenError::Field { what, found, expected: "a number" })?;
            match (self.left, self.offset.take()) {
                (None, _) => self.left = Some(number.saturating_mul(2)),
                (Some(left), None) => {
                    self.offset = Some(number);
                    self.left = Some(left.saturating_sub(1));
                }
                (Some(left), Some(offset)) => {
                    map.add(offset, number)?;
                    self.left = Some(left.saturating_sub(1));
                }
            }
            if self.left == Some(0) {
                return Ok(false);
            }
        }
        if self.digits.len() as u64 > BLOCK {
            let found = self.digits.len() as u64;
            return Err(OpenError::Field {
                what: Item::The("line of a sparse map"),
                found,
                expected: "a number",
            });
        }
        Ok(true)
    }
}
