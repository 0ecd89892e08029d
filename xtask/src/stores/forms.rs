//! Every form of an object, as others find it on a store: uploaded twice, downloaded by boto3, read by qemu-img.
//!
//! The disk has holes of several parts, so that a store that copies parts may copy those of the raw form, and comes out of a stream-optimised
//! VMDK. Both uploads have to be the same bytes, the disk in them the one that it was made from, its digest that of a plain
//! computation, and nothing may be left in the bucket.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::content::Content;
use crate::repo::{Profile, Repo, output};
use crate::seed::Seed;

/// Name, options, and the format that qemu-img knows it by.
type Form = (&'static str, &'static [&'static str], &'static str);

const FORMS: [Form; 6] = [
    ("qcow2", &["--to", "qcow2"], "qcow2"),
    ("qcow2 zlib", &["--to", "qcow2", "--compress=zlib"], "qcow2"),
    ("qcow2 zstd", &["--to", "qcow2", "--compress=zstd"], "qcow2"),
    ("raw", &["--to", "raw"], "raw"),
    ("source", &["--to", "source"], "vmdk"),
    ("vmdk", &["--to", "vmdk"], "vmdk"),
];

const MIB: u64 = 1 << 20;

/// Twelve parts and a bit, of which five hold anything: two whole ones, one a little, and the ends.
const LEN: u64 = 200 * MIB;
const DATA: [(u64, usize); 4] = [(0, 9 << 20), (48 * MIB, 32 << 20), (107 * MIB, 4096), (199 * MIB, 1 << 20)];

/// A disk, and what is needed to upload it and to judge that.
pub(super) struct Forms {
    image_prep: PathBuf,
    judge: PathBuf,
    scratch: PathBuf,
    raw: PathBuf,
    image: PathBuf,
    digest: String,
}

impl Forms {
    /// Makes the disk. `None`, said aloud, where there is no boto3; under `CI` that is an error.
    pub(super) fn make(repo: &Repo, scratch: &Path) -> Result<Option<Self>> {
        if let Err(error) = output(Command::new("python3").args(["-c", "import boto3"])) {
            ensure!(std::env::var_os("CI").is_none(), "CI must have python3 with boto3: {error:#}");
            println!("forms: SKIPPED, there is no python3 with boto3 (pip install boto3)");
            return Ok(None);
        }
        let (raw, image) = (scratch.join("disk.raw"), scratch.join("disk.vmdk"));
        let file = File::create(&raw)?;
        file.set_len(LEN)?;
        let mut seed = Seed::new(1, "forms");
        for (at, len) in DATA {
            // Half of it compresses.
            file.write_all_at(&seed.bytes(len / 2), at)?;
            file.write_all_at(&b"image-prep ".repeat(len / 22), at + len as u64 / 2)?;
        }
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized"]);
        output(convert.arg(&raw).arg(&image))?;
        Ok(Some(Self {
            image_prep: repo.build("image-prep", Profile::Dev)?,
            judge: repo.path("xtask/src/stores/judge.py"),
            scratch: scratch.to_owned(),
            digest: Content::of(&raw)?.guest_digest,
            raw,
            image,
        }))
    }

    /// Every form on the store that `tell` puts into an environment, into an empty bucket.
    pub(super) fn check(&self, store: &str, bucket: &str, tell: &dyn Fn(&mut Command)) -> Result<()> {
        let on = Store { forms: self, state: self.scratch.join(format!("{store}-state")), bucket, tell };
        on.judge(&["make"])?;
        for form in &FORMS {
            let said = on.check(form).with_context(|| format!("{store}: {}", form.0))?;
            println!("  form {:10} {said}", form.0);
        }
        let left = on.judge(&["left"])?;
        ensure!(left.is_empty(), "left in the bucket: {left}");
        Ok(())
    }
}

/// A store that is running.
struct Store<'a> {
    forms: &'a Forms,
    /// What image-prep remembers of it.
    state: PathBuf,
    bucket: &'a str,
    tell: &'a dyn Fn(&mut Command),
}

impl Store<'_> {
    fn check(&self, form: &Form) -> Result<String> {
        let (first, second) = (self.download(form, "first")?, self.download(form, "second")?);
        let bytes = fs::read(&first)?;
        ensure!(bytes == fs::read(&second)?, "two uploads made different bytes");
        let mut compare = Command::new("qemu-img");
        compare.args(["compare", "-q", "-f", "raw", "-F", form.2]).arg(&self.forms.raw).arg(&first);
        output(&mut compare)?;
        let mut said =
            format!("{:3} MiB, twice the same; qemu-img reads the disk in it", bytes.len() as u64 / MIB);
        if form.0 == "raw" {
            ensure!(self.copies_parts()?, "this store does not copy parts: holes are sent");
            said += "; this store copies parts";
        }
        fs::remove_file(first)?;
        fs::remove_file(second)?;
        Ok(said)
    }

    /// Uploads the disk; gives the file that boto3 made of the object.
    fn download(&self, form: &Form, key: &str) -> Result<PathBuf> {
        let mut upload = Command::new(&self.forms.image_prep);
        upload.args(["upload", "--json", "--quiet"]).args(form.1).arg(&self.forms.image);
        upload.arg(format!("s3://{}/{key}", self.bucket));
        upload.env("XDG_STATE_HOME", &self.state).env("XDG_CACHE_HOME", &self.state);
        (self.tell)(&mut upload);
        let uploaded: Value = serde_json::from_str(&output(&mut upload)?).context("upload")?;
        let path = self.forms.scratch.join(key);
        let metadata = self.judge(&["take", key, path.to_str().context("a path in UTF-8")?])?;
        let metadata: Value = serde_json::from_str(&metadata).context("metadata")?;
        for found in [&uploaded["guestDigest"], &metadata["guest-digest"]] {
            ensure!(*found == self.forms.digest, "the digest is {found}, expected {}", self.forms.digest);
        }
        Ok(path)
    }

    fn judge(&self, words: &[&str]) -> Result<String> {
        let mut judge = Command::new("python3");
        judge.arg(&self.forms.judge).arg(self.bucket).args(words);
        (self.tell)(&mut judge);
        output(&mut judge)
    }

    /// Whether the store copies parts, by what is remembered of it. How many holes of an upload were copied nobody counts.
    fn copies_parts(&self) -> Result<bool> {
        let mut learned = fs::read_dir(self.state.join("image-prep/stores"))?;
        let record = learned.next().context("nothing was learned of the store")??;
        let record: Value = serde_json::from_slice(&fs::read(record.path())?)?;
        Ok(record["profile"]["part-copy"] == true)
    }
}
