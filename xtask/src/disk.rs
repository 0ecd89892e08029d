//! A disk as an installer makes it: GPT, one Linux partition, ext4 with files.
//!
//! Neither root nor a loop device is needed: `mkfs.ext4 -d` fills the file system while it makes it, at an offset in the file;
//! `sfdisk` writes the partition table around it. Both come with every distribution (Debian: e2fsprogs, fdisk).

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::repo::output;

/// What to make.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Disk<'a> {
    /// Length of the disk, bytes.
    pub(crate) len: u64,
    /// The files in it.
    pub(crate) tree: &'a Path,
    /// Where the partition starts, bytes.
    pub(crate) start: u64,
    /// Further arguments of mkfs.ext4.
    pub(crate) mkfs: &'a [&'a str],
}

/// Unit of partition tables.
const SECTOR: u64 = 512;

/// Room for the backup table: header and entries take 33 sectors at the end.
const BACKUP: u64 = 34 * SECTOR;

impl Disk<'_> {
    /// Makes a sparse raw file. Identifiers and times of the file system are fixed, so that like trees give like disks.
    pub(crate) fn make(&self, raw: &Path) -> Result<()> {
        File::create(raw)?.set_len(self.len)?;
        let partition = (self.len - self.start - BACKUP) / 1024 * 1024;
        let offset = format!("offset={},hash_seed={UUID},nodiscard,lazy_itable_init=1", self.start);
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args(["-q", "-F", "-U", UUID, "-L", "root", "-E", &offset]).args(self.mkfs);
        mkfs.arg("-d").arg(self.tree).arg(raw).arg(format!("{}k", partition / 1024));
        output(mkfs.env("SOURCE_DATE_EPOCH", "1700000000").env("PATH", system_path()))?;

        let table = format!(
            "label: gpt\nlabel-id: {UUID}\nfirst-lba: 34\nstart={}, size={}, type=L, uuid={UUID}, name=root\n",
            self.start / SECTOR,
            partition / SECTOR,
        );
        let mut sfdisk = Command::new("sfdisk");
        sfdisk.args(["--quiet", "--wipe", "never", "--wipe-partitions", "never"]).arg(raw);
        sfdisk.env("PATH", system_path()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = sfdisk.spawn().context("cannot run sfdisk (Debian package fdisk)")?;
        child.stdin.take().context("sfdisk without standard input")?.write_all(table.as_bytes())?;
        let done = child.wait_with_output()?;
        if !done.status.success() {
            bail!("sfdisk failed: {}\n{}", done.status, String::from_utf8_lossy(&done.stderr).trim_end());
        }
        Ok(())
    }
}

const UUID: &str = "6d0f3d5c-9b1e-4c1a-8f55-0123456789ab";

/// Both tools lie in /usr/sbin, which is not on everybody's path.
fn system_path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}
