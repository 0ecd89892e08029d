//! `cargo xtask images --boot`: disks of 2 GiB as systems are installed on them, and what `info` says of each in every format.
//!
//! Debian from its archive, started by BIOS, by UEFI or by both, whole and broken in each point of readiness; Windows' layout, LUKS,
//! LVM, XFS, Btrfs, and a disk without partitions. What `info --json` has to say of each stands in [`cases`]; it has to say the same
//! of every format, from a file and by ranges over HTTPS, and to read less than [`MAX_READ`] for that: by its own count of the guest's
//! bytes, and by the server's count of the file's. The tree of Debian's files is kept under `target/images/boot/`, a disk only as
//! long as it is judged.

mod cases;
mod debian;
mod disk;
mod judge;
mod lvm;
mod tools;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};

use super::Table;
use crate::origin::Origin;
use crate::repo::{Profile, Repo};
use cases::Case;
use disk::Lab;

/// More than is read of any disk to look into it, bytes.
const MAX_READ: u64 = 64 << 20;

/// Makes each disk whose name contains one of `only`, and judges what is said of it.
pub(super) fn run(repo: &Repo, profile: Profile, only: &[String]) -> Result<ExitCode> {
    let wanted = |case: &Case| only.is_empty() || only.iter().any(|text| case.name.contains(text));
    let cases: Vec<Case> = cases::all().into_iter().filter(wanted).collect();
    ensure!(!cases.is_empty(), "no disk has such a name");
    tools::check()?;
    let image_prep = repo.build("image-prep", profile)?;
    let folder = repo.target().join("images").join("boot");
    let debian = debian::tree(&folder)?;

    let scratch = Scratch(folder.join("scratch"));
    let _ = fs::remove_dir_all(&scratch.0);
    fs::create_dir_all(&scratch.0)?;
    let lab = Lab { folder: scratch.0.clone(), debian };
    let formats = scratch.0.join("formats");
    fs::create_dir(&formats)?;
    let tls = repo.path("crates/image-server/tests/tls");
    let origin = Origin::start_tls(&formats, &tls.join("cert.pem"), &tls.join("key.pem"))?;
    let judge = judge::Judge { image_prep, formats, origin, root: tls.join("root.pem") };
    println!("MiB of the guest that were read, and MiB of the file that a server sent\n");
    let mut table = Table::new(&judge::columns());
    for case in &cases {
        table.row(case.name, &judge.case(&lab, case));
    }
    Ok(table.finish())
}

/// A folder that goes when the work is over.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is emptied next time.
        let _ = fs::remove_dir_all(&self.0);
    }
}
