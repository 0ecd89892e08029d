//! The command lines of `completions` and `man`.

use std::path::PathBuf;

use clap::Args;
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
