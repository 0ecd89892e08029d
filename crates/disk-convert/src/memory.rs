//! Memory as source and sink: for tests, for small objects, and as the simplest example of both.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use disk_image::Span;

use crate::assemble::to_usize;
use crate::{
    ByteSource, Part, PartRules, PartSize, Payload, ReadAt, Sink, SinkError, SourceError, SourceFault,
    SourceShape, Zeroes,
};

/// Bytes in memory as a source.
pub struct MemorySource {
    name: Box<str>,
    bytes: Bytes,
}

impl MemorySource {
    /// These bytes, under this name.
    pub fn new(name: impl Into<Box<str>>, bytes: impl Into<Bytes>) -> Self {
        Self { name: name.into(), bytes: bytes.into() }
    }

    fn slice(&self, span: Span) -> Result<Bytes, SourceError> {
        if span.end() > self.len() {
            return Err(SourceError::new(self.name(), span, SourceFault::Shrunk));
        }
        Ok(self.bytes.slice(to_usize(span.start)..to_usize(span.end())))
    }
}

#[async_trait]
impl ByteSource for MemorySource {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn name(&self) -> &str {
        &self.name
    }

    async fn read(&self, span: Span) -> Result<Bytes, SourceError> {
        self.slice(span)
    }

    fn blocking(&self) -> Option<&dyn ReadAt> {
        Some(self)
    }

    fn shape(&self) -> SourceShape {
        SourceShape::LOCAL
    }
}

impl ReadAt for MemorySource {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), SourceError> {
        into.copy_from_slice(&self.slice(Span::new(offset, into.len() as u64))?);
        Ok(())
    }
}

/// Collects an output in memory. Takes whole parts through `put`, as a sink behind a network does.
pub struct MemorySink {
    rules: PartRules,
    bytes: Mutex<Vec<u8>>,
}

impl MemorySink {
    /// A sink that takes parts by these rules.
    pub fn with_rules(rules: PartRules) -> Self {
        Self { rules, bytes: Mutex::default() }
    }
}

impl Default for MemorySink {
    fn default() -> Self {
        Self::with_rules(PartRules {
            size: PartSize::AtLeast(1 << 20),
            zeroes: Zeroes::SkipParts,
            in_flight: 4,
        })
    }
}

#[async_trait]
impl Sink for MemorySink {
    type Output = Vec<u8>;

    fn rules(&self) -> PartRules {
        self.rules
    }

    async fn put(&self, part: Part) -> Result<(), SinkError> {
        let mut all = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let run = Span::new(part.offset, part.payload.len());
        if all.len() < to_usize(run.end()) {
            all.resize(to_usize(run.end()), 0);
        }
        if let Payload::Data(bytes) = &part.payload {
            all[to_usize(run.start)..to_usize(run.end())].copy_from_slice(bytes);
        }
        Ok(())
    }

    async fn finish(&self, len: u64) -> Result<Vec<u8>, SinkError> {
        let mut all = std::mem::take(&mut *self.bytes.lock().unwrap_or_else(PoisonError::into_inner));
        all.resize(to_usize(len), 0);
        Ok(all)
    }

    async fn abort(&self) {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
