//! A tree of real files: what a system has under /usr, up to a size.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::repo::output;

/// Where files are taken from, in this order, and what part of the disk each may fill, in quarters. Programs and documents
/// compress differently.
const FROM: [(&str, u64); 3] = [("/usr/bin", 1), ("/usr/share", 1), ("/usr/lib", 4)];

/// Near enough to the size that is wanted. Stopping here keeps out the many small files that would still fit, and their inodes.
const NEAR: u64 = 512 << 10;

/// Copies files and symbolic links into `tree` until they have `wanted` bytes. Where the system has too few, the Rust toolchain
/// helps out: whoever runs this has one.
pub(super) fn gather(tree: &Path, wanted: u64) -> Result<()> {
    let mut have = 0;
    for (from, quarters) in FROM {
        let share = (wanted / 4 * quarters).min(wanted - have);
        have += copy(Path::new(from), &tree.join(from.trim_start_matches('/')), share)?;
    }
    if wanted - have > NEAR {
        let toolchain = output(Command::new("rustc").args(["--print", "sysroot"]))?;
        have += copy(Path::new(toolchain.trim()), &tree.join("opt/rust"), wanted - have)?;
    }
    ensure!(have >= wanted / 8 * 7, "found only {have} bytes of files, wanted {wanted}");
    Ok(())
}

/// Copies a folder until `wanted` is used up; gives how much that was. What cannot be read is left out.
fn copy(from: &Path, to: &Path, wanted: u64) -> Result<u64> {
    let Ok(listing) = fs::read_dir(from) else { return Ok(0) };
    let mut entries: Vec<PathBuf> = listing.filter_map(|entry| Some(entry.ok()?.path())).collect();
    entries.sort();
    fs::create_dir_all(to)?;
    let mut have = 0;
    for path in entries {
        if wanted - have < NEAR {
            break;
        }
        let Ok(metadata) = path.symlink_metadata() else { continue };
        let Some(name) = path.file_name() else { continue };
        let target = to.join(name);
        if metadata.is_dir() {
            have += copy(&path, &target, wanted - have)?;
        } else if metadata.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&path)?, &target)?;
        } else if metadata.is_file() && metadata.len() <= wanted - have {
            have += fs::copy(&path, &target).unwrap_or(0);
        }
    }
    Ok(have)
}
