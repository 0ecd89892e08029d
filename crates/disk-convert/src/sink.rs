//! Parts out: where an output goes.

use std::fs::File;

use async_trait::async_trait;
use bytes::Bytes;
use disk_image::Span;

use crate::SinkError;

/// A finished part of an output, whole.
#[derive(Debug, Clone)]
pub struct Part {
    /// Counts parts of equal size from 0.
    pub number: u32,
    /// Offset in the object, bytes.
    pub offset: u64,
    /// Its bytes.
    pub payload: Payload,
}

/// The bytes of a part.
#[derive(Debug, Clone)]
pub enum Payload {
    /// These.
    Data(Bytes),
    /// So many zeroes.
    Zero(u64),
}

impl Payload {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Data(bytes) => bytes.len() as u64,
            Self::Zero(len) => *len,
        }
    }

    /// True if it has no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Takes the parts of one output, in any order, several at once.
///
/// One of `finish` and `abort` is called, once, after the last `put` has returned.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// What finishing gives.
    type Output: Send;

    /// What parts must look like. Constant.
    fn rules(&self) -> PartRules;

    /// Whether this part is to be made: not if an earlier conversion of the same disk has put it. Asked before anything of it is read.
    fn wants(&self, _part: u32) -> bool {
        true
    }

    /// Takes a part. Dropping the future abandons the part; the sink then only takes `abort`.
    ///
    /// # Errors
    ///
    /// If the part cannot be stored, after the retries that the sink itself makes.
    async fn put(&self, part: Part) -> Result<(), SinkError>;

    /// This sink for CPU workers, if its writes never wait for a network.
    fn blocking(&self) -> Option<&dyn PutNow> {
        None
    }

    /// Makes an output of `len` bytes from the parts: durable, and under its final name.
    ///
    /// # Errors
    ///
    /// If that fails; nothing is left under the final name then.
    async fn finish(&self, len: u64) -> Result<Self::Output, SinkError>;

    /// Removes what was stored so far. Reports nothing: the error that led here is the one to report.
    async fn abort(&self);
}

/// Writes that block only as long as a disk does.
pub trait PutNow: Send + Sync {
    /// Takes a part. Gives how many of the bytes inside its runs, or of the whole part where those do not matter, were left out,
    /// being zero.
    ///
    /// # Errors
    ///
    /// If the part cannot be stored.
    fn put_now(&self, part: &FilledPart<'_>) -> Result<u64, SinkError>;

    /// Takes the run `span` of `file` for what the object has from `offset` on, without its bytes being read. Gives how many it took,
    /// from the first on; the rest is put as ever. Asked under [`Zeroes::SkipRuns`] alone.
    fn share(&self, _file: &File, _span: Span, _offset: u64) -> u64 {
        0
    }
}

/// A part in a worker's buffer.
#[derive(Debug)]
pub struct FilledPart<'a> {
    /// Counts parts of equal size from 0.
    pub number: u32,
    /// Offset in the object, bytes.
    pub offset: u64,
    /// As long as the part. Under [`Zeroes::SkipRuns`] only the bytes inside `runs` mean anything.
    pub bytes: &'a [u8],
    /// What of it may be other than zero: ascending, apart, relative to the part.
    pub runs: &'a [Span],
}

/// What parts a sink takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartRules {
    /// Their size; the last one of an object may be shorter.
    pub size: PartSize,
    /// What becomes of zeroes.
    pub zeroes: Zeroes,
    /// Parts worth having in flight.
    pub in_flight: usize,
}

/// The size of all parts but the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartSize {
    /// No other will do.
    Exactly(u64),
    /// Larger ones where the source is better served by them.
    AtLeast(u64),
}

/// What becomes of zeroes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zeroes {
    /// Every part is put, whole.
    Put,
    /// Parts that are known to be zero throughout are left out; the others are whole.
    SkipParts,
    /// Only the runs that may be other than zero are put.
    SkipRuns,
}
