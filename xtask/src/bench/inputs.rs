//! What the flows start from: forms of the disk of `cargo xtask images`, and sparse images of terabytes.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::flows::{Flow, Input};
use super::place;
use crate::content::Content;
use crate::images::{self, Size};
use crate::repo::{Repo, output, run};
use crate::sparse;

/// Clusters of the sparse images, the default of qemu-img. One table of the second level is for 512 MiB of disk.
const CLUSTER: u64 = 64 << 10;

/// Clusters that lie beside each other's gaps: every second one of 8 MiB. Each is an extent, and 64 share a table.
const GROUP: u64 = 64;

/// The inputs of some flows, and what is known of them.
#[derive(Debug)]
pub(super) struct Inputs {
    /// The raw disk.
    pub(super) raw: PathBuf,
    files: BTreeMap<String, PathBuf>,
    disk: OnceCell<String>,
    guest_digest: OnceCell<String>,
}

impl Inputs {
    /// Makes what is missing.
    pub(super) fn prepare(repo: &Repo, size: Size, flows: &[Flow]) -> Result<Self> {
        let (each, files) = match size {
            Size::Full => (5 << 29, 2 << 30),
            Size::Small => (256 << 20, 192 << 20),
        };
        // The raw disk is what all others are made from and compared with.
        let mut forms = vec!["raw"];
        forms.extend(flows.iter().filter_map(|flow| match flow.input {
            Input::Form(name) => Some(name),
            Input::Sparse(_) => None,
        }));
        let folder = images::folder(repo, size);
        fs::create_dir_all(&folder)?;
        let missing = images::missing(repo, size, &forms);
        if missing > 0 {
            place::ensure_space(&folder, missing * each + files).context("no room to make the inputs")?;
        }
        let mut paths = BTreeMap::new();
        for form in images::prepare_named(repo, size, &forms)? {
            paths.insert(form.name, folder.join(form.file));
        }
        for flow in flows {
            if let Input::Sparse(tib) = flow.input {
                let path = folder.join(format!("sparse-{tib}t.qcow2"));
                if !path.exists() {
                    place::ensure_space(&folder, each).context("no room to make the inputs")?;
                    make_sparse(&path, tib, size)?;
                }
                paths.insert(key(flow.input), path);
            }
        }
        let raw = paths.get("raw").context("the raw disk was not made")?.clone();
        Ok(Self { raw, files: paths, disk: OnceCell::new(), guest_digest: OnceCell::new() })
    }

    /// The file of an input.
    pub(super) fn path(&self, input: Input) -> Result<&Path> {
        let key = key(input);
        Ok(self.files.get(&key).with_context(|| format!("{key} was not made"))?)
    }

    /// Bytes that the raw disk stores.
    pub(super) fn stored(&self) -> Result<u64> {
        Ok(fs::metadata(&self.raw)?.blocks() * 512)
    }

    /// The digest of the raw disk, [`sparse::digest`].
    pub(super) fn disk(&self) -> Result<&str> {
        cached(&self.disk, || sparse::digest(&self.raw))
    }

    /// The guest digest of the raw disk.
    pub(super) fn guest_digest(&self) -> Result<&str> {
        cached(&self.guest_digest, || {
            let content = Content::of(&self.raw)?;
            sparse::forget(&self.raw)?;
            Ok(content.guest_digest)
        })
    }
}

fn cached(cell: &OnceCell<String>, make: impl FnOnce() -> Result<String>) -> Result<&str> {
    if let Some(known) = cell.get() {
        return Ok(known);
    }
    let made = make()?;
    Ok(cell.get_or_init(|| made))
}

fn key(input: Input) -> String {
    match input {
        Input::Form(name) => name.to_owned(),
        Input::Sparse(tib) => format!("sparse {tib} TiB"),
    }
}

/// Makes a QCOW2 of `tib` TiB in which data lies scattered: 1 GiB in 256 groups of single clusters, a sixteenth of it for a trial.
fn make_sparse(path: &Path, tib: u64, size: Size) -> Result<()> {
    println!("making {}", path.file_name().unwrap_or_default().display());
    let groups = match size {
        Size::Full => 256,
        Size::Small => 16,
    };
    let unfinished = path.with_extension("unfinished");
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2", "-o", &format!("cluster_size={CLUSTER}")]);
    run(create.arg(&unfinished).arg(format!("{tib}T")))?;
    // One process for each group: all commands together are longer than a command line may be.
    for group in 0..groups {
        let mut write = Command::new("qemu-io");
        write.args(["-f", "qcow2", "-t", "unsafe"]);
        let start = (tib << 40) / groups * group;
        for index in 0..GROUP {
            let at = start + index * 2 * CLUSTER;
            write.args(["-c", &format!("write -q -P {} {at} {CLUSTER}", 1 + index)]);
        }
        output(write.arg(&unfinished))?;
    }
    let len = fs::metadata(&unfinished)?.len();
    ensure!(len >= groups * GROUP * CLUSTER, "qemu-io wrote only {len} bytes");
    fs::rename(unfinished, path)?;
    Ok(())
}
