//! The command lines of `completions`, `man` and `schema`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use clap_complete::Shell;

/// Print a completion script.
///
/// For bash: `image-prep completions bash > ~/.local/share/bash-completion/completions/image-prep`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// Write man pages: into DIR, one for each command, or the first one to standard output.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Folder for the pages; made where it is missing
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// Print the JSON Schema of what --json prints.
///
/// Of one line of standard output of a command; of `map`, of its array; of `message`, of a line of standard error of any command. Without
/// COMMAND all of them, as one object. Draft 2020-12. Fields may be added to results, so a reader should pass over what it does not know.
#[derive(Debug, Args)]
pub(crate) struct SchemaArgs {
    /// The command
    #[arg(value_name = "COMMAND")]
    pub(crate) of: Option<SchemaOf>,
}

/// What has a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaOf {
    Info,
    Map,
    Compare,
    Convert,
    Create,
    Upload,
    Doctor,
    Operation,
    Cleanup,
    Message,
}
