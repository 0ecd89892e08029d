//! What is read ahead stays within the budget, whatever the image says of its units.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use disk_convert::*;
use disk_image::{Encoding, ExtentMapBuilder, ReadShape, Span, State, Stored, raw};
use tokio_util::sync::CancellationToken;

const UNIT: u64 = 64 << 10;
const UNITS: u64 = 512;
/// From unit to unit in the source: each may take twice its size, and as much lies unused behind it.
const STRIDE: u64 = 4 * UNIT;

/// Bytes of answers that are held, and the most that ever were.
#[derive(Default)]
struct Held {
    now: AtomicU64,
    most: AtomicU64,
}

/// An answer that is counted while it is held.
struct Answer {
    bytes: Vec<u8>,
    held: Arc<Held>,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.held.now.fetch_sub(self.bytes.len() as u64, Ordering::SeqCst);
    }
}

/// A source behind a network, all of whose bytes are zero. A deflate stream that begins so is a stored block whose length does not
/// match its complement: units do not decode, but they are read.
struct Zeroed(Arc<Held>);

#[async_trait]
impl ByteSource for Zeroed {
    fn len(&self) -> u64 {
        UNITS * STRIDE
    }

    fn name(&self) -> &str {
        "zeroed"
    }

    async fn read(&self, span: Span) -> Result<Bytes, SourceError> {
        let now = self.0.now.fetch_add(span.len, Ordering::SeqCst) + span.len;
        self.0.most.fetch_max(now, Ordering::SeqCst);
        let answer = Answer { bytes: vec![0; span.len as usize], held: self.0.clone() };
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(Bytes::from_owner(answer))
    }

    fn shape(&self) -> SourceShape {
        let reads = ReadShape { max_gap: 256 << 10, max_len: 16 << 20 };
        SourceShape { reads, part: 4 << 20, in_flight: 8 }
    }
}

fn disk(held: &Arc<Held>) -> Disk {
    let mut map = ExtentMapBuilder::new();
    for unit in 0..UNITS {
        let stored = Stored::image(unit * STRIDE, 2 * UNIT);
        map.push(UNIT, State::Encoded { stored, encoding: Encoding::Deflate, unit_len: UNIT, skip: 0 });
    }
    let image = raw::open(UNITS * UNIT, None).unwrap().with_map(map.finish(UNITS * UNIT));
    Disk::new(image, Arc::new(Zeroed(held.clone())))
}

#[tokio::test(flavor = "multi_thread")]
async fn comparing_keeps_to_the_budget() {
    let held = Arc::new(Held::default());
    let options = Options { memory: 48 << 20, ..Options::default() };
    let failed = compare(&disk(&held), &disk(&held), &options, &CancellationToken::new()).await.unwrap_err();
    assert!(matches!(failed, ConvertError::Decode { .. }), "{failed:?}");
    let most = held.most.load(Ordering::SeqCst);
    assert!(most <= options.memory, "{most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn converting_keeps_to_the_budget() {
    let held = Arc::new(Held::default());
    let options = Options { memory: 48 << 20, ..Options::default() };
    let failed = digest(&disk(&held), &options, &CancellationToken::new()).await.unwrap_err();
    assert!(matches!(failed, ConvertError::Decode { .. }), "{failed:?}");
    let most = held.most.load(Ordering::SeqCst);
    assert!(most <= options.memory, "{most}");
}
