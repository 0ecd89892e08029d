//! The repository's own commands.
//!
//! - `tidy` proves what can rot: crate arrows, module heads, recorded hashes, documents that repeat what code says.
//! - `images` makes real disk images with qemu-img and checks every way through image-prep against qemu-img's answers; with `--boot`
//!   disks with installed systems, and checks what is found in them.
//! - `kinds` makes every kind of image that qemu-img writes, and compares what is read of it with what qemu-img reads.
//! - `archives` has tar, bsdtar, pigz and Python write archives that image-prep reads, and read those that it writes.
//! - `damage` cuts images short and flips bits in them, and shows what becomes of that here and with qemu-img.
//! - `hostile` makes images of every known class of attack, and watches what becomes of them here and with qemu-img.
//! - `fuzz` runs the fuzz targets of `disk-image`.
//! - `bench` measures image-prep beside its peers; with `--upload`, uploads to a store that keeps nothing.
//! - `kills` kills uploads at seeded places and has the same command go on, on two stores; with `--interrupt`, it interrupts `create`.
//! - `chaos` kills image servers and their database while they create images.
//! - `garage` runs the main job against garage, a foreign object store, as the bucket of both ends.
//! - `sdk` runs the official SDKs of the cloud, for Python and Node, and schemathesis against image-server, and image-prep against a
//!   service of the Python SDK's own classes.
//! - `stores` runs the upload suite of `object-io` on every object store that can be started here, and has others read each form.
//! - `dist` makes what is installed: binary, man pages, completions, schemas; and says what the program takes to start.
//! - `record` runs the commands in README's recordings, and writes what they print.
//!
//! Everything they make lies under `target/`. Each ends non-zero if anything is wrong, after it has said everything that is.

// A command line's results go to standard output.
#![allow(clippy::print_stdout)]

mod archives;
mod bench;
mod chaos;
mod child;
mod content;
mod damage;
mod disk;
mod dist;
mod fuzz;
mod garage;
mod hostile;
mod image_server;
mod images;
mod kills;
mod kinds;
mod null_store;
mod origin;
mod record;
mod repo;
mod rest;
mod sdk;
mod seed;
mod sparse;
mod stores;
mod testdata;
mod tidy;
mod watch;

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
    /// Compare what is read of every kind of image that qemu-img writes with what qemu-img reads
    Kinds(kinds::KindsArgs),
    /// Read the archives of tar, bsdtar, pigz and Python, and have them read ours
    Archives(archives::ArchivesArgs),
    /// Cut images short and flip bits in them: what is refused, and what becomes a wrong disk
    Damage(damage::DamageArgs),
    /// Make images of every known class of attack, and watch what becomes of them
    Hostile(hostile::HostileArgs),
    /// Measure image-prep beside qemu-img and other peers on the same images
    Bench(bench::BenchArgs),
    /// Run the fuzz targets of disk-image
    Fuzz(fuzz::FuzzArgs),
    /// Run the main job against garage as the bucket of both ends
    Garage(garage::GarageArgs),
    /// Run the official SDKs of the cloud, and schemathesis, against image-server
    Sdk(sdk::SdkArgs),
    /// Run the upload suite on every object store that can be started here
    Stores(stores::StoresArgs),
    /// Kill uploads at seeded places, and have the same command go on; or interrupt `create`
    Kills(kills::KillsArgs),
    /// Kill image servers and their database while they create images
    Chaos(chaos::ChaosArgs),
    /// Make what is installed, and say what the program takes: size, libraries, start
    Dist(dist::DistArgs),
    /// Run the commands in README's recordings, and write what they print
    Record(record::RecordArgs),
    /// Make the images of testdata/ and their manifest anew
    Testdata,
}

fn main() -> ExitCode {
    // Before anything else, so that a launcher is small.
    match std::env::args_os().nth(1) {
        Some(word) if word == child::LAUNCH => return child::launch(),
        Some(word) if word == null_store::SERVE => return null_store::serve(),
        Some(word) if word == origin::SERVE => return origin::serve(),
        _ => {}
    }
    let cli = Cli::parse();
    let repo = Repo::here();
    let done = match cli.command {
        Command::Tidy(args) => tidy::run(&repo, &args),
        Command::Images(args) => images::run(&repo, &args),
        Command::Kinds(args) => kinds::run(&repo, &args),
        Command::Archives(args) => archives::run(&repo, &args),
        Command::Damage(args) => damage::run(&repo, &args),
        Command::Hostile(args) => hostile::run(&repo, &args),
        Command::Bench(args) => bench::run(&repo, &args),
        Command::Fuzz(args) => fuzz::fuzz(&repo, &args),
        Command::Garage(args) => garage::run_garage(&repo, &args),
        Command::Sdk(args) => sdk::run_sdk(&repo, &args),
        Command::Stores(args) => stores::run_stores(&repo, &args),
        Command::Kills(args) => kills::kills(&repo, &args),
        Command::Chaos(args) => chaos::chaos(&repo, &args),
        Command::Dist(args) => dist::dist(&repo, &args),
        Command::Record(args) => record::record(&repo, &args),
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
