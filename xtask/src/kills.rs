//! `cargo xtask kills`: uploads that are killed at seeded places, each continued by the same command, on local-store and on garage; with
//! `--interrupt`, `create` interrupted at seeded times against an image server.
//!
//! These are the tests of `crates/image-prep/tests/resume.rs` and `interrupts.rs`, with more kills than a test run has patience for. Of the
//! first, what is uploaded is compared byte for byte, the requests are counted at a proxy before the store, and `cleanup` must
//! leave nothing. Of the second nothing may be left, or it is said what is, and `cleanup` removes it.

use std::fs;
use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::Args;

use crate::garage::{self, Garage};
use crate::repo::{Repo, run};

/// Arguments of `kills`.
#[derive(Debug, Args)]
pub(crate) struct KillsArgs {
    /// Interrupt `create` instead, by SIGINT and SIGTERM
    #[arg(long, conflicts_with_all = ["only", "no_install"])]
    interrupt: bool,
    /// How many uploads to each store are killed [default: 200], or creates interrupted [default: 50]
    #[arg(long, value_name = "N")]
    runs: Option<u32>,
    /// The times of the interrupts
    #[arg(long, value_name = "N", default_value_t = 1, requires = "interrupt")]
    seed: u32,
    /// Only the stores whose names contain this; may be repeated
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Skip garage, and say so, where it is not built yet
    #[arg(long)]
    no_install: bool,
}

/// The test's bucket.
const BUCKET: &str = "test-uploads";

/// Runs the test on each store, or the one of interrupts.
pub(crate) fn kills(repo: &Repo, args: &KillsArgs) -> Result<ExitCode> {
    if args.interrupt {
        let mut test = test(repo, "interrupts", "a_create_that_is_interrupted");
        test.env("INTERRUPTS", args.runs.unwrap_or(50).to_string());
        run(test.env("INTERRUPTS_SEED", args.seed.to_string()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let is_wanted =
        |name: &str| args.only.is_empty() || args.only.iter().any(|text| name.contains(text.as_str()));
    if is_wanted("local-store") {
        println!("local-store:");
        run(&mut uploads(repo, args))?;
    }
    if is_wanted("garage") {
        on_garage(repo, args)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn on_garage(repo: &Repo, args: &KillsArgs) -> Result<()> {
    let Some(binary) = garage::binary(repo, args.no_install)? else {
        println!("garage: SKIPPED, it is not built; without --no-install it would be (17 CPU minutes)");
        return Ok(());
    };
    println!("garage:");
    let scratch = repo.target().join("kills");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch)?;
    let garage = Garage::start(&binary, &scratch, BUCKET)?;
    run(uploads(repo, args).env("KILLS_STORE", garage.keys().to_string()))?;
    garage.stop()?;
    fs::remove_dir_all(&scratch)?;
    Ok(())
}

fn uploads(repo: &Repo, args: &KillsArgs) -> Command {
    let mut test = test(repo, "resume", "an_upload_that_is_killed");
    test.env("KILLS", args.runs.unwrap_or(200).to_string()).env_remove("KILLS_STORE");
    test
}

fn test(repo: &Repo, file: &str, name: &str) -> Command {
    let mut test = repo.cargo();
    test.args(["test", "--quiet", "--package", "image-prep", "--test", file, name, "--", "--nocapture"]);
    test
}
