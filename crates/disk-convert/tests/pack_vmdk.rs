//! Streams of VMDK: content, bytes that depend on nothing but the disk, counts, and frames that are longer than their units.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;

use disk_convert::*;
use disk_image::{Format, vmdk};
use support::{mixed, noise, open, raw, same};
use tokio_util::sync::CancellationToken;

const MIB: u64 = 1 << 20;
const GRAIN: u64 = 64 << 10;
/// Header and descriptor; a table and its marker; marker and sector of the directory, footer and its marker, end of stream.
const AROUND: u64 = GRAIN + 5 * 512 + 5 * 512;

fn layout(disk: &Disk) -> vmdk::Stream {
    vmdk::Stream::new(disk.image().map()).unwrap()
}

async fn packed(disk: &Disk, sink: MemorySink, options: &Options) -> Vec<u8> {
    support::packed(disk, layout(disk), sink, options).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_length_of_disk() {
    for len in [512, 4096, 65536, 66048, 1 << 20, (32 << 20) - 512, 32 << 20, (32 << 20) + 512, 70_000_128] {
        let disk = raw(mixed(len)).await;
        let made = packed(&disk, MemorySink::default(), &Options::default()).await;
        assert_eq!(same(&disk, made, Format::Vmdk).await, Comparison::Same, "{len}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_content_counts() {
    let options = Options::default();
    let zero = raw(vec![0; 5 << 20]).await;
    let made = packed(&zero, MemorySink::default(), &options).await;
    assert_eq!((made.len() as u64, options.counters.encodes()), (AROUND - 5 * 512, 0));
    assert_eq!(same(&zero, made, Format::Vmdk).await, Comparison::Same);

    // Each grain of noise takes a sector more than it has: more than the buffer that it was assembled in, if it stood at its start.
    for len in [5 * MIB, 5 * MIB + 512] {
        let options = Options::default();
        let noisy = raw(noise(len, 3)).await;
        let made = packed(&noisy, MemorySink::default(), &options).await;
        assert_eq!(options.counters.encodes(), len.div_ceil(GRAIN));
        assert!(options.counters.bytes_encoded() > 80 * GRAIN);
        if len == 5 * MIB {
            assert_eq!(made.len() as u64, 80 * (GRAIN + 512) + AROUND);
        }
        assert_eq!(same(&noisy, made, Format::Vmdk).await, Comparison::Same);
    }
}

/// Threads, memory, the parts of the sink, and what it does with zeroes change nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_depend_on_nothing_but_the_disk() {
    let disk = raw(mixed(75 << 20)).await;
    let mut outputs = Vec::new();
    for (jobs, memory, size, zeroes) in [
        (1, 96 * MIB, PartSize::AtLeast(MIB), Zeroes::SkipParts),
        (2, 48 * MIB, PartSize::Exactly(5 * MIB), Zeroes::Put),
        (3, 192 * MIB, PartSize::Exactly(3 * 512), Zeroes::Put),
        // Parts that end inside the tables behind the last grain.
        (2, 64 * MIB, PartSize::Exactly(77_777), Zeroes::SkipParts),
        (2, 64 * MIB, PartSize::Exactly(1000), Zeroes::Put),
    ] {
        let options = Options { memory, workers: Workers::new(Some(jobs)).unwrap(), ..Options::default() };
        let sink = MemorySink::with_rules(PartRules { size, zeroes, in_flight: 3 });
        outputs.push(packed(&disk, sink, &options).await);
    }
    assert!(outputs.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(same(&disk, outputs.remove(0), Format::Vmdk).await, Comparison::Same);
}

/// What the source stores compressed is decoded once, and a stream of a stream is the same stream.
#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_source_is_decoded_once() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata");
    let mut outputs = Vec::new();
    for name in ["disk-zlib.qcow2", "disk-zstd.qcow2", "disk-stream.vmdk"] {
        let disk = open(Arc::new(FileSource::open(&folder.join(name)).unwrap()), None).await;
        let stats = disk.image().map().stats();
        let options = Options::default();
        outputs.push(packed(&disk, MemorySink::default(), &options).await);
        assert_eq!(options.counters.decodes(), stats.encoded.div_ceil(stats.largest_unit), "{name}");
        let again = open(Arc::new(MemorySource::new("vmdk", outputs[0].clone())), None).await;
        assert_eq!(
            compare(&disk, &again, &Options::default(), &CancellationToken::new()).await.unwrap(),
            Comparison::Same
        );
        outputs.push(packed(&again, MemorySink::default(), &Options::default()).await);
    }
    assert!(outputs.windows(2).all(|pair| pair[0] == pair[1]));
}

/// Frames that are longer than their units are in the budget.
#[tokio::test(flavor = "multi_thread")]
async fn the_least_memory_is_enough() {
    let disk = raw(noise(40 * MIB, 6)).await;
    let part = 4 * MIB;
    let least = least_memory_to_pack(&disk, &layout(&disk), part);
    // The part that is being filled, the one with the header, one on its way; and two spans.
    assert!((3 * part + 2 * MIB..3 * part + 3 * MIB).contains(&least), "{least}");
    let rules = PartRules { size: PartSize::Exactly(part), zeroes: Zeroes::Put, in_flight: 6 };
    for memory in [least - 1, least] {
        let options = Options { memory, ..Options::default() };
        let sink = MemorySink::with_rules(rules);
        let made = pack(&disk, layout(&disk), sink, &options, &CancellationToken::new()).await;
        match made {
            Ok(made) => assert_eq!(same(&disk, made.output, Format::Vmdk).await, Comparison::Same),
            Err(error) => {
                assert!(
                    memory < least && matches!(error, ConvertError::Budget { needed, .. } if needed == least)
                );
            }
        }
    }
}
