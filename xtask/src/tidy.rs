//! `cargo xtask tidy`: the repository as a test subject.
//!
//! Each check is a function from what it reads to violations, so that a test can show it something wrong. All checks run and all
//! violations are printed, whatever was found first.

mod arrows;
mod docs;
mod files;
mod heads;
mod manifest;
mod pure;

use std::fmt::Display;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::Args;

use crate::repo::{Profile, Repo, output};
#[cfg(test)]
pub(crate) use manifest::Manifest;

/// Arguments of `tidy`.
#[derive(Debug, Args)]
pub(crate) struct TidyArgs {
    /// Write the help text into README.md instead of comparing it
    #[arg(long)]
    bless: bool,
}

/// What was found to be wrong, a line each.
#[derive(Debug, Default)]
pub(crate) struct Violations(Vec<String>);

impl Violations {
    /// Notes that something is wrong with `place`.
    pub(crate) fn add(&mut self, place: impl Display, what: impl Display) {
        self.0.push(format!("{place}: {what}"));
    }

    #[cfg(test)]
    pub(crate) fn lines(&self) -> &[String] {
        &self.0
    }
}

/// Runs every check.
pub(crate) fn run(repo: &Repo, args: &TidyArgs) -> Result<ExitCode> {
    let metadata = cargo_metadata::MetadataCommand::new().manifest_path(repo.path("Cargo.toml")).exec()?;
    let files = repo.files()?;
    let image_prep = repo.build("image-prep", Profile::Dev)?;
    let help = docs::help(&image_prep)?;
    if args.bless {
        let blessed = docs::with_help(&repo.read("README.md")?, &help)?;
        std::fs::write(repo.path("README.md"), blessed)?;
    }

    let mut found = Violations::default();
    arrows::check(&metadata, &mut found);
    pure::check_dependencies(&metadata, &mut found)?;
    for file in files.iter().filter(|file| file.extension().is_some_and(|ext| ext == "rs")) {
        let source = repo.read(file)?;
        heads::check(file, &source, &mut found);
        pure::check_source(file, &source, &mut found);
        pure::check_lints(repo, file, &source, &mut found);
    }
    files::check(repo, &files, &mut found)?;
    let manifest = manifest::check(repo, &files, &mut found)?;
    for image in &manifest.image {
        manifest::check_digest(image, &info(&image_prep, repo, image)?, &mut found);
    }
    docs::check_help(&repo.read("README.md")?, &help, &mut found);
    docs::check_crates(&repo.read("crates/README.md")?, &metadata, &mut found);

    for violation in &found.0 {
        println!("{violation}");
    }
    match found.0.len() {
        0 => {
            println!("tidy: {} files, nothing to report", files.len());
            Ok(ExitCode::SUCCESS)
        }
        n => {
            println!("tidy: {n} violations");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// What `info` says of an image.
fn info(image_prep: &Path, repo: &Repo, image: &manifest::Entry) -> Result<String> {
    let mut info = Command::new(image_prep);
    info.args(["info", "--digest", "--json"]).arg(repo.path("testdata").join(&image.file));
    if let Some(format) = &image.format {
        info.args(["--format", format]);
    }
    output(&mut info)
}
