//! `cargo xtask chaos`: three image servers on one PostgreSQL and one bucket, while servers are killed or put to sleep and the database
//! crashes.
//!
//! It is the test of `crates/image-server/tests/chaos.rs`, with more images than a test run has patience for: every operation ends
//! exactly once, every READY image has the right digest, and after `gc` the store holds what images need and nothing else.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::repo::{Repo, run};

/// Arguments of `chaos`.
#[derive(Debug, Args)]
pub(crate) struct ChaosArgs {
    /// How many images are created
    #[arg(long, value_name = "N", default_value_t = 200)]
    creates: u32,
    /// Which faults, and in which order
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u32,
}

/// Runs the test.
pub(crate) fn chaos(repo: &Repo, args: &ChaosArgs) -> Result<ExitCode> {
    let mut test = repo.cargo();
    test.args(["test", "--package", "image-server", "--test", "chaos", "--", "--nocapture"]);
    test.env("CHAOS_CREATES", args.creates.to_string()).env("CHAOS_SEED", args.seed.to_string());
    run(&mut test)?;
    Ok(ExitCode::SUCCESS)
}
