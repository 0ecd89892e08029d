//! Random writes to QCOW2 images of every kind, read back by us and by QEMU.
//!
//! Each combination of feature and cluster size gets the same number of rounds: a burst of writes, zeroes, discards and
//! compressed writes by qemu-io, a comparison, an internal snapshot. At the end the snapshots are compared as well. The seeds are
//! fixed.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

#[path = "support/driver.rs"]
mod driver;
#[path = "support/qemu.rs"]
mod qemu;

use disk_image::{MapStats, OpenError, OpenOptions};
use driver::Disk;
use qemu::{Dice, Lab, seen};

const CLUSTERS: [(&str, u64); 5] =
    [("512", 512), ("4k", 4 << 10), ("16k", 16 << 10), ("64k", 64 << 10), ("2M", 2 << 20)];
const ROUNDS: usize = 2;
const OPERATIONS: usize = 14;

/// What an image lies on. The raw one is shorter than some of the images and longer than others.
const BACKING: [&str; 3] = ["", "-F raw -b base.raw", "-F qcow2 -b base.qcow2"];

#[test]
fn standard_clusters() {
    play(1, &["compat=1.1", "compat=0.10", "lazy_refcounts=on,refcount_bits=64", "preallocation=metadata"]);
}

#[test]
fn compressed_clusters() {
    play(2, &["compression_type=zlib", "compression_type=zstd", "extended_l2=on,compression_type=zstd"]);
}

#[test]
fn subclusters() {
    play(3, &["extended_l2=on", "extended_l2=on,lazy_refcounts=on", "extended_l2=on,preallocation=metadata"]);
}

#[test]
fn data_files() {
    play(4, &["data_file=d.raw", "data_file=d.raw,extended_l2=on", "data_file=d.raw,data_file_raw=on"]);
}

/// Plays the game on every cluster size.
fn play(seed: u64, features: &[&str]) {
    let Some(lab) = Lab::new() else { return };
    let mut dice = Dice(seed);
    lab.raw("base.raw", &dice.disk(2_500_096));
    lab.img("convert -f raw -O qcow2 -c base.raw base.qcow2");
    lab.raw("pattern", &dice.disk(300_000));
    let mut games = 0;
    let mut seen = MapStats::default();
    for (f, feature) in features.iter().enumerate() {
        for (c, (name, cluster)) in CLUSTERS.into_iter().enumerate() {
            let backing = if feature.contains("raw=on") { "" } else { BACKING[(f + c) % BACKING.len()] };
            let len = [1_500_672, 3_000_320, 6 << 20][(f + 2 * c) % 3];
            lab.remove(&["a.qcow2", "d.raw"]);
            let create =
                format!("create -q -f qcow2 {backing} -o cluster_size={name},{feature} a.qcow2 {len}");
            if lab.try_img(&create).is_err() {
                continue;
            }
            let Some(stats) = game(&lab, &mut dice, &create, cluster, len) else { continue };
            games += 1;
            seen.data += stats.data;
            seen.encoded += stats.encoded;
            seen.zero += stats.zero;
        }
    }
    assert!(games * 2 > features.len() * CLUSTERS.len(), "{games} games");
    let has_codec = features[0].contains("compression");
    assert!(seen.data > 0 && seen.zero > 0 && (seen.encoded > 0 || !has_codec), "{seen:?}");
}

/// The rounds on one image; the sums are those of the last map. `None` if QEMU damaged the image.
fn game(lab: &Lab, dice: &mut Dice, create: &str, cluster: u64, len: u64) -> Option<MapStats> {
    let mut stats = MapStats::default();
    let mut snapshots = Vec::new();
    for round in 0..ROUNDS {
        let operations: Vec<String> = (0..OPERATIONS).map(|_| operation(dice, cluster, len)).collect();
        let commands: Vec<&str> = operations.iter().map(String::as_str).collect();
        lab.io_where_possible("a.qcow2", &commands);
        let what = || format!("{create}, round {round}: {operations:?}");

        let disk = match Disk::try_open(&lab.path("a.qcow2"), &OpenOptions::default()) {
            Ok(disk) => disk,
            // QEMU 10.0 goes on filling a cluster with compressed data when that was freed and is a standard cluster by now. Its own
            // check finds what we find.
            Err(error @ OpenError::Claimed { .. }) => {
                let fault = lab.try_img("check a.qcow2");
                assert!(fault.is_err(), "{}: {error}", what());
                return None;
            }
            Err(error) => panic!("{}: {error}", what()),
        };
        let guest = disk.guest().unwrap_or_else(|error| panic!("{}: {error}", what()));
        same(&guest, &lab.guest("a.qcow2"), &what);
        if !create.contains(" -b ") {
            assert_eq!(seen(disk.image.map().iter()), lab.map("a.qcow2"), "{}", what());
        }
        stats = disk.image.map().stats();
        let name = format!("round-{round}");
        if lab.try_img(&format!("snapshot -c {name} a.qcow2")).is_ok() {
            snapshots.push((name, guest));
        }
    }
    for (name, expected) in snapshots {
        let how = OpenOptions { snapshot: Some(name.clone()), ..OpenOptions::default() };
        let disk = Disk::open_with(&lab.path("a.qcow2"), &how);
        let what = || format!("{create}, snapshot {name}");
        same(&disk.guest().unwrap(), &expected, &what);
    }
    Some(stats)
}

fn same(ours: &[u8], theirs: &[u8], what: &dyn Fn() -> String) {
    let first = ours.iter().zip(theirs).position(|(a, b)| a != b);
    assert_eq!((first, ours.len()), (None, theirs.len()), "{}", what());
}

/// A random command of qemu-io. QEMU may refuse it: compressed clusters are written only where there are none yet.
fn operation(dice: &mut Dice, cluster: u64, len: u64) -> String {
    let compressed = dice.roll(4) == 0;
    let unit = match dice.roll(4) {
        _ if compressed => cluster,
        0 => 512,
        1 => (cluster / 32).max(512),
        2 => 4096,
        _ => cluster,
    };
    let start = dice.roll(len.div_ceil(unit)) * unit;
    let most = (600_000 / unit).max(2);
    let run = ((1 + dice.roll(most)) * unit).min(len - start);
    let pattern =
        if dice.roll(2) == 0 { "-s pattern".to_owned() } else { format!("-P {}", 1 + dice.roll(255)) };
    match dice.roll(6) {
        _ if compressed => format!("write -c {pattern} {start} {run}"),
        0 => format!("write -z {start} {run}"),
        1 => format!("write -z -u {start} {run}"),
        2 => format!("discard {start} {run}"),
        _ => format!("write {pattern} {start} {run}"),
    }
}
