//! Where compressed clusters lie: as QEMU packs them.
//!
//! Source: `qcow2_alloc_bytes` in QEMU's `block/qcow2-refcount.c`. Compressed clusters lie one behind the other, byte by byte. What does
//! not shrink takes a whole cluster, and compressed ones go on in the gap before it as long as they fit; one that does not begins
//! a cluster. One may reach into the next cluster only if that is the next free one.
//!
//! Held are only lengths. Offsets are computed again from the nearest of the marks, which stand [`STRIDE`] units apart. Cost: 3 bytes
//! a unit, 1 byte a cluster of the file, and 24 bytes a mark.

use std::collections::BTreeMap;

use crate::Span;

/// Units between two marks: the marks take a fraction of what the lengths do, and so many steps take a microsecond.
const STRIDE: usize = 512;

/// The most references that 16 bits count.
const MAX_REFCOUNT: u16 = u16::MAX;

/// A refcount that is too large for its byte, and stands in the list of those.
const LARGE: u8 = u8::MAX;

/// Where the next unit goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursors {
    /// Object offset of the next compressed cluster, if it fits there; 0 for none. Never at the start of a cluster.
    gap: u64,
    /// References to the cluster that the gap lies in.
    shared: u16,
    /// The first cluster that is free, and all behind it.
    end: u64,
}

/// A unit's place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A cluster of its own, at this offset.
    Plain(u64),
    /// Compressed, these bytes.
    Packed(Span),
}

/// The places of all units so far.
#[derive(Debug)]
pub(super) struct Placement {
    cluster_size: u64,
    start: u64,
    now: Cursors,
    /// What each unit takes, bytes: 0 if it is left out, a whole cluster if it is plain.
    lens: Vec<[u8; 3]>,
    marks: Vec<Cursors>,
    /// How many units touch each cluster from `start` on.
    refcounts: Vec<u8>,
    large: BTreeMap<usize, u16>,
}

impl Placement {
    /// An empty one for up to `units` units that goes on from `start`, a cluster's start behind the first cluster.
    pub(super) fn new(cluster_size: u64, start: u64, units: u64) -> Self {
        let now = Cursors { gap: 0, shared: 0, end: start };
        // Memory that is not touched costs nothing; lists that grow are copied, and twice there meanwhile.
        let most = usize::try_from(units).unwrap_or(0);
        Self {
            cluster_size,
            start,
            now,
            lens: Vec::with_capacity(most),
            marks: Vec::with_capacity(most / STRIDE + 1),
            refcounts: Vec::with_capacity(most),
            large: BTreeMap::new(),
        }
    }

    /// Memory that so many units may take, bytes.
    pub(super) fn memory(units: u64) -> u64 {
        units.saturating_mul(4)
    }

    /// Number of units so far.
    pub(super) fn len(&self) -> u64 {
        self.lens.len() as u64
    }

    /// Leaves out units until there are `units` of them.
    pub(super) fn skip_to(&mut self, units: u64) {
        while self.len() < units {
            self.push(0);
        }
    }

    /// Gives the next unit its place: as much as it takes, a whole cluster if it is plain. Returns its offset.
    pub(super) fn place(&mut self, len: u64) -> u64 {
        let place = self.push(len);
        let span = match place {
            Some(Place::Plain(start)) => Span::new(start, self.cluster_size),
            Some(Place::Packed(span)) => span,
            None => return self.now.end,
        };
        for cluster in self.index(span.start)..=self.index(span.end() - 1) {
            self.count(cluster);
        }
        span.start
    }

    /// What may still be given to compressed clusters before `end`.
    pub(super) fn gap(&self) -> Span {
        Span::between(self.now.gap, self.now.gap.next_multiple_of(self.cluster_size))
    }

    /// End of the clusters that are in use.
    pub(super) fn end(&self) -> u64 {
        self.now.end
    }

    /// Units that touch the cluster with this index, counted from the start of the placement.
    pub(super) fn refcount(&self, cluster: u64) -> Option<u16> {
        let index = usize::try_from(cluster).ok()?;
        match *self.refcounts.get(index)? {
            LARGE => self.large.get(&index).copied(),
            count => Some(count.into()),
        }
    }

    /// The places of the units from the one with this index on; `None` for those that are left out.
    pub(super) fn from(&self, unit: u64) -> impl Iterator<Item = Option<Place>> {
        let unit = usize::try_from(unit).unwrap_or(usize::MAX).min(self.lens.len());
        let mark = unit / STRIDE;
        let first = mark * STRIDE;
        let mut cursors = self.marks.get(mark).copied().unwrap_or(self.now);
        let lens = self.lens.get(first..).unwrap_or_default();
        lens.iter().map(move |len| cursors.step(unpacked(*len), self.cluster_size)).skip(unit - first)
    }

    fn push(&mut self, len: u64) -> Option<Place> {
        if self.lens.len().is_multiple_of(STRIDE) {
            self.marks.push(self.now);
        }
        let [.., a, b, c] = len.min(self.cluster_size).to_be_bytes();
        self.lens.push([a, b, c]);
        self.now.step(len, self.cluster_size)
    }

    fn index(&self, offset: u64) -> usize {
        usize::try_from((offset - self.start) / self.cluster_size).unwrap_or(usize::MAX)
    }

    fn count(&mut self, cluster: usize) {
        if self.refcounts.len() <= cluster {
            self.refcounts.resize(cluster + 1, 0);
        }
        let small = &mut self.refcounts[cluster];
        match *small {
            LARGE => *self.large.entry(cluster).or_insert(0) += 1,
            count if count + 1 == LARGE => {
                *small = LARGE;
                self.large.insert(cluster, LARGE.into());
            }
            _ => *small += 1,
        }
    }
}

fn unpacked([a, b, c]: [u8; 3]) -> u64 {
    u64::from(u32::from_be_bytes([0, a, b, c]))
}

impl Cursors {
    /// Places a unit that takes `len` bytes.
    fn step(&mut self, len: u64, cluster_size: u64) -> Option<Place> {
        if len == 0 {
            return None;
        }
        if len >= cluster_size {
            self.end += cluster_size;
            return Some(Place::Plain(self.end - cluster_size));
        }
        let boundary = self.gap.next_multiple_of(cluster_size);
        let goes_on = self.gap != 0 && self.shared < MAX_REFCOUNT;
        let fits = goes_on && len <= boundary - self.gap;
        let start = if fits || (goes_on && boundary == self.end) { self.gap } else { self.end };
        let span = Span::new(start, len);
        if span.end() > self.end {
            self.end += cluster_size;
        }
        self.shared = if fits { self.shared + 1 } else { 1 };
        self.gap = if span.end().is_multiple_of(cluster_size) { 0 } else { span.end() };
        Some(Place::Packed(span))
    }
}

#[cfg(test)]
mod tests;
