//! A QCOW2 file with its metadata first: every byte is known before the first one is written, and the guest's clusters follow in
//! guest order.
//!
//! Source: QEMU `docs/interop/qcow2.rst`. In this order, each in clusters of its own: header, refcount table, refcount blocks, L1
//! table, L2 tables, guest clusters. Version 3 without any optional feature, 16-bit refcounts that are all 1. A cluster is
//! allocated if any of its bytes is stored in the source; what is zero or a hole as a whole is left out.
//!
//! Refused: cluster sizes that the format does not have, and disks whose tables QEMU would not open. Cost: 8 bytes a run of
//! allocated clusters and a run of L2 tables; entries are computed when they are asked for.

use std::sync::Arc;

use bytes::Bytes;

use crate::limits::{MAX_L1_LEN, MAX_LAYOUT_MEMORY, MAX_REFCOUNT_TABLE_LEN, MAX_VIRTUAL_SIZE};
use crate::qcow2::header::{CLUSTER_BITS, ENTRY, Header, V3_LEN};
use crate::qcow2::ranks::{Ranks, Run};
use crate::{ExtentMap, Fill, Segment, Span};

/// The cluster size that clouds recommend for import: QEMU's largest, with the smallest tables.
pub const DEFAULT_CLUSTER_SIZE: u64 = 2 << 20;

/// Longest literal made at once, bytes.
const MAX_LITERAL: usize = 64 << 10;

/// Zero stretches of a table shorter than this are written, longer ones are left out: the block of most file systems, bytes.
const MIN_GAP: u64 = 4096;

/// Refcounts of 16 bits, which version 2 readers expect.
const REFCOUNT_ORDER: u32 = 4;
pub(super) const REFCOUNT: u64 = 2;

/// Bit 63 of an L1 or L2 entry: the refcount is 1.
pub(super) const COPIED: u64 = 1 << 63;

/// Guest disks are made of sectors of this size.
const SECTOR: u64 = 512;

/// How to lay out a QCOW2 file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayoutOptions {
    /// Bytes in a cluster: a power of two from 512 to 2 MiB.
    pub cluster_size: u64,
}

impl Default for LayoutOptions {
    fn default() -> Self {
        Self { cluster_size: DEFAULT_CLUSTER_SIZE }
    }
}

/// Why there is no QCOW2 file for a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The format has no such clusters.
    #[error("a QCOW2 cluster cannot have {0} bytes, expected a power of two from 512 to 2097152")]
    ClusterSize(u64),
    /// The tables would be larger than QEMU opens.
    #[error("a disk of {virtual_size} bytes needs larger clusters than {cluster_size} bytes")]
    TooLarge {
        /// Bytes of the disk.
        virtual_size: u64,
        /// Bytes in a cluster.
        cluster_size: u64,
    },
    /// The disk is above the limit of [`crate::limits::MAX_VIRTUAL_SIZE`].
    #[error("the virtual size is {0}, the limit is {MAX_VIRTUAL_SIZE}")]
    VirtualSize(u64),
    /// So many runs of allocated clusters that their list is above [`MAX_LAYOUT_MEMORY`].
    #[error("the disk is too fragmented for clusters of {0} bytes, larger ones would do")]
    Fragmented(u64),
    /// So many clusters to compress that the list of their lengths is above [`MAX_PACKED_MEMORY`](crate::limits::MAX_PACKED_MEMORY).
    #[error("the disk has too much data to compress in clusters of {0} bytes, larger ones would do")]
    TooMuchData(u64),
}

/// What fills each byte of a QCOW2 file. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Layout {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    cluster_bits: u32,
    guest_len: u64,
    /// Guest clusters that are allocated.
    clusters: Ranks,
    /// L1 entries that have an L2 table.
    tables: Ranks,
    header: Header,
    refcount_table: Table,
    refcount_blocks: Table,
    l1: Table,
    l2: Table,
    /// The guest clusters.
    data: Span,
}

/// A region of tables: its place in the file, and the entries that it has in use.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Table {
    pub(super) object: Span,
    pub(super) entries: u64,
}

/// Neighbouring entries that are not zero.
pub(super) struct Entries {
    /// Index of the first one in its region.
    pub(super) first: u64,
    pub(super) count: u64,
    /// What the first one holds.
    pub(super) value: u64,
    /// How much more each next one holds.
    pub(super) step: u64,
}

impl Layout {
    /// The layout of a disk.
    ///
    /// # Errors
    ///
    /// If the cluster size is none, or too small for this disk.
    pub fn new(map: &ExtentMap, options: &LayoutOptions) -> Result<Self, LayoutError> {
        let cluster_size = options.cluster_size;
        let mut header = empty_header(map.guest_len(), cluster_size)?;
        let (virtual_size, cluster_bits) = (header.size, header.cluster_bits);
        let too_large = LayoutError::TooLarge { virtual_size, cluster_size };
        let l1_entries = u64::from(header.l1_size);
        let (clusters, tables) = allocated(map, cluster_bits, header.l2_entries())?;

        let l1_clusters = (l1_entries * ENTRY).div_ceil(cluster_size);
        let other = 1 + l1_clusters + tables.len() + clusters.len();
        let (table_clusters, blocks) = refcounts(other, cluster_size);
        if blocks * ENTRY > MAX_REFCOUNT_TABLE_LEN {
            return Err(too_large);
        }
        let mut end = 1;
        let mut region = |count: u64| {
            let start = end;
            end += count;
            Span::new(start * cluster_size, count * cluster_size)
        };
        let refcount_table = Table { object: region(table_clusters), entries: blocks };
        let refcount_blocks = Table { object: region(blocks), entries: other + table_clusters + blocks };
        let l1 = Table { object: region(l1_clusters), entries: l1_entries };
        let l2 = Table { object: region(tables.len()), entries: tables.len() * header.l2_entries() };
        let data = region(clusters.len());

        let count = |n: u64| u32::try_from(n).map_err(|_| too_large);
        header.l1_table_offset = l1.object.start;
        header.refcount_table_offset = refcount_table.object.start;
        header.refcount_table_clusters = count(table_clusters)?;
        let guest_len = map.guest_len();
        let inner = Inner {
            cluster_bits,
            guest_len,
            clusters,
            tables,
            header,
            refcount_table,
            refcount_blocks,
            l1,
            l2,
            data,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Bytes in the file.
    pub fn len(&self) -> u64 {
        self.inner.data.end()
    }

    /// Never: a file has at least a header.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Bytes in a cluster.
    pub fn cluster_size(&self) -> u64 {
        1 << self.inner.cluster_bits
    }

    /// Guest clusters that the file holds.
    pub fn allocated_clusters(&self) -> u64 {
        self.inner.clusters.len()
    }

    /// The segment that begins at `at`, which lies inside the file.
    pub(crate) fn segment_at(&self, at: u64) -> Segment {
        let inner = &*self.inner;
        let tables = [&inner.refcount_table, &inner.refcount_blocks, &inner.l1, &inner.l2];
        match tables.iter().position(|table| table.object.contains(at)) {
            Some(0) => inner.refcount_table.segment_at(at, ENTRY, |i| inner.refcount_table_entries(i)),
            Some(1) => inner.refcount_blocks.segment_at(at, REFCOUNT, |i| inner.refcounts(i)),
            Some(2) => inner.l1.segment_at(at, ENTRY, |i| inner.l1_entries(i)),
            Some(_) => inner.l2.segment_at(at, ENTRY, |i| inner.l2_entries(i)),
            None if inner.data.contains(at) => inner.data_at(at),
            None => header_at(&inner.header, at),
        }
    }
}

/// The header of a disk, without places.
pub(super) fn empty_header(guest_len: u64, cluster_size: u64) -> Result<Header, LayoutError> {
    let cluster_bits = cluster_size.trailing_zeros();
    if !cluster_size.is_power_of_two() || !CLUSTER_BITS.contains(&cluster_bits) {
        return Err(LayoutError::ClusterSize(cluster_size));
    }
    if guest_len > MAX_VIRTUAL_SIZE {
        return Err(LayoutError::VirtualSize(guest_len));
    }
    let virtual_size = guest_len.next_multiple_of(SECTOR);
    let mut header = Header {
        version: 3,
        cluster_bits,
        size: virtual_size,
        refcount_order: REFCOUNT_ORDER,
        header_length: V3_LEN,
        ..Header::default()
    };
    let l1_entries = header.l1_needed(header.size).max(1);
    match u32::try_from(l1_entries) {
        Ok(entries) if l1_entries * ENTRY <= MAX_L1_LEN => header.l1_size = entries,
        _ => return Err(LayoutError::TooLarge { virtual_size, cluster_size }),
    }
    Ok(header)
}

/// The guest clusters that hold stored bytes, and the L1 entries above them.
pub(super) fn allocated(
    map: &ExtentMap,
    cluster_bits: u32,
    l2_entries: u64,
) -> Result<(Ranks, Ranks), LayoutError> {
    let mut clusters = Ranks::default();
    let mut tables = Ranks::default();
    for extent in map.iter().filter(|extent| extent.state.is_stored()) {
        let (first, last) = (extent.guest.start >> cluster_bits, (extent.guest.end() - 1) >> cluster_bits);
        clusters.add(first, last + 1);
        tables.add(first / l2_entries, last / l2_entries + 1);
        // L2 tables make fewer runs than their clusters.
        if clusters.memory() > MAX_LAYOUT_MEMORY {
            return Err(LayoutError::Fragmented(1 << cluster_bits));
        }
    }
    Ok((clusters, tables))
}

/// Clusters of the refcount table and number of refcount blocks in a file of `other` clusters besides; they count themselves.
pub(super) fn refcounts(other: u64, cluster_size: u64) -> (u64, u64) {
    let (mut table, mut blocks) = (1, 1);
    loop {
        let before = (table, blocks);
        blocks = (other + table + blocks).div_ceil(cluster_size / REFCOUNT);
        table = (blocks * ENTRY).div_ceil(cluster_size);
        if (table, blocks) == before {
            return before;
        }
    }
}

impl Inner {
    fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// The guest bytes at `at`; zeroes where the last cluster reaches past the end of the disk.
    fn data_at(&self, at: u64) -> Segment {
        let into = at - self.data.start;
        let within = into % self.cluster_size();
        let rest = Segment { object: Span::between(at, self.data.end()), fill: Fill::Zero };
        let Some(run) = self.clusters.at(into >> self.cluster_bits) else { return rest };
        let guest = (run.first << self.cluster_bits) + within;
        let len = ((run.len << self.cluster_bits) - within).min(self.guest_len.saturating_sub(guest));
        if len == 0 {
            return rest;
        }
        Segment { object: Span::new(at, len), fill: Fill::Guest(guest) }
    }

    /// The refcount table lists the refcount blocks.
    fn refcount_table_entries(&self, from: u64) -> Option<Entries> {
        let blocks = Run { first: from, len: self.refcount_table.entries.checked_sub(from)?, rank: from };
        Some(self.pointers(blocks, self.refcount_blocks.object, 0))
    }

    /// Every cluster of the file is used once.
    fn refcounts(&self, from: u64) -> Option<Entries> {
        let count = self.refcount_blocks.entries.checked_sub(from)?;
        Some(Entries { first: from, count, value: 1, step: 0 })
    }

    fn l1_entries(&self, from: u64) -> Option<Entries> {
        Some(self.pointers(self.tables.from(from)?, self.l2.object, COPIED))
    }

    /// Entries are counted through all L2 tables, which exist only for some entries of the L1 table.
    fn l2_entries(&self, from: u64) -> Option<Entries> {
        let in_table = self.header.l2_entries();
        let table = self.tables.at(from / in_table)?;
        let run = self.clusters.from(table.first * in_table + from % in_table)?;
        let (index, slot) = (run.first / in_table, run.first % in_table);
        let table = self.tables.from(index)?;
        let here = Run { len: run.len.min(in_table - slot), ..run };
        Some(Entries { first: table.rank * in_table + slot, ..self.pointers(here, self.data, COPIED) })
    }

    fn pointers(&self, run: Run, region: Span, flags: u64) -> Entries {
        pointers(run, region, self.cluster_size(), flags)
    }
}

/// Entries that point to the clusters of `region`, by rank.
pub(super) fn pointers(run: Run, region: Span, cluster_size: u64, flags: u64) -> Entries {
    let value = (region.start + run.rank * cluster_size) | flags;
    Entries { first: run.first, count: run.len, value, step: cluster_size }
}

/// The header, then zeroes up to the end of its cluster: the end of the header extensions is among them.
pub(super) fn header_at(header: &Header, at: u64) -> Segment {
    let mut bytes = Bytes::from(header.encode());
    match usize::try_from(at) {
        Ok(at) if at < bytes.len() => segment(at as u64, Fill::Literal(bytes.split_off(at))),
        _ => Segment { object: Span::between(at, header.cluster_size()), fill: Fill::Zero },
    }
}

impl Table {
    /// The segment at `at`: a literal that goes up to the next long stretch of zeroes, or that stretch. `entries` gives the entries
    /// that are not zero, from an index on.
    pub(super) fn segment_at(
        &self,
        at: u64,
        width: u64,
        mut entries: impl FnMut(u64) -> Option<Entries>,
    ) -> Segment {
        let zero = |end| Segment { object: Span::between(at, end), fill: Fill::Zero };
        let offset_of = |index: u64| self.object.start + index * width;
        let first = (at - self.object.start) / width;
        let mut next = first;
        let mut bytes: Vec<u8> = Vec::new();
        while let Some(run) = entries(next).filter(|run| run.count > 0) {
            let gap = (run.first - next) * width;
            if gap >= MIN_GAP && bytes.is_empty() {
                return zero(offset_of(run.first));
            }
            let room = MAX_LITERAL.saturating_sub(bytes.len()) as u64;
            if gap >= MIN_GAP || gap + width > room {
                break;
            }
            bytes.resize(bytes.len() + small(gap), 0);
            let count = run.count.min((room - gap) / width);
            for i in 0..count {
                let entry = (run.value + i * run.step).to_be_bytes();
                bytes.extend_from_slice(&entry[entry.len() - small(width)..]);
            }
            next = run.first + count;
        }
        if bytes.is_empty() {
            return zero(self.object.end());
        }
        // A part may begin inside an entry.
        let literal = Bytes::from(bytes).split_off(small(at - offset_of(first)));
        segment(at, Fill::Literal(literal))
    }
}

fn segment(at: u64, fill: Fill) -> Segment {
    let len = if let Fill::Literal(bytes) = &fill { bytes.len() as u64 } else { 0 };
    Segment { object: Span::new(at, len), fill }
}

/// A length inside a literal.
fn small(len: u64) -> usize {
    usize::try_from(len).unwrap_or(MAX_LITERAL)
}

#[cfg(test)]
mod tests;
