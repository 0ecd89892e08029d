//! Images in files that are compressed as a whole: the same disks as without, from near and far, and how much work that is.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use disk_convert::*;
use disk_image::{Codec, Compression, Encoder, ObjectMap, OpenOptions, Span};
use support::{mixed, noise};
use tokio_util::sync::CancellationToken;

const MIB: u64 = 1 << 20;

/// One gzip member.
fn gzip(content: &[u8]) -> Vec<u8> {
    let mut file = vec![0; content.len() + content.len() / 100 + 100];
    let len = Encoder::new(Codec::Gzip).encode(content, &mut file).unwrap();
    file.truncate(len);
    file
}

/// A file behind a network, and what was fetched of it.
struct Far {
    file: MemorySource,
    reads: AtomicU64,
    bytes: AtomicU64,
}

impl Far {
    fn new(file: Vec<u8>) -> Self {
        Self { file: MemorySource::new("far", file), reads: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }
}

#[async_trait]
impl ByteSource for Far {
    fn len(&self) -> u64 {
        self.file.len()
    }

    fn name(&self) -> &str {
        self.file.name()
    }

    async fn read(&self, span: Span) -> Result<Bytes, SourceError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(span.len, Ordering::Relaxed);
        self.file.read(span).await
    }

    fn shape(&self) -> SourceShape {
        SourceShape { in_flight: 3, ..SourceShape::LOCAL }
    }
}

async fn open(source: Arc<dyn ByteSource>) -> Result<Disk, ConvertError> {
    let (how, never) = (OpenOptions::default(), CancellationToken::new());
    open_image(source, &how, &References::Deny, &Options::default(), &never).await
}

/// A disk that looks like one.
fn disk(mut content: Vec<u8>) -> Vec<u8> {
    content[510..512].copy_from_slice(b"\x55\xaa");
    content
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_may_be_compressed() {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata");
    let names = ["disk.qcow2", "disk-zlib.qcow2", "disk-zstd.qcow2", "disk-sparse.vmdk", "disk-stream.vmdk"];
    let mut files: Vec<Vec<u8>> =
        names.iter().map(|name| std::fs::read(testdata.join(name)).unwrap()).collect();
    let mut sparse = disk(mixed(3 * MIB as usize));
    sparse.resize(9 * MIB as usize, 0);
    sparse.extend(noise(100_000, 3));
    files.push(sparse);
    for file in files {
        let plain = open(Arc::new(MemorySource::new("plain", file.clone()))).await.unwrap();
        assert_eq!(plain.compression(), None);
        let packed = gzip(&file);
        let near: Arc<dyn ByteSource> = Arc::new(MemorySource::new("near", packed.clone()));
        for source in [near, Arc::new(Far::new(packed.clone()))] {
            let disk = open(source).await.unwrap();
            assert_eq!(disk.compression(), Some(Compression::Gzip));
            assert_eq!(disk.image().format(), plain.image().format());
            assert_eq!(disk.source().len(), packed.len() as u64, "the file is as long as it is");
            assert_eq!(disk.sources().image().len(), file.len() as u64);
            assert!(disk.memory() > disk.image().map().memory() as u64);
            let never = CancellationToken::new();
            let same = compare(&plain, &disk, &Options::default(), &never).await.unwrap();
            assert_eq!(same, Comparison::Same);
        }
    }
}

/// What the scan saw to be zero is a hole, and decoded no second time; all else is decoded about once.
#[tokio::test(flavor = "multi_thread")]
async fn how_much_is_decoded() {
    let mut content = disk(mixed(24 * MIB as usize));
    content.resize(200 * MIB as usize, 0);
    let packed = gzip(&content);
    for is_far in [false, true] {
        let far = Arc::new(Far::new(packed.clone()));
        let file: Arc<dyn ByteSource> = match is_far {
            true => far.clone(),
            false => Arc::new(MemorySource::new("near", packed.clone())),
        };
        let options = Options { workers: Workers::new(Some(2)).unwrap(), ..Options::default() };
        let never = CancellationToken::new();
        let unpacked = Unpacked::open(file, Compression::Gzip, &options, &never).await.unwrap();
        assert_eq!(far.bytes.load(Ordering::Relaxed), if is_far { packed.len() as u64 } else { 0 });
        let disk = open(Arc::new(unpacked.clone())).await.unwrap();
        let stored = disk.image().map().stats().data;
        assert!((16 * MIB..=24 * MIB).contains(&stored), "{stored}");
        let layout = ObjectMap::raw(disk.image().virtual_size());
        let opened = unpacked.decoded();
        assert!(opened < 4 * MIB, "{opened}");
        let bytes = convert(&disk, &layout, MemorySink::default(), &options, &never).await.unwrap();
        assert!(bytes == content);
        let (decoded, spacing) = (unpacked.decoded() - opened, unpacked.checkpoints().spacing());
        let parts = options.counters.parts();
        assert!((stored..=stored / 2 * 5).contains(&decoded), "{decoded} of {stored} in {parts} parts");
        // In one piece after the other nothing is decoded in vain.
        let before = unpacked.decoded();
        for at in (0..24 * MIB).step_by(100_000) {
            let read = unpacked.read(Span::new(at, 100_000)).await.unwrap();
            assert!(read == content[at as usize..][..100_000]);
        }
        let decoded = unpacked.decoded() - before;
        assert!(decoded <= 24 * MIB + 100_000 + spacing, "{decoded}");
        if is_far {
            let (reads, fetched) = (far.reads.load(Ordering::Relaxed), far.bytes.load(Ordering::Relaxed));
            assert!(reads < 600 && fetched < 10 * packed.len() as u64, "{reads} reads of {fetched} bytes");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused() {
    let content = disk(vec![0; 8 * MIB as usize]);
    let packed = gzip(&content);
    let said = |opened: Result<Disk, ConvertError>| match opened.map(|_| ()).unwrap_err() {
        ConvertError::Open { source, .. } => source.to_string(),
        error => panic!("{error}"),
    };
    let near = |file: Vec<u8>| Arc::new(MemorySource::new("near", file));
    let twice = said(open(near(gzip(&packed))).await);
    assert!(twice.contains("unpacked twice"), "{twice}");
    let nothing = said(open(near(gzip(b"text"))).await);
    assert!(nothing.contains("found no signature of one, in what the gzip file unpacks to"), "{nothing}");
    for cut in [packed.len() - 1, packed.len() / 2, 100] {
        let error = said(open(near(packed[..cut].to_vec())).await);
        assert!(error.starts_with("end of gzip member 0 was not found"), "{error}");
        let error = said(open(Arc::new(Far::new(packed[..cut].to_vec()))).await);
        assert!(error.starts_with("end of gzip member 0 was not found"), "{error}");
    }
    let options = Options { max_unpacked: 8 * MIB - 1, ..Options::default() };
    let (how, never) = (OpenOptions::default(), CancellationToken::new());
    let error = said(open_image(near(packed), &how, &References::Deny, &options, &never).await);
    assert!(error.starts_with("the length of what the file unpacks to is "), "{error}");
}
