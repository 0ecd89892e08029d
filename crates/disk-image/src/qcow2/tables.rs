//! From the L1 and L2 tables to an extent map.
//!
//! Source: QEMU `docs/interop/qcow2.rst`, section "Cluster mapping". Both levels are streamed in steps: the L1 table leaves the list
//! of L2 tables that exist, and each L2 table leaves runs in the map ([`entries`](super::entries)). Only what maps the virtual disk
//! is looked at: entries past its end belong to saved VM state.
//!
//! Refused: a pointer that is not aligned, has reserved bits, or leads past the end of the file; a table or a cluster that lies where
//! something else does ([`Claims`]), because a file of 70 KiB could then ask for hours of work, and because tables are no guest
//! data; compressed clusters that decode to more than the file can honestly hold. Cost: 12 bytes an L2 table, the claims, and the map;
//! together at most [`MAX_MAP_MEMORY`](crate::limits::MAX_MAP_MEMORY).
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::claims::Claims;
use crate::limits::{MAX_EXPANSION, MAX_EXPANSION_RATIO};
use crate::map::check_memory;
use crate::qcow2::entries::entries;
use crate::qcow2::entries::{Geometry, Output, SECTOR, Store};
use crate::qcow2::header::{Checked, ENTRY, Root};
use crate::qcow2::snapshots::Snapshots;
use crate::span::Window;
use crate::{
    Details, ExtentMap, ExtentMapBuilder, Image, Item, Open, OpenError, Span, State, Stored, Warning,
};

/// What is to be read.
pub(super) struct Source {
    pub checked: Checked,
    pub snapshots: Snapshots,
    /// The active state or a snapshot.
    pub root: Root,
    /// The image's own file.
    pub file: Window,
    /// Where its clusters lie.
    pub store: Store,
    /// What of the file is in use, but for the L2 tables and the clusters.
    pub claims: Claims,
}

/// Reads the tables of a file, about `step` bytes at a time.
pub(super) fn read(source: Source, step: u64) -> Result<Open<Image>, OpenError> {
    let Source { checked, snapshots, root, file, store, claims } = source;
    let geometry = Geometry::new(checked.header, root.guest_len, file, store);
    let out = Output { map: ExtentMapBuilder::new(), claims, encoded: 0 };
    Walk { checked, snapshots, root, geometry, step, tables: Tables::default(), out }.l1(0)
}

/// What is known so far. Handed from step to step.
struct Walk {
    checked: Checked,
    snapshots: Snapshots,
    root: Root,
    geometry: Geometry,
    step: u64,
    tables: Tables,
    out: Output,
}

/// The L2 tables that exist, in guest order.
#[derive(Default)]
struct Tables {
    /// Which L1 entry points to the table.
    index: Vec<u32>,
    /// Where the table starts.
    start: Vec<u64>,
}

impl Walk {
    /// Reads the L1 table from entry `first` on, as far as it maps the disk.
    fn l1(mut self, first: u64) -> Result<Open<Image>, OpenError> {
        let whole = self.root.l1;
        let needed = self.checked.header.l1_needed(self.root.guest_len).saturating_mul(ENTRY);
        let at = whole.start.saturating_add(first.saturating_mul(ENTRY));
        let end = whole.start.saturating_add(needed).min(at.saturating_add(self.step));
        let want = Span::between(at, end);
        if want.is_empty() {
            return self.l2(0);
        }
        Ok(Open::need_one(self.geometry.file.stored(want), move |bytes| {
            for (index, entry) in (first..).zip(entries(&bytes)) {
                let what = Item::Entry(self.root.name, index);
                if let Some(start) = self.geometry.l2_table(entry, what)? {
                    self.out.claims.claim(Span::new(start, self.geometry.cluster), what)?;
                    self.tables.push(index, start);
                }
            }
            self.check_memory()?;
            self.l1(first.saturating_add((want.len / ENTRY).max(1)))
        }))
    }

    /// Reads the L2 tables from the `first` one on.
    fn l2(mut self, first: usize) -> Result<Open<Image>, OpenError> {
        let cluster = self.geometry.cluster;
        let count = usize::try_from(self.step.div_ceil(cluster)).unwrap_or(1);
        let Some(starts) = self.tables.start.get(first..).filter(|rest| !rest.is_empty()) else {
            return self.finish().map(Open::Ready);
        };
        let mut wants: Vec<Span> = Vec::new();
        let mut next = first;
        for &start in starts.iter().take(count) {
            match wants.last_mut() {
                Some(last) if last.end() == start => last.len = last.len.saturating_add(cluster),
                _ => wants.push(Span::new(start, cluster)),
            }
            next = next.saturating_add(1);
        }
        let wants = wants.into_iter().map(|want| self.geometry.file.stored(want)).collect();
        Ok(Open::need(wants, move |answers| {
            let cluster = usize::try_from(cluster).unwrap_or(usize::MAX);
            let tables = answers.iter().flat_map(|bytes| bytes.chunks_exact(cluster));
            let indices = self.tables.index.get(first..).unwrap_or_default().iter();
            for (table, &index) in tables.zip(indices) {
                self.geometry.push_table(&mut self.out, table, index.into())?;
                self.check_memory()?;
            }
            self.check_expansion()?;
            self.l2(next)
        }))
    }

    fn finish(self) -> Result<Image, OpenError> {
        let Self { checked, snapshots, root, geometry, out, .. } = self;
        let header = checked.header;
        let virtual_size = geometry.guest_len.next_multiple_of(SECTOR);
        let map = out.map.finish(virtual_size);
        if out.claims.has_doubts() {
            out.claims.recheck(stream_starts(&map))?;
        }
        let mut warnings = Vec::new();
        if virtual_size != geometry.guest_len {
            warnings.push(Warning::PartialSector(geometry.guest_len));
        }
        if header.is_dirty() {
            warnings.push(Warning::Dirty);
        }
        if header.is_corrupt() {
            warnings.push(Warning::Corrupt);
        }
        if header.nb_snapshots > 0 && root == header.root() {
            warnings.push(Warning::Snapshots(header.nb_snapshots));
        }
        if let Some((index, _)) = snapshots.damage {
            warnings.push(Warning::SnapshotTable(index));
        }
        let mut image = Image::new(virtual_size, map, Details::Qcow2(checked.details(snapshots.list)));
        image.warnings = warnings;
        image.partial = matches!(geometry.store, Store::Skipped);
        Ok(image)
    }

    fn check_memory(&self) -> Result<(), OpenError> {
        let Self { out, tables, snapshots, .. } = self;
        let parts = [out.map.memory(), out.claims.memory(), tables.memory(), snapshots.memory()];
        check_memory(parts.into_iter().fold(0, usize::saturating_add))
    }

    /// Refuses compressed clusters that decode to more than any honest writer puts into a file of this length.
    fn check_expansion(&self) -> Result<(), OpenError> {
        let limit = MAX_EXPANSION.max(self.geometry.file.len.saturating_mul(MAX_EXPANSION_RATIO));
        if self.out.encoded > limit {
            let what = Item::The("number of guest bytes in compressed clusters");
            return Err(OpenError::Limit { what, found: self.out.encoded, limit });
        }
        Ok(())
    }
}

/// Where the compressed clusters start, in guest order.
fn stream_starts(map: &ExtentMap) -> impl Iterator<Item = u64> {
    map.iter().filter_map(|extent| match extent.state {
        State::Encoded { stored: Stored { span, .. }, .. } => Some(span.start),
        _ => None,
    })
}

impl Tables {
    fn push(&mut self, index: u64, start: u64) {
        // An L1 table has at most 2^22 entries.
        self.index.push(u32::try_from(index).unwrap_or(u32::MAX));
        self.start.push(start);
    }

    fn memory(&self) -> usize {
        size_of_val(self.start.as_slice()).saturating_add(size_of_val(self.index.as_slice()))
    }
}
