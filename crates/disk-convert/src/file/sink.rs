//! A file as a sink: sparse, under a temporary name until it is whole and durable.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use disk_image::Span;
use tempfile::NamedTempFile;

use super::flusher::Flusher;
use super::sharing::Sharing;
use crate::assemble::to_usize;
use crate::{
    FilledPart, Part, PartRules, PartSize, Payload, PutNow, Sink, SinkError, SinkFault, Zeroes, is_zero,
};

/// Zeroes are left out of the file in pages of this size: what file systems allocate.
const PAGE: u64 = 4096;

/// What the names of temporary files begin and end with.
const UNFINISHED: (&str, &str) = (".image-prep-", ".part");

/// A file that appears under its name when it is finished, replacing what was there.
///
/// Until then it is a temporary file in the same folder, removed when the sink is dropped. Zeroes are not written, so they
/// take no space where the file system can leave holes; and what is stored as it is in a file beside it, as XFS and Btrfs let files
/// share, takes none either.
pub struct FileSink {
    path: PathBuf,
    name: Box<str>,
    file: File,
    flusher: Arc<Flusher>,
    sharing: Sharing,
    /// The kernel lets one thread at a time write to a file, and lets the others spin until it is their turn. Who waits here leaves
    /// the processor to who works.
    turn: Mutex<()>,
    /// Taken when the file is finished or removed.
    temporary: Mutex<Option<NamedTempFile>>,
}

impl FileSink {
    /// A file to be at `path`, `len` bytes long, as far as that is known; [`Sink::finish`] says how long it is.
    ///
    /// # Errors
    ///
    /// If the folder is missing or not writable, or `path` is something else than a regular file.
    pub fn create(path: &Path, len: u64) -> Result<Self, SinkError> {
        Self::create_with(path, len, 0o666)
    }

    /// True of the name of a file that was not finished: only a process that was killed leaves one.
    pub fn is_unfinished(name: &OsStr) -> bool {
        let name = name.as_encoded_bytes();
        name.starts_with(UNFINISHED.0.as_bytes()) && name.ends_with(UNFINISHED.1.as_bytes())
    }

    /// As [`Self::create`], with these permissions at most, whatever the process would give its files; also where a file with others
    /// is replaced.
    ///
    /// # Errors
    ///
    /// As [`Self::create`].
    pub fn create_with(path: &Path, len: u64, mode: u32) -> Result<Self, SinkError> {
        let name: Box<str> = path.to_string_lossy().into();
        let failed = |error| SinkError::io(name.clone(), None, error);
        if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            return Err(SinkError::new(name, None, SinkFault::NotAFile));
        }
        // A link is written through, as a program that opens it would.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let temporary = tempfile::Builder::new()
            .prefix(UNFINISHED.0)
            .suffix(UNFINISHED.1)
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(folder)
            .map_err(failed)?;
        temporary.as_file().set_len(len).map_err(failed)?;
        let file = temporary.as_file().try_clone().map_err(failed)?;
        let flusher = Arc::new(Flusher::new(temporary.as_file().try_clone().map_err(failed)?));
        let sharing = Sharing::of(&file);
        Ok(Self {
            path,
            name,
            file,
            flusher,
            sharing,
            turn: Mutex::default(),
            temporary: Mutex::new(Some(temporary)),
        })
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let written = self.file.write_all_at(bytes, offset);
        drop(turn);
        written.map_err(|error| SinkError::io(self.name.clone(), Some(offset), error))?;
        self.flusher.written(bytes.len() as u64);
        Ok(())
    }
}

#[async_trait]
impl Sink for FileSink {
    type Output = ();

    fn rules(&self) -> PartRules {
        PartRules { size: PartSize::AtLeast(1 << 20), zeroes: Zeroes::SkipRuns, in_flight: 4 }
    }

    async fn put(&self, part: Part) -> Result<(), SinkError> {
        match &part.payload {
            Payload::Zero(_) => Ok(()),
            Payload::Data(bytes) => {
                let runs = [Span::new(0, bytes.len() as u64)];
                let part = FilledPart { number: part.number, offset: part.offset, bytes, runs: &runs };
                self.put_now(&part).map(|_| ())
            }
        }
    }

    fn blocking(&self) -> Option<&dyn PutNow> {
        Some(self)
    }

    async fn finish(&self, len: u64) -> Result<(), SinkError> {
        let temporary = self.temporary.lock().unwrap_or_else(PoisonError::into_inner).take();
        let path = self.path.clone();
        let flusher = self.flusher.clone();
        let publish = move || -> io::Result<()> {
            let Some(temporary) = temporary else { return Ok(()) };
            flusher.stop()?;
            temporary.as_file().set_len(len)?;
            temporary.as_file().sync_all()?;
            let file = temporary.persist(&path).map_err(|refused| refused.error)?;
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            sync_name(folder.unwrap_or(Path::new(".")), &file)
        };
        let published = match tokio::task::spawn_blocking(publish).await {
            Ok(published) => published,
            Err(error) => Err(io::Error::other(error)),
        };
        published.map_err(|error| SinkError::io(self.name.clone(), None, error))
    }

    async fn abort(&self) {
        // A file that has its name already stays as it is, even if nobody knows whether the name is durable.
        let temporary = self.temporary.lock().unwrap_or_else(PoisonError::into_inner).take();
        if temporary.is_some() {
            // What is not on its way to the disk yet is forgotten, so that there is little to wait for.
            let _ = self.file.set_len(0);
        }
        let flusher = self.flusher.clone();
        let _ = tokio::task::spawn_blocking(move || flusher.stop()).await;
        // Dropping removes the file; that it is gone already is as good.
        drop(temporary);
    }
}

impl PutNow for FileSink {
    fn put_now(&self, part: &FilledPart<'_>) -> Result<u64, SinkError> {
        let mut zeroes = part.runs.iter().map(|run| run.len).sum();
        for run in part.runs {
            for run in filled_pages(part.bytes, *run) {
                let bytes = &part.bytes[to_usize(run.start)..to_usize(run.end())];
                self.write(part.offset + run.start, bytes)?;
                zeroes -= run.len;
            }
        }
        Ok(zeroes)
    }

    fn share(&self, file: &File, span: Span, offset: u64) -> u64 {
        self.sharing.share(&self.file, file, span, offset)
    }
}

/// Makes the name of `file` in `folder` durable.
///
/// A folder may be writable and not readable, and not every file system syncs folders: the file has its name by then, and all of
/// its file system is synced instead.
fn sync_name(folder: &Path, file: &File) -> io::Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::InvalidInput) => {
            rustix::fs::syncfs(file).map_err(io::Error::from)
        }
        synced => synced,
    }
}

/// The runs of pages inside `run` that are not zero throughout.
fn filled_pages(bytes: &[u8], run: Span) -> impl Iterator<Item = Span> + '_ {
    let page = move |at: u64| Span::between(at, (at / PAGE + 1) * PAGE).intersect(run);
    let is_filled = move |page: Span| !is_zero(&bytes[to_usize(page.start)..to_usize(page.end())]);
    let mut at = run.start;
    std::iter::from_fn(move || {
        while at < run.end() && !is_filled(page(at)) {
            at = page(at).end();
        }
        let start = at;
        while at < run.end() && is_filled(page(at)) {
            at = page(at).end();
        }
        (at > start).then(|| Span::between(start, at))
    })
}

/// Opens an existing block device for writing; used by [`super::DeviceSink`].
pub(super) fn open_for_writing(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let exclusive = rustix::fs::OFlags::EXCL.bits();
    // Exclusive on a block device: refused by the kernel while it is mounted or otherwise in use.
    OpenOptions::new().write(true).custom_flags(exclusive.cast_signed()).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_synced_is_no_error() {
        let file = tempfile::tempfile().unwrap();
        sync_name(&std::env::temp_dir(), &file).unwrap();
        // As a mounted file system without fsync for folders would.
        assert_eq!(File::open("/proc").unwrap().sync_all().unwrap_err().kind(), ErrorKind::InvalidInput);
        sync_name(Path::new("/proc"), &file).unwrap();
    }

    #[test]
    fn what_is_not_finished_is_known_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let _sink = FileSink::create(&folder.path().join("disk"), 1).unwrap();
        let names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.len() == 1 && FileSink::is_unfinished(&names[0]), "{names:?}");
        assert!(!FileSink::is_unfinished(OsStr::new("disk.part")));
    }

    #[tokio::test]
    async fn what_has_its_name_is_not_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let sink = FileSink::create(&path, 3).unwrap();
        sink.put(Part { number: 0, offset: 0, payload: Payload::Data("abc".into()) }).await.unwrap();
        sink.finish(3).await.unwrap();
        // As after a folder that could not be synced once the file was in it.
        sink.abort().await;
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
    }

    #[tokio::test]
    async fn what_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, b"before").unwrap();
        let sink = FileSink::create_with(&path, 3, 0o600).unwrap();
        for file in std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
            let (mode, is_new) = (file.metadata().unwrap().permissions().mode(), file.path() != path);
            assert!(!is_new || mode & 0o777 == 0o600, "{mode:o} while it is filled");
        }
        sink.finish(3).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn zero_pages_are_left_out() {
        let mut bytes = vec![0; 10 * 4096];
        bytes[5] = 1;
        bytes[3 * 4096] = 1;
        bytes[5 * 4096 - 1] = 1;
        bytes[9 * 4096 + 100] = 1;
        let runs: Vec<_> = filled_pages(&bytes, Span::new(1, 9 * 4096 + 200)).collect();
        let expected = [
            Span::between(1, 4096),
            Span::between(3 * 4096, 5 * 4096),
            Span::between(9 * 4096, 9 * 4096 + 201),
        ];
        assert_eq!(runs, expected);
    }
}
