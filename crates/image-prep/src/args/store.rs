//! Which object store.

use clap::Args;
use object_io::StoreProfile;

use super::values::Size;

/// Which object store.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Object store")]
pub(crate) struct StoreArgs {
    /// S3 endpoint [env: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, YC_STORAGE_ENDPOINT_URL; for gs:// STORAGE_EMULATOR_HOST]
    ///
    /// Credentials come from the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or YC_STORAGE_ACCESS_KEY and
    /// YC_STORAGE_SECRET_KEY) or from a profile of the AWS configuration files; never from the command line. In Google Cloud Storage
    /// they are HMAC keys, in the same variables (those of AWS are passed over); without any, tokens are used as by --cloud gcp, with
    /// https or on this machine, and with STORAGE_EMULATOR_HOST only what an option names.
    #[arg(long, value_name = "URL", conflicts_with = "local")]
    pub(crate) endpoint_url: Option<String>,
    /// Region of the store [env: AWS_REGION, AWS_DEFAULT_REGION]
    #[arg(long, value_name = "REGION", conflicts_with = "local")]
    pub(crate) region: Option<String>,
    /// Profile of the AWS configuration files [env: AWS_PROFILE]
    #[arg(long, value_name = "NAME", conflicts_with = "local")]
    pub(crate) aws_profile: Option<String>,
    /// What the store can do, instead of finding out [example: ceph,checksum=md5]
    ///
    /// A store (aws, yandex, gcs, r2, ceph, garage, minio, generic), switches, or both, separated by commas: checksum=crc32|md5|none,
    /// payload=unsigned|signed, etag=md5|opaque, part-copy=yes|no, conditional-put=yes|no, conditional-complete=yes|no,
    /// address=path|host. Whatever is not said is found out by use, and remembered for the endpoint for a week.
    #[arg(long, value_name = "PROFILE", conflicts_with = "local")]
    pub(crate) store_profile: Option<StoreProfile>,
    /// Send at most so many bytes a second
    #[arg(long, value_name = "SIZE", conflicts_with = "local")]
    pub(crate) limit_rate: Option<Size>,
}
