//! The engine, from images in the page cache to nowhere, and its peers on the same images.
//!
//! `assemble` is one worker from memory: planning, decoding and placing, without any I/O. `convert`, `scan` and `digest` are what this
//! machine's cores make of a file: all of it, looking for zeroes, and hashing. `peers` is qcow2-rs, which reads the whole disk into a buffer, and our engine on one worker beside it.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros, and a benchmark that cannot go on stops"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use benches::{Bench, Images, NullSink, STORED};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use disk_convert::{Disk, MemorySource, References, convert, digest, open_image, scan};
use disk_image::qcow2::{Layout, LayoutOptions};
use disk_image::{ObjectMap, OpenOptions};
use qcow2_rs::dev::{Qcow2Dev, Qcow2DevParams};
use qcow2_rs::sync_io::Qcow2IoSync;
use qcow2_rs::utils::qcow2_setup_dev_sync;

const FORMS: [(&str, &str); 4] = [
    ("qcow2", "-O qcow2"),
    ("qcow2 zlib", "-c -O qcow2"),
    ("qcow2 zstd", "-c -O qcow2 -o compression_type=zstd"),
    ("vmdk stream", "-O vmdk -o subformat=streamOptimized"),
];

fn assemble(c: &mut Criterion) {
    let images = Images::new().unwrap();
    let bench = Bench::new(Some(1)).unwrap();
    let mut group = c.benchmark_group("assemble, one worker");
    group.throughput(Throughput::Bytes(STORED));
    for (name, arguments) in FORMS {
        let bytes = std::fs::read(images.form(name, arguments).unwrap()).unwrap();
        let source = Arc::new(MemorySource::new(name, bytes));
        let how = OpenOptions::default();
        let opening = open_image(source, &how, &References::Deny, &bench.options, &bench.cancel);
        let disk = bench.runtime.block_on(opening).unwrap();
        group.bench_function(format!("{name} to raw"), |b| b.iter(|| to_null(&bench, &disk, &raw(&disk))));
    }
    group.finish();
}

fn convert_to_null(c: &mut Criterion) {
    let images = Images::new().unwrap();
    let bench = Bench::new(None).unwrap();
    let mut group = c.benchmark_group("convert, all workers");
    group.throughput(Throughput::Bytes(STORED));
    for (name, arguments) in FORMS {
        let disk = bench.open(&images.form(name, arguments).unwrap()).unwrap();
        group.bench_function(format!("{name} to raw"), |b| b.iter(|| to_null(&bench, &disk, &raw(&disk))));
        let layout = ObjectMap::qcow2(Layout::new(disk.image().map(), &LayoutOptions::default()).unwrap());
        group.bench_function(format!("{name} to qcow2"), |b| b.iter(|| to_null(&bench, &disk, &layout)));
    }
    group.finish();
}

fn scan_for_zeroes(c: &mut Criterion) {
    let images = Images::new().unwrap();
    let bench = Bench::new(None).unwrap();
    let zeroes = images.folder().join("zeroes");
    std::fs::write(&zeroes, vec![0; usize::try_from(STORED).unwrap()]).unwrap();
    let mut group = c.benchmark_group("scan, all workers");
    group.throughput(Throughput::Bytes(STORED));
    for (name, path) in [("raw without zeroes", images.raw()), ("raw, all of it zeroes", zeroes)] {
        let disk = bench.open(&path).unwrap();
        let scanned = || bench.runtime.block_on(scan(&disk, &bench.options, &bench.cancel)).unwrap();
        // A file system that does not store zeroes has none to be found.
        let left = scanned().image().map().stats().data;
        assert_eq!(left, if name.contains("without") { STORED } else { 0 });
        group.bench_function(name, |b| b.iter(scanned));
    }
    group.finish();
}

fn digest_of_disk(c: &mut Criterion) {
    let images = Images::new().unwrap();
    let bench = Bench::new(None).unwrap();
    let mut group = c.benchmark_group("digest, all workers");
    group.throughput(Throughput::Bytes(STORED));
    let zlib = images.form("zlib", "-c -O qcow2").unwrap();
    let mut digests = Vec::new();
    for (name, path) in [("raw", images.raw()), ("qcow2 zlib", zlib)] {
        let disk = bench.open(&path).unwrap();
        let digest = || bench.runtime.block_on(digest(&disk, &bench.options, &bench.cancel)).unwrap();
        digests.push(digest());
        group.bench_function(name, |b| b.iter(digest));
    }
    assert_eq!(digests[0], digests[1]);
    group.finish();
}

fn peers(c: &mut Criterion) {
    let images = Images::new().unwrap();
    let bench = Bench::new(Some(1)).unwrap();
    let mut group = c.benchmark_group("peers, one thread");
    group.throughput(Throughput::Bytes(STORED));
    for (name, arguments) in &FORMS[..2] {
        let path = images.form(name, arguments).unwrap();
        let disk = bench.open(&path).unwrap();
        group.bench_function(format!("{name}, image-prep"), |b| {
            b.iter(|| to_null(&bench, &disk, &raw(&disk)))
        });
        let peer = Peer::open(&path);
        // The peer says what the disk holds too, or its time means nothing.
        assert_eq!(peer.read_all(), std::fs::read(images.raw()).unwrap());
        group.bench_function(format!("{name}, qcow2-rs"), |b| b.iter(|| peer.read_all()));
    }
    group.finish();
}

fn raw(disk: &Disk) -> ObjectMap {
    ObjectMap::raw(disk.image().virtual_size())
}

fn to_null(bench: &Bench, disk: &Disk, layout: &ObjectMap) {
    let converting = convert(disk, layout, NullSink, &bench.options, &bench.cancel);
    bench.runtime.block_on(converting).unwrap();
}

/// qcow2-rs on plain system calls: its quickest way of reading without io_uring.
struct Peer {
    runtime: tokio::runtime::Runtime,
    device: Qcow2Dev<Qcow2IoSync>,
}

impl Peer {
    fn open(path: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let parameters = Qcow2DevParams::new(9, None, None, true, false);
        let device = qcow2_setup_dev_sync(path, &parameters).unwrap();
        runtime.block_on(device.qcow2_prep_io()).unwrap();
        Self { runtime, device }
    }

    fn read_all(&self) -> Vec<u8> {
        let mut disk = vec![0; usize::try_from(self.device.info.virtual_size()).unwrap()];
        self.runtime.block_on(async {
            for (index, part) in disk.chunks_mut(1 << 20).enumerate() {
                self.device.read_at(part, (index as u64) << 20).await.unwrap();
            }
        });
        disk
    }
}

fn config() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group!(name = group; config = config(); targets = assemble, convert_to_null, scan_for_zeroes, digest_of_disk, peers);
criterion_main!(group);
