//! `completions`: a script for the shell, from the command line's own description.

use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs};
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;

/// Prints the script.
pub(crate) fn run(args: &CompletionsArgs, context: &Context) -> Result<Exit, Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "image-prep", &mut script);
    context.output.write(|out| out.write_all(&script))?;
    Ok(Exit::Done)
}
