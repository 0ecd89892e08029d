//! A file or a block device as a source, read with `pread`: a file that is truncated meanwhile gives an error, where a mapped one would
//! end the process.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use disk_image::Span;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::assemble::to_usize;
use crate::{ByteSource, ReadAt, SourceError, SourceFault, SourceShape};

/// A regular file or a block device, opened for reading.
pub struct FileSource {
    inner: Arc<Inner>,
}

struct Inner {
    file: File,
    name: Box<str>,
    len: u64,
    opened: Identity,
    version: String,
}

/// What tells that a file is still the one that was opened. Devices have no such thing.
#[derive(PartialEq, Eq)]
struct Identity {
    len: u64,
    modified: (i64, i64),
}

impl FileSource {
    /// Opens the file or block device at `path`.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, or is neither.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        Self::open_as(path, &path.to_string_lossy())
    }

    /// The same under another name than its path, for errors that are shown to those who need not know where it lies.
    ///
    /// # Errors
    ///
    /// As [`FileSource::open`].
    pub fn open_as(path: &Path, name: &str) -> Result<Self, SourceError> {
        let failed = |error| SourceError::io(name, Span::default(), error);
        // Asked before opening: opening a FIFO would wait for a writer.
        let kind = std::fs::metadata(path).map_err(failed)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(SourceError::new(name, Span::default(), SourceFault::NotAFile));
        }
        Self::of(File::open(path).map_err(failed)?, name)
    }

    /// A file or block device that is open already.
    pub(crate) fn of(file: File, name: &str) -> Result<Self, SourceError> {
        let name: Box<str> = name.into();
        let failed = |error| SourceError::io(name.clone(), Span::default(), error);
        let metadata = file.metadata().map_err(failed)?;
        let len = match metadata.is_file() {
            true => metadata.len(),
            false => seek(&file, SeekFrom::End(0)).map_err(|e| failed(e.into()))?,
        };
        let opened = identity(&file).map_err(failed)?;
        let Identity { modified: (seconds, nanos), .. } = opened;
        // The number of a device, which has no times; the inode otherwise, so that a file put in the place of another differs.
        let (device, inode) = match metadata.is_file() {
            true => (metadata.dev(), metadata.ino()),
            false => (metadata.rdev(), 0),
        };
        let mut version = format!("{len} bytes, {seconds}.{nanos:09}, {device:x}:{inode:x}");
        if !metadata.is_file() {
            // Nothing says whether it was written to since: what was read of it is good for this opening only.
            version.push_str(&format!(", opened {:?}", SystemTime::now()));
        }
        Ok(Self { inner: Arc::new(Inner { file, name, len, opened, version }) })
    }
}

#[async_trait]
impl ByteSource for FileSource {
    fn len(&self) -> u64 {
        self.inner.len
    }

    fn name(&self) -> &str {
        &self.inner.name
    }

    async fn read(&self, span: Span) -> Result<Bytes, SourceError> {
        let inner = self.inner.clone();
        self.inner
            .off_runtime(span, move || {
                let mut bytes = vec![0; to_usize(span.len)];
                inner.read_at(span.start, &mut bytes)?;
                Ok(bytes.into())
            })
            .await
    }

    async fn allocation(&self) -> Result<Option<Vec<Span>>, SourceError> {
        let inner = self.inner.clone();
        self.inner.off_runtime(Span::default(), move || inner.allocation()).await
    }

    async fn verify(&self) -> Result<(), SourceError> {
        let failed = |error| SourceError::io(self.name(), Span::default(), error);
        if identity(&self.inner.file).map_err(failed)? == self.inner.opened {
            return Ok(());
        }
        Err(SourceError::new(self.name(), Span::new(0, self.len()), SourceFault::Changed))
    }

    fn version(&self) -> String {
        self.inner.version.clone()
    }

    fn blocking(&self) -> Option<&dyn ReadAt> {
        Some(&*self.inner)
    }

    fn shape(&self) -> SourceShape {
        SourceShape::LOCAL
    }
}

impl ReadAt for Inner {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), SourceError> {
        self.file
            .read_exact_at(into, offset)
            .map_err(|error| SourceError::io(self.name.clone(), Span::new(offset, into.len() as u64), error))
    }

    fn shareable(&self) -> Option<&File> {
        Some(&self.file)
    }
}

impl Inner {
    async fn off_runtime<T: Send + 'static>(
        &self,
        span: Span,
        work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
    ) -> Result<T, SourceError> {
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(error) => Err(SourceError::io(self.name.clone(), span, io::Error::other(error))),
        }
    }

    /// `SEEK_DATA` and `SEEK_HOLE`, as far as the file system has them.
    fn allocation(&self) -> Result<Option<Vec<Span>>, SourceError> {
        let mut runs = Vec::new();
        let mut at = 0;
        while at < self.len {
            let start = match seek(&self.file, SeekFrom::Data(at)) {
                Ok(start) => start,
                // No data past this point.
                Err(Errno::NXIO) => break,
                // Block devices and some file systems do not know.
                Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
                Err(error) => return Err(self.failed(at, error)),
            };
            let end = seek(&self.file, SeekFrom::Hole(start)).map_err(|error| self.failed(start, error))?;
            runs.push(Span::between(start, end.min(self.len)));
            // A file that changes under us must not keep us here.
            at = end.max(start.saturating_add(1));
        }
        Ok(Some(runs))
    }

    fn failed(&self, at: u64, error: Errno) -> SourceError {
        SourceError::io(self.name.clone(), Span::new(at, 0), error.into())
    }
}

fn identity(file: &File) -> io::Result<Identity> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(Identity { len: 0, modified: (0, 0) });
    }
    Ok(Identity { len: metadata.len(), modified: (metadata.mtime(), metadata.mtime_nsec()) })
}
