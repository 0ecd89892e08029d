//! What was learned of a store, for the next process: one small file for each endpoint.
//!
//! Nothing depends on it. A file that is not there, torn, or of an older layout counts as none, and a folder that cannot be written is
//! left alone. After a week the store is asked anew: it may have been updated.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};
use url::Url;

use super::StoreProfile;
use crate::limits::MEMORY_LIFE;

/// A file of this size is not one of ours.
const MAX_LEN: u64 = 64 << 10;

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    endpoint: String,
    /// Seconds since 1970.
    learned: u64,
    profile: StoreProfile,
}

/// The file of one endpoint.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
    endpoint: String,
}

impl Memory {
    pub(super) fn new(folder: &Path, endpoint: Option<&Url>) -> Self {
        // Without an endpoint it is AWS, in whatever region.
        let endpoint = endpoint.map_or_else(|| "aws".to_owned(), ToString::to_string);
        let name = hex::encode(Md5::digest(endpoint.as_bytes()));
        Self { path: folder.join(format!("{name}.json")), endpoint }
    }

    pub(super) fn read(&self) -> Option<StoreProfile> {
        if fs::metadata(&self.path).ok()?.len() > MAX_LEN {
            return None;
        }
        let record: Record = serde_json::from_slice(&fs::read(&self.path).ok()?).ok()?;
        let age = now().checked_sub(Duration::from_secs(record.learned))?;
        (record.endpoint == self.endpoint && age < MEMORY_LIFE).then_some(record.profile)
    }

    pub(super) fn write(&self, profile: StoreProfile) {
        let record = Record { endpoint: self.endpoint.clone(), learned: now().as_secs(), profile };
        if let Err(error) = self.replace(&record) {
            tracing::debug!(%error, path = %self.path.display(), "what was learned of the store is not remembered");
        }
    }

    /// By a rename: who reads meanwhile gets the old record or the new one.
    fn replace(&self, record: &Record) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let staged = self.path.with_extension(format!("{}.tmp", process::id()));
        let written = fs::File::create(&staged).and_then(|mut file| {
            file.write_all(&serde_json::to_vec_pretty(record)?)?;
            fs::rename(&staged, &self.path)
        });
        if written.is_err() {
            let _ = fs::remove_file(&staged);
        }
        written
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Checksum;

    fn learned() -> StoreProfile {
        StoreProfile { checksum: Some(Checksum::Md5), part_copy: Some(false), ..StoreProfile::default() }
    }

    #[test]
    fn what_is_written_is_read_for_that_endpoint_alone() {
        let dir = tempfile::tempdir().unwrap();
        let url = |text: &str| Url::parse(text).unwrap();
        let here = Memory::new(&dir.path().join("stores"), Some(&url("http://one/")));
        assert_eq!(here.read(), None);
        here.write(learned());
        assert_eq!(here.read(), Some(learned()));
        assert_eq!(Memory::new(&dir.path().join("stores"), Some(&url("http://two/"))).read(), None);
    }

    #[test]
    fn a_record_that_is_torn_or_old_or_cannot_be_written_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(dir.path(), None);
        memory.write(learned());
        let whole = fs::read(&memory.path).unwrap();
        for len in 0..whole.len() {
            fs::write(&memory.path, &whole[..len]).unwrap();
            assert_eq!(memory.read(), None, "{len}");
        }
        let old = Record { endpoint: "aws".into(), learned: 1_000_000, profile: learned() };
        memory.replace(&old).unwrap();
        assert_eq!(memory.read(), None);
        // A file where the folder should be.
        let blocked = Memory::new(&memory.path, None);
        blocked.write(learned());
        assert_eq!(blocked.read(), None);
    }
}
