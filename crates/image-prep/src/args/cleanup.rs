//! The command line of `cleanup`.

use clap::Args;
use object_io::BucketUri;

use super::values::Age;
use super::{LocalArgs, StoreArgs};

/// Remove what uploads that broke off left in a store.
///
/// That is: uploads that have a journal here and were not continued, objects that `create` made and could not delete, and,
/// if a bucket is named, uploads to it that no journal knows: to keys that begin with the prefix, or with `image-prep/` where
/// there is none. Uploads that a process is at work on are left alone. Uploads of a bucket may be of other programs.
///
/// JSON: one object a line: kind (upload or object), bucket, key, uploadId, changedAt, removed (false with --dry-run, or where
/// it failed).
#[derive(Debug, Args)]
pub(crate) struct CleanupArgs {
    /// Look into this bucket too, at keys that begin with PREFIX
    #[arg(value_name = "s3://BUCKET[/PREFIX]", conflicts_with = "bucket")]
    pub(crate) place: Option<BucketUri>,
    /// The same, at keys that begin with `image-prep/`
    #[arg(long, value_name = "BUCKET")]
    pub(crate) bucket: Option<String>,
    /// Leave alone what is younger: a number with s, m, h or d
    #[arg(long, value_name = "TIME", default_value = "1d")]
    pub(crate) older_than: Age,
    /// Show what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) local: LocalArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}
