//! What may lie in the repository: few names at the top, and no large file anywhere.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Violations;
use crate::repo::Repo;

/// What the top level holds besides dot-files.
const TOP_LEVEL: [&str; 9] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "benches",
    "crates",
    "testdata",
    "xtask",
];

/// A clone stays quick, and a change readable. Larger inputs are made under `target/` when they are needed.
const MAX_LEN: u64 = 256 << 10;

/// Looks at names and lengths.
pub(super) fn check(repo: &Repo, files: &[PathBuf], found: &mut Violations) -> Result<()> {
    for file in files {
        check_file(file, repo.path(file).metadata()?.len(), found);
    }
    Ok(())
}

fn check_file(file: &Path, len: u64, found: &mut Violations) {
    let top = file.components().next().map(|part| part.as_os_str().to_string_lossy()).unwrap_or_default();
    if !top.starts_with('.') && !TOP_LEVEL.contains(&top.as_ref()) {
        found.add(file.display(), format_args!("`{top}` is not a name for the top level"));
    }
    if len > MAX_LEN {
        found.add(file.display(), format_args!("has {len} bytes, the limit is {MAX_LEN}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_and_giants_are_found() {
        let mut found = Violations::default();
        check_file(Path::new("crates/disk-image/src/lib.rs"), 5_000, &mut found);
        check_file(Path::new(".ci/run"), MAX_LEN, &mut found);
        assert!(found.lines().is_empty());
        check_file(Path::new("scripts/build.sh"), 10, &mut found);
        check_file(Path::new("testdata/disk.qcow2"), MAX_LEN + 1, &mut found);
        assert_eq!(found.lines().len(), 2);
    }
}
