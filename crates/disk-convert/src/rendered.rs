//! An output as a source: its bytes are made when they are asked for.
//!
//! Any range of it, in any order, as often as somebody asks: a part depends on nothing but the image and the layout. Nothing is kept
//! between reads. A read of `n` bytes holds `n` bytes and what they are made of, at most as much again and an encoded unit at each
//! end; units that only partly lie in a read are decoded for it, so ranges of many units are cheapest.

use async_trait::async_trait;
use bytes::Bytes;
use disk_image::{ObjectMap, Plan, Span};

use crate::assemble::{assemble, to_usize};
use crate::convert::{fetch, reads_and_cost};
use crate::{ByteSource, ConvertError, Disk, Options, SourceError, SourceFault, SourceShape};

/// The output that a layout describes, not made yet.
pub struct Rendered {
    name: Box<str>,
    disk: Disk,
    layout: ObjectMap,
    options: Options,
}

impl Rendered {
    /// What `layout` describes, made of `disk` by the workers of `options`.
    ///
    /// # Errors
    ///
    /// [`ConvertError::Partial`] if the content of the disk is not all there.
    pub fn new(
        name: impl Into<Box<str>>,
        disk: Disk,
        layout: ObjectMap,
        options: &Options,
    ) -> Result<Self, ConvertError> {
        disk.check_whole()?;
        Ok(Self { name: name.into(), disk, layout, options: options.clone() })
    }

    async fn make(&self, span: Span) -> Result<Bytes, ConvertError> {
        let plan = Plan::new(self.disk.image().map(), &self.layout, span);
        let len = to_usize(span.len);
        if plan.pieces.is_empty() {
            return Ok(Bytes::from(vec![0; len]));
        }
        let (reads, _) = reads_and_cost(&self.disk, &plan);
        let fetched = fetch(&self.disk, reads, &self.options).await?;
        let (sources, counters) = (self.disk.sources().clone(), self.options.counters.clone());
        let work = move || {
            let mut bytes = vec![0; len];
            assemble(&plan, &sources, &fetched, &counters, &mut bytes).map(|_| Bytes::from(bytes))
        };
        self.options.workers.run(work).await?
    }
}

#[async_trait]
impl ByteSource for Rendered {
    fn len(&self) -> u64 {
        self.layout.len()
    }

    fn name(&self) -> &str {
        &self.name
    }

    async fn read(&self, span: Span) -> Result<Bytes, SourceError> {
        if !Span::new(0, self.len()).covers(span) {
            return Err(SourceError::new(self.name(), span, SourceFault::Shrunk));
        }
        if span.is_empty() {
            return Ok(Bytes::new());
        }
        self.make(span).await.map_err(|error| match error {
            ConvertError::Source(error) => error,
            error => SourceError::new(self.name(), span, SourceFault::Io).because(error),
        })
    }

    async fn verify(&self) -> Result<(), SourceError> {
        self.disk.sources().verify().await
    }

    fn version(&self) -> String {
        self.disk.source().version()
    }

    fn shape(&self) -> SourceShape {
        self.disk.sources().shape()
    }
}
