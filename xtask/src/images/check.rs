//! The checks of one form.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use super::{Form, create, map};
use crate::child::{Job, Limits};
use crate::content::Content;
use crate::repo::{output, run};

/// The columns of the table, in the order of [`check`]'s results.
pub(super) const COLUMNS: [&str; 8] =
    ["to raw", "to qcow2", "to vmdk", "to gce", "map", "create", "read back", "peak memory"];

/// `--memory` as it is when nobody says otherwise, and what may come on top of it: runtime, tables, stacks.
const BUDGET: u64 = (192 << 20) + (64 << 20);

/// No conversion of these disks takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(600);

/// What the checks run, and where they may write.
#[derive(Debug)]
pub(super) struct Tools {
    /// image-prep, release.
    pub(super) image_prep: PathBuf,
    /// The reader of stored Images, release.
    pub(super) read_back: PathBuf,
    /// A folder that is emptied before and after each form.
    pub(super) scratch: PathBuf,
}

/// Runs every check of one form. A check that depends on one that failed fails too.
pub(super) fn check(tools: &Tools, image: &Path, form: &Form) -> Vec<Result<String>> {
    match reference(tools, image) {
        Ok(expected) => {
            let (raw, peak) = match to_raw(tools, image, &expected) {
                Ok(peak) => (Ok(expected.sha256[..8].to_owned()), within_budget(peak)),
                Err(error) => (Err(error), Err(anyhow!("not measured"))),
            };
            let qcow2 = to_qcow2(tools, image);
            let vmdk = to_vmdk(tools, image, &expected);
            let gce = to_gce(tools, image);
            let map = map::check(&tools.image_prep, image);
            let local = create::local(tools, image, form, &expected);
            let back = match &local {
                Ok(created) => create::read_back(tools, created, &expected),
                Err(_) => Err(anyhow!("there is no Image")),
            };
            let created = local.map(|created| format!("{} MiB", created.storage_size >> 20));
            let _ = fs::remove_dir_all(&tools.scratch);
            vec![raw, qcow2, vmdk, gce, map, created, back, peak]
        }
        Err(error) => vec![Err(error)],
    }
}

/// What qemu-img says that the image holds, as a raw file in the scratch folder, and computed from that.
fn reference(tools: &Tools, image: &Path) -> Result<Content> {
    let _ = fs::remove_dir_all(&tools.scratch);
    fs::create_dir_all(&tools.scratch)?;
    let raw = tools.scratch.join("qemu.raw");
    run(Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(image).arg(&raw))?;
    Content::of(&raw)
}

/// `convert` to raw, compared with the reference; gives the peak memory.
fn to_raw(tools: &Tools, image: &Path, expected: &Content) -> Result<u64> {
    let raw = tools.scratch.join("ours.raw");
    let mut convert = Command::new(&tools.image_prep);
    convert.args(["convert", "--quiet", "--to", "raw"]).arg(image).arg(&raw);
    let used = Job::new(&convert, &tools.scratch.join("said"), Limits::wall(PATIENCE)).succeed()?;
    let content = Content::of(&raw).context("the converted disk")?;
    fs::remove_file(&raw)?;
    ensure!(content == *expected, "found {content:?}, expected {expected:?}");
    Ok(used.peak)
}

/// `convert` to qcow2, judged by `qemu-img check` and `qemu-img compare`.
fn to_qcow2(tools: &Tools, image: &Path) -> Result<String> {
    let qcow2 = tools.scratch.join("ours.qcow2");
    run(Command::new(&tools.image_prep)
        .args(["convert", "--quiet", "--to", "qcow2"])
        .arg(image)
        .arg(&qcow2))?;
    output(Command::new("qemu-img").args(["check", "-f", "qcow2"]).arg(&qcow2))?;
    let raw = tools.scratch.join("qemu.raw");
    output(Command::new("qemu-img").args(["compare", "-f", "qcow2", "-F", "raw"]).arg(&qcow2).arg(&raw))?;
    let len = fs::metadata(&qcow2)?.len();
    fs::remove_file(&qcow2)?;
    Ok(format!("{} MiB", len >> 20))
}

/// `convert` to vmdk, judged by `qemu-img compare`, and read back by ourselves: qemu-img writes no stream that ends in a footer.
fn to_vmdk(tools: &Tools, image: &Path, expected: &Content) -> Result<String> {
    let vmdk = tools.scratch.join("ours.vmdk");
    run(Command::new(&tools.image_prep).args(["convert", "--quiet", "--to", "vmdk"]).arg(image).arg(&vmdk))?;
    let raw = tools.scratch.join("qemu.raw");
    output(Command::new("qemu-img").args(["compare", "-f", "vmdk", "-F", "raw"]).arg(&vmdk).arg(&raw))?;
    let info = ["info", "--check", "--digest", "--json", "--quiet"];
    let info = output(Command::new(&tools.image_prep).args(info).arg(&vmdk))?;
    let info: Value = serde_json::from_str(&info).context("info")?;
    let digest = info["guestDigest"].as_str().unwrap_or_default();
    ensure!(
        digest == expected.guest_digest,
        "it has the digest {digest:?}, expected {}",
        expected.guest_digest
    );
    let len = fs::metadata(&vmdk)?.len();
    fs::remove_file(&vmdk)?;
    Ok(format!("{} MiB", len >> 20))
}

/// `convert` to gce, unpacked by tar, and judged by `qemu-img compare`: what the disk was filled up with is zero.
fn to_gce(tools: &Tools, image: &Path) -> Result<String> {
    let archive = tools.scratch.join("ours.tar.gz");
    run(Command::new(&tools.image_prep)
        .args(["convert", "--quiet", "--to", "gce"])
        .arg(image)
        .arg(&archive))?;
    run(Command::new("tar").arg("-xSzf").arg(&archive).arg("-C").arg(&tools.scratch))?;
    let (disk, raw) = (tools.scratch.join("disk.raw"), tools.scratch.join("qemu.raw"));
    output(Command::new("qemu-img").args(["compare", "-f", "raw", "-F", "raw"]).arg(&disk).arg(&raw))?;
    let bytes = fs::metadata(&disk)?.len();
    ensure!(bytes.is_multiple_of(1 << 30), "the disk in it has {bytes} bytes, which are no whole GiB");
    let len = fs::metadata(&archive)?.len();
    for file in [&disk, &archive] {
        fs::remove_file(file)?;
    }
    Ok(format!("{} MiB", len >> 20))
}

fn within_budget(peak: u64) -> Result<String> {
    if peak > BUDGET {
        bail!("{} MiB, the limit is {} MiB", peak >> 20, BUDGET >> 20);
    }
    Ok(format!("{} MiB", peak >> 20))
}
