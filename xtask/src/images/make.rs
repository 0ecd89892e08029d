//! The forms of the two disks, and how they are made.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{Size, tree};
use crate::disk::Disk;
use crate::repo::{Repo, run};

/// One disk in one format.
#[derive(Debug, Clone)]
pub(crate) struct Form {
    /// What to call it.
    pub(crate) name: String,
    /// File name.
    pub(crate) file: String,
    /// The raw file that it is made from.
    from: &'static str,
    /// Arguments of `qemu-img convert`; none for the raw file itself.
    arguments: Vec<String>,
}

const BIG: &str = "disk.raw";
const LITTLE: &str = "little.raw";

/// Cluster sizes of the little disk: smallest, a page, the default, large, largest.
const CLUSTERS: [&str; 5] = ["512", "4k", "64k", "1m", "2m"];

/// All forms, in the order of the table.
pub(super) fn forms() -> Vec<Form> {
    let mut forms =
        vec![Form { name: "raw".to_owned(), file: BIG.to_owned(), from: BIG, arguments: Vec::new() }];
    let mut add = |from, name: String, suffix: &str, arguments: &str| {
        let file = format!("{}.{suffix}", name.replace([' ', ','], "-"));
        let arguments = arguments.split(' ').map(str::to_owned).collect();
        forms.push(Form { name, file, from, arguments });
    };
    add(BIG, "qcow2".to_owned(), "qcow2", "-O qcow2");
    add(BIG, "qcow2 zlib".to_owned(), "qcow2", "-c -O qcow2");
    add(BIG, "qcow2 zstd".to_owned(), "qcow2", "-c -O qcow2 -o compression_type=zstd");
    let extended = "-O qcow2 -o extended_l2=on,cluster_size=128k";
    add(BIG, "qcow2 extended".to_owned(), "qcow2", extended);
    add(BIG, "vmdk sparse".to_owned(), "vmdk", "-O vmdk -o subformat=monolithicSparse");
    add(BIG, "vmdk stream".to_owned(), "vmdk", "-O vmdk -o subformat=streamOptimized");
    for size in CLUSTERS {
        add(LITTLE, format!("qcow2 {size}"), "qcow2", &format!("-O qcow2 -o cluster_size={size}"));
        add(LITTLE, format!("qcow2 {size} zlib"), "qcow2", &format!("-c -O qcow2 -o cluster_size={size}"));
    }
    forms
}

/// Where they are kept.
pub(crate) fn folder(repo: &Repo, size: Size) -> PathBuf {
    repo.target().join("images").join(match size {
        Size::Full => "full",
        Size::Small => "small",
    })
}

/// Makes the forms that are not there yet.
pub(super) fn make(folder: &Path, size: Size, forms: &[Form]) -> Result<()> {
    fs::create_dir_all(folder)?;
    for form in forms {
        let base = folder.join(form.from);
        if !base.exists() {
            println!("making {}", form.from);
            make_disk(folder, &base, size, form.from)?;
        }
        let file = folder.join(&form.file);
        if !file.exists() {
            println!("making {}", form.file);
            let unfinished = file.with_extension("unfinished");
            let mut convert = Command::new("qemu-img");
            convert.args(["convert", "-f", "raw"]).args(&form.arguments).arg(&base).arg(&unfinished);
            run(&mut convert)?;
            fs::rename(unfinished, file)?;
        }
    }
    Ok(())
}

fn make_disk(folder: &Path, raw: &Path, size: Size, name: &str) -> Result<()> {
    let (len, files): (u64, u64) = match (size, name) {
        (Size::Full, BIG) => (8 << 30, 2 << 30),
        (Size::Full, _) => (256 << 20, 48 << 20),
        (Size::Small, BIG) => (1 << 30, 192 << 20),
        (Size::Small, _) => (64 << 20, 12 << 20),
    };
    let tree = folder.join("tree");
    let _ = fs::remove_dir_all(&tree);
    tree::gather(&tree, files)?;
    let unfinished = raw.with_extension("unfinished");
    Disk { len, tree: &tree, start: 1 << 20, mkfs: &[] }.make(&unfinished)?;
    fs::rename(unfinished, raw)?;
    fs::remove_dir_all(tree)?;
    Ok(())
}
