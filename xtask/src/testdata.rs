//! `cargo xtask testdata`: makes the images of `testdata/` and their manifest anew.
//!
//! One disk of 64 MiB in the forms that people have. Small, because they are in the repository; real ones come from `images`.
//! The hashes change with the versions of the tools, so this is run when a form is added, not in CI.

mod footer;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::content::Content;
use crate::disk::Disk;
use crate::repo::{Repo, run};

/// What to make: file, purpose, the command that makes it from `disk.raw`.
const FORMS: [(&str, &str, &str); 7] = [
    (
        "disk.qcow2",
        "GPT, one ext4 partition; QCOW2 version 3, 4 KiB clusters",
        "qemu-img convert -O qcow2 -o cluster_size=4k disk.raw disk.qcow2",
    ),
    (
        "disk-v2.qcow2",
        "the same disk; QCOW2 version 2, 512-byte clusters, zlib",
        "qemu-img convert -c -O qcow2 -o compat=0.10,cluster_size=512 disk.raw disk-v2.qcow2",
    ),
    (
        "disk-zlib.qcow2",
        "the same disk; 16 KiB clusters, zlib",
        "qemu-img convert -c -O qcow2 -o cluster_size=16k disk.raw disk-zlib.qcow2",
    ),
    (
        "disk-zstd.qcow2",
        "the same disk; 16 KiB clusters, Zstandard",
        "qemu-img convert -c -O qcow2 -o cluster_size=16k,compression_type=zstd disk.raw disk-zstd.qcow2",
    ),
    (
        "disk-sparse.vmdk",
        "the same disk; monolithicSparse",
        "qemu-img convert -O vmdk -o subformat=monolithicSparse disk.raw disk-sparse.vmdk",
    ),
    (
        "disk-stream.vmdk",
        "the same disk; streamOptimized, grain directory at the front as qemu-img writes it",
        "qemu-img convert -O vmdk -o subformat=streamOptimized disk.raw disk-stream.vmdk",
    ),
    (
        "disk-footer.vmdk",
        "the same disk; streamOptimized, grain directory behind a footer as ovftool writes it",
        "cargo xtask testdata, from disk-stream.vmdk",
    ),
];

/// What is in a raw disk of odd length.
const ODD: (&str, &str, &str) = (
    "odd.raw",
    "no partitions; a length that is no multiple of 512, which readers fill up",
    "yes 'a line of text' | head -c 10001 > odd.raw",
);

/// Makes everything.
pub(crate) fn make(repo: &Repo) -> Result<()> {
    let folder = repo.path("testdata");
    let scratch = repo.target().join("testdata");
    let _ = fs::remove_dir_all(&scratch);
    let tree = scratch.join("tree");
    fs::create_dir_all(tree.join("etc"))?;
    fs::create_dir_all(&folder)?;
    fs::write(tree.join("etc/os-release"), "NAME=\"image-prep test disk\"\nID=test\nVERSION_ID=1\n")?;
    fs::write(tree.join("etc/hostname"), "demo\n")?;
    fs::write(tree.join("LICENSE"), repo.read("LICENSE-APACHE")?)?;

    let raw = scratch.join("disk.raw");
    // Before the first grain ends: the whole file system but its files fits one VMDK grain.
    let mkfs = ["-b", "4096", "-N", "32", "-O", "^has_journal,^resize_inode,^64bit,^flex_bg"];
    Disk { len: 64 << 20, tree: &tree, start: 20 << 10, mkfs: &mkfs }.make(&raw)?;
    let disk = Content::of(&raw)?;

    let mut manifest = String::from(HEAD);
    for (file, holds, made_by) in FORMS {
        let path = scratch.join(file);
        if file == "disk-footer.vmdk" {
            fs::write(&path, footer::move_to_footer(&fs::read(scratch.join("disk-stream.vmdk"))?)?)?;
        } else {
            let mut words = made_by.split(' ');
            let mut command = Command::new(words.next().unwrap_or_default());
            run(command.args(words).current_dir(&scratch))?;
        }
        let content = through_qemu(&path, &scratch)?;
        ensure!(content.sha256 == disk.sha256, "{file} does not hold the disk");
        fs::copy(&path, folder.join(file))?;
        entry(&mut manifest, &folder.join(file), file, holds, made_by, &content)?;
    }
    let (file, holds, made_by) = ODD;
    let text = "a line of text\n".bytes().cycle().take(10_001).collect::<Vec<_>>();
    fs::write(folder.join(file), text)?;
    entry(
        &mut manifest,
        &folder.join(file),
        file,
        holds,
        made_by,
        &through_qemu(&folder.join(file), &scratch)?,
    )?;
    fs::write(folder.join("manifest.toml"), manifest)?;
    Ok(())
}

const HEAD: &str = "\
# Every file of this folder. `cargo xtask tidy` compares the hashes, and asks image-prep for the digests.
# The guest digests were computed by xtask/src/content.rs from what `qemu-img convert -O raw` makes of each file.
# disk.raw: 64 MiB, GPT by sfdisk, ext4 by mkfs.ext4 -d; see xtask/src/testdata.rs.
";

fn entry(
    manifest: &mut String,
    path: &Path,
    file: &str,
    holds: &str,
    made_by: &str,
    content: &Content,
) -> Result<()> {
    let sha256 = hex::encode(Sha256::digest(fs::read(path)?));
    let digest = content.guest_digest.as_str();
    let fields = [
        ("file", file),
        ("holds", holds),
        ("made_by", made_by),
        ("sha256", &sha256),
        ("guest_digest", digest),
    ];
    writeln!(manifest, "\n[[image]]")?;
    if file.ends_with(".raw") {
        writeln!(manifest, "format = \"raw\"")?;
    }
    for (name, value) in fields {
        writeln!(manifest, "{name} = {value:?}")?;
    }
    Ok(())
}

/// What qemu-img finds in an image.
fn through_qemu(image: &Path, scratch: &Path) -> Result<Content> {
    let raw = scratch.join("qemu.raw");
    run(Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(image).arg(&raw))?;
    let content = Content::of(&raw).with_context(|| format!("{}", image.display()))?;
    fs::remove_file(&raw)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::Manifest;

    #[test]
    fn recorded_digests_are_what_qemu_img_reads() {
        if Command::new("qemu-img").arg("--version").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "CI must have qemu-img (Debian: qemu-utils)");
            eprintln!("NOT JUDGED BY QEMU-IMG: it is not on this machine");
            return;
        }
        let repo = Repo::here();
        let scratch = tempfile::tempdir().unwrap();
        let manifest = Manifest::read(&repo).unwrap();
        assert!(manifest.image.len() > FORMS.len());
        for entry in manifest.image {
            let image = repo.path("testdata").join(&entry.file);
            let content = through_qemu(&image, scratch.path()).unwrap();
            assert_eq!(content.guest_digest, entry.guest_digest, "{}", entry.file);
        }
    }
}
