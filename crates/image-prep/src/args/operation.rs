//! The command line of `operation`.

use clap::{Args, Subcommand};

use super::{ApiArgs, LocalArgs, StoreArgs};

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
    ///
    /// Without an ID all operations are waited for that `create` began at this service and did not see the end of: with --detach,
    /// after a kill, or before a restart of the machine. What was uploaded for them is then removed, as `create` would have.
    Wait(WaitTarget),
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

/// Which operations to wait for.
#[derive(Debug, Args)]
pub(crate) struct WaitTarget {
    /// Identifier of the operation [default: all that are noted]
    #[arg(value_name = "ID")]
    pub(crate) id: Option<String>,
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
