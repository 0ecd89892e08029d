//! Which image service, or the cloud on this machine.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use image_api::Transport;

/// A cloud on this machine.
#[derive(Debug, Args)]
pub(crate) struct LocalArgs {
    /// Use a cloud inside this process, with its state in DIR [default: $XDG_DATA_HOME/image-prep/local]
    ///
    /// Starts an S3 store and an image server on loopback addresses and talks to them as it would to a cloud. Images,
    /// operations and objects are kept in DIR; the servers end with the command.
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true)]
    #[allow(clippy::option_option, reason = "absent, without a folder, with one: clap's own shape for it")]
    pub(crate) local: Option<Option<PathBuf>>,
}

/// Which image service.
#[derive(Debug, Args)]
#[command(next_help_heading = "Image service")]
pub(crate) struct ApiArgs {
    /// Endpoint of the image service
    #[arg(
        long,
        env = "YC_ENDPOINT",
        hide_env_values = true,
        value_name = "URL",
        default_value = "https://compute.api.cloud.yandex.net"
    )]
    pub(crate) endpoint: String,
    /// What to speak to the image service
    ///
    /// Both give the same results and the same errors. gRPC goes to the endpoint directly, not by a proxy of the environment.
    #[arg(long, value_name = "TRANSPORT", default_value = "rest")]
    pub(crate) transport: TransportArg,
    /// Read the bearer token from this file [default: from YC_TOKEN or YC_IAM_TOKEN]
    #[arg(long, value_name = "FILE", conflicts_with = "local")]
    pub(crate) token_file: Option<PathBuf>,
}

/// What the image service is spoken to by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TransportArg {
    /// JSON over HTTP
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
