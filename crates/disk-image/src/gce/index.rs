//! The index of an archive: where its gzip members are.
//!
//! It is made of gzip members that are empty, so that any gzip passes over them. The extra field of each (RFC 1952, 2.3.1.1) has one
//! subfield, `DI`, with the lengths of the members before it, from the last such one on, 4 bytes each, and how many they
//! are, all little-endian. What stands behind the field is the same in each, so the last one of a file is found from its end, and
//! each one before it from where the lengths lead. All but the last have [`MOST`] lengths: that bounds the steps.
//!
//! Every byte of the file belongs to one member by the index, and each member is held to decode from where it begins; it is not proved
//! that it ends exactly where the next one begins. A file could be made that other programs read as other content.
//!
//! Cost: 4 bytes a member; a read for each [`MOST`] of them.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::fields::Fields;
use crate::map::check_memory;
use crate::span::Window;
use crate::{Compression, Feature, Item, Open, OpenError, Span};

/// Lengths in a full member of the index: what a subfield of 16 bits of length holds, and a round number.
pub(super) const MOST: usize = 16_000;

/// What it begins with: magic, deflate, an extra field, no time, unknown system.
const START: [u8; 10] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255];

/// Name of the subfield.
const NAME: [u8; 2] = *b"DI";

/// What it ends with: an empty deflate block, the checksum and the length of nothing.
const END: [u8; 10] = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Bytes besides the lengths: start, length of the field, name and length of the subfield, count, end.
const AROUND: u64 = 10 + 2 + 4 + 4 + 10;

/// The shortest gzip member, bytes.
const LEAST_MEMBER: u32 = 20;

/// Bytes of the index of so many members.
pub(super) fn len(members: u64) -> u64 {
    const EACH: u64 = MOST as u64;
    let (full, last) = (members / EACH, members % EACH);
    let of = |lengths: u64| lengths.saturating_mul(4).saturating_add(AROUND);
    full.saturating_mul(of(EACH)).saturating_add(if last > 0 { of(last) } else { 0 })
}

/// An index while it is written.
#[derive(Debug, Default)]
pub(super) struct Writer {
    lengths: Vec<u8>,
    count: u32,
}

impl Writer {
    /// Adds a member.
    pub(super) fn push(&mut self, len: u64) {
        self.lengths.extend(u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        self.count = self.count.saturating_add(1);
    }

    /// What has to stand before the next member: a member of the index, or nothing.
    pub(super) fn when_full(&mut self) -> Vec<u8> {
        if self.count as usize == MOST { self.end() } else { Vec::new() }
    }

    /// The member of the index for what was pushed since the last one.
    pub(super) fn end(&mut self) -> Vec<u8> {
        let Self { mut lengths, count } = std::mem::take(self);
        lengths.extend(count.to_le_bytes());
        let short = |len: usize| u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes();
        let mut bytes = START.to_vec();
        bytes.extend(short(lengths.len().saturating_add(4)));
        bytes.extend(NAME);
        bytes.extend(short(lengths.len()));
        bytes.extend(lengths);
        bytes.extend(END);
        bytes
    }
}

/// Where the members of a file are, without those of the index. Not empty.
#[derive(Debug)]
pub(super) struct Members {
    /// Members that lie one behind the other: where the first one begins, and how long they are.
    groups: Vec<(u64, Vec<u32>)>,
}

impl Members {
    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.groups.iter().map(|(_, lengths)| lengths.len() as u64).sum()
    }

    /// Memory that it takes, bytes.
    pub(super) fn memory(&self) -> usize {
        self.groups.iter().fold(0, |sum, (_, lengths)| sum.saturating_add(lengths.len().saturating_mul(4)))
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Span> {
        self.groups.iter().flat_map(|(start, lengths)| {
            lengths.iter().scan(*start, |at, &len| {
                let member = Span::new(*at, len.into());
                *at = member.end();
                Some(member)
            })
        })
    }

    /// Reads the index of a file.
    pub(super) fn read(file: Window) -> Result<Open<Self>, OpenError> {
        Walk { file, end: file.len, groups: Vec::new(), memory: 0 }.ask()
    }
}

/// An index while it is read, from its end.
struct Walk {
    file: Window,
    /// Where the member of the index ends that comes next.
    end: u64,
    /// From last to first.
    groups: Vec<(u64, Vec<u32>)>,
    memory: usize,
}

impl Walk {
    fn ask(self) -> Result<Open<Members>, OpenError> {
        let want = Span::between(self.end.saturating_sub(len(MOST as u64)), self.end);
        Ok(Open::need_one(self.file.stored(want), move |bytes| self.step(&bytes)))
    }

    fn step(mut self, bytes: &[u8]) -> Result<Open<Members>, OpenError> {
        let what = Item::Numbered("gzip member index", self.groups.len() as u64);
        let Some(lengths) = parse(bytes) else {
            let span = Span::between(self.end.saturating_sub(bytes.len() as u64), self.end);
            return Err(match self.groups.is_empty() {
                true => OpenError::Unsupported(Feature::Compressed(Compression::Gzip)),
                false => OpenError::Missing { what, span },
            });
        };
        if !self.groups.is_empty() && lengths.len() != MOST {
            let (found, expected) = (lengths.len() as u64, "full, as it is not the last one");
            return Err(OpenError::Field { what, found, expected });
        }
        if let Some(&found) = lengths.iter().find(|&&len| len < LEAST_MEMBER) {
            return Err(OpenError::Field {
                what,
                found: found.into(),
                expected: "of members with 20 bytes or more",
            });
        }
        self.memory = self.memory.saturating_add(lengths.len().saturating_mul(4));
        check_memory(self.memory)?;
        let total: u64 = lengths.iter().map(|&len| u64::from(len)).sum();
        let total = total.saturating_add(len(lengths.len() as u64));
        let start = self.end.checked_sub(total);
        let start =
            start.ok_or(OpenError::Field { what, found: total, expected: "of members inside the file" })?;
        self.groups.push((start, lengths));
        if start > 0 {
            return Self { end: start, ..self }.ask();
        }
        self.groups.reverse();
        Ok(Open::Ready(Members { groups: self.groups }))
    }
}

/// The lengths in the member of the index that `bytes` end with.
fn parse(bytes: &[u8]) -> Option<Vec<u32>> {
    let rest = bytes.strip_suffix(&END)?;
    let (rest, count) = rest.split_last_chunk()?;
    let count = u32::from_le_bytes(*count) as usize;
    if !(1..=MOST).contains(&count) {
        return None;
    }
    let (rest, lengths) = rest.split_at(rest.len().checked_sub(count.checked_mul(4)?)?);
    let (_, start) = rest.split_last_chunk::<16>()?;
    let fields = Fields(start);
    let field = count.checked_mul(4)?.checked_add(4)?;
    let is_index = fields.bytes(0) == START
        && usize::from(fields.le16(10)) == field.checked_add(4)?
        && fields.bytes(12) == NAME
        && usize::from(fields.le16(14)) == field;
    is_index.then(|| lengths.as_chunks().0.iter().map(|&len| u32::from_le_bytes(len)).collect())
}
