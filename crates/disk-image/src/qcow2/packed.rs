//! A QCOW2 file with compressed clusters, written in one pass: the guest's clusters in guest order, and behind them the tables
//! that point to them.
//!
//! Source: QEMU `docs/interop/qcow2.rst`, "Compressed Clusters Descriptor". In this order: header, L1 table; compressed and plain
//! clusters, packed as [`placement`](super::placement) says; L2 tables, refcount table, refcount blocks. Header and L1 table are as
//! long as the virtual size wants; what they point to is known at the end. Version 3, deflate or Zstandard, 16-bit refcounts. Clusters
//! that are zero throughout are left out, whatever the source says of them, and so are L2 tables without a cluster.
//!
//! A deflate stream may refer back as far as RFC 1951 allows, not only the 4 KiB that QEMU's own streams do. QEMU's reader takes it,
//! although it asks zlib for a window of 4 KiB: it decodes a cluster in one call, and zlib looks into the output before the window.
//!
//! Refused: as for a [`Layout`](super::Layout), and disks whose lengths would take too much memory. Cost: 3 bytes a cluster that
//! may hold data, 1 byte a cluster of the file, 8 bytes a run of either and of L2 tables; tables are made when they are asked for.

use std::iter::Peekable;

use bytes::Bytes;

use super::header::{ENTRY, Header};
use super::layout::{
    COPIED, Entries, LayoutError, REFCOUNT, Table, allocated, empty_header, header_at, pointers, refcounts,
};
use super::placement::{Place, Placement};
use super::ranks::{Ranks, Run};
use crate::limits::{MAX_EXPANSION_RATIO, MAX_PACKED_MEMORY, MAX_REFCOUNT_TABLE_LEN};
use crate::{Codec, ExtentMap, Fill, Frame, PackedLayout, Placed, Segment, Span, Unsettled};

/// The cluster size of compressed files: QEMU's default. Larger ones compress little better, and a reader decodes a whole one for
/// each byte.
pub const DEFAULT_PACKED_CLUSTER_SIZE: u64 = 64 << 10;

/// Bit 62 of an L2 entry: compressed.
const COMPRESSED: u64 = 1 << 62;

/// Lengths of compressed clusters are counted in sectors of this size.
const SECTOR: u64 = 512;

/// How to lay out a compressed QCOW2 file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedOptions {
    /// Bytes in a cluster: a power of two from 512 to 2 MiB.
    pub cluster_size: u64,
    /// How clusters are compressed.
    pub codec: Codec,
}

/// The layout of a compressed QCOW2 file.
#[derive(Debug)]
pub struct Packed {
    codec: Codec,
    /// Guest clusters that may hold data.
    clusters: Ranks,
    placement: Placement,
    /// L1 entries that have an L2 table.
    tables: Ranks,
    header: Header,
    l1: Table,
    max_len: u64,
    /// Nothing before the layout is sealed.
    tail: Tail,
}

/// What stands behind the clusters.
#[derive(Debug, Clone, Copy, Default)]
struct Tail {
    l2: Table,
    refcount_table: Table,
    refcount_blocks: Table,
}

impl Packed {
    /// The layout of a disk, of which no cluster has its place yet.
    ///
    /// # Errors
    ///
    /// If the cluster size is none, or too small for this disk.
    pub fn new(map: &ExtentMap, options: &PackedOptions) -> Result<Self, LayoutError> {
        let PackedOptions { cluster_size, codec } = *options;
        let mut header = empty_header(map.guest_len(), cluster_size)?;
        if codec == Codec::Zstd {
            header.set_zstd();
        }
        let l1_entries = u64::from(header.l1_size);
        let l1 = Span::new(cluster_size, (l1_entries * ENTRY).next_multiple_of(cluster_size));
        header.l1_table_offset = l1.start;
        let (clusters, tables) = allocated(map, header.cluster_bits, header.l2_entries())?;
        if Placement::memory(clusters.len()) > MAX_PACKED_MEMORY {
            return Err(LayoutError::TooMuchData(cluster_size));
        }
        let placement = Placement::new(cluster_size, l1.end(), clusters.len());
        let mut layout = Self {
            codec,
            clusters,
            placement,
            tables,
            header,
            l1: Table { object: l1, entries: l1_entries },
            max_len: 0,
            tail: Tail::default(),
        };
        // As long as this only if no cluster shrinks.
        let most = layout.tail(l1.end() + layout.clusters.len() * cluster_size);
        if most.refcount_blocks.object.len / cluster_size * ENTRY > MAX_REFCOUNT_TABLE_LEN {
            return Err(LayoutError::TooLarge { virtual_size: layout.header.size, cluster_size });
        }
        layout.max_len = most.refcount_blocks.object.end();
        layout.tables = Ranks::default();
        Ok(layout)
    }

    fn cluster_size(&self) -> u64 {
        self.header.cluster_size()
    }

    /// What stands behind clusters that end at `data_end`.
    fn tail(&self, data_end: u64) -> Tail {
        let cluster_size = self.cluster_size();
        let tables = self.tables.len();
        let l2 = Span::new(data_end, tables * cluster_size);
        let other = l2.end() / cluster_size;
        let (table_clusters, blocks) = refcounts(other, cluster_size);
        let table = Span::new(l2.end(), table_clusters * cluster_size);
        Tail {
            l2: Table { object: l2, entries: tables * self.header.l2_entries() },
            refcount_table: Table { object: table, entries: blocks },
            refcount_blocks: Table {
                object: Span::new(table.end(), blocks * cluster_size),
                entries: other + table_clusters + blocks,
            },
        }
    }

    /// The segment of head or tail at `at`, which lies in the sealed file; the clusters in between are passed over as if they were zero.
    fn segment_at(&self, at: u64) -> Segment {
        let Tail { l2, refcount_table, refcount_blocks } = &self.tail;
        if at < self.l1.object.start {
            header_at(&self.header, at)
        } else if self.l1.object.contains(at) {
            self.l1.segment_at(at, ENTRY, |i| {
                let run = self.tables.from(i)?;
                Some(pointers(run, l2.object, self.cluster_size(), COPIED))
            })
        } else if l2.object.contains(at) {
            let mut entries = L2Entries { layout: self, next: None };
            l2.segment_at(at, ENTRY, |i| entries.from(i))
        } else if refcount_table.object.contains(at) {
            refcount_table.segment_at(at, ENTRY, |i| {
                let blocks = Run { first: i, len: refcount_table.entries.checked_sub(i)?, rank: i };
                Some(pointers(blocks, refcount_blocks.object, self.cluster_size(), 0))
            })
        } else if refcount_blocks.object.contains(at) {
            refcount_blocks.segment_at(at, REFCOUNT, |i| self.refcounts(i))
        } else {
            Segment { object: Span::between(at, l2.object.start), fill: Fill::Zero }
        }
    }

    /// The refcounts from a cluster of the file on, as far as they are equal.
    fn refcounts(&self, from: u64) -> Option<Entries> {
        let head = self.l1.object.end() >> self.header.cluster_bits;
        let tail = self.tail.l2.object.start >> self.header.cluster_bits;
        let once = |end: u64| Some(Entries { first: from, count: end.checked_sub(from)?, value: 1, step: 0 });
        if from < head {
            return once(head);
        }
        if from >= tail {
            return once(self.tail.refcount_blocks.entries);
        }
        let value = self.placement.refcount(from - head)?;
        Some(Entries { first: from, count: 1, value: value.into(), step: 0 })
    }

    /// The L2 entry of a cluster at `place`.
    fn l2_entry(&self, place: Place) -> u64 {
        match place {
            Place::Plain(start) => start | COPIED,
            Place::Packed(span) => {
                let sectors = (span.end() - 1) / SECTOR - span.start / SECTOR;
                // "x = 62 - (cluster_bits - 8)": bits below hold the offset.
                let shift = 62 - (self.header.cluster_bits - 8);
                COMPRESSED | sectors << shift | span.start
            }
        }
    }
}

impl PackedLayout for Packed {
    fn unit_len(&self) -> u64 {
        self.cluster_size()
    }

    fn codec(&self) -> Codec {
        self.codec
    }

    fn max_frame_len(&self) -> u64 {
        // One as long as its cluster would save nothing.
        self.cluster_size() - 1
    }

    fn gap_within(&self) -> u64 {
        self.cluster_size()
    }

    fn head_len(&self) -> u64 {
        self.l1.object.end()
    }

    fn max_len(&self) -> u64 {
        self.max_len
    }

    fn places_zeroes(&self) -> bool {
        false
    }

    fn place(&mut self, guest: u64, frame: Frame, _bytes: &[u8]) -> Placed {
        let cluster = guest >> self.header.cluster_bits;
        if let Some(run) = self.clusters.from(cluster) {
            self.placement.skip_to(run.rank);
        }
        let table = cluster / self.header.l2_entries();
        self.tables.add(table, table + 1);
        let offset = self.placement.place(match frame {
            Frame::Plain => self.cluster_size(),
            // Readers take files that decode to more than this for bombs: a frame is given room until none can.
            Frame::Encoded(len) => len.max(self.cluster_size() / MAX_EXPANSION_RATIO),
        });
        Placed { offset, lead: Bytes::new() }
    }

    fn unsettled(&self) -> Unsettled {
        Unsettled { gap: self.placement.gap(), end: self.placement.end() }
    }

    fn seal(&mut self) -> u64 {
        self.placement.skip_to(self.clusters.len());
        self.tail = self.tail(self.placement.end());
        let table = self.tail.refcount_table.object;
        self.header.refcount_table_offset = table.start;
        // As many as max_len has at the most, which was checked.
        self.header.refcount_table_clusters =
            u32::try_from(table.len / self.cluster_size()).unwrap_or(u32::MAX);
        self.tail.refcount_blocks.object.end()
    }

    fn literal_from(&self, at: u64) -> Option<(u64, Bytes)> {
        let mut at = at;
        while at < self.tail.refcount_blocks.object.end() {
            let Segment { object, fill } = self.segment_at(at);
            match fill {
                Fill::Literal(bytes) => return Some((at, bytes)),
                Fill::Zero | Fill::Guest(_) => at = object.end(),
            }
        }
        None
    }
}

/// Guest clusters and their places.
type Places<'a> = Box<dyn Iterator<Item = (u64, Place)> + 'a>;

/// Entries of the L2 tables, one after the other: going on costs a step, beginning elsewhere a few hundred.
struct L2Entries<'a> {
    layout: &'a Packed,
    /// Guest clusters that have a place, and it; from where the last question was.
    next: Option<Peekable<Places<'a>>>,
}

impl L2Entries<'_> {
    /// The entry with index `from`, counted through all L2 tables, or the next one that is not zero.
    fn from(&mut self, from: u64) -> Option<Entries> {
        let Self { layout, next } = self;
        let layout = *layout;
        let in_table = layout.header.l2_entries();
        let wanted = layout.tables.at(from / in_table)?.first * in_table + from % in_table;
        let places = next.get_or_insert_with(|| places(layout, wanted).peekable());
        while places.next_if(|(guest, _)| *guest < wanted).is_some() {}
        let &(guest, place) = places.peek()?;
        let table = layout.tables.from(guest / in_table)?;
        let first = table.rank * in_table + guest % in_table;
        Some(Entries { first, count: 1, value: layout.l2_entry(place), step: 0 })
    }
}

/// The guest clusters from `first` on that have a place, and their places.
fn places(layout: &Packed, first: u64) -> Places<'_> {
    let Some(start) = layout.clusters.from(first) else { return Box::new(std::iter::empty()) };
    let mut run = start;
    let guests = std::iter::from_fn(move || {
        if run.len == 0 {
            run = layout.clusters.at(run.rank)?;
        }
        let guest = run.first;
        run = Run { first: guest + 1, len: run.len - 1, rank: run.rank + 1 };
        Some(guest)
    });
    Box::new(guests.zip(layout.placement.from(start.rank)).filter_map(|(guest, place)| Some((guest, place?))))
}

#[cfg(test)]
mod tests;
