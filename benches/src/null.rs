//! A sink without a bottom.

use async_trait::async_trait;
use disk_convert::{FilledPart, Part, PartRules, PartSize, PutNow, Sink, SinkError, Zeroes};

/// Takes parts as a sparse local file does, and forgets them.
#[derive(Debug, Default)]
pub struct NullSink;

#[async_trait]
impl Sink for NullSink {
    type Output = ();

    fn rules(&self) -> PartRules {
        PartRules { size: PartSize::AtLeast(1 << 20), zeroes: Zeroes::SkipRuns, in_flight: 4 }
    }

    async fn put(&self, _: Part) -> Result<(), SinkError> {
        Ok(())
    }

    fn blocking(&self) -> Option<&dyn PutNow> {
        Some(self)
    }

    async fn finish(&self, _: u64) -> Result<(), SinkError> {
        Ok(())
    }

    async fn abort(&self) {}
}

impl PutNow for NullSink {
    fn put_now(&self, part: &FilledPart<'_>) -> Result<u64, SinkError> {
        std::hint::black_box(part);
        Ok(0)
    }
}
