//! Archives for Compute Engine: content, bytes that depend on nothing but disk and map, counts, and memory.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;

use disk_convert::*;
use disk_image::gce;
use support::{mixed, noise, open, raw};
use tokio_util::sync::CancellationToken;

const MIB: u64 = 1 << 20;
const UNIT: u64 = 256 << 10;

fn layout(disk: &Disk) -> gce::Archive {
    gce::Archive::new(disk.image().map()).unwrap()
}

async fn packed(disk: &Disk, sink: MemorySink, options: &Options) -> Vec<u8> {
    support::packed(disk, layout(disk), sink, options).await
}

/// The disk in an archive, and how many members were decoded for it.
async fn unpacked(bytes: Vec<u8>) -> (Vec<u8>, u64) {
    let disk = open(Arc::new(MemorySource::new("tar.gz", bytes)), None).await;
    assert_eq!(disk.image().member(), Some("disk.raw"));
    assert!(disk.image().virtual_size().is_multiple_of(1 << 30));
    let options = Options::default();
    let end = disk.image().map().iter().filter(|e| e.state.is_stored()).last().map_or(0, |e| e.guest.end());
    let layout = disk_image::ObjectMap::raw(end);
    let guest = convert(&disk, &layout, MemorySink::default(), &options, &CancellationToken::new()).await;
    (guest.unwrap(), options.counters.decodes())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_length_of_disk() {
    for len in [512, 4096, 262_144, 262_656, 1 << 20, (32 << 20) - 512, 70_000_128] {
        let mut content = mixed(len);
        let disk = raw(content.clone()).await;
        let made = packed(&disk, MemorySink::default(), &Options::default()).await;
        // The last unit is filled up.
        content.resize(len.next_multiple_of(UNIT as usize), 0);
        let (found, decodes) = unpacked(made).await;
        assert!(found == content, "{len}");
        assert_eq!(decodes, (len as u64).div_ceil(UNIT), "each is decoded once");
    }
}

/// Zeroes that the map calls stored are stored, as the tar header has told of them: a member of some bytes each.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_map_stores_is_stored() {
    let options = Options::default();
    let zero = raw(vec![0; 5 << 20]).await;
    let made = packed(&zero, MemorySink::default(), &options).await;
    assert_eq!(options.counters.encodes(), 20);
    assert!(made.len() < 20 * 320 + 400, "{}", made.len());
    let (found, _) = unpacked(made).await;
    assert!(found == vec![0; 5 << 20]);
    // Unless they were looked for.
    let options = Options::default();
    let none = scan(&zero, &options, &CancellationToken::new()).await.unwrap();
    let options = Options::default();
    let made = packed(&none, MemorySink::default(), &options).await;
    assert!(options.counters.encodes() == 0 && made.len() < 300, "{}", made.len());
    assert!(unpacked(made).await.0.is_empty());

    // What does not shrink takes more than it has.
    let noisy = noise(5 * MIB, 3);
    let disk = raw(noisy.clone()).await;
    let made = packed(&disk, MemorySink::default(), &Options::default()).await;
    assert!(made.len() as u64 > 5 * MIB);
    assert!(unpacked(made).await.0 == noisy);
}

/// Threads, memory, the parts of the sink, and what it does with zeroes change nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_depend_on_nothing_but_the_disk() {
    let content = mixed(75 << 20);
    let disk = raw(content.clone()).await;
    let mut outputs = Vec::new();
    for (jobs, memory, size, zeroes) in [
        (1, 96 * MIB, PartSize::AtLeast(MIB), Zeroes::SkipParts),
        (2, 48 * MIB, PartSize::Exactly(5 * MIB), Zeroes::Put),
        (3, 192 * MIB, PartSize::Exactly(3 * 512), Zeroes::Put),
        // Parts that end inside of header, tail and index.
        (2, 64 * MIB, PartSize::Exactly(77), Zeroes::SkipParts),
    ] {
        let options = Options { memory, workers: Workers::new(Some(jobs)).unwrap(), ..Options::default() };
        let sink = MemorySink::with_rules(PartRules { size, zeroes, in_flight: 3 });
        outputs.push(packed(&disk, sink, &options).await);
    }
    assert!(outputs.windows(2).all(|pair| pair[0] == pair[1]));
    let (mut found, _) = unpacked(outputs.remove(0)).await;
    found.truncate(content.len());
    assert!(found == content);
}

/// What the source stores compressed is decoded once, and an archive of an archive is the same archive.
#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_source_is_decoded_once() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata");
    for name in ["disk-zlib.qcow2", "disk-zstd.qcow2", "disk-stream.vmdk"] {
        let disk = open(Arc::new(FileSource::open(&folder.join(name)).unwrap()), None).await;
        let stats = disk.image().map().stats();
        let options = Options::default();
        let made = packed(&disk, MemorySink::default(), &options).await;
        assert_eq!(options.counters.decodes(), stats.encoded.div_ceil(stats.largest_unit), "{name}");
        let again = open(Arc::new(MemorySource::new("tar.gz", made.clone())), None).await;
        assert!(packed(&again, MemorySink::default(), &Options::default()).await == made, "{name}");
    }
}

/// Frames that are longer than their units are in the budget.
#[tokio::test(flavor = "multi_thread")]
async fn the_least_memory_is_enough() {
    let content = noise(40 * MIB, 6);
    let disk = raw(content.clone()).await;
    let part = 4 * MIB;
    let least = least_memory_to_pack(&disk, &layout(&disk), part);
    let rules = PartRules { size: PartSize::Exactly(part), zeroes: Zeroes::Put, in_flight: 6 };
    for memory in [least - 1, least] {
        let options = Options { memory, ..Options::default() };
        let sink = MemorySink::with_rules(rules);
        match pack(&disk, layout(&disk), sink, &options, &CancellationToken::new()).await {
            Ok(made) => assert!(memory == least && unpacked(made.output).await.0 == content),
            Err(error) => {
                assert!(
                    memory < least && matches!(error, ConvertError::Budget { needed, .. } if needed == least)
                );
            }
        }
    }
}
