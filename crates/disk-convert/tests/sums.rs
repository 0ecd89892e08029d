//! What a disk sums up to on its way into any sink, and an output that is read without being made first.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use disk_convert::{
    BLOCK_SIZE, ByteSource as _, Digesting, Disk, FileSink, MemorySink, MemorySource, Options, Part,
    PartRules, PartSize, References, Rendered, Sink, SinkError, Summed as _, Zeroes, convert, digest,
    open_image,
};
use disk_image::{Format, ObjectMap, OpenOptions, Span, qcow2};
use tokio_util::sync::CancellationToken;

const MIB: u64 = 1 << 20;

/// 13 MiB and a sector, of which the second block and most of the fourth are zero.
fn content() -> Vec<u8> {
    let mut content: Vec<u8> = (0..13 * MIB + 512).map(|i| (i / 7 % 251) as u8).collect();
    content[..512].fill(0);
    content[(4 * MIB) as usize..(8 * MIB) as usize].fill(0);
    content[(12 * MIB) as usize..(13 * MIB) as usize].fill(0);
    content
}

async fn open(content: Vec<u8>) -> Disk {
    let source = Arc::new(MemorySource::new("disk", content));
    let raw = OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() };
    let never = CancellationToken::new();
    open_image(source, &raw, &References::Deny, &Options::default(), &never).await.unwrap()
}

/// Takes parts of one size, and remembers their numbers.
struct Parts {
    inner: MemorySink,
    seen: Arc<Mutex<Vec<(u32, u64, u64)>>>,
}

#[async_trait]
impl Sink for Parts {
    type Output = Vec<u8>;

    fn rules(&self) -> PartRules {
        self.inner.rules()
    }

    async fn put(&self, part: Part) -> Result<(), SinkError> {
        self.seen.lock().unwrap().push((part.number, part.offset, part.payload.len()));
        self.inner.put(part).await
    }

    async fn finish(&self, len: u64) -> Result<Vec<u8>, SinkError> {
        self.inner.finish(len).await
    }

    async fn abort(&self) {
        self.inner.abort().await;
    }
}

#[tokio::test]
async fn any_sink_sums_up_what_it_takes() {
    let (content, never, options) = (content(), CancellationToken::new(), Options::default());
    let disk = open(content.clone()).await;
    let expected = digest(&disk, &options, &never).await.unwrap();
    let layout = ObjectMap::raw(content.len() as u64);
    for (size, part) in [
        (PartSize::Exactly(BLOCK_SIZE), BLOCK_SIZE),
        (PartSize::Exactly(MIB), MIB),
        (PartSize::Exactly(8 * MIB), 8 * MIB),
        (PartSize::Exactly(6 * MIB), 6 * MIB),
        (PartSize::AtLeast(MIB), BLOCK_SIZE),
        (PartSize::AtLeast(5 * MIB), 8 * MIB),
    ] {
        for zeroes in [Zeroes::Put, Zeroes::SkipParts, Zeroes::SkipRuns] {
            let seen = Arc::default();
            let inner = MemorySink::with_rules(PartRules { size, zeroes, in_flight: 2 });
            let sink = Digesting::new(Parts { inner, seen: Arc::clone(&seen) }, &options.workers);
            let digested = convert(&disk, &layout, sink, &options, &never).await.unwrap();
            assert!(digested.output == content, "{size:?} {zeroes:?}");
            assert_eq!(digested.summary(), expected, "{size:?} {zeroes:?}");
            let seen = seen.lock().unwrap();
            let whole = |&(number, offset, len): &(u32, u64, u64)| {
                offset == u64::from(number) * part && len == part.min(content.len() as u64 - offset)
            };
            assert!(!seen.is_empty() && seen.iter().all(whole), "{size:?} {zeroes:?}: {seen:?}");
        }
    }
}

#[tokio::test]
async fn a_file_too() {
    let (content, never, options) = (content(), CancellationToken::new(), Options::default());
    let disk = open(content.clone()).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.raw");
    let len = content.len() as u64;
    let sink = Digesting::new(FileSink::create(&path, len).unwrap(), &options.workers);
    let digested = convert(&disk, &ObjectMap::raw(len), sink, &options, &never).await.unwrap();
    assert_eq!(digested.summary, digest(&disk, &options, &never).await.unwrap());
    assert!(std::fs::read(path).unwrap() == content);
}

#[tokio::test]
async fn ranges_of_an_output_are_those_of_the_output() {
    let (content, never, options) = (content(), CancellationToken::new(), Options::default());
    let disk = open(content).await;
    let how = qcow2::LayoutOptions { cluster_size: 65536 };
    let layout = || ObjectMap::qcow2(qcow2::Layout::new(disk.image().map(), &how).unwrap());
    let whole = convert(&disk, &layout(), MemorySink::default(), &options, &never).await.unwrap();
    let rendered = Rendered::new("disk.qcow2", disk.clone(), layout(), &options).unwrap();
    let len = rendered.len();
    assert_eq!(len, whole.len() as u64);
    for span in [
        Span::new(0, len),
        Span::new(0, 1),
        Span::new(1, 4095),
        Span::new(len - 1, 1),
        Span::new(65_535, 2),
        Span::new(5 * MIB + 3, 3 * MIB),
        Span::new(7, 0),
    ] {
        let bytes = rendered.read(span).await.unwrap();
        assert!(bytes == whole[span.start as usize..span.end() as usize], "{span:?}");
    }
    assert!(rendered.read(Span::new(len, 1)).await.is_err());
    assert!(rendered.read(Span::new(u64::MAX, u64::MAX)).await.is_err());
}
