//! Which cloud and which image service, as whom, or the cloud on this machine.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use image_api::Transport;

use crate::cloud::Cloud;

/// A cloud on this machine.
#[derive(Debug, Clone, Args)]
pub(crate) struct LocalArgs {
    /// Use a cloud inside this process, with its state in DIR [default: $XDG_DATA_HOME/image-prep/local]
    ///
    /// Starts an S3 store and an image server on loopback addresses and talks to them as it would to a cloud. Images,
    /// operations and objects are kept in DIR; the servers end with the command.
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true)]
    #[allow(clippy::option_option, reason = "absent, without a folder, with one: clap's own shape for it")]
    pub(crate) local: Option<Option<PathBuf>>,
}

/// Which image service, and as whom.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Image service")]
pub(crate) struct ApiArgs {
    /// Cloud whose services are used, its object store too [default: ru]
    ///
    /// `gcp` is Google's: `create` makes Images of Compute Engine by `images.insert`, which reads the object with the rights of the caller.
    /// It knows a call that is repeated for an hour at least: long after that, the same command fails at the Image that it has made.
    #[arg(long, value_name = "CLOUD", conflicts_with = "local")]
    pub(crate) cloud: Option<Cloud>,
    /// Image service, or the address of a cloud that knows where its services are [env: YC_ENDPOINT]
    ///
    /// A URL, or a host with or without a port. Of `api.HOST` is asked where the services are; with `compute.api.HOST` go
    /// `iam.api.HOST` and `operation.api.HOST`; any other address is that of all three.
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// What to speak to the image service
    ///
    /// Both give the same results and the same errors. gRPC goes to the endpoint directly, not by a proxy of the environment.
    #[arg(long, value_name = "TRANSPORT", default_value = "rest")]
    pub(crate) transport: TransportArg,
    /// Project of Compute Engine, with --cloud gcp [env: GOOGLE_CLOUD_PROJECT, CLOUDSDK_CORE_PROJECT]
    #[arg(long, value_name = "ID", conflicts_with = "local")]
    pub(crate) project: Option<String>,
    /// Read the IAM or OAuth token from this file [default: from YC_TOKEN or YC_IAM_TOKEN]
    ///
    /// Without any of the options for credentials they are looked for in the environment, in the profile of image-prep, in the
    /// profile of `yc`, and on a virtual machine in its metadata. What was not named is used with the clouds that are built in and
    /// the endpoint of its own profile only. Tokens that are got are kept in memory, and renewed for as long as the command runs.
    ///
    /// With --cloud gcp tokens are those of Google: from GOOGLE_OAUTH_ACCESS_TOKEN or CLOUDSDK_AUTH_ACCESS_TOKEN, or by application default
    /// credentials: the file in GOOGLE_APPLICATION_CREDENTIALS, the one that `gcloud auth application-default login` writes, the metadata
    /// of the machine (GCE_METADATA_HOST). The latter two are used with Google's own endpoint only.
    #[arg(long, value_name = "FILE", conflicts_with = "local", group = "credentials")]
    pub(crate) token_file: Option<PathBuf>,
    /// Be the service account of this key, as `yc iam key create` writes it, or with --cloud gcp `gcloud` [env: YC_SERVICE_ACCOUNT_KEY_FILE]
    #[arg(long, value_name = "FILE", conflicts_with = "local", group = "credentials")]
    pub(crate) service_account_key_file: Option<PathBuf>,
    /// Be the service account of the virtual machine that this runs on
    #[arg(long, conflicts_with = "local", group = "credentials")]
    pub(crate) instance_service_account: bool,
    /// Profile of `yc` to take token, folder and endpoint from [default: its current one]
    #[arg(long, value_name = "NAME", conflicts_with = "local")]
    pub(crate) yc_profile: Option<String>,
}

/// What the image service is spoken to by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum TransportArg {
    /// JSON over HTTP
    #[default]
    Rest,
    /// gRPC
    Grpc,
}

impl From<TransportArg> for Transport {
    fn from(transport: TransportArg) -> Self {
        match transport {
            TransportArg::Rest => Self::Rest,
            TransportArg::Grpc => Self::Grpc,
        }
    }
}

/// Where `image:ID` is read from, and with `--local` objects too.
#[derive(Debug, Args)]
pub(crate) struct StoredArgs {
    #[command(flatten)]
    pub(crate) local: LocalArgs,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}
