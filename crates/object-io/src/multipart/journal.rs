//! What is known of an upload that may be continued: one file for each, beside the store.
//!
//! Written by the one process that holds its lock (`flock`), readable by the owner alone, and without secrets: an upload is
//! named in it, and what it is of, but nothing that allows to speak to the store. A record is written when the store has
//! answered, so that a kill loses none, and synced by a thread of its own, so that no part waits for the disk; a loss of power
//! costs the parts of the last few milliseconds, which are sent again.
//!
//! No failure to write ends an upload: [`Journal::failure`] tells of it, and what could not be written is sent again.
//!
//! Cost: 100 bytes a part on disk and in memory, one `fdatasync` for all the records that were written during the one before.

mod record;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use crate::Scheme;
use crate::limits::MAX_JOURNAL_LEN;
use crate::store::PartSent;
use record::{PartRecord, Record, VERSION, decode, encode};

pub(crate) use record::Known;
pub use record::{Begun, Done, SourceIdentity, UploadOf};

const SUFFIX: &str = "journal";

/// The journal of one upload, locked.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Arc<File>,
    known: Mutex<Known>,
    /// Wakes the thread that syncs; one word is enough for all that was written before it.
    dirty: Option<SyncSender<()>>,
    failure: OnceLock<Arc<io::Error>>,
    removed: AtomicBool,
}

/// A journal that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Another process is at it.
    #[error("another process is uploading to `{place}`")]
    Locked {
        /// `s3://BUCKET/KEY`.
        place: Box<str>,
    },
    /// The folder or the file refuses.
    #[error("cannot use `{}`", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// What became of a file that was opened.
enum Opened {
    /// It is locked now.
    Ours(Arc<Journal>),
    /// Another process has locked it.
    Locked,
    /// It was removed before it could be locked.
    Gone,
}

impl Journal {
    /// Opens the journal of uploads to `key` in `bucket` of the store `endpoint` and reads what it knows; makes it, and `dir`,
    /// where they are missing. A torn end is cut off.
    ///
    /// # Errors
    ///
    /// [`JournalError::Locked`] if another process uploads there.
    pub fn open(dir: &Path, endpoint: &str, bucket: &str, key: &str) -> Result<Arc<Self>, JournalError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| JournalError::Io { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(dir))?;
        let path = dir.join(name(endpoint, bucket, key));
        let locked =
            || JournalError::Locked { place: Scheme::of_endpoint(endpoint).place(bucket, key).into() };
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(failed(&path))?;
            match Self::of(file, &path).map_err(failed(&path))? {
                Opened::Ours(journal) => return Ok(journal),
                Opened::Locked => return Err(locked()),
                Opened::Gone => {}
            }
        }
    }

    /// All journals in `dir` that nobody is using. Those that cannot be opened are left out, as is what is no journal.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read; one that is not there holds none.
    pub fn list(dir: &Path) -> io::Result<Vec<Arc<Self>>> {
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut journals = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_none_or(|suffix| suffix != SUFFIX) {
                continue;
            }
            let file = OpenOptions::new().read(true).write(true).open(&path);
            if let Ok(Opened::Ours(journal)) = file.and_then(|file| Self::of(file, &path)) {
                journals.push(journal);
            }
        }
        journals.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(journals)
    }

    /// The ids of all uploads that `dir` knows of, used or not.
    pub fn upload_ids(dir: &Path) -> Vec<String> {
        let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
        let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        let journals = paths.filter(|path| path.extension().is_some_and(|suffix| suffix == SUFFIX));
        let known = journals
            .filter_map(|path| File::open(path).and_then(|file| read(&file)).ok().map(|(known, _)| known));
        known.filter_map(|known| known.begun.map(|begun| begun.upload_id)).collect()
    }

    fn of(file: File, path: &Path) -> io::Result<Opened> {
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Opened::Locked),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Whoever held the lock may have removed the file.
        let here = file.metadata()?;
        match fs::metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (here.dev(), here.ino()) => {}
            Ok(_) => return Ok(Opened::Gone),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Opened::Gone),
            Err(error) => return Err(error),
        }
        let (known, whole) = read(&file)?;
        if whole < here.len() {
            file.set_len(whole)?;
        }
        (&file).seek(SeekFrom::Start(whole))?;
        Ok(Opened::Ours(Arc::new(Self {
            path: path.to_owned(),
            dirty: start_sync(file.try_clone()?),
            file: Arc::new(file),
            known: Mutex::new(known),
            failure: OnceLock::new(),
            removed: AtomicBool::new(false),
        })))
    }

    /// The upload that this is about.
    pub fn begun(&self) -> Option<Begun> {
        self.lock().begun.clone()
    }

    /// How many bytes the store is known to have.
    pub fn bytes_sent(&self) -> u64 {
        self.lock().parts.values().map(|part| part.len).sum()
    }

    /// When something was last written here.
    pub fn changed(&self) -> io::Result<SystemTime> {
        self.file.metadata()?.modified()
    }

    /// Why nothing is written any more, if that is so.
    pub fn failure(&self) -> Option<&io::Error> {
        self.failure.get().map(|error| &**error)
    }

    /// True if the object in the store with this ETag is the one that was uploaded here.
    pub fn made(&self, etag: &str) -> bool {
        let known = self.lock();
        match (&known.done, &known.begun) {
            (Some(done), _) => done.etag == etag,
            // Of these parts and no others: whether they are all that there should be, who completed them knew.
            (None, Some(_)) => super::etag_of_object(&known.parts).as_deref() == Some(etag),
            (None, None) => false,
        }
    }

    /// Notes that the object is to stay, even if the upload was begun for one that is to be removed.
    pub fn keep_object(&self) {
        let was_temporary = match &mut self.lock().begun {
            Some(begun) => std::mem::replace(&mut begun.of.temporary, false),
            None => false,
        };
        if was_temporary {
            self.append(&Record::Kept);
            self.keep(|file| file.sync_data());
        }
    }

    /// Forgets what was known, and removes the file. Also where that fails nothing more is written.
    pub fn remove(&self) {
        let mut known = self.lock();
        *known = Known::default();
        if self.removed.swap(true, Ordering::Relaxed) {
            // The name may be another's by now.
            return;
        }
        match fs::remove_file(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %self.path.display(), %error, "journal not removed"),
        }
    }

    /// Forgets what was known, and goes on as a journal of nothing.
    pub(crate) fn forget(&self) {
        let mut known = self.lock();
        *known = Known::default();
        self.keep(|file| file.set_len(0));
    }

    /// Notes that the object is whole; durable when this returns, as far as the disk allows.
    pub(crate) fn done(&self, etag: &str) {
        let done = Done { etag: etag.to_owned() };
        self.lock().done = Some(done.clone());
        self.append(&Record::Done(done));
        self.keep(|file| file.sync_data());
    }

    pub(crate) fn known(&self) -> Known {
        self.lock().clone()
    }

    /// True if a later run would find this upload.
    pub(crate) fn is_usable(&self) -> bool {
        self.lock().begun.is_some()
    }

    /// Begins the journal of another upload; durable when this returns, or [`Journal::failure`] says why not.
    pub(crate) fn begin(&self, begun: Begun) {
        let record = Record::Begun(Box::new(begun.clone()));
        let written = self.file.set_len(0).and_then(|()| {
            let mut file = &*self.file;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&encode(&record))?;
            file.sync_all()?;
            // The name of the file, too.
            self.path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
        });
        let mut known = self.lock();
        *known = Known::default();
        match written {
            Ok(()) => known.begun = Some(begun),
            Err(error) => self.failed(error),
        }
    }

    /// Notes a part that the store has answered for.
    pub(crate) fn part(&self, number: u32, part: &PartSent) {
        self.lock().parts.insert(number, part.clone());
        self.append(&Record::Part(PartRecord::new(number, part)));
        if let Some(dirty) = &self.dirty {
            // A full channel has a word in it that is still to be heard.
            let _ = dirty.try_send(());
        }
    }

    fn append(&self, record: &Record) {
        let line = encode(record);
        // In one piece: parts end at the same time.
        let _turn = self.lock();
        self.keep(|mut file| file.write_all(&line));
    }

    /// Does something to the file, unless that has failed before: behind a torn line nothing is read.
    fn keep(&self, work: impl FnOnce(&File) -> io::Result<()>) {
        if self.failure().is_none()
            && let Err(error) = work(&self.file)
        {
            self.failed(error);
        }
    }

    fn failed(&self, error: io::Error) {
        let _ = self.failure.set(Arc::new(error));
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Journal {
    /// One that says nothing is removed.
    fn drop(&mut self) {
        if !self.is_usable() {
            self.remove();
        }
        // The thread that syncs may hold the file for a moment longer.
        let _ = self.file.unlock();
    }
}

impl Known {
    /// True if all parts of an object of `len` bytes are known.
    pub(crate) fn is_whole(&self, len: u64) -> bool {
        self.parts.values().map(|part| part.len).sum::<u64>() == len && !self.parts.is_empty()
    }
}

/// What a journal says, and the length of the whole records.
fn read(file: &File) -> io::Result<(Known, u64)> {
    let mut bytes = Vec::new();
    // A longer one is none of ours, and is begun anew.
    file.take(MAX_JOURNAL_LEN).read_to_end(&mut bytes)?;
    let (records, whole) = decode(&bytes);
    Ok((Known::of(records), whole))
}

/// A thread that syncs the file whenever it is told to. `None` where the system has no thread left: the records are in the
/// file all the same.
fn start_sync(file: File) -> Option<SyncSender<()>> {
    let (dirty, wakes) = sync_channel::<()>(1);
    let sync = move || {
        while wakes.recv().is_ok() {
            if let Err(error) = file.sync_data() {
                tracing::info!(%error, "journal not synced");
            }
        }
    };
    std::thread::Builder::new().name("journal".to_owned()).spawn(sync).ok().map(|_| dirty)
}

/// The file of a journal, by what it is about: any key makes a name, and none is too long.
fn name(endpoint: &str, bucket: &str, key: &str) -> String {
    let mut hash = Sha256::new();
    for text in [endpoint, bucket, key] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    let mut name = hex::encode(hash.finalize());
    name.truncate(32);
    format!("{name}.{SUFFIX}")
}

impl Begun {
    /// An upload that was begun.
    pub(crate) fn new(
        endpoint: String,
        upload: &crate::store::UploadId,
        plan: super::PartPlan,
        of: UploadOf,
    ) -> Self {
        Self {
            version: VERSION,
            endpoint,
            bucket: upload.bucket.to_string(),
            key: upload.key.to_string(),
            upload_id: upload.id.to_string(),
            len: plan.len,
            part_len: plan.part_len,
            of,
        }
    }
}

#[cfg(test)]
mod tests;
