//! `man`: pages in troff, from the command line's own description.

use std::fs;

use clap::CommandFactory;
use clap_mangen::Man;

use crate::args::{Cli, ManArgs};
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;

/// Writes the pages.
pub(crate) fn run(args: &ManArgs, context: &Context) -> Result<Exit, Error> {
    let Some(dir) = &args.dir else {
        context.output.write(|out| Man::new(Cli::command()).render(&mut &mut *out))?;
        return Ok(Exit::Done);
    };
    fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .map_err(|source| Error::File { action: "write man pages into", path: dir.clone(), source })?;
    Ok(Exit::Done)
}
