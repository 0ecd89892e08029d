//! Packed outputs: content, bytes that depend on nothing but the disk, counts, memory, and what remains after an error.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use disk_convert::*;
use disk_image::{Codec, Format, PackedLayout, ReadShape, Span, qcow2};
use support::{mixed, noise, open, packed, raw};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const MIB: u64 = 1 << 20;
const CODECS: [Codec; 2] = [Codec::Deflate, Codec::Zstd];

fn layout(disk: &Disk, cluster_size: u64, codec: Codec) -> qcow2::Packed {
    qcow2::Packed::new(disk.image().map(), &qcow2::PackedOptions { cluster_size, codec }).unwrap()
}

async fn same(a: &Disk, bytes: Vec<u8>) -> Comparison {
    support::same(a, bytes, Format::Qcow2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cluster_size_and_codec_holds_the_disk() {
    for len in [512, 64 << 10, 9_000_448] {
        let disk = raw(mixed(len)).await;
        for bits in 9..=21 {
            for codec in CODECS {
                let (options, sink) = (Options::default(), MemorySink::default());
                let made = packed(&disk, layout(&disk, 1 << bits, codec), sink, &options).await;
                assert_eq!(same(&disk, made).await, Comparison::Same, "{len} in 2^{bits}, {codec:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_content_counts() {
    let options = Options::default();
    let zero = raw(vec![0; 5 << 20]).await;
    let made = packed(&zero, layout(&zero, 65536, Codec::Zstd), MemorySink::default(), &options).await;
    // Header, L1 table, refcount table and block; nothing was encoded.
    assert_eq!((made.len(), options.counters.encodes()), (4 * 65536, 0));
    assert_eq!(same(&zero, made).await, Comparison::Same);

    let options = Options::default();
    let noisy = raw(noise(5 * MIB, 3)).await;
    let made = packed(&noisy, layout(&noisy, 65536, Codec::Deflate), MemorySink::default(), &options).await;
    assert_eq!((made.len() as u64, options.counters.encodes()), (5 * MIB + 5 * 65536, 80));
    assert_eq!(options.counters.bytes_encoded(), 5 * MIB);
    assert_eq!(same(&noisy, made).await, Comparison::Same);
}

/// Threads, memory, the parts of the sink, and what it does with zeroes change nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_depend_on_nothing_but_the_disk() {
    let disk = raw(mixed(23 << 20)).await;
    for (cluster, codec) in [(4096, Codec::Deflate), (65536, Codec::Zstd), (2 << 20, Codec::Zstd)] {
        let mut outputs = Vec::new();
        for (jobs, memory, size, zeroes) in [
            (1, 96 * MIB, PartSize::AtLeast(MIB), Zeroes::SkipParts),
            (2, 48 * MIB, PartSize::Exactly(5 * MIB), Zeroes::Put),
            (3, 192 * MIB, PartSize::Exactly(3 * 512), Zeroes::Put),
            (2, 64 * MIB, PartSize::Exactly(77_777), Zeroes::SkipParts),
        ] {
            let options =
                Options { memory, workers: Workers::new(Some(jobs)).unwrap(), ..Options::default() };
            let sink = MemorySink::with_rules(PartRules { size, zeroes, in_flight: 3 });
            outputs.push(packed(&disk, layout(&disk, cluster, codec), sink, &options).await);
        }
        assert!(outputs.windows(2).all(|pair| pair[0] == pair[1]), "{cluster}, {codec:?}");
        assert_eq!(same(&disk, outputs.remove(0)).await, Comparison::Same);
    }
}

/// One table in many parts, and parts that are head alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_and_a_tail_longer_than_a_part() {
    let mut content = vec![0; 96 << 20];
    for at in [0, 50 << 20, (96 << 20) - 512] {
        content[at..at + 512].copy_from_slice(&noise(512, 9)[..]);
        content[at + 5..at + 512].fill(3);
    }
    let disk = raw(content).await;
    for size in [4096, 1000] {
        let rules = PartRules { size: PartSize::Exactly(size), zeroes: Zeroes::Put, in_flight: 2 };
        let layout = layout(&disk, 512, Codec::Deflate);
        assert!(layout.head_len() > 4 * size);
        let made = packed(&disk, layout, MemorySink::with_rules(rules), &Options::default()).await;
        assert_eq!(same(&disk, made).await, Comparison::Same);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_source_is_decoded_once() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata");
    for name in ["disk-zlib.qcow2", "disk-zstd.qcow2", "disk-stream.vmdk"] {
        let disk = open(Arc::new(FileSource::open(&folder.join(name)).unwrap()), None).await;
        let stats = disk.image().map().stats();
        for cluster_size in [4096, 65536, 2 << 20] {
            let options = Options::default();
            let layout = layout(&disk, cluster_size, Codec::Zstd);
            let made = packed(&disk, layout, MemorySink::default(), &options).await;
            assert_eq!(options.counters.decodes(), stats.encoded.div_ceil(stats.largest_unit), "{name}");
            assert_eq!(same(&disk, made).await, Comparison::Same, "{name}");
        }
    }
}

/// A source behind a network, whose first read is held back until it is let go.
struct Held {
    bytes: Bytes,
    read: AtomicU64,
    go: Notify,
    went: AtomicBool,
}

#[async_trait]
impl ByteSource for Held {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn name(&self) -> &str {
        "held"
    }

    async fn read(&self, span: Span) -> Result<Bytes, SourceError> {
        self.read.fetch_add(span.len, Ordering::SeqCst);
        if span.start == 0 && !self.went.swap(true, Ordering::SeqCst) {
            self.go.notified().await;
        }
        Ok(self.bytes.slice(span.start as usize..span.end() as usize))
    }

    fn shape(&self) -> SourceShape {
        SourceShape { reads: ReadShape { max_gap: 0, max_len: MIB }, part: MIB, in_flight: 64 }
    }
}

/// Frames that wait for their turn are within the budget, and the one that they wait for gets through.
#[tokio::test(flavor = "multi_thread")]
async fn frames_that_wait_are_counted() {
    let memory = 24 * MIB;
    let held = Arc::new(Held {
        bytes: noise(96 * MIB, 5).into(),
        read: AtomicU64::new(0),
        go: Notify::new(),
        went: AtomicBool::new(false),
    });
    let disk = raw_of(held.clone()).await;
    let (copy, layout) = (disk.clone(), layout(&disk, 65536, Codec::Zstd));
    let packing = tokio::spawn(async move {
        let options = Options { memory, ..Options::default() };
        packed(&copy, layout, MemorySink::default(), &options).await
    });
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let read = held.read.load(Ordering::SeqCst);
        if read > 0 && read == before {
            break;
        }
        before = read;
    }
    // Each span costs its read and itself.
    assert!((MIB..=memory / 2).contains(&before), "{before} bytes were read ahead");
    held.go.notify_one();
    assert_eq!(same(&disk, packing.await.unwrap()).await, Comparison::Same);
}

async fn raw_of(source: Arc<dyn ByteSource>) -> Disk {
    open(source, Some(Format::Raw)).await
}

/// A sink behind a network that counts what it holds, and may fail.
struct Counting {
    part: u64,
    now: AtomicU64,
    most: AtomicU64,
    puts: AtomicUsize,
    ended: AtomicUsize,
    fails_at: usize,
    aborted: AtomicBool,
    /// Fired by the put that `fails_at` names, instead of a failure.
    cancel: Option<CancellationToken>,
}

impl Counting {
    fn new(part: u64, fails_at: usize, cancel: Option<CancellationToken>) -> Arc<Self> {
        Arc::new(Self {
            part,
            now: AtomicU64::new(0),
            most: AtomicU64::new(0),
            puts: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            fails_at,
            aborted: AtomicBool::new(false),
            cancel,
        })
    }
}

struct Shared(Arc<Counting>);

#[async_trait]
impl Sink for Shared {
    type Output = ();

    fn rules(&self) -> PartRules {
        PartRules { size: PartSize::Exactly(self.0.part), zeroes: Zeroes::Put, in_flight: 6 }
    }

    async fn put(&self, part: Part) -> Result<(), SinkError> {
        let len = part.payload.len();
        let now = self.0.now.fetch_add(len, Ordering::SeqCst) + len;
        self.0.most.fetch_max(now, Ordering::SeqCst);
        let put = self.0.puts.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(30)).await;
        drop(part);
        self.0.now.fetch_sub(len, Ordering::SeqCst);
        if put == self.0.fails_at {
            match &self.0.cancel {
                Some(cancel) => cancel.cancel(),
                None => return Err(SinkError::new("counting", None, SinkFault::NoSpace)),
            }
        }
        self.0.ended.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn finish(&self, _len: u64) -> Result<(), SinkError> {
        Ok(())
    }

    async fn abort(&self) {
        self.0.aborted.store(true, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_in_flight_are_within_the_budget() {
    let disk = raw(noise(64 * MIB, 6)).await;
    for memory in [26 * MIB, 40 * MIB] {
        let counting = Counting::new(4 * MIB, usize::MAX, None);
        let options = Options { memory, ..Options::default() };
        let layout = layout(&disk, 65536, Codec::Deflate);
        let made = pack(&disk, layout, Shared(counting.clone()), &options, &CancellationToken::new()).await;
        assert_eq!(made.unwrap().len.div_ceil(4 * MIB), counting.puts.load(Ordering::SeqCst) as u64);
        let most = counting.most.load(Ordering::SeqCst);
        // All parts may be on their way at the end; two spans are never theirs.
        assert!(most <= memory - 2 * MIB && most >= 4 * MIB, "{most} of {memory}");
    }
    let least = least_memory_to_pack(&disk, &layout(&disk, 65536, Codec::Zstd), 4 * MIB);
    assert!((17 * MIB..=26 * MIB).contains(&least));
    for memory in [least - 1, least] {
        let options = Options { memory, ..Options::default() };
        let sink = Counting::new(4 * MIB, usize::MAX, None);
        let layout = layout(&disk, 65536, Codec::Zstd);
        let made = pack(&disk, layout, Shared(sink.clone()), &options, &CancellationToken::new()).await;
        assert_eq!(made.is_ok(), memory == least);
        assert!(made.is_ok() || matches!(made, Err(ConvertError::Budget { needed, .. }) if needed == least));
        assert_eq!(sink.aborted.load(Ordering::SeqCst), memory < least);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_fails_ends_everything() {
    let disk = raw(mixed(40 << 20)).await;
    for fails_at in [0, 2, 5] {
        let sink = Counting::new(MIB, fails_at, None);
        let layout = layout(&disk, 65536, Codec::Deflate);
        let cancel = CancellationToken::new();
        let failed = pack(&disk, layout, Shared(sink.clone()), &Options::default(), &cancel).await;
        assert!(
            matches!(&failed, Err(ConvertError::Sink(error)) if error.fault == SinkFault::NoSpace),
            "{failed:?}"
        );
        assert!(sink.aborted.load(Ordering::SeqCst));
        let puts = sink.puts.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(sink.puts.load(Ordering::SeqCst), puts, "something is still running");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_everything() {
    let disk = raw(mixed(40 << 20)).await;
    for fails_at in [0, 3] {
        let cancel = CancellationToken::new();
        let sink = Counting::new(MIB, fails_at, Some(cancel.clone()));
        let layout = layout(&disk, 65536, Codec::Zstd);
        let failed = pack(&disk, layout, Shared(sink.clone()), &Options::default(), &cancel).await;
        assert!(matches!(failed, Err(ConvertError::Cancelled)), "{failed:?}");
        assert!(sink.aborted.load(Ordering::SeqCst));
        let puts = sink.puts.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(sink.puts.load(Ordering::SeqCst), puts, "something is still running");
    }
}

/// A unit in the middle that does not decode: its error is the one that is told, whoever else stops because of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_unit_is_what_is_told() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/disk-zstd.qcow2");
    let mut bytes = std::fs::read(path).unwrap();
    let whole = open(Arc::new(MemorySource::new("whole", bytes.clone())), None).await;
    let units = whole.image().map().iter().filter_map(|extent| match extent.state {
        disk_image::State::Encoded { stored, .. } => Some(stored.span),
        _ => None,
    });
    let units: Vec<Span> = units.collect();
    let damaged = units[units.len() / 2].start as usize;
    bytes[damaged..damaged + 8].fill(0xee);
    let disk = open(Arc::new(MemorySource::new("damaged", bytes)), None).await;
    let sink = Counting::new(MIB, usize::MAX, None);
    let layout = layout(&disk, 65536, Codec::Zstd);
    let failed =
        pack(&disk, layout, Shared(sink.clone()), &Options::default(), &CancellationToken::new()).await;
    assert!(matches!(failed, Err(ConvertError::Decode { .. })), "{failed:?}");
    assert!(sink.aborted.load(Ordering::SeqCst));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_as_long_as_the_object_and_absent_after_a_failure() {
    let folder = tempfile::TempDir::new().unwrap();
    let disk = raw(mixed(20 << 20)).await;
    let out = folder.path().join("out.qcow2");
    let options = Options::default();
    let (sink, cancel) = (FileSink::create(&out, 0).unwrap(), CancellationToken::new());
    let made = pack(&disk, layout(&disk, 65536, Codec::Deflate), sink, &options, &cancel);
    let len = made.await.unwrap().len;
    assert_eq!(std::fs::metadata(&out).unwrap().len(), len);
    assert_eq!(same(&disk, std::fs::read(&out).unwrap()).await, Comparison::Same);

    cancel.cancel();
    let sink = FileSink::create(&folder.path().join("never"), 0).unwrap();
    let failed = pack(&disk, layout(&disk, 65536, Codec::Deflate), sink, &options, &cancel).await;
    assert!(matches!(failed, Err(ConvertError::Cancelled)));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
