//! A block device as a sink: written in place, after its size was checked.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use disk_image::Span;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};

use super::sink::open_for_writing;
use crate::assemble::to_usize;
use crate::{FilledPart, Part, PartRules, PartSize, Payload, PutNow, Sink, SinkError, SinkFault, Zeroes};

/// What a device that cannot zero by itself is given at a time, bytes.
const ZEROES: usize = 1 << 20;

/// A block device. What it held is overwritten from the first part on; after an error it holds neither the old nor the new disk.
pub struct DeviceSink {
    inner: Arc<Inner>,
}

struct Inner {
    file: File,
    name: Box<str>,
}

impl DeviceSink {
    /// True if there is a block device at `path`.
    pub fn is_device(path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|there| there.file_type().is_block_device())
    }

    /// Opens the block device at `path` for an output of `len` bytes.
    ///
    /// # Errors
    ///
    /// If it is no block device, in use, not writable, or too small. Nothing has been written then.
    pub fn open(path: &Path, len: u64) -> Result<Self, SinkError> {
        let name: Box<str> = path.to_string_lossy().into();
        let failed = |error: io::Error| SinkError::io(name.clone(), None, error);
        if !Self::is_device(path) {
            return Err(SinkError::new(name, None, SinkFault::NotAFile));
        }
        let file = open_for_writing(path).map_err(failed)?;
        let room = seek(&file, SeekFrom::End(0)).map_err(|error| failed(error.into()))?;
        if room < len {
            return Err(SinkError::new(name, None, SinkFault::TooSmall { room, needed: len }));
        }
        Ok(Self { inner: Arc::new(Inner { file, name }) })
    }

    async fn off_runtime(
        &self,
        work: impl FnOnce(&Inner) -> Result<(), SinkError> + Send + 'static,
    ) -> Result<(), SinkError> {
        let inner = self.inner.clone();
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(result) => result,
            Err(error) => Err(SinkError::io(self.inner.name.clone(), None, io::Error::other(error))),
        }
    }
}

impl Inner {
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        self.file.write_all_at(bytes, offset).map_err(|error| self.failed(offset, error))
    }

    fn zero(&self, run: Span) -> Result<(), SinkError> {
        let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        if run.is_empty() || fallocate(&self.file, flags, run.start, run.len).is_ok() {
            return Ok(());
        }
        let zeroes = vec![0; ZEROES.min(to_usize(run.len))];
        let mut at = run.start;
        while at < run.end() {
            let step = Span::new(at, zeroes.len() as u64).intersect(run);
            self.write(at, &zeroes[..to_usize(step.len)])?;
            at = step.end();
        }
        Ok(())
    }

    fn failed(&self, offset: u64, error: io::Error) -> SinkError {
        SinkError::io(self.name.clone(), Some(offset), error)
    }
}

#[async_trait]
impl Sink for DeviceSink {
    type Output = ();

    fn rules(&self) -> PartRules {
        PartRules { size: PartSize::AtLeast(4 << 20), zeroes: Zeroes::Put, in_flight: 4 }
    }

    async fn put(&self, part: Part) -> Result<(), SinkError> {
        self.off_runtime(move |device| match &part.payload {
            Payload::Zero(len) => device.zero(Span::new(part.offset, *len)),
            Payload::Data(bytes) => device.write(part.offset, bytes),
        })
        .await
    }

    fn blocking(&self) -> Option<&dyn PutNow> {
        Some(&*self.inner)
    }

    async fn finish(&self, _len: u64) -> Result<(), SinkError> {
        self.off_runtime(|device| {
            device.file.sync_all().map_err(|error| SinkError::io(device.name.clone(), None, error))
        })
        .await
    }

    async fn abort(&self) {}
}

impl PutNow for Inner {
    fn put_now(&self, part: &FilledPart<'_>) -> Result<u64, SinkError> {
        self.write(part.offset, part.bytes)?;
        Ok(0)
    }
}
