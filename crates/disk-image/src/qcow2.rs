//! QCOW2, the format of QEMU: opening reads versions 2 and 3, [`Layout`] writes version 3.
//!
//! Source: QEMU `docs/interop/qcow2.rst`. Numbers are big-endian, offsets and lengths are bytes, tables are counted in clusters.
//!
//! A guest offset is looked up through two levels of tables: an entry of the L1 table points to an L2 table, one cluster long, whose
//! entries point to the clusters of the guest. Refcounts say which clusters of the file are in use; a reader needs none.
//!
//! Read: every cluster size from 512 bytes to 2 MiB, deflate and Zstandard clusters, both kinds of zero cluster, any refcount
//! width, a virtual size that ends inside a cluster. Passed over: internal snapshots, bitmaps, saved VM state. Refused by name:
//! external data files, extended L2 entries, encryption, unknown incompatible features and compression types.
//!
//! Cost: the header, the L1 table and each L2 table are read once and not kept. Time goes with the tables that exist, not with the
//! virtual size: an empty disk of 8 TiB is a header and an L1 table of 128 KiB.

mod header;
mod layout;
mod ranks;
mod tables;
#[cfg(test)]
mod tests;

use crate::backing::over_backing;
use crate::limits::{MAX_HEADER_LEN, METADATA_STEP};
use crate::span::Window;
use crate::{Encoding, Image, Layer, Open, OpenError, Reference, Role};
use header::{Backing, Header};

pub use layout::{DEFAULT_CLUSTER_SIZE, Layout, LayoutError, LayoutOptions};

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
    /// Internal snapshots.
    pub snapshots: u32,
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
        tables::read(checked, file, METADATA_STEP)?.and_then(move |top| match backing {
            Some(Backing { name, format }) => {
                let format =
                    format.or(layer.backing_format).ok_or(OpenError::Undeclared(Role::BackingFile))?;
                let reference = Reference { by: file.file, name, role: Role::BackingFile, format };
                over_backing(top, reference, &layer)
            }
            None => Ok(Open::Ready(top)),
        })
    }))
}
