//! The command line of `create`: the fields of the cloud's Create call.

use clap::{Args, ValueEnum};

use super::values::{Label, Size};
use super::{ApiArgs, IfExists, LayoutArgs, LocalArgs, OpenArgs, ResumeArgs, StoreArgs, UploadOptions};

/// Upload an image and create a cloud Image from it.
///
/// Opens and checks the image, computes its guest digest, uploads it, signs a URL, asks for the Image, waits until the
/// operation is done, and deletes the uploaded object. The same command again, after whatever stopped it, continues or repeats
/// nothing that was done: one Image comes of it.
///
/// Prints the Image; with --json the finished Operation. Exits with 4 if the operation fails.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct CreateArgs {
    /// Path, block device, or https URL
    #[arg(value_name = "IMAGE", required_unless_present = "uri")]
    pub(crate) image: Option<String>,
    /// Create from this URL; nothing is read or uploaded here
    ///
    /// The URL is a secret if it is signed: with `@FILE` it is read from a file, with `@-` from standard input.
    #[arg(long, value_name = "URL", conflicts_with_all = ["image", "to", "bucket", "key", "keep_object", "no_resume", "snapshot", "allow_references", "backing_format"])]
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
    /// name NAME-replaced-ID. An object that was there before is not deleted.
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
    /// Bucket for the upload
    #[arg(
        long,
        env = "IMAGE_PREP_BUCKET",
        hide_env_values = true,
        value_name = "BUCKET",
        help_heading = "Object store"
    )]
    pub(crate) bucket: Option<String>,
    /// Key of the object [default: made from the content and the request]
    #[arg(long, value_name = "KEY", help_heading = "Object store")]
    pub(crate) key: Option<String>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

/// The fields of the Image.
#[derive(Debug, Args)]
#[command(next_help_heading = "Image")]
pub(crate) struct ImageFields {
    /// Name, unique in the folder
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,
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
