//! What each command means; one file for each.

mod cleanup;
mod compare;
mod completions;
mod convert;
mod create;
mod doctor;
mod info;
mod man;
mod map;
mod operation;
mod schema;
mod upload;

pub(crate) use create::ManifestError;

use crate::args::Command;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;

/// Runs a command.
pub(crate) async fn run(command: Command, context: &Context) -> Result<Exit, Error> {
    match command {
        Command::Info(args) => info::run(&args, context).await,
        Command::Map(args) => map::run(&args, context).await,
        Command::Convert(args) => convert::run(&args, context).await,
        Command::Compare(args) => compare::run(&args, context).await,
        Command::Upload(args) => upload::run(&args, context).await,
        Command::Create(args) => create::run(&args, context).await,
        Command::Doctor(args) => doctor::run(&args, context).await,
        Command::Cleanup(args) => cleanup::run(&args, context).await,
        Command::Operation(args) => operation::run(&args, context).await,
        Command::Completions(args) => completions::run(&args, context),
        Command::Man(args) => man::run(&args, context),
        Command::Schema(args) => schema::run(&args, context),
    }
}
