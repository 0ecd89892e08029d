//! QCOW2, the format of QEMU: opening reads versions 2 and 3, [`Layout`] writes version 3.
//!
//! Source: QEMU `docs/interop/qcow2.rst`. Numbers are big-endian, offsets and lengths are bytes, tables are counted in clusters.
//!
//! A guest offset is looked up through two levels of tables: an entry of the L1 table points to an L2 table, one cluster long, whose
//! entries point to the clusters of the guest. Refcounts say which clusters of the file are in use; a reader needs none.
//!
//! Read: every cluster size from 512 bytes to 2 MiB, deflate and Zstandard clusters, both kinds of zero cluster, subclusters
//! (extended L2 entries), backing files, external data files, internal snapshots, any refcount width, a virtual size that ends
//! inside a cluster. Passed over: bitmaps, saved VM state. Refused by name: encryption, unknown incompatible features and
//! compression types.
//!
//! The metadata is read in one pass before any guest byte, and each range of the file that something points to is claimed once: header,
//! L1 tables, L2 tables, refcount table and blocks, snapshot table, clusters. Refused is what points to anything twice. Not looked
//! at are the L2 tables and clusters that only another state of the disk uses: a guest cluster may still lie on those.
//!
//! Cost: the header, the refcount table, the snapshot table, the L1 table and each L2 table are read once and not kept. Time goes with
//! the tables that exist, not with the virtual size: an empty disk of 8 TiB is a header, a refcount table, and an L1 table of 128 KiB.

mod entries;
mod header;
mod layout;
mod packed;
mod placement;
mod ranks;
mod refcounts;
mod snapshots;
mod tables;
#[cfg(test)]
mod tests;

use crate::backing::over_backing;
use crate::claims::Claims;
use crate::limits::{MAX_HEADER_LEN, METADATA_STEP};
use crate::span::Window;
use crate::{Encoding, Format, Image, Item, Layer, Open, OpenError, Reference, Referred, Role, Span};
use entries::Store;
use header::{Backing, Checked, Header};
use tables::Source;

pub use layout::{DEFAULT_CLUSTER_SIZE, Layout, LayoutError, LayoutOptions};
pub use packed::{DEFAULT_PACKED_CLUSTER_SIZE, Packed, PackedOptions};
pub use snapshots::Snapshot;

/// What the header of a QCOW2 image says beyond its guest bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Details {
    /// 2 or 3.
    pub version: u32,
    /// Bytes in a cluster: a power of two from 512 to 2 MiB.
    pub cluster_size: u64,
    /// Bits in a refcount: a power of two from 1 to 64.
    pub refcount_bits: u32,
    /// How compressed clusters are encoded, if there are any.
    pub compression: Encoding,
    /// Refcounts are updated late, at the price of the dirty bit.
    pub lazy_refcounts: bool,
    /// Allocation is told for each of 32 subclusters of a cluster (extended L2 entries).
    pub subclusters: bool,
    /// The guest clusters lie in another file.
    pub data_file: bool,
    /// Internal snapshots, as far as their table can be read.
    pub snapshots: Vec<Snapshot>,
    /// Dirty bitmaps.
    pub bitmaps: u32,
}

/// Opens the image in a window.
pub(crate) fn open(file: Window, layer: &Layer) -> Result<Open<Image>, OpenError> {
    let layer = layer.clone();
    let head = file.at(0, file.len.min(MAX_HEADER_LEN));
    Ok(Open::need_one(head, move |bytes| {
        let checked = Header::read(&bytes, file.len)?;
        let backing = checked.backing.clone();
        open_clusters(checked, file, layer.snapshot.clone())?.and_then(move |top| match backing {
            Some(Backing { name, format }) => {
                let role = Role::BackingFile;
                let Some(format) = format.or(layer.backing_format) else {
                    return Err(OpenError::Undeclared { role, name });
                };
                let reference = Reference { by: file.file, name, role, format };
                over_backing(top, reference, &layer)
            }
            None => Ok(Open::Ready(top)),
        })
    }))
}

/// Asks for the data file, if there is one, and reads all tables.
fn open_clusters(checked: Checked, file: Window, snapshot: Option<String>) -> Result<Open<Image>, OpenError> {
    let Some(name) = checked.data_file.clone() else {
        return open_tables(checked, file, Store::Image, snapshot, METADATA_STEP);
    };
    // Nothing but the clusters is in it, so it is a raw disk, whether it is marked as one or not.
    let reference = Reference { by: file.file, name, role: Role::DataFile, format: Format::Raw };
    Ok(Open::refer_one(reference.clone(), move |referred| {
        let store = match referred {
            Referred::File { file, len, allocation } => {
                Store::DataFile { file: Window::file(file, len), allocation }
            }
            Referred::Skipped => Store::Skipped,
        };
        let image = open_tables(checked, file, store, snapshot, METADATA_STEP)?;
        image.and_then(move |mut image| {
            image.references.push(reference);
            Ok(Open::Ready(image))
        })
    }))
}

/// Reads the tables: those that are only claimed, and then those that map the guest, about `step` bytes at a time.
fn open_tables(
    checked: Checked,
    file: Window,
    store: Store,
    snapshot: Option<String>,
    step: u64,
) -> Result<Open<Image>, OpenError> {
    let header = checked.header;
    let mut claims = Claims::new(header.cluster_size());
    claims.claim(Span::new(0, header.cluster_size()), Item::The("QCOW2 header"))?;
    claims.claim(header.refcount_table(), Item::The("refcount table"))?;
    claims.claim(header.whole_clusters(header.root().l1), Item::The("L1 table"))?;
    refcounts::claim(header, file, claims, 0, step)?.and_then(move |claims| {
        snapshots::read(header, file, claims, step)?.and_then(move |(snapshots, claims)| {
            let root = match snapshot {
                Some(wanted) => snapshots.find(&wanted, &header)?,
                None => header.root(),
            };
            tables::read(Source { checked, snapshots, root, file, store, claims }, step)
        })
    })
}
