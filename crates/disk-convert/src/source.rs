//! Random-access bytes in: what a disk image is read from.

use std::fs::File;

use async_trait::async_trait;
use bytes::Bytes;
use disk_image::{ReadShape, Span};

use crate::SourceError;

/// Random-access bytes of a fixed length: a file, a device, an object behind a URL.
///
/// The length is what it was when the source was opened. A source that has become shorter, or another one, must end in an
/// error, never in other bytes.
#[async_trait]
pub trait ByteSource: Send + Sync {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// True if there is no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What to call it in errors. Never holds a secret.
    fn name(&self) -> &str;

    /// Reads exactly `span.len` bytes. Dropping the future stops the read.
    ///
    /// # Errors
    ///
    /// If the bytes cannot be had, after the retries that the source itself makes.
    async fn read(&self, span: Span) -> Result<Bytes, SourceError>;

    /// The runs that may hold data, ascending and apart; everything else is known to be zero. `None` if the source cannot tell.
    ///
    /// # Errors
    ///
    /// If asking failed; not being able to tell is no error.
    async fn allocation(&self) -> Result<Option<Vec<Span>>, SourceError> {
        Ok(None)
    }

    /// Fails if the source is known to have changed since it was opened. Asked once, before an output is given its name.
    ///
    /// # Errors
    ///
    /// [`crate::SourceFault::Changed`].
    async fn verify(&self) -> Result<(), SourceError> {
        Ok(())
    }

    /// What tells this content from what was there before or comes after, as far as the source knows without reading it. Text to
    /// compare, not to understand; never a secret.
    fn version(&self) -> String {
        String::new()
    }

    /// Whether another content always has another [`ByteSource::version`]: so that what was read at another time can be relied upon.
    fn is_pinned(&self) -> bool {
        false
    }

    /// Memory that it holds besides what is being read, bytes.
    fn held(&self) -> u64 {
        0
    }

    /// This source for CPU workers, if its reads never wait for a network.
    fn blocking(&self) -> Option<&dyn ReadAt> {
        None
    }

    /// Which reads it serves best.
    fn shape(&self) -> SourceShape;
}

/// Positional reads that block only as long as a disk does.
pub trait ReadAt: Send + Sync {
    /// Fills `into` from `offset` on.
    ///
    /// # Errors
    ///
    /// If the bytes cannot be had.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), SourceError>;

    /// The file that these bytes are, for an output that can share what it stores.
    fn shareable(&self) -> Option<&File> {
        None
    }
}

/// Which reads a source serves best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceShape {
    /// How to merge stored runs into reads.
    pub reads: ReadShape,
    /// A part of an output should need about this much of the source, bytes.
    pub part: u64,
    /// Reads worth having in flight.
    pub in_flight: usize,
}

impl SourceShape {
    /// For memory and local files: parts that fit the cache, gaps of a few pages bridged.
    pub const LOCAL: Self =
        Self { reads: ReadShape { max_gap: 16 << 10, max_len: 2 << 20 }, part: 1 << 20, in_flight: 4 };
}
