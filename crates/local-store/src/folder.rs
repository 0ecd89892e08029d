//! The folder: what lies where, and how a change to it becomes durable.
//!
//! ```text
//! DIR/lock                                  held with flock while a process serves the folder
//! DIR/layout.json                           the version of this layout
//! DIR/tmp/                                  records, and buckets, on their way in or out; emptied at start
//! DIR/buckets/BUCKET/bucket.json
//! DIR/buckets/BUCKET/objects/HASH.json      one object: key, headers, checksum, and where its bytes are
//! DIR/buckets/BUCKET/uploads/ID/upload.json one upload in progress
//! DIR/buckets/BUCKET/uploads/ID/00001.json  one part of it
//! DIR/buckets/BUCKET/data/ID                the bytes of one part, or of one object put whole
//! ```
//!
//! HASH is the SHA-256 of the key, so any key of 1024 bytes has a valid name, no two keys share one, and none
//! leads out of the folder. ID is made here and never reused.
//!
//! The rules that keep it whole after a kill at any instant, or a loss of power:
//! 1. A data file is complete and synced before a record names it, and belongs to one part. That its name is
//!    durable too is left to the file system: ext4, XFS and btrfs see to it when a new file is synced.
//! 2. A record is written to `tmp/`, synced, and renamed into place; its folder is synced before the client
//!    hears of it.
//! 3. The files of a replaced or deleted object are removed only after its record is gone for good.
//! 4. Records of parts are renamed too but not synced, which saves two of three flushes a part: a kill cannot
//!    hurt them, and of those that a loss of power tears or loses the part is as if never uploaded.
//!    Completing syncs.
//!
//! So what a kill leaves behind is only files that no record names: opening removes them. Completing an
//! upload is rule 2 with a record that names the parts' files: no byte moves. Opening reads every record,
//! some 20 us each, and keeps an index of all objects in memory.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use rustix::fs::{FlockOperation, flock};
use s3s::crypto::{Checksum as _, Sha256};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::Error;
use crate::records::{FileId, LayoutRecord};

/// The layout that this code reads and writes.
const LAYOUT: u32 = 1;

/// The locked root of a store.
pub(crate) struct Folder {
    root: PathBuf,
    /// The reaper holds the lock too: it gives it back when the last request in flight has ended and its files are removed.
    reaper: mpsc::Sender<PathBuf>,
    /// Told when the lock is given back.
    released: CancellationToken,
    #[cfg(test)]
    failing: std::sync::atomic::AtomicBool,
}

impl Folder {
    /// Takes the folder for this process, creating it where it is missing, and clears `tmp/`.
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        let at = |action| move |source| Error::Io { action, path: root.to_owned(), source };
        fs::create_dir_all(root).map_err(at("create"))?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(root.join("lock"))
            .map_err(at("lock"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::Locked { dir: root.to_owned() }),
            Err(errno) => return Err(at("lock")(errno.into())),
        }
        let tmp = root.join("tmp");
        match fs::remove_dir_all(&tmp) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(at("clear the leftovers of")(error));
            }
            _ => fs::create_dir(&tmp).map_err(at("create"))?,
        }

        let released = CancellationToken::new();
        let folder = Self {
            root: root.to_owned(),
            reaper: start_reaper(lock, released.clone().drop_guard()).map_err(at("start the reaper of"))?,
            released,
            #[cfg(test)]
            failing: false.into(),
        };
        folder.check_layout(at)?;
        Ok(folder)
    }

    fn check_layout<'a, F>(&self, at: impl Fn(&'static str) -> F + 'a) -> Result<(), Error>
    where
        F: FnOnce(io::Error) -> Error + 'a,
    {
        let path = self.root.join("layout.json");
        if !path.try_exists().map_err(at("read"))? {
            fs::create_dir_all(self.buckets()).map_err(at("create"))?;
            let staged = self.stage(&LayoutRecord { layout: LAYOUT }).map_err(at("write"))?;
            return staged.publish(&path).and_then(|()| sync_dir(&self.root)).map_err(at("write"));
        }
        let found = read_record::<LayoutRecord>(&path)?.layout;
        if found != LAYOUT {
            return Err(Error::Layout { dir: self.root.clone(), found, expected: LAYOUT });
        }
        Ok(())
    }

    pub(crate) fn buckets(&self) -> PathBuf {
        self.root.join("buckets")
    }

    /// A path under `tmp/` that nobody uses.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.root.join("tmp").join(FileId::fresh().to_string())
    }

    /// Writes a record beside its place, synced; [`Staged::publish`] moves it there.
    pub(crate) fn stage(&self, record: &impl Serialize) -> io::Result<Staged> {
        let (staged, file) = self.write(record)?;
        file.sync_data()?;
        Ok(staged)
    }

    /// As [`Folder::stage`], but not synced.
    pub(crate) fn stage_part(&self, record: &impl Serialize) -> io::Result<Staged> {
        self.write(record).map(|(staged, _)| staged)
    }

    fn write(&self, record: &impl Serialize) -> io::Result<(Staged, File)> {
        let staged = Staged { path: self.scratch(), published: false };
        let mut file = File::create_new(&staged.path)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        Ok((staged, file))
    }

    /// Makes the names in a folder of records durable.
    pub(crate) fn sync(&self, dir: &Path) -> io::Result<()> {
        #[cfg(test)]
        if self.failing.swap(false, std::sync::atomic::Ordering::Relaxed) {
            return Err(io::Error::other("a sync that a test lets fail"));
        }
        sync_dir(dir)
    }

    #[cfg(test)]
    pub(crate) fn fail_next_sync(&self) {
        self.failing.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// Where files go to be removed, off the path of any request.
    pub(crate) fn reaper(&self) -> mpsc::Sender<PathBuf> {
        self.reaper.clone()
    }

    /// Cancelled when the lock is given back.
    pub(crate) fn released(&self) -> CancellationToken {
        self.released.clone()
    }
}

/// A record that is written but not yet in its place; dropped, it is removed.
pub(crate) struct Staged {
    path: PathBuf,
    published: bool,
}

impl Staged {
    /// Renames it over `target`: the instant of the change. The folder still has to be synced.
    pub(crate) fn publish(mut self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.published {
            // Left behind, it is swept at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The name of a key's record.
pub(crate) fn record_name(key: &str) -> String {
    format!("{}.json", hex::encode(Sha256::checksum(key.as_bytes())))
}

pub(crate) fn read_record<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let bytes =
        fs::read(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Record { path: path.to_owned(), source })
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Removing a file of many MiB takes milliseconds, and the last reader of one may be an async task.
fn start_reaper(lock: File, on_release: DropGuard) -> io::Result<mpsc::Sender<PathBuf>> {
    let (sender, paths) = mpsc::channel::<PathBuf>();
    std::thread::Builder::new().name("local-store-reaper".into()).spawn(move || {
        for path in paths {
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "cannot remove data; the next start will");
            }
        }
        // All senders are gone, and so is the store. First the lock, then the word of it.
        drop(lock);
        drop(on_release);
    })?;
    Ok(sender)
}
