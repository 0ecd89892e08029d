//! The command line of `cleanup`.

use clap::Args;
use object_io::BucketUri;

use super::values::{Age, Bucket};
use super::{ApiArgs, LocalArgs, StoreArgs};

/// Remove what uploads that broke off left in a store.
///
/// That is: uploads that have a journal here and were not continued, and objects that `create` made and did not delete. Operations that an
/// interrupted `create` could not cancel are ended first. If a
/// bucket is named, only those in it, and besides them uploads that no journal knows, to keys that begin with PREFIX, or with
/// `image-prep/` where there is none: with a PREFIX, those may be of other programs. Uploads that a process of this machine is at
/// work on are left alone. Objects of zeroes beneath `image-prep/zeroes/`, from which holes are copied, go with their upload.
///
/// JSON: one object a line: kind (upload, object or operation), bucket and key (of an operation what it reads, which may be nothing),
/// uploadId (null of zeroes without an upload), operationId (null of the others), changedAt, removed (false with --dry-run, or where it
/// failed).
#[derive(Debug, Args)]
pub(crate) struct CleanupArgs {
    /// Remove what is in this bucket, at keys that begin with PREFIX, also what no journal knows; gs://BUCKET in Google Cloud Storage
    #[arg(value_name = "s3://BUCKET[/PREFIX]", conflicts_with = "bucket")]
    pub(crate) place: Option<BucketUri>,
    /// The same as s3://BUCKET, or gs://BUCKET with --cloud gcp
    #[arg(long, value_name = "BUCKET")]
    pub(crate) bucket: Option<Bucket>,
    /// Leave alone what is younger: a number with s, m, h or d
    #[arg(long, value_name = "TIME", default_value = "1d")]
    pub(crate) older_than: Age,
    /// Show what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Allow http:// besides https:// for hosts other than this one
    #[arg(long)]
    pub(crate) allow_http: bool,
    #[command(flatten)]
    pub(crate) local: LocalArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}
