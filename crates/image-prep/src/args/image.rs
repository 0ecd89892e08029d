//! Which image is read, and how it is opened.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use disk_image::Format;

/// How an image is opened.
#[derive(Debug, Clone, Args)]
pub(crate) struct OpenArgs {
    /// Take the image to be of this format instead of looking at its content
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<FormatName>,

    /// Read this internal snapshot, by its id or name, instead of the current state
    #[arg(long, value_name = "ID|NAME")]
    pub(crate) snapshot: Option<String>,

    /// Read the disk of this name in an archive that holds several
    #[arg(long, value_name = "NAME")]
    pub(crate) member: Option<String>,

    #[command(flatten)]
    pub(crate) references: ReferenceArgs,

    /// Allow http:// besides https:// for hosts other than this one
    #[arg(long)]
    pub(crate) allow_http: bool,
}

/// What happens to the files that an image names.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReferenceArgs {
    /// Read the files that the image names, if they lie in DIR [default: the image's folder]
    ///
    /// Backing files, data files and extent files are part of the disk, and an image from a stranger may name any file of this
    /// machine: without this option none is opened. With it, only regular files beneath DIR are, whatever links lead there.
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true)]
    #[allow(clippy::option_option, reason = "absent, without a folder, with one: clap's own shape for it")]
    pub(crate) allow_references: Option<Option<PathBuf>>,

    /// Format of backing files whose format no image declares; it is never guessed
    #[arg(long, value_name = "FORMAT")]
    pub(crate) backing_format: Option<FormatName>,
}

/// A disk image format, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatName {
    Raw,
    Qcow2,
    Vmdk,
    #[value(alias = "vpc")]
    Vhd,
    Vhdx,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Raw => Self::Raw,
            FormatName::Qcow2 => Self::Qcow2,
            FormatName::Vmdk => Self::Vmdk,
            FormatName::Vhd => Self::Vhd,
            FormatName::Vhdx => Self::Vhdx,
        }
    }
}
