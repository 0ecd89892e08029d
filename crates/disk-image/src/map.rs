//! The extent map: for each guest byte, where it is stored and how it is encoded.
//!
//! Held as delta-coded runs in guest order, not as the format's tables: memory is proportional to fragmentation, never to the
//! virtual size. A run of holes, zeroes or contiguous data costs 2 to 6 bytes however long it is; an encoded unit costs
//! about 3 bytes when the units lie one after the other in the file, as every converter writes them. 4 TiB in 64 KiB
//! compressed clusters, all mapped, takes about 230 MiB. A lookup is a binary search over an index with one entry for every
//! [`RUNS_PER_INDEX_ENTRY`] runs, and decodes at most that many runs.

use std::sync::Arc;

use crate::limits::MAX_MAP_MEMORY;
use crate::varint::{Reader, push_signed, push_varint};
use crate::{Encoding, Extent, FileId, Item, OpenError, Span, State, Stored};

/// Runs between two index entries: 24 bytes of index a run group stay under half a byte a run.
const RUNS_PER_INDEX_ENTRY: u32 = 64;

/// Compressed clusters of QCOW2 are counted in sectors of this size, so a unit's stored length follows from its real one.
const SECTOR: u64 = 512;

/// An immutable map of guest bytes, gapless from 0 to the virtual size. Cheap to clone.
#[derive(Clone)]
pub struct ExtentMap {
    inner: Arc<Inner>,
}

struct Inner {
    guest_len: u64,
    units: Vec<Unit>,
    index: Vec<IndexEntry>,
    runs: Vec<u8>,
    stats: MapStats,
}

/// Sums over a whole map, gathered while it was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MapStats {
    /// Guest bytes stored as they are.
    pub data: u64,
    /// Guest bytes stored encoded.
    pub encoded: u64,
    /// Guest bytes marked as zero.
    pub zero: u64,
    /// Upper bound of the bytes that the encoded units take in the source.
    pub encoded_stored: u64,
    /// Guest bytes of the largest encoded unit; 0 if there is none.
    pub largest_unit: u64,
    /// Number of runs.
    pub runs: u64,
}

/// What all encoded units of one file share; runs refer to it by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unit {
    file: FileId,
    encoding: Encoding,
    len: u64,
}

#[derive(Clone, Copy)]
struct IndexEntry {
    guest: u64,
    cursor: Cursor,
    at: usize,
}

/// What decoding of the next run depends on.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    /// Where the previous stored run ended; deltas are taken from here.
    stored: u64,
    /// Which [`Unit`] (encoded runs) or file (data runs) is current.
    context: u16,
}

/// The kind of a run, in the low three bits of its first byte. The upper five bits hold the low bits of its first number.
mod tag {
    pub(super) const HOLE: u8 = 0;
    pub(super) const ZERO: u8 = 1;
    /// Length, signed delta of the stored start.
    pub(super) const DATA: u8 = 2;
    /// Length, signed delta of the stored start, stored length, skip, slack: what of the stored length the next unit may overlap.
    pub(super) const ENCODED: u8 = 3;
    /// A whole unit that starts where the previous one ended; distance to the next unit's start.
    pub(super) const CHAINED: u8 = 4;
    /// Switches file and unit for the runs that follow.
    pub(super) const CONTEXT: u8 = 5;
}

impl ExtentMap {
    /// Guest bytes in the map: the virtual size.
    pub fn guest_len(&self) -> u64 {
        self.inner.guest_len
    }

    /// Sums over the whole map.
    pub fn stats(&self) -> MapStats {
        self.inner.stats
    }

    /// Bytes of memory that the map holds.
    pub fn memory(&self) -> usize {
        self.inner.runs.capacity() + self.inner.index.capacity() * size_of::<IndexEntry>()
    }

    /// The extents of a guest range: ascending, gapless, clipped to the range and to the virtual size.
    pub fn extents(&self, range: Span) -> Extents<'_> {
        let end = range.end().min(self.inner.guest_len);
        let entry = match self.inner.index.partition_point(|e| e.guest <= range.start) {
            0 => IndexEntry { guest: 0, cursor: Cursor::default(), at: 0 },
            n => self.inner.index[n - 1],
        };
        Extents {
            map: &self.inner,
            reader: Reader::new(&self.inner.runs, entry.at),
            cursor: entry.cursor,
            guest: entry.guest,
            from: range.start,
            end,
        }
    }

    /// This map with its holes filled from the one beneath it. As long as this one: what the other lacks is a hole, what it has
    /// beyond is left out.
    pub(crate) fn over(&self, below: &Self) -> Result<Self, OpenError> {
        let mut merged = ExtentMapBuilder::new();
        for top in self.iter() {
            match top.state {
                State::Hole => merged.push_extents(below.extents(top.guest))?,
                state => merged.push(top.guest.len, state),
            }
            merged.push(top.guest.end().saturating_sub(merged.guest_len()), State::Hole);
            merged.check_memory()?;
        }
        Ok(merged.finish(self.guest_len()))
    }

    /// All extents.
    pub fn iter(&self) -> Extents<'_> {
        self.extents(Span::new(0, self.inner.guest_len))
    }
}

impl std::fmt::Debug for ExtentMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExtentMap")
            .field("guest_len", &self.inner.guest_len)
            .field("stats", &self.inner.stats)
            .finish()
    }
}

/// Iterator over the extents of a range, from [`ExtentMap::extents`].
pub struct Extents<'a> {
    map: &'a Inner,
    reader: Reader<'a>,
    cursor: Cursor,
    guest: u64,
    from: u64,
    end: u64,
}

impl Iterator for Extents<'_> {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        while self.guest < self.end {
            let (len, state) = self.run();
            let guest = Span::new(self.guest, len);
            self.guest += len;
            let clipped = guest.intersect(Span::between(self.from, self.end));
            if !clipped.is_empty() {
                let state = state.advanced(clipped.start - guest.start).truncated(clipped.len);
                return Some(Extent { guest: clipped, state });
            }
        }
        None
    }
}

impl Extents<'_> {
    /// Decodes the next run. The bytes are our own, written by [`ExtentMapBuilder`].
    fn run(&mut self) -> (u64, State) {
        loop {
            let head = self.reader.byte();
            let number = u64::from(head >> 3);
            match head & 7 {
                tag::CONTEXT => self.cursor.context = (self.reader.varint() & 0xffff) as u16,
                tag::HOLE => return (self.reader.continued(number), State::Hole),
                tag::ZERO => return (self.reader.continued(number), State::Zero),
                tag::DATA => {
                    let len = self.reader.continued(number);
                    let start = self.cursor.stored.wrapping_add_signed(self.reader.signed());
                    self.cursor.stored = start.wrapping_add(len);
                    let stored = Stored { file: FileId(self.cursor.context), span: Span::new(start, len) };
                    return (len, State::Data(stored));
                }
                tag::CHAINED => {
                    let distance = self.reader.continued(number);
                    let unit = self.map.units[usize::from(self.cursor.context)];
                    let start = self.cursor.stored;
                    self.cursor.stored = start.wrapping_add(distance);
                    return (unit.len, unit.state(Span::new(start, stored_len(start, distance)), 0));
                }
                _ => {
                    let len = self.reader.continued(number);
                    let start = self.cursor.stored.wrapping_add_signed(self.reader.signed());
                    let stored = Span::new(start, self.reader.varint());
                    let skip = self.reader.varint();
                    self.cursor.stored = stored.end() - self.reader.varint();
                    let unit = self.map.units[usize::from(self.cursor.context)];
                    return (len, unit.state(stored, skip));
                }
            }
        }
    }
}

impl Unit {
    fn state(&self, span: Span, skip: u64) -> State {
        State::Encoded {
            stored: Stored { file: self.file, span },
            encoding: self.encoding,
            unit_len: self.len,
            skip,
        }
    }
}

/// The stored length of a unit of `distance` bytes at `start`, when the format counts whole sectors.
fn stored_len(start: u64, distance: u64) -> u64 {
    (start + distance).next_multiple_of(SECTOR) - start
}

/// Builds an [`ExtentMap`] from runs pushed in guest order; merges what is contiguous.
#[derive(Default)]
pub struct ExtentMapBuilder {
    units: Vec<Unit>,
    index: Vec<IndexEntry>,
    runs: Vec<u8>,
    stats: MapStats,
    cursor: Cursor,
    since_index: u32,
    /// Guest bytes written to `runs`.
    written: u64,
    /// The last run: not written yet, because it may grow, and because an encoded unit is coded by where the next one starts.
    pending: Option<(u64, State)>,
}

impl ExtentMapBuilder {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Guest bytes pushed so far: where the next run starts.
    pub fn guest_len(&self) -> u64 {
        self.written + self.pending.map_or(0, |(len, _)| len)
    }

    /// Bytes of memory filled so far, for a caller that bounds it. What a vector has reserved beyond that was never touched.
    pub fn memory(&self) -> usize {
        self.runs.len() + self.index.len() * size_of::<IndexEntry>()
    }

    /// Refuses a map that has grown above [`MAX_MAP_MEMORY`].
    pub(crate) fn check_memory(&self) -> Result<(), OpenError> {
        check_memory(self.memory())
    }

    /// Appends the runs of another map.
    pub(crate) fn push_extents(&mut self, extents: Extents<'_>) -> Result<(), OpenError> {
        for extent in extents {
            self.push(extent.guest.len, extent.state);
            self.check_memory()?;
        }
        Ok(())
    }

    /// Appends a run of `len` guest bytes. An empty run is ignored. `State::Data` must be as long as the run.
    pub fn push(&mut self, len: u64, state: State) {
        if len == 0 {
            return;
        }
        let Some((pending_len, pending)) = self.pending else {
            self.pending = Some((len, state));
            return;
        };
        match merge(pending_len, pending, len, state) {
            Some(merged) => self.pending = Some((pending_len + len, merged)),
            None => {
                self.write(pending_len, pending, Some(state));
                self.pending = Some((len, state));
            }
        }
    }

    /// The finished map, cut or filled up with a hole to `guest_len` bytes.
    pub fn finish(mut self, guest_len: u64) -> ExtentMap {
        let pushed = self.guest_len();
        self.push(guest_len.saturating_sub(pushed), State::Hole);
        if let Some((len, state)) = self.pending.take() {
            let kept = len.saturating_sub(pushed.saturating_sub(guest_len));
            self.write(kept, state.truncated(kept), None);
        }
        self.runs.shrink_to_fit();
        self.index.shrink_to_fit();
        let Self { units, index, runs, stats, .. } = self;
        ExtentMap { inner: Arc::new(Inner { guest_len, units, index, runs, stats }) }
    }

    fn write(&mut self, len: u64, state: State, next: Option<State>) {
        if len == 0 {
            return;
        }
        self.count(len, state);
        if self.since_index == 0 {
            self.index.push(IndexEntry { guest: self.written, cursor: self.cursor, at: self.runs.len() });
        }
        self.since_index = (self.since_index + 1) % RUNS_PER_INDEX_ENTRY;
        self.written += len;
        match state {
            State::Hole => self.head(tag::HOLE, len),
            State::Zero => self.head(tag::ZERO, len),
            State::Data(Stored { file, span }) => {
                self.switch(file.0);
                self.head(tag::DATA, len);
                push_signed(&mut self.runs, span.start.wrapping_sub(self.cursor.stored) as i64);
                self.cursor.stored = span.end();
            }
            State::Encoded { stored: Stored { file, span }, encoding, unit_len, skip } => {
                let context = self.unit(Unit { file, encoding, len: unit_len });
                self.switch(context);
                let whole = len == unit_len && skip == 0 && span.start == self.cursor.stored;
                let distance = next_distance(span, next);
                if let Some(distance) = distance.filter(|_| whole) {
                    self.head(tag::CHAINED, distance);
                } else {
                    self.head(tag::ENCODED, len);
                    push_signed(&mut self.runs, span.start.wrapping_sub(self.cursor.stored) as i64);
                    push_varint(&mut self.runs, span.len);
                    push_varint(&mut self.runs, skip);
                    push_varint(&mut self.runs, distance.map_or(0, |d| span.len - d));
                }
                self.cursor.stored = span.start + distance.unwrap_or(span.len);
            }
        }
    }

    fn head(&mut self, tag: u8, number: u64) {
        // Numbers are at least 1, and nearly always multiples of a sector or plain compressed lengths: five bits ride along.
        self.runs.push(tag | ((number & 0x1f) as u8) << 3);
        push_varint(&mut self.runs, number >> 5);
    }

    fn switch(&mut self, context: u16) {
        if self.cursor.context != context {
            self.cursor.context = context;
            self.runs.push(tag::CONTEXT);
            push_varint(&mut self.runs, u64::from(context));
        }
    }

    fn unit(&mut self, unit: Unit) -> u16 {
        // Runs come file by file, and a disk may have thousands of files: the last unit is most often the one.
        let found = self.units.iter().rposition(|u| *u == unit);
        let position = found.unwrap_or_else(|| {
            self.units.push(unit);
            self.units.len() - 1
        });
        // A file has one kind of unit, and file ids have 16 bits.
        u16::try_from(position).unwrap_or(u16::MAX)
    }

    fn count(&mut self, len: u64, state: State) {
        self.stats.runs += 1;
        match state {
            State::Hole => {}
            State::Zero => self.stats.zero += len,
            State::Data(_) => self.stats.data += len,
            State::Encoded { stored, unit_len, .. } => {
                self.stats.largest_unit = self.stats.largest_unit.max(unit_len);
                self.stats.encoded += len;
                self.stats.encoded_stored += stored.span.len;
            }
        }
    }
}

/// Refuses metadata whose runs take more than [`MAX_MAP_MEMORY`] bytes.
pub(crate) fn check_memory(found: usize) -> Result<(), OpenError> {
    if found > MAX_MAP_MEMORY {
        return Err(OpenError::Limit {
            what: Item::The("memory of the extent map"),
            found: found as u64,
            limit: MAX_MAP_MEMORY as u64,
        });
    }
    Ok(())
}

/// Where the next unit starts, seen from this one, if that alone tells this one's stored length.
fn next_distance(span: Span, next: Option<State>) -> Option<u64> {
    let Some(State::Encoded { stored, skip: 0, .. }) = next else { return None };
    let distance = stored.span.start.checked_sub(span.start).filter(|&d| d > 0)?;
    (stored_len(span.start, distance) == span.len).then_some(distance)
}

fn merge(len: u64, first: State, next_len: u64, next: State) -> Option<State> {
    match (first, next) {
        (State::Hole, State::Hole) | (State::Zero, State::Zero) => Some(first),
        (State::Data(a), State::Data(b)) if a.file == b.file && a.span.end() == b.span.start => {
            Some(State::Data(Stored { file: a.file, span: Span::new(a.span.start, len + next_len) }))
        }
        (
            State::Encoded { stored: a, encoding, unit_len, skip },
            State::Encoded { stored: b, skip: next_skip, .. },
        ) if a == b && skip + len == next_skip => {
            Some(State::Encoded { stored: a, encoding, unit_len, skip })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
