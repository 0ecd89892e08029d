//! What the flows start from: forms of the disk of `cargo xtask images`, and images made for one question each.
//!
//! All are made once and kept beside each other. Together the full ones take about 20 GiB.

mod synthetic;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::flows::{Input, Writer};
use super::place;
use crate::content::Content;
use crate::images::{self, Size};
use crate::repo::{Profile, Repo, output, run};
use crate::sparse;

/// Clusters of the sparse images, the default of qemu-img. One table of the second level is for 512 MiB of disk.
const CLUSTER: u64 = 64 << 10;

/// What a command takes beside its output.
const ROOM: u64 = 256 << 20;

/// Clusters that lie beside each other's gaps: every second one of 8 MiB. Each is an extent, and 64 share a table.
const GROUP: u64 = 64;

/// The inputs of some flows, and what is known of them.
#[derive(Debug)]
pub(super) struct Inputs {
    /// The raw disk.
    pub(super) raw: PathBuf,
    folder: PathBuf,
    /// What a GiB of data stands for: a sixteenth for a trial.
    unit: u64,
    files: BTreeMap<String, PathBuf>,
    disk: OnceCell<String>,
    guest_digest: OnceCell<String>,
}

/// What an input is made with.
struct Maker<'a> {
    repo: &'a Repo,
    folder: &'a Path,
    /// What a GiB of data stands for.
    unit: u64,
}

impl Inputs {
    /// Makes what is missing.
    pub(super) fn prepare(repo: &Repo, size: Size, wanted: &[Input]) -> Result<Self> {
        let (each, files, unit) = match size {
            Size::Full => (5 << 29, 2 << 30, 1 << 30),
            Size::Small => (256 << 20, 192 << 20, 64 << 20),
        };
        // The raw disk is what all others are made from and compared with; some are made of what qemu-img compressed.
        let mut forms = vec!["raw"];
        forms.extend(wanted.iter().filter_map(|input| match input {
            Input::Form(name) => Some(*name),
            Input::Repeated(_) | Input::Spread(_) => Some(SAMPLE),
            _ => None,
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
        let maker = Maker { repo, folder: &folder, unit };
        for input in wanted.iter().filter(|input| !matches!(input, Input::Form(_))) {
            let path = folder.join(file(*input));
            if !path.exists() {
                println!("making {}", path.strip_prefix(&folder)?.display());
                place::ensure_space(&folder, maker.room(*input, each))
                    .context("no room to make the inputs")?;
                maker.make(*input, &path, &paths)?;
            }
            paths.insert(key(*input), path);
        }
        let raw = paths.get("raw").context("the raw disk was not made")?.clone();
        Ok(Self { raw, folder, unit, files: paths, disk: OnceCell::new(), guest_digest: OnceCell::new() })
    }

    /// The file of an input.
    pub(super) fn path(&self, input: Input) -> Result<&Path> {
        let key = key(input);
        Ok(self.files.get(&key).with_context(|| format!("{key} was not made"))?)
    }

    /// Reads an input into the page cache.
    pub(super) fn warm(&self, input: Input) -> Result<()> {
        let path = self.path(input)?;
        match path.parent() {
            // It names others, which are all that there is beside it.
            Some(folder) if folder != self.folder => {
                fs::read_dir(folder)?.try_for_each(|file| sparse::warm(&file?.path()))
            }
            _ => sparse::warm(path),
        }
    }

    /// Leaves as much memory free as an output takes, and given to this machine by whatever it runs on: touches it and lets it go.
    ///
    /// A run that finds memory full of other files' pages waits until they are dropped; one that finds it taken back by the
    /// hypervisor waits for that at each page. Both depend on who ran before.
    pub(super) fn make_room(&self, input: Input) -> Result<()> {
        let len = self.largest_disk(&[input]).max(self.stored()?) + ROOM;
        let touched = vec![1_u8; usize::try_from(len)?];
        ensure!(black_box(&touched).last() == Some(&1), "memory that was written reads otherwise");
        Ok(())
    }

    /// Bytes that the raw disk stores.
    pub(super) fn stored(&self) -> Result<u64> {
        Ok(fs::metadata(&self.raw)?.blocks() * 512)
    }

    /// Bytes of data in the largest of the images that grow.
    pub(super) fn largest_disk(&self, inputs: &[Input]) -> u64 {
        let len = |input: &Input| match input {
            Input::Repeated(gib) => gib * self.unit,
            _ => 0,
        };
        inputs.iter().map(len).max().unwrap_or(0)
    }

    /// The digest of the disk in an input, [`sparse::digest`].
    pub(super) fn disk(&self, input: Input) -> Result<String> {
        match input {
            Input::Form(_) | Input::Split | Input::Archive(_) => {
                cached(&self.disk, || sparse::digest(&self.raw)).map(str::to_owned)
            }
            _ => Ok(fs::read_to_string(truth(self.path(input)?))?),
        }
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

/// The form whose clusters the repeated and the spread images hold.
const SAMPLE: &str = "qcow2 zlib";

/// Where an input that is no form lies, in the folder of all.
fn file(input: Input) -> String {
    match input {
        Input::Form(name) => name.to_owned(),
        Input::Split => "vmdk-split/disk.vmdk".to_owned(),
        Input::Sparse(tib) => format!("sparse-{tib}t.qcow2"),
        Input::Repeated(gib) => format!("repeated-{gib}g.qcow2"),
        Input::Spread(gib) => format!("spread-{gib}g.qcow2"),
        Input::Mapped(tib) => format!("mapped-{tib}t.qcow2"),
        Input::Archive(Writer::Ours) => "ours.tar.gz".to_owned(),
        Input::Archive(Writer::Tar) => "tar.tar.gz".to_owned(),
    }
}

fn key(input: Input) -> String {
    file(input)
}

/// Where the digest of the disk in a synthetic image is kept.
fn truth(path: &Path) -> PathBuf {
    path.with_extension("digest")
}

impl Maker<'_> {
    /// Bytes that making an input takes, where a form takes `each`.
    fn room(&self, input: Input, each: u64) -> u64 {
        match input {
            // The image, and for a while the raw disk that qemu-img makes of it.
            Input::Repeated(gib) => 2 * gib * self.unit,
            Input::Spread(_) => 3 * self.unit,
            Input::Mapped(tib) => synthetic::tables(tib << 40) + CLUSTER,
            _ => each,
        }
    }

    fn make(&self, input: Input, path: &Path, forms: &BTreeMap<String, PathBuf>) -> Result<()> {
        let form = |name: &str| forms.get(name).with_context(|| format!("{name} was not made"));
        if input == Input::Split {
            return make_split(form("raw")?, path);
        }
        let unfinished = path.with_extension("unfinished");
        match input {
            Input::Form(_) | Input::Split => {}
            Input::Sparse(tib) => make_sparse(&unfinished, tib, self.unit / (GROUP * CLUSTER))?,
            Input::Repeated(gib) => {
                synthetic::repeated(&unfinished, form(SAMPLE)?, gib * self.unit, self.unit / 2)?;
            }
            Input::Spread(gib) => synthetic::spread(&unfinished, form(SAMPLE)?, gib << 30, self.unit)?,
            Input::Mapped(tib) => synthetic::mapped(&unfinished, tib << 40)?,
            Input::Archive(writer) => self.pack(&unfinished, form("raw")?, writer)?,
        }
        if matches!(input, Input::Repeated(_) | Input::Spread(_)) {
            self.judge(&unfinished, &truth(path))?;
        }
        fs::rename(unfinished, path)?;
        Ok(())
    }

    /// Makes an archive of the raw disk.
    fn pack(&self, path: &Path, raw: &Path, writer: Writer) -> Result<()> {
        let mut make = match writer {
            Writer::Ours => {
                let mut convert = Command::new(self.repo.build("image-prep", Profile::Release)?);
                convert.args(["convert", "--quiet", "--format", "raw", "--to", "gce"]).arg(raw).arg(path);
                convert
            }
            Writer::Tar => {
                let mut tar = Command::new("tar");
                tar.args(["--format=oldgnu", "-S", "--transform=s,.*,disk.raw,", "-czf"]).arg(path).arg(raw);
                tar
            }
        };
        run(&mut make)
    }

    /// Keeps the digest of what qemu-img finds in an image.
    fn judge(&self, image: &Path, digest: &Path) -> Result<()> {
        let raw = self.folder.join("judge.unfinished");
        let mut convert = Command::new("qemu-img");
        output(convert.args(["convert", "-m", "16", "-W", "-f", "qcow2", "-O", "raw"]).arg(image).arg(&raw))?;
        fs::write(digest, sparse::digest(&raw)?)?;
        fs::remove_file(raw)?;
        Ok(())
    }
}

/// Makes the disk as several extent files in a folder of their own, which they name.
fn make_split(raw: &Path, path: &Path) -> Result<()> {
    let folder = path.parent().context("a file without a folder")?;
    let unfinished = folder.with_extension("unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    fs::create_dir_all(&unfinished)?;
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse"]);
    run(convert.arg(raw).arg(unfinished.join(path.file_name().unwrap_or_default())))?;
    fs::rename(unfinished, folder)?;
    Ok(())
}

/// Makes a QCOW2 of `tib` TiB in which data lies scattered, in groups of single clusters.
fn make_sparse(path: &Path, tib: u64, groups: u64) -> Result<()> {
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2", "-o", &format!("cluster_size={CLUSTER}")]);
    run(create.arg(path).arg(format!("{tib}T")))?;
    // One process for each group: all commands together are longer than a command line may be.
    for group in 0..groups {
        let mut write = Command::new("qemu-io");
        write.args(["-f", "qcow2", "-t", "unsafe"]);
        let start = (tib << 40) / groups * group;
        for index in 0..GROUP {
            let at = start + index * 2 * CLUSTER;
            write.args(["-c", &format!("write -q -P {} {at} {CLUSTER}", 1 + index)]);
        }
        output(write.arg(path))?;
    }
    let len = fs::metadata(path)?.len();
    ensure!(len >= groups * GROUP * CLUSTER, "qemu-io wrote only {len} bytes");
    Ok(())
}
