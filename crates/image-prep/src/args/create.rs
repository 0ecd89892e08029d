//! The command line of `create`: the fields of the cloud's Create call.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values::{Bucket, Label, Size};
use super::{ApiArgs, IfExists, LayoutArgs, LocalArgs, OpenArgs, ResumeArgs, StoreArgs, UploadOptions};

/// Upload an image and create a cloud Image from it.
///
/// Opens and checks the image, computes its guest digest, uploads it, signs a URL, asks for the Image, waits until the
/// operation is done, and deletes the uploaded object. The same command again, after whatever stopped it, continues or repeats
/// nothing that was done: one Image comes of it.
///
/// Prints the Image; with --json the finished Operation. Exits with 4 if the operation fails.
///
/// Several images, or those of a --manifest, become an Image each, some at a time: memory and rate are for all of them together, and
/// one that fails stops no other. Names, paths and fields of all are checked first. One line is printed for each when it ends, with --json
/// an object with `image`, `name`, `exitCode`, and `operation` or `error` (or both, if the operation failed; with --dry-run `forecast`).
/// The exit code is the highest of all.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub(crate) struct CreateArgs {
    /// Path, block device, or https URL; of several, each Image is named after its file
    ///
    /// `Web_1.qcow2` becomes `web-1`: without its suffix, in small letters, and with dashes for what no name may have.
    #[arg(value_name = "IMAGE", required_unless_present_any = ["uri", "manifest"])]
    pub(crate) images: Vec<String>,
    /// Create the Images that a file lists, in TOML or JSON; `-` is standard input
    ///
    /// Each of its `images` has a `path` (relative to the file) and may have `name`, `folder-id`, `description`, `family`, `labels`,
    /// `min-disk-size`, `product-ids`, `os`, `nvidia-driver`, `pooled`, `hardware-generation`, `licenses`, `guest-os-features`, `architecture`,
    /// `storage-locations`, `format`, `snapshot` and `member`, which mean what the options of these names do. What an entry says wins over the option; labels are put together, key by key. In TOML an
    /// entry begins with `[[images]]`, in JSON `images` is an array of objects.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["images", "uri", "name", "key", "snapshot", "member"])]
    pub(crate) manifest: Option<PathBuf>,
    /// Of several images, upload so many at a time [default: 4]
    ///
    /// Each has its part of --memory; one that needs more waits until it has it.
    #[arg(long, value_name = "N", conflicts_with = "uri", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) parallel: Option<u8>,
    /// Create from this URL; nothing is read or uploaded here
    ///
    /// The URL is a secret if it is signed: with `@FILE` it is read from a file, with `@-` from standard input.
    #[arg(long, value_name = "URL", conflicts_with_all = ["images", "to", "bucket", "key", "keep_object", "no_resume", "snapshot", "allow_references", "backing_format"])]
    pub(crate) uri: Option<String>,

    #[command(flatten)]
    pub(crate) local: LocalArgs,

    /// Return when the operation has been accepted; `operation wait` waits for it another day
    ///
    /// The object is kept for as long as the operation may read it: `operation wait` removes it when that is done.
    #[arg(long, visible_alias = "no-wait")]
    pub(crate) detach: bool,
    /// Keep the uploaded object
    #[arg(long)]
    pub(crate) keep_object: bool,
    #[command(flatten)]
    pub(crate) upload: UploadOptions,
    /// What to do if the object or the Image exists already [default: reuse or replace the object, fail at the Image]
    ///
    /// `reuse` takes an object that says of itself that it holds a disk of the same guest digest in the same form, and an Image of
    /// the same name that is READY and has the same digest in its label `image-prep-digest`, which `reuse` and `replace` set.
    /// `replace` reuses that Image too; another of the name gets a new one, and is deleted when the Image is READY in its place; if that
    /// fails it has its name back. With --detach, or after a kill, nobody is there to do either: the other Image then stays, by the
    /// name NAME-replaced-ID. Compute Engine renames no Image: there the other one is deleted before the new one is made, when the object is
    /// uploaded and the service has refused the new one for its name alone; if that fails the object is kept, and with --uri it is not
    /// done. An object that was there before is not deleted.
    #[arg(long, value_name = "WHAT")]
    pub(crate) if_exists: Option<IfExists>,
    #[command(flatten)]
    pub(crate) resume: ResumeArgs,
    /// Refuse a disk that does not seem ready for the cloud, instead of warning
    ///
    /// Before anything is sent, what is in the disk is looked at: drivers, console, cloud-init and so on, as `info` shows them. What is
    /// not known is no reason to refuse.
    #[arg(long, conflicts_with = "uri")]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) layout: LayoutArgs,
    #[command(flatten)]
    pub(crate) open: OpenArgs,

    // From here on each group has a heading of its own, and the last heading stays in force.
    #[command(flatten)]
    pub(crate) fields: ImageFields,
    /// Bucket for the upload: BUCKET, or gs://BUCKET in Google Cloud Storage, where --cloud gcp has it anyway
    #[arg(
        long,
        env = "IMAGE_PREP_BUCKET",
        hide_env_values = true,
        value_name = "BUCKET",
        help_heading = "Object store"
    )]
    pub(crate) bucket: Option<Bucket>,
    /// Key of the object [default: made from the content and the request]
    #[arg(long, value_name = "KEY", help_heading = "Object store")]
    pub(crate) key: Option<String>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

impl CreateArgs {
    /// The image; the first of several.
    pub(crate) fn image(&self) -> &str {
        // The command line needs one, unless there is a URL or a manifest.
        self.images.first().map_or("", String::as_str)
    }

    /// The same command for one image of several.
    pub(crate) fn of_image(&self, image: &str) -> Self {
        Self { images: vec![image.to_owned()], ..self.clone() }
    }
}

/// The fields of the Image.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Image")]
pub(crate) struct ImageFields {
    /// Name, unique in the folder or project; of one image it has to be said
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Folder of the Image
    #[arg(long, env = "YC_FOLDER_ID", hide_env_values = true, value_name = "ID")]
    pub(crate) folder_id: Option<String>,
    /// Description
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) description: String,
    /// Family
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) family: String,
    /// Label; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<Label>,
    /// Smallest disk that may be made from the Image [default: what the image needs]
    #[arg(long, value_name = "SIZE")]
    pub(crate) min_disk_size: Option<Size>,
    /// Product identifier; may be repeated
    #[arg(long = "product-id", value_name = "ID")]
    pub(crate) product_ids: Vec<String>,
    /// Operating system
    #[arg(long, value_name = "OS")]
    pub(crate) os: Option<OsType>,
    /// NVIDIA driver that the image holds
    #[arg(long, value_name = "VERSION")]
    pub(crate) nvidia_driver: Option<String>,
    /// Make the Image fast to deploy many disks from
    #[arg(long)]
    pub(crate) pooled: bool,
    /// Virtual hardware that the image is made for
    #[arg(long, value_name = "GENERATION")]
    pub(crate) hardware_generation: Option<HardwareGeneration>,
    /// With --cloud gcp: licence that comes with the image; may be repeated
    #[arg(long = "license", value_name = "URL")]
    pub(crate) licenses: Vec<String>,
    /// With --cloud gcp: what the system in the image can do; may be repeated [default: what is known of the disk]
    ///
    /// UEFI_COMPATIBLE where a loader for UEFI was found, WINDOWS where Windows was, VIRTIO_SCSI_MULTIQUEUE where Linux has a kernel from 3.17
    /// on. What is typed takes the place of all of these; `none` says nothing.
    #[arg(long = "guest-os-feature", value_name = "FEATURE")]
    pub(crate) guest_os_features: Vec<String>,
    /// With --cloud gcp: X86_64 or ARM64 [default: what is known of the disk]
    #[arg(long, value_name = "ARCHITECTURE")]
    pub(crate) architecture: Option<String>,
    /// With --cloud gcp: region or multi-region that the Image is stored in
    #[arg(long = "storage-location", value_name = "LOCATION")]
    pub(crate) storage_locations: Vec<String>,
}

/// The operating system of an Image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OsType {
    Linux,
    Windows,
}

/// The virtual hardware of an Image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HardwareGeneration {
    /// UEFI
    Gen2,
    /// BIOS, first PCI topology
    LegacyV1,
    /// BIOS, second PCI topology
    LegacyV2,
}
