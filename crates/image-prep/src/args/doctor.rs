//! The command line of `doctor`.

use clap::Args;

use super::values::Bucket;
use super::{ApiArgs, LocalArgs, StoreArgs};

/// Check credentials, endpoint, clock and rights, step by step.
///
/// Each step is a line: ok, warn, FAIL or skip, with what was found and, where something is wrong, what would mend it. All that
/// `create` needs is tried: a token is got, the service is asked for something small, and in the bucket a small object
/// is put, read back by a pre-signed URL, begun as a multipart upload, and removed again whatever happened.
///
/// The right to create is tried with a Create from an Image that does not exist, which can make nothing. A service that looks at
/// rights first, as image-server does, refuses that as PERMISSION_DENIED without the right and as NOT_FOUND with it; an answer that tells
/// neither is a warning.
///
/// Exits with 1 if a step failed. JSON: one object a line: step, result (ok, warn, fail or skip), text, fix (null where there is
/// nothing to mend).
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Allow http:// besides https:// for hosts other than this one
    #[arg(long)]
    pub(crate) allow_http: bool,
    #[command(flatten)]
    pub(crate) local: LocalArgs,
    /// Folder in which Images are to be created
    #[arg(long, env = "YC_FOLDER_ID", hide_env_values = true, value_name = "ID", help_heading = "Image")]
    pub(crate) folder_id: Option<String>,
    /// Bucket for uploads: BUCKET, or gs://BUCKET in Google Cloud Storage
    #[arg(
        long,
        env = "IMAGE_PREP_BUCKET",
        hide_env_values = true,
        value_name = "BUCKET",
        help_heading = "Object store"
    )]
    pub(crate) bucket: Option<Bucket>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}
