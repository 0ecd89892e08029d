//! How much work a conversion does: counts, which are stable where times are not.
//!
//! The images are those in `testdata/`, and one with large clusters that is made by qemu-img.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use disk_convert::*;
use disk_image::{ObjectMap, OpenOptions, qcow2};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const CLUSTER: u64 = 2 << 20;

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

async fn open(path: &Path, options: &Options) -> Disk {
    let source = Arc::new(FileSource::open(path).unwrap());
    open_image(source, &OpenOptions::default(), &References::Deny, options, &CancellationToken::new())
        .await
        .unwrap()
}

fn layouts(disk: &Disk) -> Vec<(&'static str, ObjectMap)> {
    let cluster = |cluster_size| qcow2::LayoutOptions { cluster_size };
    let map = disk.image().map();
    vec![
        ("raw", ObjectMap::raw(disk.image().virtual_size())),
        ("qcow2", ObjectMap::qcow2(qcow2::Layout::new(map, &cluster(CLUSTER)).unwrap())),
        ("qcow2, 4 KiB clusters", ObjectMap::qcow2(qcow2::Layout::new(map, &cluster(4096)).unwrap())),
    ]
}

/// Units in the map.
fn units(disk: &Disk) -> u64 {
    let stats = disk.image().map().stats();
    stats.encoded.div_ceil(stats.largest_unit.max(1))
}

async fn count(path: &Path, layout_name: &str, sink: MemorySink) -> (u64, u64, Arc<Counters>) {
    let options = Options::default();
    let disk = open(path, &options).await;
    let (_, layout) = layouts(&disk).into_iter().find(|(name, _)| *name == layout_name).unwrap();
    convert(&disk, &layout, sink, &options, &CancellationToken::new()).await.unwrap();
    (units(&disk), disk.image().map().stats().encoded_stored, options.counters)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_unit_is_decoded_once() {
    for name in ["disk-zlib.qcow2", "disk-zstd.qcow2", "disk-stream.vmdk"] {
        for layout in ["raw", "qcow2", "qcow2, 4 KiB clusters"] {
            let (units, stored, counters) = count(&testdata(name), layout, MemorySink::default()).await;
            assert!(units > 0, "{name} holds encoded units");
            // Units that straddle two parts of a layout that shifts them are decoded in both.
            let parts = counters.parts();
            assert!(
                counters.decodes() <= units + parts,
                "{name} as {layout}: {} of {units}",
                counters.decodes()
            );
            assert!(counters.bytes_read() <= 2 * stored + 2 * parts * (16 << 10), "{name} as {layout}");
        }
        let (units, _, counters) = count(&testdata(name), "raw", MemorySink::default()).await;
        assert_eq!(counters.decodes(), units, "{name}");
    }
}

/// A 2 MiB cluster is larger than a part for local files would be. Parts grow with it; otherwise each cluster is decoded many times.
#[tokio::test(flavor = "multi_thread")]
async fn large_clusters_are_decoded_once() {
    let folder = TempDir::new().unwrap();
    let image = folder.path().join("large.qcow2");
    let made = Command::new("qemu-img")
        .args(["convert", "-c", "-O", "qcow2", "-o", "cluster_size=2M"])
        .args([testdata("disk.qcow2"), image.clone()])
        .output();
    match made {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "qemu-img is needed in CI: {error}");
            eprintln!("SKIPPED: qemu-img is not installed ({error})");
            return;
        }
    }
    for layout in ["raw", "qcow2"] {
        let (units, _, counters) = count(&image, layout, MemorySink::default()).await;
        assert!(units >= 2, "{units}");
        assert_eq!(counters.decodes(), units, "as {layout}");
    }
}

/// A budget admits parts one by one; the bytes do not depend on how many are in flight.
#[tokio::test(flavor = "multi_thread")]
async fn budget_workers_and_part_size_do_not_change_the_bytes() {
    let path = testdata("disk-zstd.qcow2");
    let mut outputs = Vec::new();
    for (jobs, memory, size) in [
        (1, 64 << 20, PartSize::Exactly(5 << 20)),
        (2, 192 << 20, PartSize::Exactly(1 << 20)),
        (3, 192 << 20, PartSize::Exactly(3 * 512)),
        (2, 64 << 20, PartSize::AtLeast(1)),
    ] {
        let options = Options { memory, workers: Workers::new(Some(jobs)).unwrap(), ..Options::default() };
        let disk = open(&path, &options).await;
        let cluster = qcow2::LayoutOptions { cluster_size: 64 << 10 };
        let layout = ObjectMap::qcow2(qcow2::Layout::new(disk.image().map(), &cluster).unwrap());
        let rules = PartRules { size, zeroes: Zeroes::Put, in_flight: 3 };
        let sink = MemorySink::with_rules(rules);
        outputs.push(convert(&disk, &layout, sink, &options, &CancellationToken::new()).await.unwrap());
    }
    assert!(outputs.windows(2).all(|pair| pair[0] == pair[1]));
}
