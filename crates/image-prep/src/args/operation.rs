//! The command line of `operation`.

use clap::{Args, Subcommand};

use super::{ApiArgs, LocalArgs};

/// Show, wait for, or cancel an operation.
#[derive(Debug, Args)]
pub(crate) struct OperationArgs {
    #[command(subcommand)]
    pub(crate) verb: OperationVerb,
}

/// What to do with an operation.
#[derive(Debug, Subcommand)]
pub(crate) enum OperationVerb {
    /// Show an operation
    Get(OperationTarget),
    /// Wait until an operation is done; exit with 4 if it failed
    Wait(OperationTarget),
    /// Ask an operation to stop
    Cancel(OperationTarget),
}

/// Which operation.
#[derive(Debug, Args)]
pub(crate) struct OperationTarget {
    /// Identifier of the operation
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Allow http:// besides https:// for hosts other than this one
    #[arg(long)]
    pub(crate) allow_http: bool,
    #[command(flatten)]
    pub(crate) local: LocalArgs,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}
