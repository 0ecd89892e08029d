//! The map as a picture: what of the disk is stored, partition by partition, as text or as SVG.
//!
//! Every cell stands for the same number of guest bytes, a power of two, and a region begins a line of its own, so lengths can be
//! compared by eye. What lies in two partitions is drawn in the innermost. Names come from the disk: hostile, and escaped for SVG.
//! Cost: one walk over the extents, and [`LINES`] lines of cells and one for each region.

pub(super) mod svg;
mod text;

use disk_image::{ExtentMap, Span, State};
use guest_info::Partition;

use crate::args::values::Size;
use crate::guest::partition_line;

/// Lines of cells for a disk that is one region.
const LINES: u64 = 16;

/// The smallest cell: a sector.
const MIN_CELL: u64 = 512;

/// What is drawn.
#[derive(Debug)]
pub(super) struct Picture {
    /// What it shows.
    title: String,
    /// Cells in a line.
    columns: usize,
    /// Guest bytes of a cell; the last one of a region may have fewer.
    cell: u64,
    regions: Vec<Region>,
}

/// A partition, or what lies between two of them.
#[derive(Debug)]
struct Region {
    name: String,
    stored: Stored,
    cells: Vec<Shade>,
}

/// How many guest bytes are what.
#[derive(Debug, Clone, Copy, Default)]
struct Stored {
    data: u64,
    compressed: u64,
    zero: u64,
    absent: u64,
}

/// What a cell shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shade {
    /// At least half of it is stored, most of that as it is.
    Data,
    /// The same, most of it compressed.
    Compressed,
    /// Less than half is stored.
    Partly,
    /// Nothing is stored, most is said to be zero.
    Zero,
    /// Nothing is stored, and nothing is said.
    Absent,
}

impl Shade {
    const ALL: [Self; 5] = [Self::Data, Self::Compressed, Self::Partly, Self::Zero, Self::Absent];

    fn meaning(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Compressed => "compressed",
            Self::Partly => "less than half of it stored",
            Self::Zero => "zero",
            Self::Absent => "not allocated",
        }
    }
}

impl Stored {
    fn add(&mut self, state: &State, len: u64) {
        *match state {
            State::Data(_) => &mut self.data,
            State::Encoded { .. } => &mut self.compressed,
            State::Zero => &mut self.zero,
            State::Hole => &mut self.absent,
        } += len;
    }

    fn plus(self, other: Self) -> Self {
        Self {
            data: self.data + other.data,
            compressed: self.compressed + other.compressed,
            zero: self.zero + other.zero,
            absent: self.absent + other.absent,
        }
    }

    fn shade(self) -> Shade {
        let Self { data, compressed, zero, absent } = self;
        match data + compressed {
            0 if zero > absent => Shade::Zero,
            0 => Shade::Absent,
            stored if stored < zero + absent => Shade::Partly,
            _ if compressed > data => Shade::Compressed,
            _ => Shade::Data,
        }
    }

    /// In words, with what there is none of left out.
    fn words(self) -> String {
        let all = [
            (self.data, "data"),
            (self.compressed, "compressed"),
            (self.zero, "zero"),
            (self.absent, "not allocated"),
        ];
        let some = all.iter().filter(|(bytes, _)| *bytes > 0);
        some.map(|(bytes, what)| format!("{} {what}", Size(*bytes))).collect::<Vec<_>>().join(", ")
    }
}

impl Picture {
    /// Draws a map, `columns` cells wide. Without partitions the disk is one region.
    pub(super) fn new(title: String, map: &ExtentMap, partitions: &[Partition], columns: usize) -> Self {
        let len = map.guest_len();
        let width = u64::try_from(columns).unwrap_or(u64::MAX).max(1);
        let cell = len.div_ceil(width.saturating_mul(LINES)).next_power_of_two().max(MIN_CELL);
        let regions = regions(len, partitions).into_iter();
        let regions = regions.map(|(name, span)| Region::draw(name, span, map, cell)).collect();
        Self { title, columns, cell, regions }
    }

    fn scale(&self) -> String {
        format!("a character is {}", Size(self.cell))
    }

    fn stored(&self) -> Stored {
        self.regions.iter().fold(Stored::default(), |sum, region| sum.plus(region.stored))
    }
}

impl Region {
    fn draw(name: String, span: Span, map: &ExtentMap, cell: u64) -> Self {
        let (mut cells, mut stored) = (Vec::new(), Stored::default());
        let (mut current, mut at) = (Stored::default(), span.start);
        let mut edge = span.end().min(span.start.saturating_add(cell));
        for extent in map.extents(span) {
            let end = extent.guest.end().min(span.end());
            while at < end {
                let until = end.min(edge);
                current.add(&extent.state, until - at);
                at = until;
                if at == edge {
                    cells.push(current.shade());
                    stored = stored.plus(std::mem::take(&mut current));
                    edge = span.end().min(edge.saturating_add(cell));
                }
            }
        }
        Self { name, stored, cells }
    }
}

/// The disk in pieces, from its first byte to its last.
fn regions(len: u64, partitions: &[Partition]) -> Vec<(String, Span)> {
    // One that is the whole disk is no partition.
    let whole = partitions.iter().find(|partition| partition.number == 0);
    let parts: Vec<_> = partitions.iter().filter(|partition| partition.number > 0).collect();
    let mut edges = vec![0, len];
    for partition in &parts {
        edges.push(partition.start.min(len));
        edges.push(partition.start.saturating_add(partition.size).min(len));
    }
    edges.sort_unstable();
    edges.dedup();
    let mut pieces: Vec<(Option<u32>, String, Span)> = Vec::new();
    for (start, end) in edges.iter().zip(edges.iter().skip(1)) {
        let covers = |start: u64, size: u64, at: u64| start <= at && at < start.saturating_add(size);
        // Of those that hold it the one that begins last.
        let inner = parts
            .iter()
            .filter(|partition| covers(partition.start, partition.size, *start))
            .max_by_key(|partition| partition.start);
        let number = inner.map(|partition| partition.number);
        match pieces.last_mut() {
            Some((last, _, span)) if *last == number => *span = Span::new(span.start, end - span.start),
            _ => {
                let begun = number.is_some() && pieces.iter().any(|(earlier, ..)| *earlier == number);
                let name = match (inner, whole) {
                    (Some(partition), _) if begun => format!("{}, continued", partition.number),
                    (Some(partition), _) => partition_line(partition),
                    (None, Some(whole)) => format!("whole disk: {}", partition_line(whole)),
                    (None, None) if parts.is_empty() => "whole disk".to_owned(),
                    (None, None) => String::new(),
                };
                pieces.push((number, name, Span::new(*start, end - start)));
            }
        }
    }
    let named = |(_, name, span): (_, String, Span)| match name.is_empty() {
        true => (format!("in no partition: {} at {}", Size(span.len), Size(span.start)), span),
        false => (name, span),
    };
    pieces.into_iter().map(named).collect()
}

#[cfg(test)]
mod tests;
