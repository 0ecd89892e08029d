//! What the disks are made with, by the names of Debian's packages.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

/// Program, and the package that has it.
const TOOLS: [(&str, &str); 16] = [
    ("mmdebstrap", "mmdebstrap"),
    ("tar", "tar"),
    ("mke2fs", "e2fsprogs"),
    ("sfdisk", "fdisk"),
    ("mkswap", "util-linux"),
    ("losetup", "mount"),
    ("mkfs.fat", "dosfstools"),
    ("mcopy", "mtools"),
    ("mmd", "mtools"),
    ("mkfs.xfs", "xfsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("mkntfs", "ntfs-3g"),
    ("ntfscp", "ntfs-3g"),
    ("cryptsetup", "cryptsetup-bin"),
    ("lvm", "lvm2"),
    ("qemu-img", "qemu-utils"),
];

/// Half of these lie in /usr/sbin, which is not on everybody's path.
pub(super) fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

/// A command that finds all of them.
pub(super) fn tool(name: &str) -> Command {
    let path = path();
    let found = path.split(':').map(|folder| Path::new(folder).join(name)).find(|file| file.is_file());
    let mut command = Command::new(found.unwrap_or_else(|| name.into()));
    command.env("PATH", path);
    command
}

/// Fails with everything that is missing, and how it is installed.
pub(super) fn check() -> Result<()> {
    let path = path();
    let is_there = |name: &str| path.split(':').any(|folder| Path::new(folder).join(name).is_file());
    let missing: Vec<_> = TOOLS.iter().filter(|(name, _)| !is_there(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    bail!("missing {}: apt-get install {}", names.join(", "), packages.join(" "))
}
