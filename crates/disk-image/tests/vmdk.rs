//! VMDK files made by hand: what no converter writes, read back.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

#[path = "support/driver.rs"]
mod driver;
#[path = "support/qemu.rs"]
mod qemu;
#[path = "support/vmdk.rs"]
mod vmdk;

use bytes::Bytes;
use disk_image::vmdk::{CreateType, Details, Directory, Sparse};
use disk_image::{Format, Item, ObjectMap, OpenError, OpenOptions, Span, State, Warning};
use driver::Disk;
use qemu::Dice;
use vmdk::{Builder, GRAIN, Grain, ODD_CAPACITY, content, populated};

fn open(file: &[u8]) -> Result<Disk, OpenError> {
    Disk::parse(Bytes::copy_from_slice(file), &OpenOptions::default())
}

fn details(disk: &Disk) -> &Details {
    match disk.image.details() {
        disk_image::Details::Vmdk(details) => details,
        other => panic!("{other:?}"),
    }
}

/// Opens what the builder makes, and reads it in parts that cut grains.
fn assert_reads_back(builder: &Builder) -> Disk {
    const PART: u64 = (1 << 20) + 4096;
    let disk = open(&builder.build().bytes).unwrap();
    let layout = ObjectMap::raw(disk.image.virtual_size());
    let expected = builder.guest();
    assert_eq!(layout.len(), expected.len() as u64);
    for (expected, start) in expected.chunks(PART as usize).zip((0..).step_by(PART as usize)) {
        let part = disk.part(&layout, Span::new(start, expected.len() as u64)).unwrap();
        assert!(part == expected, "{:?}, part at {start:#x}", builder.order);
    }
    disk
}

#[test]
fn sparse_file_reads_back() {
    let builder = populated(Builder::sparse(ODD_CAPACITY));
    let disk = assert_reads_back(&builder);
    assert_eq!(disk.image.format(), Format::Vmdk);
    assert_eq!(disk.image.virtual_size(), ODD_CAPACITY * 512);
    assert_eq!(disk.image.map().stats().data, 7 * GRAIN as u64 + 3 * 512);
    let expected = Details {
        create_type: CreateType::MonolithicSparse,
        extents: 1,
        cid: Some(0xffff_fffe),
        sparse: Some(Sparse {
            version: 1,
            grain_size: GRAIN as u64,
            compressed: false,
            directory: Directory::Header,
        }),
    };
    assert_eq!(*details(&disk), expected);
}

#[test]
fn footer_leads_to_the_directory() {
    let builder = populated(Builder::stream(ODD_CAPACITY));
    let disk = assert_reads_back(&builder);
    let expected = Details {
        create_type: CreateType::StreamOptimized,
        extents: 1,
        cid: Some(0xffff_fffe),
        sparse: Some(Sparse {
            version: 3,
            grain_size: GRAIN as u64,
            compressed: true,
            directory: Directory::Footer,
        }),
    };
    assert_eq!(*details(&disk), expected);
}

#[test]
fn padding_after_the_stream_is_tolerated() {
    let builder = populated(Builder::stream(ODD_CAPACITY));
    let file = builder.build().bytes;
    for padding in [1, 511, 512, 10 << 10, 64 << 10, (1 << 20) - 2048] {
        let mut padded = file.clone();
        padded.resize(file.len() + padding, 0);
        let disk = open(&padded).unwrap_or_else(|error| panic!("padding {padding}: {error}"));
        assert!(disk.guest().unwrap() == builder.guest(), "padding {padding}");
    }
}

#[test]
fn grains_may_be_stored_in_any_order() {
    for empty in [Builder::sparse(ODD_CAPACITY), Builder::stream(ODD_CAPACITY)] {
        let mut builder = populated(empty);
        let mut dice = Dice(5);
        for _ in 0..20 {
            let mut order: Vec<u64> = builder.grains.keys().copied().collect();
            order.sort_by_cached_key(|_| dice.roll(1 << 31));
            builder.order = order;
            assert_reads_back(&builder);
        }
    }
}

/// The stored length of a compressed grain is bounded by its follower in guest order, else by two grains, always by the file.
#[test]
fn stored_lengths_are_bounded() {
    let grain = |seed: u64| content(seed * 3 + 1, GRAIN);
    let stream = |order: &[u64]| {
        let builder = Builder::stream(64 * 128).grain(0, grain(0)).grain(1, grain(1));
        let builder = builder.grain(2, content(2, GRAIN)).zero_grain(3).grain(5, content(5, GRAIN));
        let builder = Builder { order: order.to_vec(), flags: 0x30005, ..builder };
        let disk = assert_reads_back(&builder);
        let lens: Vec<u64> = disk
            .image
            .map()
            .iter()
            .filter_map(|extent| match extent.state {
                State::Encoded { stored, .. } => Some(stored.span.len),
                _ => None,
            })
            .collect();
        (builder.build(), lens)
    };
    let (built, lens) = stream(&[0, 1, 2, 5]);
    let start = |index| built.grains[&index] as u64;
    // Zeroes and a hole lie between 2 and 5: the bound is given up there, and the file is shorter than two grains.
    let to_end = built.bytes.len() as u64 - start(2);
    assert_eq!(lens[..2], [start(1) - start(0), start(2) - start(1)]);
    assert_eq!(lens[2..], [to_end, built.bytes.len() as u64 - start(5)]);

    let (_, lens) = stream(&[5, 2, 1, 0]);
    assert_eq!(lens[3], 2 * GRAIN as u64);
}

#[test]
fn zero_grains_need_their_flag() {
    let mut builder = Builder::sparse(1024).grain(0, content(1, GRAIN)).zero_grain(1).zero_grain(2);
    let found = open(&builder.build().bytes).map(|disk| disk.image).unwrap_err();
    let expected = "0 or a sector past the metadata";
    assert_eq!(found, OpenError::Field { what: Item::EntryOf("grain table", 0, 1), found: 1, expected });
    assert_eq!(found.to_string(), "grain table 0 entry 1 is 0x1, expected 0 or a sector past the metadata");

    builder.flags |= 4;
    assert_eq!(assert_reads_back(&builder).image.map().stats().zero, 2 * GRAIN as u64);

    let stream =
        Builder { flags: 0x30005, ..Builder::stream(1024).grain(0, content(1, GRAIN)).zero_grain(7) };
    assert_eq!(assert_reads_back(&stream).image.map().stats().zero, GRAIN as u64);
}

/// The stream of the last grain may hold the whole grain or only what the disk has of it.
#[test]
fn last_compressed_grain_may_be_full_or_short() {
    for len in [3 * 512, 10 * 512, GRAIN] {
        for level in [0, 6] {
            let mut builder = Builder::stream(128 + 3).grain(0, content(1, GRAIN));
            builder.grains.insert(1, Grain::Data(content(4, len), level));
            assert_reads_back(&builder);
        }
    }
    for (index, len) in [(1, 3 * 512 - 1), (0, GRAIN - 512), (1, GRAIN + 1)] {
        let builder = Builder::stream(128 + 3).grain(0, content(1, GRAIN)).grain(1, content(4, 3 * 512));
        let builder = builder.grain(index, content(4, len));
        let disk = open(&builder.build().bytes).unwrap();
        assert!(disk.guest().is_err(), "grain {index} of {len} bytes");
    }
}

/// Stored blocks make the stream longer than the grain; it may end the file or be followed by one that starts below it.
#[test]
fn incompressible_grains_take_more_than_a_grain() {
    for grain_sectors in [8, 128, 2048] {
        let len = grain_sectors as usize * 512;
        let mut builder = Builder { grain_sectors, ..Builder::stream(grain_sectors * 4) };
        for index in 0..4 {
            builder.grains.insert(index, Grain::Data(content(index * 3 + 1, len), 0));
        }
        for order in [[0, 1, 2, 3], [3, 2, 1, 0]] {
            builder.order = order.to_vec();
            let built = builder.build();
            assert!(built.grains[&order[1]] - built.grains[&order[0]] > len);
            assert_reads_back(&builder);
        }
    }
}

#[test]
fn unclean_shutdown_is_a_warning() {
    let built = Builder::sparse(1024).grain(3, content(1, GRAIN)).build();
    assert_eq!(open(&built.bytes).unwrap().image.warnings(), []);
    assert_eq!(open(&built.with(72, &[1])).unwrap().image.warnings(), [Warning::UncleanShutdown]);
}

/// What lies behind the end of the disk in the last table is nobody's.
#[test]
fn entries_past_the_capacity_are_ignored() {
    let builder = populated(Builder::sparse(ODD_CAPACITY));
    let built = builder.build();
    let disk = open(&built.with(built.entry(701), &[0xff; 8])).unwrap();
    assert!(disk.guest().unwrap() == builder.guest());
}

/// 64 TiB with one grain: what is read is the directory and one table.
#[test]
fn time_goes_by_data() {
    let capacity = 64 << 31;
    let builder = Builder::sparse(capacity).grain(1 << 29, content(1, GRAIN));
    let file = builder.build().bytes;
    let disk = open(&file).unwrap();
    assert_eq!(disk.image.map().iter().count(), 3);
    assert!(disk.image.map().memory() < 4096);
    // The probe, header and descriptor, 4 MiB of directory in two steps, a table.
    assert!(disk.reads <= 6 && disk.largest_step <= 4 << 20, "{} {}", disk.reads, disk.largest_step);
    let layout = ObjectMap::raw(disk.image.virtual_size());
    let grain = disk.part(&layout, Span::new((1 << 29) * GRAIN as u64, GRAIN as u64)).unwrap();
    assert!(grain == content(1, GRAIN));
}

/// Many tables are asked for in steps, neighbours in one run.
#[test]
fn tables_are_read_in_large_runs() {
    let tables = 5000;
    let mut builder = Builder { grain_sectors: 8, ..Builder::sparse(tables * 512 * 8) };
    for table in 0..tables {
        builder = builder.grain(table * 512 + table % 512, content(table, 4096));
    }
    let file = builder.build().bytes;
    let disk = open(&file).unwrap();
    assert!(disk.reads < 10 && disk.largest_step <= 4 << 20, "{} {}", disk.reads, disk.largest_step);
    let layout = ObjectMap::raw(disk.image.virtual_size());
    assert_eq!(disk.image.map().stats().data, tables * 4096);
    for table in (0..tables).step_by(97) {
        let start = (table * 512 + table % 512) * 4096;
        assert!(disk.part(&layout, Span::new(start, 4096)).unwrap() == content(table, 4096));
    }
}
