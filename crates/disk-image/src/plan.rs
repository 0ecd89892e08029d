//! The plan of one part of an output: which stored runs it needs, and where each piece goes.
//!
//! Pure: it joins the object map (what fills this part) with the extent map (where those guest bytes are stored). Adjacent pieces
//! of one encoded unit stand together, so that the unit is decoded once a part.

use bytes::Bytes;

use crate::{Encoding, ExtentMap, Fill, ObjectMap, Span, State, Stored};

/// How one part of an output is made.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The part, in the object.
    pub object: Span,
    /// Ascending; what lies between them is zero.
    pub pieces: Vec<Piece>,
}

/// A run inside a part with one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Offset in the part.
    pub at: u64,
    /// Length in bytes.
    pub len: u64,
    /// Where the bytes come from.
    pub origin: Origin,
}

/// Where the bytes of a piece come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// These bytes.
    Literal(Bytes),
    /// Stored as they are; as long as the piece.
    Stored(Stored),
    /// Origin byte `skip` of a unit, once decoded.
    Encoded(Encoded, u64),
}

/// A unit that only decodes as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoded {
    /// Its stored bytes; an upper bound.
    pub stored: Stored,
    /// How it is encoded.
    pub encoding: Encoding,
    /// The guest bytes that it decodes to. May reach past the virtual size.
    pub guest: Span,
    /// How many of them the disk has: a unit at the end of the disk, or of one of its extents, may hold no more than these.
    pub wanted: u64,
}

/// How to merge stored runs into reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadShape {
    /// Runs closer than this are read in one go, the gap with them, bytes.
    pub max_gap: u64,
    /// No merged read is longer than this, bytes; a single run may be.
    pub max_len: u64,
}

impl ReadShape {
    /// The same runs as few reads: sorted, merged across small gaps, each covering every run that it touches.
    ///
    /// At least half of what is read is wanted, so memory stays bounded however scattered the runs are.
    pub fn merge(&self, mut runs: Vec<Stored>) -> Vec<Stored> {
        runs.sort_unstable_by_key(|run| (run.file, run.span.start));
        let mut reads: Vec<Stored> = Vec::new();
        let mut wasted = 0;
        for run in runs {
            if let Some(last) = reads.last_mut()
                && last.file == run.file
            {
                let gap = run.span.start.saturating_sub(last.span.end());
                let merged = Span::between(last.span.start, last.span.end().max(run.span.end()));
                let fits = merged.len <= self.max_len || merged == last.span;
                if gap <= self.max_gap && (wasted + gap) * 2 <= merged.len && fits {
                    last.span = merged;
                    wasted += gap;
                    continue;
                }
            }
            reads.push(run);
            wasted = 0;
        }
        reads
    }
}

impl Plan {
    /// Plans the part `object` of an output.
    pub fn new(map: &ExtentMap, layout: &ObjectMap, object: Span) -> Self {
        let mut pieces = Vec::new();
        for segment in layout.segments(object) {
            let at = segment.object.start - object.start;
            match segment.fill {
                Fill::Zero => {}
                Fill::Literal(bytes) => {
                    pieces.push(Piece { at, len: segment.object.len, origin: Origin::Literal(bytes) });
                }
                Fill::Guest(guest) => {
                    let guest = Span::new(guest, segment.object.len);
                    for extent in map.extents(guest) {
                        let origin = match extent.state {
                            State::Hole | State::Zero => continue,
                            State::Data(stored) => Origin::Stored(stored),
                            State::Encoded { stored, encoding, unit_len, skip } => {
                                let guest = Span::new(extent.guest.start - skip, unit_len);
                                // The end of what the unit's file holds, which in a layer below may lie before this map's.
                                let end = match encoding {
                                    Encoding::Grain { extent } => extent.end(),
                                    Encoding::Deflate | Encoding::Zstd | Encoding::Gzip => map.guest_len(),
                                };
                                let wanted = unit_len.min(end.saturating_sub(guest.start));
                                Origin::Encoded(Encoded { stored, encoding, guest, wanted }, skip)
                            }
                        };
                        pieces.push(Piece {
                            at: at + (extent.guest.start - guest.start),
                            len: extent.guest.len,
                            origin,
                        });
                    }
                }
            }
        }
        Self { object, pieces }
    }

    /// The stored runs behind the pieces that `wanted` picks, merged into few reads.
    pub fn reads(&self, shape: ReadShape, wanted: impl Fn(&Origin) -> bool) -> Vec<Stored> {
        let runs: Vec<Stored> = self
            .pieces
            .iter()
            .filter(|piece| wanted(&piece.origin))
            .filter_map(|piece| match &piece.origin {
                Origin::Literal(_) => None,
                Origin::Stored(stored) => Some(*stored),
                Origin::Encoded(unit, _) => Some(unit.stored),
            })
            .collect();
        shape.merge(runs)
    }
}

/// The first offset at or after `from` in the object that is not known to be zero; `None` if there is none.
///
/// Cost: proportional to the runs passed over, not to their length.
pub(crate) fn next_filled(map: &ExtentMap, layout: &ObjectMap, from: u64) -> Option<u64> {
    for segment in layout.segments(Span::between(from, layout.len())) {
        match segment.fill {
            Fill::Zero => {}
            Fill::Literal(_) => return Some(segment.object.start),
            Fill::Guest(guest) => {
                let run = Span::new(guest, segment.object.len);
                if let Some(stored) = map.extents(run).find(|e| e.state.is_stored()) {
                    return Some(segment.object.start + (stored.guest.start - guest));
                }
            }
        }
    }
    None
}

impl ObjectMap {
    /// The first offset at or after `from` that is not known to be zero; `None` if there is none.
    ///
    /// Cost: proportional to the runs passed over, not to their length.
    pub fn next_filled(&self, map: &ExtentMap, from: u64) -> Option<u64> {
        next_filled(map, self, from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ExtentMapBuilder;

    const UNIT: u64 = 2 << 20;

    fn map() -> ExtentMap {
        let mut map = ExtentMapBuilder::new();
        map.push(UNIT, State::Hole);
        for i in 0..4 {
            let stored = Stored::image(i * 1000, 900);
            let state = State::Encoded { stored, encoding: Encoding::Deflate, unit_len: UNIT, skip: 0 };
            map.push(UNIT, state);
        }
        map.push(UNIT, State::Data(Stored::image(1 << 30, UNIT)));
        map.finish(UNIT * 5 + 4096)
    }

    #[test]
    fn pieces_lie_where_the_object_wants_them() {
        let map = map();
        let layout = ObjectMap::raw(map.guest_len());
        let plan = Plan::new(&map, &layout, Span::new(UNIT / 2, UNIT));
        let [piece] = plan.pieces.as_slice() else { panic!("{plan:?}") };
        assert_eq!((piece.at, piece.len), (UNIT / 2, UNIT / 2));
        let Origin::Encoded(unit, 0) = piece.origin else { panic!("{piece:?}") };
        assert_eq!((unit.guest, unit.wanted), (Span::new(UNIT, UNIT), UNIT));

        let plan = Plan::new(&map, &layout, Span::new(UNIT * 5, UNIT));
        let expected = Origin::Stored(Stored::image(1 << 30, 4096));
        assert_eq!(plan.pieces, [Piece { at: 0, len: 4096, origin: expected }]);
    }

    /// The last grain of an extent may be short, whatever follows it in this disk or lies over it.
    #[test]
    fn a_unit_is_wanted_up_to_the_end_of_its_extent() {
        let grain = |extent, skip| State::Encoded {
            stored: Stored::image(0, 900),
            encoding: Encoding::Grain { extent },
            unit_len: UNIT,
            skip,
        };
        let mut map = ExtentMapBuilder::new();
        map.push(UNIT + 512, grain(Span::new(0, UNIT + 512), 0));
        map.push(4096, State::Zero);
        map.push(512, grain(Span::new(UNIT + 512, 5120), 4096));
        map.push(UNIT, State::Hole);
        let map = map.finish(UNIT * 3);
        let layout = ObjectMap::raw(map.guest_len());
        let plan = Plan::new(&map, &layout, Span::new(UNIT + 512, UNIT));
        let [piece] = plan.pieces.as_slice() else { panic!("{plan:?}") };
        let Origin::Encoded(unit, 4096) = piece.origin else { panic!("{piece:?}") };
        assert_eq!((unit.guest, unit.wanted), (Span::new(UNIT + 512, UNIT), 5120));
    }

    #[test]
    fn reads_merge_across_small_gaps_only() {
        let map = map();
        let layout = ObjectMap::raw(map.guest_len());
        let plan = Plan::new(&map, &layout, Span::new(0, layout.len()));
        let all = |_: &Origin| true;
        let near = plan.reads(ReadShape { max_gap: 100, max_len: u64::MAX }, all);
        assert_eq!(near, [Stored::image(0, 3900), Stored::image(1 << 30, 4096)]);
        let none = plan.reads(ReadShape { max_gap: 99, max_len: u64::MAX }, all);
        assert_eq!(none.len(), 5);
        let short = plan.reads(ReadShape { max_gap: 100, max_len: 2000 }, all);
        assert_eq!(short.len(), 3);
    }

    #[test]
    fn filled_skips_holes() {
        let map = map();
        let layout = ObjectMap::raw(map.guest_len());
        assert_eq!(layout.next_filled(&map, 0), Some(UNIT));
        assert_eq!(layout.next_filled(&map, UNIT + 5), Some(UNIT + 5));
        assert_eq!(layout.next_filled(&map, layout.len()), None);
    }
}
