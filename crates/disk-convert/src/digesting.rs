//! Any sink, and the guest digest of what passes through it on the way.
//!
//! For sinks that do not hash blocks themselves: the raw content of a disk goes on unchanged, and what it sums up to comes out beside
//! the sink's own output. Parts are whole blocks of 4 MiB; where the sink wants others, they are cut again. Hashing runs on the
//! workers, once for each byte that is not in a part of zeroes.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use disk_image::Span;

use crate::assemble::to_usize;
use crate::digest::Blocks;
use crate::{
    BLOCK_SIZE, FilledPart, Part, PartRules, PartSize, Payload, PutNow, Sink, SinkError, SinkFault, Summary,
    Workers, Zeroes,
};

/// What an output tells of the disk whose raw content it took.
pub trait Summed {
    /// The digest and the size of what is not zero.
    fn summary(&self) -> Summary;
}

impl Summed for Summary {
    fn summary(&self) -> Summary {
        *self
    }
}

/// A sink's output, and the summary of the disk that went into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digested<T> {
    /// What the sink gave.
    pub output: T,
    /// What the disk holds.
    pub summary: Summary,
}

impl<T> Summed for Digested<T> {
    fn summary(&self) -> Summary {
        self.summary
    }
}

/// Gives the raw content of a disk to another sink, and sums it up.
///
/// Only for raw layouts: the blocks of any other output are not those of the guest.
pub struct Digesting<S> {
    inner: S,
    workers: Workers,
    blocks: Arc<Mutex<Blocks>>,
}

impl<S: Sink> Digesting<S> {
    /// Sums up what goes into `inner`.
    pub fn new(inner: S, workers: &Workers) -> Self {
        Self { inner, workers: workers.clone(), blocks: Arc::default() }
    }

    /// Size of the inner sink's parts, bytes.
    fn inner_size(&self) -> u64 {
        match self.inner.rules().size {
            PartSize::Exactly(size) => size.max(1),
            PartSize::AtLeast(least) => least.max(1).next_multiple_of(BLOCK_SIZE),
        }
    }

    /// Size of the parts taken: whole blocks, and whole parts of the inner sink.
    fn size(&self) -> u64 {
        let (mut a, mut b) = (self.inner_size(), BLOCK_SIZE);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        (BLOCK_SIZE / a).saturating_mul(self.inner_size())
    }
}

fn take(blocks: &Mutex<Blocks>, offset: u64, bytes: &[u8]) {
    for (index, block) in (offset / BLOCK_SIZE..).zip(bytes.chunks(to_usize(BLOCK_SIZE))) {
        Blocks::take(blocks, index, block);
    }
}

#[async_trait]
impl<S: Sink> Sink for Digesting<S> {
    type Output = Digested<S::Output>;

    fn rules(&self) -> PartRules {
        let inner = self.inner.rules();
        // Hashed are whole blocks, their zeroes too.
        let zeroes = if inner.zeroes == Zeroes::Put { Zeroes::Put } else { Zeroes::SkipParts };
        PartRules { size: PartSize::Exactly(self.size()), zeroes, in_flight: inner.in_flight }
    }

    async fn put(&self, part: Part) -> Result<(), SinkError> {
        let Part { offset, payload, .. } = part;
        if let Payload::Data(bytes) = &payload {
            let (blocks, hashed) = (self.blocks.clone(), bytes.clone());
            let taken = self.workers.run(move || take(&blocks, offset, &hashed)).await;
            taken.map_err(|error| SinkError::new("digest", Some(offset), SinkFault::Io).because(error))?;
        }
        for part in cut(offset, &payload, self.inner_size()) {
            self.inner.put(part).await?;
        }
        Ok(())
    }

    fn blocking(&self) -> Option<&dyn PutNow> {
        self.inner.blocking().map(|_| self as &dyn PutNow)
    }

    async fn finish(&self, len: u64) -> Result<Self::Output, SinkError> {
        let summary = self.blocks.lock().unwrap_or_else(PoisonError::into_inner).summary(len);
        let output = self.inner.finish(len).await?;
        Ok(Digested { output, summary })
    }

    async fn abort(&self) {
        self.inner.abort().await;
    }
}

impl<S: Sink> PutNow for Digesting<S> {
    fn put_now(&self, part: &FilledPart<'_>) -> Result<u64, SinkError> {
        let Some(inner) = self.inner.blocking() else { return Ok(0) };
        take(&self.blocks, part.offset, part.bytes);
        let size = self.inner_size();
        if part.bytes.len() as u64 <= size {
            return inner.put_now(&FilledPart { number: number(part.offset, size), ..*part });
        }
        let mut left_out = 0;
        let mut offset = part.offset;
        for bytes in part.bytes.chunks(to_usize(size)) {
            let runs = [Span::new(0, bytes.len() as u64)];
            left_out +=
                inner.put_now(&FilledPart { number: number(offset, size), offset, bytes, runs: &runs })?;
            offset += bytes.len() as u64;
        }
        Ok(left_out)
    }
}

/// The parts of `size` bytes that a larger part consists of.
fn cut(offset: u64, payload: &Payload, size: u64) -> Vec<Part> {
    let (mut parts, mut at, end) = (Vec::new(), 0, payload.len());
    while at < end {
        let len = size.min(end - at);
        let payload = match payload {
            Payload::Data(bytes) => Payload::Data(bytes.slice(to_usize(at)..to_usize(at + len))),
            Payload::Zero(_) => Payload::Zero(len),
        };
        parts.push(Part { number: number(offset + at, size), offset: offset + at, payload });
        at += len;
    }
    parts
}

fn number(offset: u64, size: u64) -> u32 {
    u32::try_from(offset / size).unwrap_or(u32::MAX)
}
