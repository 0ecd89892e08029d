//! A tree of real files: what a system has under /usr, up to a size.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

/// Where files are taken from, in this order.
const FROM: [&str; 3] = ["/usr/lib", "/usr/bin", "/usr/share"];

/// One file does not fill the disk: larger ones are left out.
const LARGEST: u64 = 128 << 20;

/// Copies files and symbolic links into `tree` until they have `wanted` bytes.
pub(super) fn gather(tree: &Path, wanted: u64) -> Result<()> {
    let mut have = 0;
    for root in FROM {
        have += copy(Path::new(root), &tree.join(root.trim_start_matches('/')), wanted - have)?;
    }
    ensure!(have >= wanted / 10 * 9, "found only {have} bytes of files, wanted {wanted}");
    Ok(())
}

/// Copies a folder until `wanted` is used up; gives how much that was. What cannot be read is left out.
fn copy(from: &Path, to: &Path, wanted: u64) -> Result<u64> {
    fs::create_dir_all(to)?;
    let Ok(listing) = fs::read_dir(from) else { return Ok(0) };
    let mut entries: Vec<PathBuf> = listing.filter_map(|entry| Some(entry.ok()?.path())).collect();
    entries.sort();
    let mut have = 0;
    for path in entries {
        let Ok(metadata) = path.symlink_metadata() else { continue };
        let Some(name) = path.file_name() else { continue };
        let target = to.join(name);
        if metadata.is_dir() {
            have += copy(&path, &target, wanted - have)?;
        } else if metadata.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&path)?, &target)?;
        } else if metadata.is_file() && metadata.len() <= LARGEST.min(wanted - have) {
            have += fs::copy(&path, &target).unwrap_or(0);
        }
    }
    Ok(have)
}
