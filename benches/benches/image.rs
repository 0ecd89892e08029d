//! The pure functions: opening an image, walking its map, decoding its units. One thread.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros, and a benchmark that cannot go on stops"
)]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use benches::{Bench, Images};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use disk_image::{Decoder, Encoded, ObjectMap, Origin, Plan, Span};

const ZLIB: &str = "-c -O qcow2";
const ZSTD: &str = "-c -O qcow2 -o compression_type=zstd";
const STREAM: &str = "-O vmdk -o subformat=streamOptimized";

fn open(c: &mut Criterion) {
    let images = Images::new().unwrap();
    let bench = Bench::new(Some(1)).unwrap();
    let mut group = c.benchmark_group("open");
    let forms = [
        ("qcow2 256 MiB, 64 MiB stored", images.form("qcow2", "-O qcow2").unwrap()),
        ("qcow2 256 MiB, 64 MiB stored, zlib", images.form("zlib", ZLIB).unwrap()),
        ("vmdk stream 256 MiB, 64 MiB stored", images.form("stream", STREAM).unwrap()),
        ("qcow2 8 TiB, 64 MiB scattered", images.huge(1024).unwrap()),
    ];
    for (name, path) in &forms {
        group.bench_function(*name, |b| b.iter(|| bench.open(path).unwrap()));
    }
    group.finish();
}

fn extents(c: &mut Criterion) {
    let images = Images::new().unwrap();
    let bench = Bench::new(Some(1)).unwrap();
    let zlib = bench.open(&images.form("zlib", ZLIB).unwrap()).unwrap();
    let huge = bench.open(&images.huge(1024).unwrap()).unwrap();
    let mut group = c.benchmark_group("extents");
    for (name, disk) in [("all of 1024 encoded units", &zlib), ("all of 1024 scattered runs", &huge)] {
        let map = disk.image().map();
        group.throughput(Throughput::Elements(map.iter().count() as u64));
        group.bench_function(name, |b| b.iter(|| map.iter().map(|extent| extent.guest.len).sum::<u64>()));
        let middle = Span::new(map.guest_len() / 2, 1 << 20);
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("1 MiB amid {}", &name["all of ".len()..]), |b| {
            b.iter(|| map.extents(middle).count());
        });
    }
    group.finish();
}

fn decode(c: &mut Criterion) {
    let images = Images::new().unwrap();
    let bench = Bench::new(Some(1)).unwrap();
    let mut group = c.benchmark_group("decode");
    for (name, arguments) in [("deflate 64 KiB", ZLIB), ("zstd 64 KiB", ZSTD), ("zlib grain 64 KiB", STREAM)]
    {
        let path = images.form(&name.replace(' ', "-"), arguments).unwrap();
        let units = units(&bench, &path);
        group.throughput(Throughput::Bytes(units.iter().map(|(unit, _)| unit.guest.len).sum()));
        let mut decoder = Decoder::default();
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || vec![0; 65_536],
                |out| units.iter().for_each(|(unit, stored)| decoder.decode(unit, stored, out).unwrap()),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// The units of the disk's first 32 MiB, with their stored bytes.
fn units(bench: &Bench, path: &std::path::Path) -> Vec<(Encoded, Vec<u8>)> {
    let disk = bench.open(path).unwrap();
    let layout = ObjectMap::raw(disk.image().virtual_size());
    let plan = Plan::new(disk.image().map(), &layout, Span::new(0, 32 << 20));
    let file = File::open(path).unwrap();
    let read = |unit: Encoded| {
        let mut stored = vec![0; usize::try_from(unit.stored.span.len).unwrap()];
        file.read_exact_at(&mut stored, unit.stored.span.start).unwrap();
        (unit, stored)
    };
    let encoded = plan.pieces.into_iter().filter_map(|piece| match piece.origin {
        Origin::Encoded(unit, _) => Some(read(unit)),
        _ => None,
    });
    encoded.collect()
}

fn config() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group!(name = image; config = config(); targets = open, extents, decode);
criterion_main!(image);
