//! `cargo xtask kills`: uploads that are killed at seeded places, each continued by the same command.
//!
//! It is the test of `crates/image-prep/tests/resume.rs`, with more kills than a test run has patience for: what is uploaded is
//! compared byte for byte, the requests are counted at a proxy before the store, and `cleanup` must leave nothing. The store is
//! local-store, or the one that `KILLS_STORE` names as the test says.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::repo::{Repo, run};

/// Arguments of `kills`.
#[derive(Debug, Args)]
pub(crate) struct KillsArgs {
    /// How many uploads are killed
    #[arg(long, value_name = "N", default_value_t = 200)]
    runs: u32,
}

/// Runs the test.
pub(crate) fn kills(repo: &Repo, args: &KillsArgs) -> Result<ExitCode> {
    let mut test = repo.cargo();
    test.args(["test", "--package", "image-prep", "--test", "resume", "an_upload_that_is_killed", "--"]);
    run(test.args(["--nocapture"]).env("KILLS", args.runs.to_string()))?;
    Ok(ExitCode::SUCCESS)
}
