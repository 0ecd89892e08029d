//! A disk as an installer divides it: a table by sfdisk, and in each partition what its own tool makes.
//!
//! No mount, and no loop device but for LVM. ext4 is made in its place, everything else beside the disk and put there.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::debian::{BOOT, CORE, Tree};
use super::lvm;
use super::tools::tool;
use crate::repo::{name, output};

pub(super) const MIB: u64 = 1 << 20;

/// Length of every disk, bytes.
const LEN: u64 = 2 << 30;

/// Ids of file systems.
pub(super) const ROOT_ID: &str = "8f1d2b6a-0c55-4d1e-9a57-3b1f6c2d4e01";
pub(super) const BOOT_ID: &str = "8f1d2b6a-0c55-4d1e-9a57-3b1f6c2d4e02";
const SWAP_ID: &str = "8f1d2b6a-0c55-4d1e-9a57-3b1f6c2d4e03";
pub(super) const ESP_ID: &str = "0A1B-2C3D";

/// Types of partitions.
pub(super) const BIOS_BOOT: &str = "21686148-6449-6E6F-744E-656564454649";
pub(super) const RESERVED: &str = "E3C9E316-0B5C-4DB8-817D-F92DF00215AE";
pub(super) const WINDOWS_DATA: &str = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7";

/// Room before the first partition and behind the last one.
const MARGIN: u64 = MIB;

/// What a partition holds.
pub(super) enum Volume<'a> {
    Nothing,
    /// The files of a tree.
    Ext4 {
        id: &'a str,
        label: &'a str,
        tree: &'a Path,
    },
    /// Files, each with its path.
    Fat(&'a [(PathBuf, &'a str)]),
    Swap,
    Xfs,
    Btrfs {
        tree: &'a Path,
    },
    Ntfs {
        label: &'a str,
        starts: bool,
    },
    Luks,
    /// With an ext4 of these files in its one logical volume.
    Lvm {
        tree: &'a Path,
    },
}

/// A partition; the last one without a length is as long as the rest of the disk.
pub(super) struct Part<'a> {
    pub(super) mib: Option<u64>,
    /// As sfdisk knows it, with further fields behind it.
    pub(super) kind: &'a str,
    pub(super) volume: Volume<'a>,
}

/// Where disks are made.
pub(super) struct Lab {
    /// A folder for whatever it takes.
    pub(super) folder: PathBuf,
    /// A system that is ready in every point.
    pub(super) debian: Tree,
}

impl Lab {
    /// The disk that is being made.
    pub(super) fn disk(&self) -> PathBuf {
        self.folder.join("formats").join("disk.raw")
    }

    /// A path for something on the way.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A copy of the system's files, changed.
    pub(super) fn changed(&self, change: impl FnOnce(&Tree) -> Result<()>) -> Result<Tree> {
        let tree = self.debian.copy(&self.path("changed"))?;
        change(&tree)?;
        Ok(tree)
    }

    /// A disk without a table that is all one volume.
    pub(super) fn whole(&self, volume: &Volume<'_>) -> Result<()> {
        File::create(self.disk())?.set_len(LEN)?;
        self.fill(0, LEN, volume)
    }

    /// A disk with a table (`dos` or `gpt`) and these partitions.
    pub(super) fn parted(&self, label: &str, parts: &[Part<'_>]) -> Result<()> {
        File::create(self.disk())?.set_len(LEN)?;
        let mut script = format!("label: {label}\n");
        let mut at = MARGIN;
        for part in parts {
            let len = part.mib.map_or(LEN - MARGIN - at, |mib| mib * MIB);
            script.push_str(&format!("start={}, size={}, type={}\n", at / 512, len / 512, part.kind));
            at += len;
        }
        said_to(tool("sfdisk").args(["--quiet", "--wipe", "never"]).arg(self.disk()), script.as_bytes())?;
        let mut at = MARGIN;
        for part in parts {
            let len = part.mib.map_or(LEN - MARGIN - at, |mib| mib * MIB);
            self.fill(at, len, &part.volume)?;
            at += len;
        }
        Ok(())
    }

    fn fill(&self, at: u64, len: u64, volume: &Volume<'_>) -> Result<()> {
        let disk = self.disk();
        match volume {
            Volume::Nothing => return Ok(()),
            Volume::Ext4 { id, label, tree } => return ext4(&disk, at, len, (id, label), tree),
            _ => {}
        }
        let file = self.path("volume");
        File::create(&file)?.set_len(len)?;
        match volume {
            Volume::Fat(files) => {
                let mut make = tool("mkfs.fat");
                make.args(["-F", "32", "-n", "ESP", "-i", &ESP_ID.replace('-', "")]).arg(&file);
                output(&mut make)?;
                fat_files(&file, files)?
            }
            Volume::Swap => output(tool("mkswap").args(["-q", "-U", SWAP_ID]).arg(&file))?,
            Volume::Xfs => output(
                tool("mkfs.xfs").args(["-q", "-L", "root", "-m", &format!("uuid={ROOT_ID}")]).arg(&file),
            )?,
            Volume::Btrfs { tree } => {
                let mut make = tool("mkfs.btrfs");
                output(make.args(["-q", "-L", "root", "-U", ROOT_ID, "--rootdir"]).arg(tree).arg(&file))?
            }
            Volume::Ntfs { label, starts } => {
                let start = (at / 512).to_string();
                let geometry = ["-s", "512", "-p", &start, "-H", "255", "-S", "63"];
                output(tool("mkntfs").args(["-q", "-F", "-Q", "-L", label]).args(geometry).arg(&file))?;
                if *starts {
                    // What bootsect.exe puts there looks for this, and says so where it is missing.
                    OpenOptions::new().write(true).open(&file)?.write_all_at(b"BOOTMGR is missing", 0x18d)?;
                }
                output(
                    tool("ntfscp")
                        .args(["-q", "-f"])
                        .arg(&file)
                        .arg(self.debian.path().join(BOOT))
                        .arg("bootmgr"),
                )?
            }
            Volume::Luks => {
                let mut format = tool("cryptsetup");
                format.args(["luksFormat", "-q", "--batch-mode", "--type", "luks2", "--uuid", ROOT_ID]);
                format.args(["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]).arg(&file).arg("-");
                said_to(&mut format, b"passphrase")?
            }
            Volume::Lvm { tree } => {
                let said = lvm::make(&file, len)?;
                ext4(&file, MIB, lvm::size(len), (ROOT_ID, "root"), tree)?;
                said
            }
            Volume::Nothing | Volume::Ext4 { .. } => String::new(),
        };
        output(
            tool("dd")
                .arg(format!("if={}", file.display()))
                .arg(format!("of={}", disk.display()))
                .args(["bs=1M", "conv=sparse,notrunc", "status=none"])
                .arg(format!("seek={}", at / MIB)),
        )?;
        fs::remove_file(file)?;
        Ok(())
    }

    /// Puts code into the first sector, which is somebody else's.
    pub(super) fn code(&self, code: &[u8]) -> Result<()> {
        OpenOptions::new().write(true).open(self.disk())?.write_all_at(code, 0)?;
        Ok(())
    }

    /// Puts GRUB where BIOS finds it: its first sector before the table, the rest behind the table or, on a GPT, into a partition
    /// that begins at `core`.
    pub(super) fn grub(&self, core: Option<u64>) -> Result<()> {
        /// Of the first sector what is code, and where it says which sector comes next.
        const CODE: usize = 440;
        const NEXT: usize = 0x5c;
        /// In the next one: from where on the rest is read.
        const REST: usize = 0x1f4;
        let mut first = fs::read(self.debian.path().join(BOOT))?;
        let mut rest = fs::read(self.debian.path().join(CORE))?;
        let at = core.unwrap_or(512);
        ensure!(
            core.is_some() || rest.len() as u64 <= MARGIN - 512,
            "GRUB does not fit before the first partition"
        );
        let sector = at / 512;
        first.get_mut(NEXT..NEXT + 8).context("boot.img is short")?.copy_from_slice(&sector.to_le_bytes());
        rest.get_mut(REST..REST + 8)
            .context("core.img is short")?
            .copy_from_slice(&(sector + 1).to_le_bytes());
        let disk = OpenOptions::new().write(true).open(self.disk())?;
        disk.write_all_at(first.get(..CODE).context("boot.img is short")?, 0)?;
        disk.write_all_at(&rest, at)?;
        Ok(())
    }
}

/// An ext4 within a file, with an id, a label and files.
fn ext4(file: &Path, at: u64, len: u64, (id, label): (&str, &str), tree: &Path) -> Result<()> {
    let mut make = tool("mke2fs");
    make.args(["-q", "-F", "-t", "ext4", "-U", id, "-L", label]);
    make.args(["-E", &format!("offset={at},nodiscard,lazy_itable_init=1")]);
    output(make.arg("-d").arg(tree).arg(file).arg(format!("{}k", len / 1024)))?;
    Ok(())
}

/// Puts files into a FAT, with the folders that they lie in.
fn fat_files(volume: &Path, files: &[(PathBuf, &str)]) -> Result<String> {
    let mut folders: Vec<&Path> = Vec::new();
    for (_, path) in files {
        let mut above: Vec<&Path> =
            Path::new(path).ancestors().skip(1).filter(|p| *p != Path::new("")).collect();
        above.reverse();
        folders.extend(above.iter().filter(|folder| !folders.contains(folder)).copied().collect::<Vec<_>>());
    }
    for folder in folders {
        output(tool("mmd").arg("-i").arg(volume).arg(format!("::{}", folder.display())))?;
    }
    for (file, path) in files {
        output(tool("mcopy").arg("-i").arg(volume).arg(file).arg(format!("::{path}")))?;
    }
    Ok(String::new())
}

/// Runs a command with something on its standard input.
fn said_to(command: &mut Command, input: &[u8]) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {}", name(command)))?;
    child.stdin.take().context("no standard input")?.write_all(input)?;
    let done = child.wait_with_output()?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!("{} failed: {}\n{}", name(command), done.status, said.trim_end());
    }
    Ok(String::new())
}
