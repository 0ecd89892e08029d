//! The command line of `convert`, and how outputs of every command are laid out.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values::Size;
use super::{OpenArgs, StoredArgs};

/// Convert an image to raw, qcow2, vmdk or gce.
///
/// OUT appears under its name when it is whole and durable, replacing a file that was there. A block device is written in
/// place, after its size was checked; what it held is lost from the first byte on.
#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// Path, block device, https URL, or image:ID for an Image of an image-server
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// File or block device to write
    #[arg(value_name = "OUT")]
    pub(crate) out: PathBuf,
    /// Format of OUT; its suffix is not looked at
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    pub(crate) to: ConvertTo,
    #[command(flatten)]
    pub(crate) layout: LayoutArgs,
    #[command(flatten)]
    pub(crate) open: OpenArgs,
    #[command(flatten)]
    pub(crate) stored: StoredArgs,
}

/// What `convert` makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConvertTo {
    /// The disk itself
    Raw,
    /// Sparse qcow2, its metadata first; or compressed
    Qcow2,
    /// Stream-optimised, which is compressed; what VMware imports
    Vmdk,
    /// A tar.gz with disk.raw in it, filled up to whole GiB; what Compute Engine imports
    Gce,
}

/// How an output is laid out.
#[derive(Debug, Clone, Args)]
pub(crate) struct LayoutArgs {
    /// Compress a qcow2 output: with zlib, which every reader knows, or with zstd, which is faster [default: zlib]
    ///
    /// Clusters that do not shrink are stored as they are. All CPUs compress; the bytes do not depend on how many there are.
    #[arg(short, long, value_name = "TYPE", num_args = 0..=1, require_equals = true, default_missing_value = "zlib")]
    pub(crate) compress: Option<Compression>,

    /// Cluster size of a qcow2 output: a power of two from 512 to 2MiB [default: 2MiB; 64KiB if compressed]
    #[arg(long, value_name = "SIZE")]
    pub(crate) cluster_size: Option<Size>,

    /// Do not look for zeroes in a raw image that becomes a qcow2 or a gce
    ///
    /// Saves one pass over what the file system says is stored, and stores zeroes that were written as data. With --compress they are
    /// left out without such a pass.
    #[arg(long)]
    pub(crate) no_scan: bool,
}

/// How a qcow2 output is compressed; the names of qemu-img's compression_type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    Zlib,
    Zstd,
}

impl Compression {
    /// As typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }
}
