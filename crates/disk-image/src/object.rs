//! The object map: for each byte of an output, what fills it.
//!
//! A layout is a function from an extent map to an object map. Segments of adjacent guest bytes are merged, so that a part which
//! cuts the object anywhere still sees each encoded unit once. Literals (headers, tables) are made when they are asked for: a
//! table of a 64 TiB disk never exists as a whole.

use bytes::Bytes;

use crate::{Span, qcow2};

/// What fills an output, gapless from 0 to [`ObjectMap::len`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ObjectMap {
    layout: Layout,
}

#[derive(Debug, Clone)]
enum Layout {
    Raw { len: u64 },
    Qcow2(qcow2::Layout),
}

/// A run of the object with one filling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The bytes of the object.
    pub object: Span,
    /// What fills them.
    pub fill: Fill,
}

/// What fills a run of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fill {
    /// These bytes; as long as the run.
    Literal(Bytes),
    /// Guest bytes from this offset on.
    Guest(u64),
    /// Zeroes.
    Zero,
}

impl ObjectMap {
    /// The first `len` guest bytes themselves.
    pub fn raw(len: u64) -> Self {
        Self { layout: Layout::Raw { len } }
    }

    /// A QCOW2 file with its metadata first.
    pub fn qcow2(layout: qcow2::Layout) -> Self {
        Self { layout: Layout::Qcow2(layout) }
    }

    /// Length of the object in bytes.
    pub fn len(&self) -> u64 {
        match &self.layout {
            Layout::Raw { len } => *len,
            Layout::Qcow2(layout) => layout.len(),
        }
    }

    /// True if the object has no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Part boundaries at multiples of this keep what belongs together in one part, bytes.
    pub fn alignment(&self) -> u64 {
        match &self.layout {
            Layout::Raw { .. } => 1,
            Layout::Qcow2(layout) => layout.cluster_size(),
        }
    }

    /// The segments of a range: ascending, gapless, clipped to the range and to the object.
    pub fn segments(&self, range: Span) -> Segments<'_> {
        Segments { map: self, at: range.start, end: range.end().min(self.len()) }
    }

    /// The segment that begins at `at`, which lies inside the object.
    fn segment_at(&self, at: u64) -> Segment {
        match &self.layout {
            Layout::Raw { len } => Segment { object: Span::between(at, *len), fill: Fill::Guest(at) },
            Layout::Qcow2(layout) => layout.segment_at(at),
        }
    }
}

/// Iterator over the segments of a range, from [`ObjectMap::segments`].
pub struct Segments<'a> {
    map: &'a ObjectMap,
    at: u64,
    end: u64,
}

impl Iterator for Segments<'_> {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        if self.at >= self.end {
            return None;
        }
        let mut segment = self.map.segment_at(self.at);
        segment.object.len = segment.object.len.min(self.end - self.at);
        if let Fill::Literal(bytes) = &mut segment.fill {
            bytes.truncate(usize::try_from(segment.object.len).unwrap_or(usize::MAX));
        }
        self.at = segment.object.end();
        Some(segment)
    }
}
