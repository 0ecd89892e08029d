//! `image-prep`: moves disk images into a cloud.
//!
//! This program is arguments, progress and exit codes around the crates that do the work. [`args`] is what was typed, one file
//! under `commands/` is what each command means, [`run`] gives every command the same start and the same end.

mod args;
mod cloud;
mod commands;
mod config;
mod context;
mod credentials;
mod error;
mod exit;
mod folders;
mod forecast;
mod grace;
mod guest;
mod local;
mod notes;
mod open;
mod output;
mod pass;
mod product;
mod progress;
mod recorded;
mod remote;
mod report;
mod resume;
mod run;
mod service;
mod show;
mod sizes;
mod times;
mod transfer;
mod url_policy;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    run::run(args::Cli::parse()).into()
}
