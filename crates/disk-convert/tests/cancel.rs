//! What is cancelled has ended when the function returns: nothing that it began reads or writes any more.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use disk_convert::*;
use disk_image::{Codec, Compression, Encoder, Format, ObjectMap, OpenOptions, Span};
use tokio_util::sync::CancellationToken;

const MIB: u64 = 1 << 20;

/// How many calls have begun, and how many have ended. Each takes a while.
#[derive(Default)]
struct Calls {
    begun: AtomicUsize,
    ended: AtomicUsize,
}

impl Calls {
    fn make_one(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(200));
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    /// Cancels `cancel` as soon as a call has begun.
    fn cancel_first(self: &Arc<Self>, cancel: &CancellationToken) {
        let (calls, cancel) = (self.clone(), cancel.clone());
        tokio::spawn(async move {
            while calls.begun.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            cancel.cancel();
        });
    }

    #[track_caller]
    fn all_ended(&self) {
        let begun = self.begun.load(Ordering::SeqCst);
        assert!(begun > 0);
        assert_eq!(self.ended.load(Ordering::SeqCst), begun);
    }
}

/// A local disk that is slow to read.
struct SlowDisk {
    content: MemorySource,
    calls: Arc<Calls>,
}

#[async_trait]
impl ByteSource for SlowDisk {
    fn len(&self) -> u64 {
        self.content.len()
    }

    fn name(&self) -> &str {
        "slow"
    }

    async fn read(&self, span: Span) -> Result<Bytes, SourceError> {
        self.content.read(span).await
    }

    fn blocking(&self) -> Option<&dyn ReadAt> {
        Some(self)
    }

    fn shape(&self) -> SourceShape {
        SourceShape::LOCAL
    }
}

impl ReadAt for SlowDisk {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), SourceError> {
        self.calls.make_one();
        self.content.read_at(offset, into)
    }
}

fn slow_disk(calls: &Arc<Calls>) -> Arc<dyn ByteSource> {
    let content = MemorySource::new("memory", vec![7; 16 * MIB as usize]);
    Arc::new(SlowDisk { content, calls: calls.clone() })
}

async fn open_raw(source: Arc<dyn ByteSource>) -> Disk {
    let how = OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() };
    open_image(source, &how, &References::Deny, &Options::default(), &CancellationToken::new()).await.unwrap()
}

/// A local sink that is slow to take zeroes.
struct SlowSink(Arc<Calls>);

#[async_trait]
impl Sink for SlowSink {
    type Output = ();

    fn rules(&self) -> PartRules {
        PartRules { size: PartSize::Exactly(MIB), zeroes: Zeroes::Put, in_flight: 2 }
    }

    async fn put(&self, _part: Part) -> Result<(), SinkError> {
        let calls = self.0.clone();
        tokio::task::spawn_blocking(move || calls.make_one()).await.unwrap();
        Ok(())
    }

    fn blocking(&self) -> Option<&dyn PutNow> {
        Some(self)
    }

    async fn finish(&self, _len: u64) -> Result<(), SinkError> {
        Ok(())
    }

    async fn abort(&self) {}
}

impl PutNow for SlowSink {
    fn put_now(&self, _part: &FilledPart<'_>) -> Result<u64, SinkError> {
        Ok(0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compare_waits_for_its_reads() {
    let (calls, cancel) = (Arc::new(Calls::default()), CancellationToken::new());
    let disk = open_raw(slow_disk(&calls)).await;
    calls.cancel_first(&cancel);
    let ended = compare(&disk, &disk, &Options::default(), &cancel).await;
    assert!(matches!(ended, Err(ConvertError::Cancelled)), "{ended:?}");
    calls.all_ended();
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_waits_for_its_reads() {
    let (calls, cancel) = (Arc::new(Calls::default()), CancellationToken::new());
    calls.cancel_first(&cancel);
    let ended = open_image(
        slow_disk(&calls),
        &OpenOptions::default(),
        &References::Deny,
        &Options::default(),
        &cancel,
    )
    .await;
    assert!(matches!(ended, Err(ConvertError::Cancelled)));
    calls.all_ended();
}

#[tokio::test(flavor = "multi_thread")]
async fn converting_waits_for_its_writes() {
    let (calls, cancel) = (Arc::new(Calls::default()), CancellationToken::new());
    let disk = open_raw(Arc::new(MemorySource::new("memory", vec![7; MIB as usize]))).await;
    calls.cancel_first(&cancel);
    let layout =
        ObjectMap::qcow2(disk_image::qcow2::Layout::new(disk.image().map(), &Default::default()).unwrap());
    let ended = convert(&disk, &layout, SlowSink(calls.clone()), &Options::default(), &cancel).await;
    assert!(matches!(ended, Err(ConvertError::Cancelled)), "{ended:?}");
    calls.all_ended();
}

/// A compressed file is read through while it is opened.
#[tokio::test(flavor = "multi_thread")]
async fn unpacking_waits_for_its_reads() {
    // Stored, so that it takes more than one read.
    let noise = support::noise(5 * MIB, 3);
    let mut file = vec![0; noise.len() + noise.len() / 100 + 100];
    let len = Encoder::new(Codec::Gzip).encode(&noise, &mut file).unwrap();
    file.truncate(len);
    assert!(len as u64 > 2 * MIB, "{len}");
    let (calls, cancel) = (Arc::new(Calls::default()), CancellationToken::new());
    let slow = SlowDisk { content: MemorySource::new("memory", file), calls: calls.clone() };
    calls.cancel_first(&cancel);
    let ended = Unpacked::open(Arc::new(slow), Compression::Gzip, &Options::default(), &cancel).await;
    assert!(matches!(ended, Err(ConvertError::Cancelled)));
    calls.all_ended();
    assert_eq!(calls.begun.load(Ordering::SeqCst), 1);
}
