//! Whether a command left what it should. None of this is within the time that is measured.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::flows::{Input, Leaves};
use super::inputs::Inputs;
use super::measure::Printed;
use crate::content::Content;
use crate::images;
use crate::null_store::Counts;
use crate::repo::output;
use crate::sparse;

/// What a flow's commands must leave.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    inputs: &'a Inputs,
    path: &'a Path,
    /// The digest of the disk in the input, where a command is to leave that disk.
    disk: Option<String>,
    /// Of the input as a file, where a command is asked for that.
    content: Option<Content>,
    /// What qemu-img says of the input, where a command is asked for that.
    map: Option<String>,
    /// Length and CRC32 of the input, where a command is to send it.
    sum: Option<(u64, u32)>,
}

impl<'a> Judge<'a> {
    /// Finds out what is right.
    pub(super) fn new(inputs: &'a Inputs, input: Input, leaves: Leaves) -> Result<Self> {
        let path = inputs.path(input)?;
        let disk = leaves.is_file().then(|| inputs.disk(input)).transpose()?;
        let content = match leaves {
            Leaves::FileDigest | Leaves::FileSha256 => Some(Content::of(path)?),
            _ => None,
        };
        let map = match leaves {
            Leaves::Map => {
                let mut map = Command::new("qemu-img");
                Some(output(map.args(["map", "--output=json", "-f", "qcow2"]).arg(path))?)
            }
            _ => None,
        };
        let sum = (leaves == Leaves::Object).then(|| sum(path)).transpose()?;
        Ok(Self { inputs, path, disk, content, map, sum })
    }

    /// Looks at what came into the store.
    pub(super) fn check_object(&self, counts: &Counts) -> Result<()> {
        let is_alone = (counts.objects, counts.uploads) == (1, 0);
        ensure!(is_alone && counts.len > 0, "no object is there, or not alone: {counts:?}");
        let Some((len, crc32)) = self.sum else { return Ok(()) };
        ensure!(counts.len == len, "the object has {} bytes, expected {len}", counts.len);
        // Framed parts have none.
        ensure!(counts.crc32.is_none_or(|found| found == crc32), "the object has other bytes than the input");
        Ok(())
    }

    /// Looks at what a command left.
    pub(super) fn check(&self, leaves: Leaves, out: &Path, printed: &Printed) -> Result<()> {
        match leaves {
            Leaves::Raw | Leaves::Ingested => self.check_disk(out),
            Leaves::Qcow2 => self.check_qcow2(out),
            Leaves::TarGz => self.check_archive(out),
            // The exit code was looked at.
            Leaves::Verdict => Ok(()),
            Leaves::Map => {
                let found = fs::read_to_string(&printed.stdout)?;
                images::same_map(&found, self.map.as_deref().context("no map to compare with")?)
            }
            Leaves::Info => {
                let mut info = Command::new("qemu-img");
                let theirs = output(info.args(["info", "--output=json"]).arg(self.path))?;
                let theirs: Value = serde_json::from_str(&theirs)?;
                let ours = json(printed)?;
                same("virtual size", &ours["virtualSize"].to_string(), &theirs["virtual-size"].to_string())
            }
            Leaves::DiskDigest => same_digest(printed, self.inputs.guest_digest()?),
            Leaves::FileDigest => same_digest(printed, &self.content()?.guest_digest),
            Leaves::FileSha256 => {
                let found = fs::read_to_string(&printed.stdout)?;
                let found = found.split_whitespace().next_back().unwrap_or_default();
                same("SHA-256", found, &self.content()?.sha256)
            }
            // The store was looked at.
            Leaves::Object | Leaves::DiskObject => Ok(()),
        }
    }

    fn content(&self) -> Result<&Content> {
        self.content.as_ref().context("no content to compare with")
    }

    /// The disk in a QCOW2 is what qemu-img reads there.
    fn check_qcow2(&self, out: &Path) -> Result<()> {
        output(Command::new("qemu-img").args(["check", "-q", "-f", "qcow2"]).arg(out))?;
        let raw = out.with_extension("back");
        let mut convert = Command::new("qemu-img");
        output(convert.args(["convert", "-m", "16", "-W", "-f", "qcow2", "-O", "raw"]).arg(out).arg(&raw))?;
        let checked = self.check_disk(&raw);
        fs::remove_file(raw)?;
        checked
    }

    /// The disk in an archive is what GNU tar finds there.
    fn check_archive(&self, out: &Path) -> Result<()> {
        let folder = out.with_extension("back");
        fs::create_dir(&folder)?;
        output(Command::new("tar").arg("-C").arg(&folder).arg("-xSzf").arg(out))?;
        let checked = self.check_disk(&folder.join("disk.raw"));
        fs::remove_dir_all(folder)?;
        checked
    }

    fn check_disk(&self, raw: &Path) -> Result<()> {
        same("disk", &sparse::digest(raw)?, self.disk.as_deref().context("no disk to compare with")?)
    }
}

/// Length and CRC32 of a file.
fn sum(path: &Path) -> Result<(u64, u32)> {
    let (mut file, mut crc32) = (fs::File::open(path)?, crc32fast::Hasher::new());
    let mut chunk = vec![0; 1 << 20];
    let mut all = 0;
    loop {
        let len = file.read(&mut chunk)?;
        if len == 0 {
            return Ok((all, crc32.finalize()));
        }
        crc32.update(chunk.get(..len).unwrap_or_default());
        all += len as u64;
    }
}

fn same_digest(printed: &Printed, expected: &str) -> Result<()> {
    same("guest digest", json(printed)?["guestDigest"].as_str().unwrap_or_default(), expected)
}

fn same(what: &str, found: &str, expected: &str) -> Result<()> {
    ensure!(found == expected, "wrong {what}: found {found:?}, expected {expected:?}");
    Ok(())
}

fn json(printed: &Printed) -> Result<Value> {
    serde_json::from_str(&fs::read_to_string(&printed.stdout)?).context("standard output is no JSON")
}
