//! The archive, written in one pass: nothing of it depends on what comes later, so it leaves from its first byte to its last.
//!
//! The tar header stands before the content, and says which of it are holes: that is known from the map, not from the content. So what
//! the image stores is stored, by whole units, and where it turns out to be zero it is a member of a thousandth of its length. A
//! raw disk in which that is much is scanned before, map to map, as for a plain QCOW2. A unit is [`UNIT`] bytes; of disks in more
//! than [`MAX_ARCHIVE_RUNS`] pieces twice that, and so on.
//!
//! The same map and content give the same bytes: each member is compressed alone, and members stand in guest order. That
//! is what an upload that goes on rests on too. Its journal knows the parts that arrived and their checksums, not members: a part
//! begins and ends inside of them. So everything is compressed again from the start, each part comes out as it was, and those that the
//! store has are not sent. To begin in the middle, the journal would have to hold the place of a member for each
//! part, and to be believed about bytes that nobody made.
//!
//! Refused: disks of no bytes, and above [`MAX_VIRTUAL_SIZE`]. Cost: while it is made 40 bytes for each hole, of the layout the
//! compressed header (a few for each hole) and 64 KB of index.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "what is computed with was checked: a disk's extents, and lengths of our own frames"
)]

use bytes::Bytes;

use super::{GIB, RECORD, header, index};
use crate::archive::tar::BLOCK;
use crate::limits::{MAX_ARCHIVE_RUNS, MAX_VIRTUAL_SIZE};
use crate::{Codec, Encoder, ExtentMap, Frame, PackedLayout, Placed, Span, Unsettled};

/// Guest bytes of a unit, if the map of the archive does not become too long. Longer ones compress better, and leave out less of what
/// is sparse.
const UNIT: u64 = 256 << 10;

/// Why there is no archive for a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The disk has no byte.
    #[error("an archive cannot hold a disk of no bytes")]
    Empty,
    /// The disk is above the limit of [`crate::limits::MAX_VIRTUAL_SIZE`].
    #[error("the virtual size is {0}, the limit is {MAX_VIRTUAL_SIZE}")]
    VirtualSize(u64),
}

/// The layout of an archive for Compute Engine.
#[derive(Debug)]
pub struct Archive {
    unit: u64,
    max_len: u64,
    /// Header and map, compressed; nothing once they have their place.
    head: Vec<u8>,
    /// The end of the tar, compressed.
    tail: Vec<u8>,
    index: index::Writer,
    /// Where the next member stands, or the index before it.
    end: u64,
    /// What stands behind the last unit, and where; nothing before the layout is sealed.
    rest: (u64, Bytes),
}

impl Archive {
    /// The layout of a disk, of which no unit has its place yet. The disk in the archive is filled up to whole GiB.
    ///
    /// # Errors
    ///
    /// If the disk has no byte, or too many.
    pub fn new(map: &ExtentMap) -> Result<Self, ArchiveError> {
        let guest_len = map.guest_len();
        if guest_len == 0 {
            return Err(ArchiveError::Empty);
        }
        if guest_len > MAX_VIRTUAL_SIZE {
            return Err(ArchiveError::VirtualSize(guest_len));
        }
        let mut unit = UNIT;
        let runs = loop {
            match stored_runs(map, unit) {
                Some(runs) => break runs,
                None => unit *= 2,
            }
        };
        let stored: u64 = runs.iter().map(|run| run.len).sum();
        let blocks = header::encode(guest_len.next_multiple_of(GIB), &runs);
        let end = (blocks.len() as u64 + stored + 2 * BLOCK).next_multiple_of(RECORD);
        let tail = vec![0; small(end - blocks.len() as u64 - stored)];

        let mut encoder = Encoder::new(Codec::Gzip);
        let mut index = index::Writer::default();
        let mut head = Vec::new();
        for blocks in blocks.chunks(small(UNIT)) {
            let member = member(&mut encoder, blocks);
            index.push(member.len() as u64);
            head.extend(member);
        }
        let tail = member(&mut encoder, &tail);
        let members = blocks.len().div_ceil(small(UNIT)) as u64 + stored / unit + 1;
        let max_len = head.len() as u64
            + stored / unit * max_member_len(unit)
            + tail.len() as u64
            + index::len(members);
        Ok(Self { unit, max_len, head, tail, index, end: 0, rest: (0, Bytes::new()) })
    }
}

impl PackedLayout for Archive {
    fn unit_len(&self) -> u64 {
        self.unit
    }

    fn codec(&self) -> Codec {
        Codec::Gzip
    }

    fn max_frame_len(&self) -> u64 {
        max_member_len(self.unit)
    }

    fn gap_within(&self) -> u64 {
        0
    }

    fn head_len(&self) -> u64 {
        0
    }

    fn max_len(&self) -> u64 {
        self.max_len
    }

    fn places_zeroes(&self) -> bool {
        true
    }

    fn place(&mut self, _guest: u64, frame: Frame, _bytes: &[u8]) -> Placed {
        let mut lead = std::mem::take(&mut self.head);
        lead.extend(self.index.when_full());
        let offset = self.end + lead.len() as u64;
        let len = frame.len(self.unit);
        self.index.push(len);
        self.end = offset + len;
        Placed { offset, lead: lead.into() }
    }

    fn unsettled(&self) -> Unsettled {
        Unsettled { gap: Span::new(self.end, 0), end: self.end }
    }

    fn seal(&mut self) -> u64 {
        let mut rest = std::mem::take(&mut self.head);
        rest.extend(self.index.when_full());
        let tail = std::mem::take(&mut self.tail);
        self.index.push(tail.len() as u64);
        rest.extend(tail);
        rest.extend(self.index.end());
        let start = self.end;
        self.end += rest.len() as u64;
        self.rest = (start, rest.into());
        self.end
    }

    fn literal_from(&self, at: u64) -> Option<(u64, Bytes)> {
        let (start, bytes) = &self.rest;
        let from = at.max(*start);
        let bytes = bytes.slice(small(from - start).min(bytes.len())..);
        (!bytes.is_empty()).then_some((from, bytes))
    }
}

/// The units that hold stored bytes, those that meet as one run; `None` if there are more runs than an archive may have.
fn stored_runs(map: &ExtentMap, unit: u64) -> Option<Vec<Span>> {
    let mut runs: Vec<Span> = Vec::new();
    for extent in map.iter().filter(|extent| extent.state.is_stored()) {
        let units =
            Span::between(extent.guest.start / unit * unit, extent.guest.end().next_multiple_of(unit));
        let is_full = runs.len() == MAX_ARCHIVE_RUNS;
        match runs.last_mut() {
            Some(last) if last.end() >= units.start => *last = Span::between(last.start, units.end()),
            _ if is_full => return None,
            _ => runs.push(units),
        }
    }
    Some(runs)
}

/// How long a member is at most: what does not shrink is stored in blocks of at least 5000 bytes, at 5 bytes each, and gzip
/// takes 18 bytes.
pub(super) fn max_member_len(content: u64) -> u64 {
    content + 5 * content.div_ceil(5000) + 18
}

fn member(encoder: &mut Encoder, content: &[u8]) -> Vec<u8> {
    let mut member = vec![0; small(max_member_len(content.len() as u64))];
    // There is room for every member.
    let len = encoder.encode(content, &mut member).unwrap_or_default();
    member.truncate(len);
    member
}

/// A length in memory.
fn small(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
