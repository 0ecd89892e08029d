//! The command line of `upload`.

use clap::{Args, ValueEnum};
use object_io::ObjectUri;

use super::values::Lifetime;
use super::{IfExists, LayoutArgs, LocalArgs, OpenArgs, ResumeArgs, StoreArgs};

/// Upload an image to an S3-compatible store or to Google Cloud Storage; print a pre-signed URL of it.
///
/// The image is read twice: first to prove that all of it can be decoded and to compute its guest digest, which is recorded as
/// the object's metadata, then to make the object, part by part as it is sent; with --no-digest, once. The URL gives anyone who
/// holds it access to the object until it expires.
///
/// An upload that broke off, killed or cut off from the store, is continued by the same command: parts that the store has, and
/// that are made with the same bytes again, are not sent again. Ctrl-C takes it back. What is never continued, `image-prep cleanup`
/// removes.
#[derive(Debug, Args)]
pub(crate) struct UploadArgs {
    /// Path, block device, or https URL
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Where to put it: s3://BUCKET/KEY, or gs://BUCKET/KEY in Google Cloud Storage
    #[arg(value_name = "s3://BUCKET/KEY")]
    pub(crate) to_url: ObjectUri,
    #[command(flatten)]
    pub(crate) upload: UploadOptions,
    /// What to do if the object exists already [default: replace]
    ///
    /// An object is reused if it says of itself that it holds a disk of the same guest digest in the same form; else `reuse` fails.
    #[arg(long, value_name = "WHAT")]
    pub(crate) if_exists: Option<IfExists>,
    /// Record no guest digest, and read the image only once
    ///
    /// Saves the pass that makes the digest. That a part of the image cannot be decoded is found out while the object is made, and takes
    /// the upload back. `compare` then reads the object, and no later upload can tell that it holds the same disk.
    #[arg(long)]
    pub(crate) no_digest: bool,
    #[command(flatten)]
    pub(crate) resume: ResumeArgs,
    #[command(flatten)]
    pub(crate) layout: LayoutArgs,
    #[command(flatten)]
    pub(crate) open: OpenArgs,
    #[command(flatten)]
    pub(crate) local: LocalArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// What is uploaded, and for how long its URL lives.
#[derive(Debug, Clone, Args)]
pub(crate) struct UploadOptions {
    /// Form of the object [default: qcow2; gce for `create --cloud gcp`, which takes no other]
    #[arg(long, value_name = "FORM")]
    pub(crate) to: Option<Form>,
    /// How long the URL is valid: a number with s, m, h or d, at most 30d (7d on AWS)
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub(crate) expires: Lifetime,
}

impl UploadOptions {
    /// The form of the object.
    pub(crate) fn form(&self) -> Form {
        self.to.unwrap_or(Form::Qcow2)
    }
}

/// The form of an uploaded object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Sparse qcow2, its metadata first; or compressed
    Qcow2,
    /// The raw disk
    Raw,
    /// Stream-optimised vmdk, which is compressed; what VMware imports
    Vmdk,
    /// A tar.gz with disk.raw in it, filled up to whole GiB; what Compute Engine imports
    Gce,
    /// The file, unchanged
    Source,
}

impl Form {
    /// As typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
            Self::Vmdk => "vmdk",
            Self::Gce => "gce",
            Self::Source => "source",
        }
    }
}
