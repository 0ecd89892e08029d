//! `testdata/manifest.toml`: every file there, its hash, how it was made and what disk it holds.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::Violations;
use crate::repo::Repo;

/// The manifest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// Its entries.
    pub(crate) image: Vec<Entry>,
}

/// One disk image.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// File name in `testdata/`.
    pub(crate) file: String,
    /// What to call its format, where its content does not tell.
    pub(crate) format: Option<String>,
    /// SHA-256 of the file.
    pub(crate) sha256: String,
    /// What it is there for.
    #[allow(dead_code)]
    pub(crate) holds: String,
    /// The command that made it.
    #[allow(dead_code)]
    pub(crate) made_by: String,
    /// The guest digest of the disk, computed from what `qemu-img convert -O raw` makes of the file.
    pub(crate) guest_digest: String,
}

/// Files of `testdata/` that are no data.
const DOCUMENTS: [&str; 1] = ["manifest.toml"];

impl Manifest {
    /// Reads it.
    pub(crate) fn read(repo: &Repo) -> Result<Self> {
        toml::from_str(&repo.read("testdata/manifest.toml")?).context("testdata/manifest.toml")
    }
}

/// Compares the manifest with the files.
pub(super) fn check(repo: &Repo, files: &[PathBuf], found: &mut Violations) -> Result<Manifest> {
    let manifest = Manifest::read(repo)?;
    let mut present = Vec::new();
    for name in files.iter().filter_map(|file| file.strip_prefix("testdata").ok()) {
        let name = name.to_string_lossy().into_owned();
        if !DOCUMENTS.contains(&name.as_str()) {
            let bytes = std::fs::read(repo.path("testdata").join(&name))?;
            present.push((name, hex::encode(Sha256::digest(&bytes))));
        }
    }
    compare(&manifest, &present, found);
    Ok(manifest)
}

fn compare(manifest: &Manifest, present: &[(String, String)], found: &mut Violations) {
    for (name, _) in present {
        if !manifest.image.iter().any(|entry| entry.file == *name) {
            found.add(Path::new("testdata").join(name).display(), "is not in manifest.toml");
        }
    }
    for entry in &manifest.image {
        let place = Path::new("testdata").join(&entry.file);
        match present.iter().find(|(name, _)| *name == entry.file) {
            None => found.add(place.display(), "is in manifest.toml, and nowhere else"),
            Some((_, hash)) if *hash != entry.sha256 => {
                found.add(place.display(), format_args!("has SHA-256 {hash}, recorded is {}", entry.sha256));
            }
            Some(_) => {}
        }
    }
}

/// Compares what `info --digest --json` said of an image with what is recorded.
pub(super) fn check_digest(entry: &Entry, said: &str, found: &mut Violations) {
    let info: serde_json::Value = serde_json::from_str(said).unwrap_or_default();
    if info["guestDigest"] != entry.guest_digest {
        let place = Path::new("testdata").join(&entry.file);
        found.add(
            place.display(),
            format_args!("info says {}, recorded is {}", said.trim(), entry.guest_digest),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let entry = |file: &str, sha256: &str| Entry {
            file: file.to_owned(),
            format: None,
            sha256: sha256.to_owned(),
            holds: String::new(),
            made_by: String::new(),
            guest_digest: "77".to_owned(),
        };
        Manifest { image: vec![entry("a", "01"), entry("b", "02"), entry("c", "03")] }
    }

    #[test]
    fn changed_missing_and_unlisted_files_are_found() {
        let file = |name: &str, hash: &str| (name.to_owned(), hash.to_owned());
        let mut found = Violations::default();
        compare(&manifest(), &[file("a", "01"), file("b", "02"), file("c", "03")], &mut found);
        assert!(found.lines().is_empty());
        compare(&manifest(), &[file("a", "01"), file("b", "ff"), file("d", "04")], &mut found);
        assert_eq!(found.lines().len(), 3, "{found:?}");
    }

    #[test]
    fn another_digest_is_found() {
        let mut found = Violations::default();
        check_digest(&manifest().image[0], "{\"guestDigest\":\"77\"}", &mut found);
        assert!(found.lines().is_empty());
        check_digest(&manifest().image[0], "{\"guestDigest\":\"78\"}", &mut found);
        assert_eq!(found.lines().len(), 1);
    }
}
