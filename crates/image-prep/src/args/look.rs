//! The command lines of `info`, `map` and `compare`.

use std::path::PathBuf;

use clap::Args;

use super::{FormatName, OpenArgs, ReferenceArgs, StoreArgs, StoredArgs};

/// Show what an image is: format, sizes, layout, warnings.
///
/// Without --digest no more than metadata and a few MiB of the disk are read, and "storage" is an upper bound: the bytes of all 4 MiB
/// blocks of the disk in which anything is stored. With --digest everything is read and decoded, and it is exact: the bytes of the 4 MiB blocks that are
/// not zero throughout, which is what the cloud stores.
///
/// Files that the image names are listed, not opened, and the sizes then cover the image's own file only; with
/// --allow-references they cover the whole disk. --digest and --check need the whole disk.
///
/// What is inside the disk is looked at in any format, reading a few MiB: partitions, file systems, what starts, the operating system, and
/// whether it is ready for the cloud (drivers, console, cloud-init, mounts, DHCP, SSH, encryption, boot), with the line of the file that
/// tells and what would help. It is advice: what cannot be read is unknown.
///
/// JSON: format, virtualSize, fileSize (of the image's own file), allocatedSize (guest bytes that are stored, compressed or
/// not), storageSize, storageSizeExact, minDiskSize (the virtual size rounded up to 4 MiB), references (of each: role, name, format
/// unless it is not declared, and file, the one that names it), partial (true if sizes do not cover what references hold),
/// guestDigest (with --digest), check (with --check), warnings, guest (partitionTable, partitions, boot, system, readiness, suggestions,
/// notes, bytesRead; absent if the disk cannot be read). Sizes are in bytes.
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Path, block device, or https URL
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Read everything; print the digest of the guest's content
    ///
    /// SHA-256 over the virtual size and the SHA-256 of each 4 MiB block of the disk. It does not depend on the format: images
    /// with the same digest hold the same disk.
    #[arg(long)]
    pub(crate) digest: bool,
    /// Check everything that guest bytes can be reached through; exit with 3 if anything is wrong
    ///
    /// Reads every table of the image, and of the files beneath it where references are allowed, and proves that all of them
    /// lie inside their files and apart from each other. It is the check that every other command makes before it reads data.
    #[arg(long)]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) open: OpenArgs,
}

/// Show which guest bytes are data, zero, or compressed.
///
/// JSON is what `qemu-img map --output=json` prints; so is the table, except that compressed runs, which qemu-img refuses to
/// list, are listed as "compressed". Runs that lie in another file than the image itself have its path as "filename"; "depth" is
/// always 0, as the layers are one map here.
#[derive(Debug, Args)]
pub(crate) struct MapArgs {
    /// Path, block device, or https URL
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Draw the map, by partition; with FILE as SVG
    ///
    /// Each character is the same number of bytes, a power of two. Without a terminal, or with NO_COLOR, there are no
    /// colours; the characters say the same.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, conflicts_with = "json")]
    pub(crate) picture: Option<Option<PathBuf>>,
    #[command(flatten)]
    pub(crate) open: OpenArgs,
}

/// Compare the guest content of two images, wherever they are.
///
/// Exits with 0 if the disks are the same and with 1 if they differ; the offset of the first difference is printed. Disks of
/// different sizes differ at the latest where the shorter one ends. Failures exit with 2, refused images with 3.
///
/// An object that `upload` or `create` made has the guest digest of its disk as metadata. It is taken for the disk, and the object is
/// not read beyond its own tables, if form and size of the object fit; the other disk is read for its digest unless it has one
/// too. The result says so, and does not say where disks differ. Who may write an object may write a wrong digest:
/// --content believes none.
///
/// JSON: same, by (content, digest or size), virtualSizes, and firstDifference if content was read and differs.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Path, block device, https URL, s3://BUCKET/KEY, gs://BUCKET/KEY, or image:ID for an Image of an image-server
    #[arg(value_name = "A")]
    pub(crate) first: String,
    /// Path, block device, https URL, s3://BUCKET/KEY, gs://BUCKET/KEY, or image:ID for an Image of an image-server
    #[arg(value_name = "B")]
    pub(crate) second: String,
    /// Read both disks, whatever digest is recorded with an object
    #[arg(long)]
    pub(crate) content: bool,
    /// Take A to be of this format instead of looking at its content
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<FormatName>,
    /// Take B to be of this format instead of looking at its content
    #[arg(long, value_name = "FORMAT")]
    pub(crate) second_format: Option<FormatName>,
    /// Read this internal snapshot of A, by its id or name, instead of the current state
    #[arg(long, value_name = "ID|NAME")]
    pub(crate) snapshot: Option<String>,
    /// Read this internal snapshot of B, by its id or name, instead of the current state
    #[arg(long, value_name = "ID|NAME")]
    pub(crate) second_snapshot: Option<String>,
    #[command(flatten)]
    pub(crate) references: ReferenceArgs,
    /// Allow http:// besides https:// for hosts other than this one
    #[arg(long)]
    pub(crate) allow_http: bool,
    #[command(flatten)]
    pub(crate) stored: StoredArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}
