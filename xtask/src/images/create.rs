//! `create --local`, and the stored Image read back.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Form;
use super::check::Tools;
use crate::content::Content;
use crate::repo::output;

/// An Image that was created.
#[derive(Debug)]
pub(crate) struct Created {
    /// Its identifier.
    pub(crate) image_id: String,
    /// Its `storageSize`, bytes.
    pub(crate) storage_size: u64,
    /// Where the local cloud keeps it.
    folder: PathBuf,
}

/// Creates an Image from a form in a local cloud of its own, and compares what the cloud says of it.
pub(super) fn local(tools: &Tools, image: &Path, form: &Form, expected: &Content) -> Result<Created> {
    let info =
        output(Command::new(&tools.image_prep).args(["info", "--digest", "--json", "--quiet"]).arg(image))?;
    let info: Value = serde_json::from_str(&info).context("info")?;
    let digest = info["guestDigest"].as_str().unwrap_or_default();
    ensure!(
        digest == expected.guest_digest,
        "info --digest says {digest:?}, expected {}",
        expected.guest_digest
    );

    let folder = tools.scratch.join("cloud");
    let mut create = Command::new(&tools.image_prep);
    create.args(["create", "--json", "--quiet", "--name"]).arg(form.name.replace(' ', "-"));
    create.arg(format!("--local={}", folder.display())).arg(image);
    let operation: Value = serde_json::from_str(&output(&mut create)?).context("create")?;
    let (image_id, storage_size) = check_operation(&operation, expected)?;
    Ok(Created { image_id, storage_size, folder })
}

/// Compares a finished Operation with what the disk holds; gives the Image's id and storage size.
pub(crate) fn check_operation(operation: &Value, expected: &Content) -> Result<(String, u64)> {
    let image = &operation["response"];
    ensure!(operation["done"] == true && image["status"] == "READY", "not READY: {operation}");
    // 64-bit numbers are strings in canonical JSON.
    for (field, expected) in
        [("storageSize", expected.storage_size), ("minDiskSize", expected.min_disk_size())]
    {
        let found = image[field].as_str().unwrap_or_default();
        ensure!(found == expected.to_string(), "{field} is {found:?}, expected {expected}");
    }
    let id = image["id"].as_str().context("an Image without an id")?;
    Ok((id.to_owned(), expected.storage_size))
}

/// Reads the Image back out of the local cloud's blocks, and compares it with the disk.
pub(super) fn read_back(tools: &Tools, created: &Created, expected: &Content) -> Result<String> {
    let raw = tools.scratch.join("back.raw");
    let mut back = Command::new(&tools.read_back);
    back.arg("--local").arg(&created.folder).arg("image").arg(&created.image_id).arg(&raw);
    let said = compare_back(&output(&mut back)?, &raw, expected)?;
    let left = output(Command::new(&tools.read_back).arg("--local").arg(&created.folder).arg("strangers"))?;
    ensure!(left.is_empty(), "left in the bucket: {left}");
    Ok(said)
}

/// Compares the digest that read-back printed, the manifest's, and the raw file that it wrote.
pub(crate) fn compare_back(said: &str, raw: &Path, expected: &Content) -> Result<String> {
    let digest = said.trim();
    ensure!(
        digest == expected.guest_digest,
        "the manifest's guest digest is {digest}, expected {}",
        expected.guest_digest
    );
    let content = Content::of(raw)?;
    std::fs::remove_file(raw)?;
    ensure!(content == *expected, "found {content:?}, expected {expected:?}");
    Ok(content.sha256[..8].to_owned())
}
