//! `cargo xtask archives`: archives for Compute Engine, theirs read by us and ours by them.
//!
//! The disk of `cargo xtask images` with its files, as 1 GiB, 8 GiB, 20 GiB and 2 TiB, each with something in its last page. GNU tar, bsdtar
//! and Python write it, sparse in every format that they have and dense where that ends in a reasonable time, compressed by gzip, by
//! pigz in its two ways, or by Python; image-prep compares what it reads with the disk. Then image-prep writes its archive,
//! and each of them unpacks that; the digest over all pages has to be the disk's, and ours has to be read by us too.
//! What is not installed is said, and passed over.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::images::{self, Size};
use crate::repo::{Profile, Repo, output};
use crate::seed::Seed;
use crate::sparse;
use crate::watch::fresh;

const GIB: u64 = 1 << 30;

/// Arguments of `archives`.
#[derive(Debug, Args)]
pub(crate) struct ArchivesArgs {
    /// How much the disks hold
    #[arg(long, value_enum, default_value_t = Size::Full)]
    size: Size,
    /// Only the writers and readers whose names contain this; may be repeated
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
}

/// A program that writes archives, or one that reads them.
struct Peer {
    name: &'static str,
    /// Programs that it needs.
    needs: &'static [&'static str],
    /// For `sh`, in a folder with `disk.raw` or `archive`.
    script: &'static str,
    /// It writes or reads every zero.
    is_dense: bool,
}

const fn peer(name: &'static str, needs: &'static [&'static str], script: &'static str) -> Peer {
    Peer { name, needs, script, is_dense: false }
}

const fn dense(name: &'static str, needs: &'static [&'static str], script: &'static str) -> Peer {
    Peer { name, needs, script, is_dense: true }
}

/// What writes `archive` of `disk.raw`.
const WRITERS: [Peer; 12] = [
    peer("tar oldgnu", &["tar"], "tar --format=oldgnu -Sczf archive disk.raw"),
    peer("tar gnu", &["tar"], "tar --format=gnu -Sczf archive disk.raw"),
    peer("tar posix 0.0", &["tar"], "tar --format=posix --sparse-version=0.0 -Sczf archive disk.raw"),
    peer("tar posix 0.1", &["tar"], "tar --format=posix --sparse-version=0.1 -Sczf archive disk.raw"),
    peer("tar posix 1.0", &["tar"], "tar --format=posix --sparse-version=1.0 -Sczf archive disk.raw"),
    peer("tar oldgnu, no gzip", &["tar"], "tar --format=oldgnu -Scf archive disk.raw"),
    peer("tar oldgnu, pigz", &["tar", "pigz"], "tar --format=oldgnu -I pigz -Scf archive disk.raw"),
    peer("tar oldgnu, pigz -i", &["tar", "pigz"], "tar --format=oldgnu -I 'pigz -i' -Scf archive disk.raw"),
    peer("bsdtar pax", &["bsdtar"], "bsdtar --format=pax -czf archive disk.raw"),
    dense("tar dense", &["tar"], "tar --format=gnu -czf archive disk.raw"),
    dense("gzip alone", &["gzip"], "gzip -c disk.raw >archive"),
    dense(
        "python",
        &["python3"],
        "python3 -c 'import tarfile\nwith tarfile.open(\"archive\", \"w:gz\", compresslevel=1) as tar: tar.add(\"disk.raw\")'",
    ),
];

/// What makes `disk.raw` of `archive`.
const READERS: [Peer; 4] = [
    peer("tar", &["tar"], "tar -xSzf archive"),
    peer("tar, pigz", &["tar", "pigz"], "tar -I pigz -xSf archive"),
    peer("bsdtar", &["bsdtar"], "bsdtar -xSf archive"),
    peer(
        "python",
        &["python3"],
        "python3 -c 'import tarfile\nwith tarfile.open(\"archive\", \"r:gz\") as tar: tar.extract(\"disk.raw\")'",
    ),
];

/// Disks up to this length are written dense, bytes.
const MOST_DENSE: u64 = 8 * GIB;

/// Makes and reads every archive.
pub(crate) fn run(repo: &Repo, args: &ArchivesArgs) -> Result<ExitCode> {
    let forms = images::prepare_named(repo, args.size, &["raw"])?;
    let base = images::folder(repo, args.size).join(&forms.first().context("no raw disk")?.file);
    let image_prep = repo.build("image-prep", Profile::Release)?;
    let work = fresh(repo.target().join("archives"))?;
    let wanted =
        |peer: &&Peer| args.only.is_empty() || args.only.iter().any(|text| peer.name.contains(text.as_str()));
    let (mut read, mut wrong, mut absent) = (0, Vec::new(), Vec::new());
    println!("{:8}{:24}{:16}{:>10}", "disk", "written by", "read by", "MiB");
    for (name, len) in [("1 GiB", GIB), ("8 GiB", 8 * GIB), ("20 GiB", 20 * GIB), ("2 TiB", 2048 * GIB)] {
        let disk = Disk::make(&work, &base, len)?;
        let mut tell = |writer: &str, reader: &str, archive: &Path, judged: Result<()>| {
            let mib = fs::metadata(archive).map_or(0, |metadata| metadata.len() >> 20);
            read += 1;
            let verdict = if judged.is_ok() { "" } else { "  WRONG" };
            println!("{name:8}{writer:24}{reader:16}{mib:>10}{verdict}");
            if let Err(error) = judged {
                wrong.push(format!("{name}, {writer}, read by {reader}: {error:#}"));
            }
        };
        for writer in WRITERS.iter().filter(wanted).filter(|peer| !peer.is_dense || len <= MOST_DENSE) {
            if let Some(missing) = missing(writer) {
                absent.push(missing);
                continue;
            }
            disk.shell(writer.script)?;
            tell(writer.name, "image-prep", &disk.archive(), disk.compare(&image_prep));
            fs::remove_file(disk.archive())?;
        }
        disk.convert(&image_prep)?;
        tell("image-prep", "image-prep", &disk.archive(), disk.compare(&image_prep));
        for reader in READERS.iter().filter(wanted) {
            if let Some(missing) = missing(reader) {
                absent.push(missing);
                continue;
            }
            tell("image-prep", reader.name, &disk.archive(), disk.unpack(reader));
        }
    }
    fs::remove_dir_all(&work)?;
    absent.sort_unstable();
    absent.dedup();
    println!("{read} archives read, {} wrong", wrong.len());
    for program in absent {
        println!("SKIPPED: {program} is not installed");
    }
    for line in &wrong {
        println!("\n{line}");
    }
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A program that a peer needs and that is not there.
fn missing(peer: &Peer) -> Option<&'static str> {
    peer.needs.iter().find(|needed| Command::new(needed).arg("--version").output().is_err()).copied()
}

/// A disk in a folder of its own.
struct Disk {
    folder: PathBuf,
    digest: String,
}

impl Disk {
    /// The start of `base`, and something at the end of `len` bytes.
    fn make(work: &Path, base: &Path, len: u64) -> Result<Self> {
        let folder = fresh(work.join("disk"))?;
        let raw = folder.join("disk.raw");
        output(Command::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(base).arg(&raw))?;
        let file = File::options().write(true).open(&raw)?;
        file.set_len(len)?;
        file.write_all_at(&Seed::new(len, "archives").bytes(4096), len - 4096)?;
        file.sync_all()?;
        let digest = sparse::digest(&raw)?;
        Ok(Self { folder, digest })
    }

    fn archive(&self) -> PathBuf {
        self.folder.join("archive")
    }

    fn shell(&self, script: &str) -> Result<String> {
        output(Command::new("sh").args(["-e", "-c", script]).current_dir(&self.folder))
    }

    /// Has image-prep compare the archive with the disk.
    fn compare(&self, image_prep: &Path) -> Result<()> {
        let mut compare = Command::new(image_prep);
        compare.args(["compare", "--quiet", "--format", "raw", "disk.raw", "archive"]);
        output(compare.current_dir(&self.folder)).map(drop)
    }

    /// Has image-prep write the archive.
    fn convert(&self, image_prep: &Path) -> Result<()> {
        let mut convert = Command::new(image_prep);
        convert.args(["convert", "--quiet", "--format", "raw", "--to", "gce", "disk.raw", "archive"]);
        output(convert.current_dir(&self.folder)).map(drop)
    }

    /// Has a peer unpack the archive, elsewhere.
    fn unpack(&self, reader: &Peer) -> Result<()> {
        let folder = fresh(self.folder.join("unpacked"))?;
        fs::hard_link(self.archive(), folder.join("archive"))?;
        let unpack = || {
            output(Command::new("sh").args(["-e", "-c", reader.script]).current_dir(&folder))?;
            let found = sparse::digest(&folder.join("disk.raw"))?;
            ensure!(found == self.digest, "another disk");
            Ok(())
        };
        let unpacked = unpack();
        fs::remove_dir_all(folder)?;
        unpacked
    }
}
