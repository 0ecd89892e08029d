//! Where outputs are written: a folder on tmpfs, or one on the disk that `target/` lies on.
//!
//! A folder's name has the process id of its bench in it. It goes when the bench ends; what a killed bench left, the next one
//! removes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{statfs, statvfs};

const PREFIX: &str = "image-prep-bench-";

/// `f_type` of tmpfs, linux/magic.h.
const TMPFS: i64 = 0x0102_1994;

/// A folder for outputs.
#[derive(Debug)]
pub(super) struct Place {
    /// What to call it.
    pub(super) name: &'static str,
    /// The folder; empty between runs.
    pub(super) folder: PathBuf,
    /// Whether an output is made durable within the time that is measured. Some tools do that and some do not; what they leave
    /// unwritten would be written during the run of the next one.
    pub(super) durable: bool,
}

impl Place {
    /// A folder on tmpfs.
    pub(super) fn tmpfs(base: &Path) -> Result<Self> {
        ensure!(is_tmpfs(base)?, "{} is not a tmpfs; --tmpfs names one", base.display());
        Ok(Self { name: "tmpfs", folder: folder_in(base)?, durable: false })
    }

    /// A folder on disk.
    pub(super) fn disk(base: &Path) -> Result<Self> {
        fs::create_dir_all(base)?;
        ensure!(!is_tmpfs(base)?, "{} is a tmpfs, not a disk", base.display());
        Ok(Self { name: "disk", folder: folder_in(base)?, durable: true })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Refuses a place with less room than this.
pub(super) fn ensure_space(folder: &Path, need: u64) -> Result<()> {
    let stat = statvfs(folder).with_context(|| format!("cannot look at {}", folder.display()))?;
    let free = stat.f_bavail * stat.f_frsize;
    ensure!(
        free >= need,
        "{} has {} MiB free, {} MiB are needed",
        folder.display(),
        free >> 20,
        need.div_ceil(1 << 20)
    );
    Ok(())
}

/// Refuses to run where sources and outputs together do not fit into memory: how large a tmpfs is says nothing of that.
pub(super) fn ensure_memory(need: u64) -> Result<()> {
    let meminfo = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let available = available(&meminfo).context("/proc/meminfo without MemAvailable")?;
    ensure!(
        available >= need,
        "{} MiB of memory are available, {} MiB are needed for sources in the page cache and outputs on tmpfs",
        available >> 20,
        need.div_ceil(1 << 20)
    );
    Ok(())
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

fn is_tmpfs(path: &Path) -> Result<bool> {
    let stat = statfs(path).with_context(|| format!("cannot look at {}", path.display()))?;
    Ok(stat.f_type == TMPFS)
}

fn folder_in(base: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(base)? {
        let path = entry?.path();
        if let Some(pid) = pid_of(&path)
            && !Path::new("/proc").join(pid).exists()
        {
            let _ = fs::remove_dir_all(path);
        }
    }
    let folder = base.join(format!("{PREFIX}{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// The process that a folder belongs to, if it is one of ours.
fn pid_of(path: &Path) -> Option<&str> {
    let pid = path.file_name()?.to_str()?.strip_prefix(PREFIX)?;
    pid.bytes().all(|byte| byte.is_ascii_digit()).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dead_left_is_removed_and_nothing_else() {
        let base = tempfile::tempdir().unwrap();
        // No process has a number this large.
        let dead = base.path().join(format!("{PREFIX}4294967295"));
        let alive = base.path().join(format!("{PREFIX}1"));
        let stranger = base.path().join(format!("{PREFIX}x"));
        for folder in [&dead, &alive, &stranger] {
            fs::create_dir(folder).unwrap();
        }
        let ours = folder_in(base.path()).unwrap();
        assert!(!dead.exists());
        assert!(alive.exists() && stranger.exists());
        drop(Place { name: "test", folder: ours.clone(), durable: false });
        assert!(!ours.exists());
    }

    #[test]
    fn too_little_room_is_an_error() {
        let base = tempfile::tempdir().unwrap();
        ensure_space(base.path(), 1).unwrap();
        let error = ensure_space(base.path(), u64::MAX).unwrap_err();
        assert!(error.to_string().contains("MiB are needed"), "{error}");
        assert_eq!(available("MemFree: 1 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        ensure_memory(u64::MAX).unwrap_err();
    }
}
