//! What only one format has: for programs, and for people in parentheses.

use disk_image::{Details, Encoding, Image, qcow2};
use schemars::JsonSchema;
use serde::Serialize;

use crate::args::values::Size;

/// What only one format has; sizes in bytes.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub(super) enum Of {
    /// A qcow2.
    Qcow2 {
        version: u32,
        cluster_size: u64,
        /// What compressed clusters are compressed with, if there are any.
        compression_type: &'static str,
        refcount_bits: u32,
        lazy_refcounts: bool,
        /// Clusters have parts that are stored on their own.
        subclusters: bool,
        /// The guest's bytes lie in another file.
        data_file: bool,
        snapshots: Vec<Snapshot>,
        /// How many dirty bitmaps it has.
        bitmaps: u32,
    },
    /// A VMDK; of its first sparse extent where it has several files.
    Vmdk {
        create_type: String,
        /// How many extents the descriptor lists.
        extents: u64,
        version: Option<u32>,
        grain_size: Option<u64>,
        compressed: bool,
    },
    /// A VHD.
    Vhd {
        disk_type: String,
        /// The program that made it, as it says.
        creator: String,
        block_size: Option<u64>,
        id: String,
    },
    /// A VHDX.
    Vhdx {
        disk_type: String,
        block_size: u64,
        logical_sector_size: u32,
        physical_sector_size: u32,
        id: String,
        data_write_id: String,
    },
}

/// An internal snapshot.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Snapshot {
    id: String,
    name: String,
    /// Of the disk then.
    virtual_size: u64,
    /// What was saved of a machine that ran.
    vm_state_size: u64,
    /// Seconds since 1970.
    date_seconds: u32,
}

/// What only this format has.
pub(super) fn of(image: &Image) -> (Option<Of>, String) {
    let (of, text) = match image.details() {
        Details::Raw => return (None, String::new()),
        Details::Qcow2(details) => {
            let compression = if details.compression == Encoding::Zstd { "zstd" } else { "zlib" };
            let (version, clusters) = (details.version, Size(details.cluster_size));
            let of = Of::Qcow2 {
                version,
                cluster_size: details.cluster_size,
                compression_type: compression,
                refcount_bits: details.refcount_bits,
                lazy_refcounts: details.lazy_refcounts,
                subclusters: details.subclusters,
                data_file: details.data_file,
                snapshots: details.snapshots.iter().map(Snapshot::from).collect(),
                bitmaps: details.bitmaps,
            };
            let is_compressed = image.map().stats().encoded > 0;
            let compressed = if is_compressed { format!(", {compression}") } else { String::new() };
            (of, format!(" (version {version}, clusters of {clusters}{compressed})"))
        }
        Details::Vmdk(details) => {
            let (kind, sparse) = (details.create_type, details.sparse);
            let of = Of::Vmdk {
                create_type: kind.to_string(),
                extents: details.extents,
                version: sparse.map(|sparse| sparse.version),
                grain_size: sparse.map(|sparse| sparse.grain_size),
                compressed: sparse.is_some_and(|sparse| sparse.compressed),
            };
            let extents =
                if details.extents > 1 { format!(", {} extents", details.extents) } else { String::new() };
            let grains = sparse.map(|sparse| format!(", grains of {}", Size(sparse.grain_size)));
            (of, format!(" ({kind}{extents}{})", grains.unwrap_or_default()))
        }
        Details::Vhd(details) => {
            let (kind, creator) = (details.disk_type, &details.creator);
            let of = Of::Vhd {
                disk_type: kind.to_string(),
                creator: creator.clone(),
                block_size: details.block_size,
                id: details.id.to_string(),
            };
            let blocks = details.block_size.map(|size| format!(", blocks of {}", Size(size)));
            (of, format!(" ({kind}{}, made by {creator})", blocks.unwrap_or_default()))
        }
        Details::Vhdx(details) => {
            let (kind, blocks) = (details.disk_type, Size(details.block_size));
            let of = Of::Vhdx {
                disk_type: kind.to_string(),
                block_size: details.block_size,
                logical_sector_size: details.logical_sector_size,
                physical_sector_size: details.physical_sector_size,
                id: details.id.to_string(),
                data_write_id: details.data_write_id.to_string(),
            };
            let sectors = match details.logical_sector_size {
                512 => String::new(),
                size => format!(", sectors of {size} bytes"),
            };
            (of, format!(" ({kind}, blocks of {blocks}{sectors})"))
        }
    };
    (Some(of), text)
}

impl From<&qcow2::Snapshot> for Snapshot {
    fn from(snapshot: &qcow2::Snapshot) -> Self {
        Self {
            id: snapshot.id.clone(),
            name: snapshot.name.clone(),
            virtual_size: snapshot.virtual_size,
            vm_state_size: snapshot.vm_state_size,
            date_seconds: snapshot.date_seconds,
        }
    }
}
