//! The repository's own commands.
//!
//! - `tidy` proves what can rot: crate arrows, module heads, recorded hashes, documents that repeat what code says.
//! - `images` makes real disk images with qemu-img and checks every way through image-prep against qemu-img's answers.
//! - `fuzz` runs the fuzz targets of `disk-image`.
//! - `bench` measures image-prep beside its peers.
//! - `garage` runs the main job against garage, a foreign object store, as the bucket of both ends.
//!
//! Everything they make lies under `target/`. Each ends non-zero if anything is wrong, after it has said everything that is.

// A command line's results go to standard output.
#![allow(clippy::print_stdout)]

mod bench;
mod content;
mod disk;
mod fuzz;
mod garage;
mod images;
mod repo;
mod testdata;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use repo::Repo;

/// The repository's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check what can rot: arrows, module heads, hashes, documents
    Tidy(tidy::TidyArgs),
    /// Make real disk images and check every way through image-prep against qemu-img
    Images(images::ImagesArgs),
    /// Measure image-prep beside qemu-img and other peers on the same images
    Bench(bench::BenchArgs),
    /// Run the fuzz targets of disk-image
    Fuzz(fuzz::FuzzArgs),
    /// Run the main job against garage as the bucket of both ends
    Garage(garage::GarageArgs),
    /// Make the images of testdata/ and their manifest anew
    Testdata,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let repo = Repo::here();
    let done = match cli.command {
        Command::Tidy(args) => tidy::run(&repo, &args),
        Command::Images(args) => images::run(&repo, &args),
        Command::Bench(args) => bench::run(&repo, &args),
        Command::Fuzz(args) => fuzz::fuzz(&repo, &args),
        Command::Garage(args) => garage::run_garage(&repo, &args),
        Command::Testdata => testdata::make(&repo).map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
