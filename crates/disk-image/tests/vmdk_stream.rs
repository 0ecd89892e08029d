//! Ends of streams, and damaged directories: what is found another way, with a warning, and what is refused.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

#[path = "support/driver.rs"]
mod driver;
#[path = "support/qemu.rs"]
mod qemu;
#[path = "support/vmdk.rs"]
mod vmdk;

use bytes::Bytes;
use disk_image::vmdk::Directory;
use disk_image::{Item, OpenError, OpenOptions, Span, Warning};
use driver::Disk;
use vmdk::{Builder, Built, GRAIN, ODD_CAPACITY, OVERHEAD, content, populated};

const MIB: usize = 1 << 20;

fn open(file: &[u8]) -> Result<Disk, OpenError> {
    Disk::parse(Bytes::copy_from_slice(file), &OpenOptions::default())
}

fn refusal(file: &[u8]) -> OpenError {
    open(file).map(|disk| disk.image).unwrap_err()
}

fn directory(disk: &Disk) -> Directory {
    match disk.image.details() {
        disk_image::Details::Vmdk(details) => details.sparse.unwrap().directory,
        other => panic!("{other:?}"),
    }
}

/// A stream that leads to its directory by a marker only, and reads as the builder says.
fn assert_found(file: &[u8], builder: &Builder) -> Disk {
    let disk = open(file).unwrap();
    assert_eq!(disk.image.warnings(), [Warning::NoFooter]);
    assert_eq!(directory(&disk), Directory::Marker);
    assert!(disk.guest().unwrap() == builder.guest());
    disk
}

fn assert_missing(file: &[u8], name: &str) {
    let found = refusal(file);
    assert!(matches!(found, OpenError::Missing { what: Item::The(what), .. } if what == name), "{found:?}");
    assert!(found.hint().is_some());
}

const END: &str = "end-of-stream marker of the VMDK";
const DIRECTORY: &str = "grain directory of the VMDK stream";

/// The end of a built stream: footer marker, footer, end of stream.
fn without_footer(built: &Built) -> Vec<u8> {
    let len = built.bytes.len();
    [&built.bytes[..len - 1536], &[0; 512]].concat()
}

#[test]
fn a_stream_without_a_footer_is_followed_to_its_directory() {
    let builder = populated(Builder::stream(ODD_CAPACITY));
    let built = builder.build();
    assert_eq!(open(&built.bytes).unwrap().image.warnings(), []);
    let file = without_footer(&built);
    let disk = assert_found(&file, &builder);
    // Each byte behind the first marker is read once, and what the file is opened for without a scan comes on top.
    let most = file.len() as u64 + (68 << 10) + MIB as u64 + (64 << 10);
    assert!(disk.asked <= most, "{} of {}", disk.asked, file.len());
    assert!(disk.largest_step <= 4 << 20);
}

#[test]
fn what_is_appended_does_not_hide_the_footer() {
    let builder = populated(Builder::stream(ODD_CAPACITY));
    let built = builder.build();
    for appended in [vec![1], vec![0xff; 700], vec![7; MIB - 512], vec![0; 3 * MIB + 1]] {
        assert_found(&[built.bytes.as_slice(), &appended].concat(), &builder);
    }
    // Where nothing in the last MiB can be an end of stream, the file is not read through.
    assert_missing(&[built.bytes.as_slice(), &vec![7; MIB]].concat(), END);
}

/// Writers that wait for data send markers that say so.
#[test]
fn progress_markers_are_passed_over() {
    let builder = populated(Builder::stream(ODD_CAPACITY));
    let mut file = without_footer(&builder.build());
    let markers = OVERHEAD as usize - 4 * 512;
    for at in (markers..OVERHEAD as usize).step_by(512) {
        file[at + 12] = 4;
        file[at + 16] = 77;
    }
    file[64] = (markers / 512) as u8;
    assert_found(&file, &builder);
    // Without them there is no stream: what looks like its end comes first.
    file[markers..markers + 512].fill(0);
    assert_missing(&file, DIRECTORY);
}

/// Steps end inside of grains, at markers, and between a marker and its footer.
#[test]
fn streams_longer_than_a_step_are_followed() {
    for last in [7, 63, 64, 65, 66, 127, 128, 129] {
        let mut builder = Builder { grain_sectors: 128, ..Builder::stream(200 * 128) };
        for index in 0..last {
            // Stored blocks: each grain takes its length, 11 bytes of zlib, the marker.
            builder.grains.insert(index, vmdk::Grain::Data(content(index * 3 + 1, GRAIN), 0));
        }
        let built = builder.build();
        assert_found(&without_footer(&built), &builder);
        assert_found(&[built.bytes.as_slice(), b"more"].concat(), &builder);
    }
}

#[test]
fn a_stream_that_is_not_whole_is_refused() {
    let builder = populated(Builder::stream(ODD_CAPACITY));
    let built = builder.build();
    let len = built.bytes.len();
    let file = without_footer(&built);
    // The end of the stream is cut off, or part of it.
    assert_missing(&file[..file.len() - 512], END);
    assert_missing(&file[..file.len() - 1], END);
    assert_missing(&built.bytes[..len - 512], END);
    assert_missing(&built.bytes[..len - 1], END);
    // A download that was cut at any sector, and was given its full length beforehand. Only from the end of the directory on is
    // nothing lost.
    let whole = built.directory + 512;
    for cut in (OVERHEAD as usize..len).step_by(512) {
        let mut file = built.bytes[..cut].to_vec();
        file.resize(len, 0);
        match open(&file) {
            Ok(disk) => {
                assert!(cut >= whole, "cut at {cut:#x}");
                assert!(disk.guest().unwrap() == builder.guest());
            }
            Err(error) => assert!(cut < whole || cut == len - 1024, "cut at {cut:#x}: {error}"),
        }
    }
    // A directory that lost a grain.
    let lost = [&built.with(built.entry(5), &[0; 4])[..len - 1536], &[0; 512]].concat();
    let found = refusal(&lost);
    let what = Item::The("number of grains that the directory of the VMDK stream leads to");
    let expected = "that of the grains in the stream";
    assert_eq!(found, OpenError::Field { what, found: 7, expected });
    // All of its grains and no directory.
    let last = *built.grains.values().max().unwrap();
    let mut grains = built.bytes[..last].to_vec();
    grains.resize(grains.len() + 512, 0);
    assert_missing(&grains, DIRECTORY);
}

#[test]
fn every_marker_is_checked() {
    let built = populated(Builder::stream(ODD_CAPACITY)).build();
    let mut built = Built { bytes: without_footer(&built), ..built };
    let len = built.bytes.len() as u64;
    let second = built.grains[&1];
    let field = |number, found, expected| OpenError::Field {
        what: Item::Numbered("VMDK stream marker", number),
        found,
        expected,
    };
    let grain = "the sector of a grain";
    assert_eq!(refusal(&built.with(second, &[1])), field(1, 1, grain));
    assert_eq!(refusal(&built.with(second + 5, &[1])), field(1, (1 << 40) + 128, grain));
    let long = refusal(&built.with(second + 8, &[1, 0, 2, 0]));
    assert_eq!(long, field(1, (128 << 10) + 1, "a stream of no more than two grains"));
    // Eight grains, two tables, the directory, the end.
    let marker = built.directory - 512;
    let kinds = "the marker of a grain, table, directory, footer or end of stream";
    assert_eq!(refusal(&built.with(marker + 12, &[5])), field(10, 5, kinds));
    assert_eq!(refusal(&built.with(marker + 12, &[0])), field(10, 0, kinds));
    let only = "the only grain directory of the stream";
    let table = built.tables[&1] - 512;
    assert_eq!(refusal(&built.with(table + 12, &[2])), field(10, 1, only));
    let what = Item::Numbered("VMDK stream marker", 10);
    let span = Span::new(marker as u64, 512 + (255 << 9));
    assert_eq!(refusal(&built.with(marker, &[255])), OpenError::Truncated { what, span, file_len: len });
    let wrapped = refusal(&built.with(marker, &[255; 8]));
    assert!(matches!(wrapped, OpenError::Truncated { .. }), "{wrapped:?}");

    // A grain behind the directory: then the directory was not the last thing written.
    let first = built.bytes[built.grains[&0]..second].to_vec();
    let end = built.bytes.len() - 512;
    built.bytes.splice(end..end, first);
    assert_eq!(refusal(&built.bytes), field(11, 0, "no grain behind the grain directory"));
}

#[test]
fn a_footer_inside_the_stream_is_checked() {
    let built = populated(Builder::stream(ODD_CAPACITY)).build();
    let len = built.bytes.len();
    let built = Built { bytes: [built.bytes.as_slice(), b"more"].concat(), ..built };
    let footer = len - 1024;
    assert!(matches!(refusal(&built.with(footer, b"J")), OpenError::Signature { .. }));
    let found = refusal(&built.with(footer + 12, &[0xfe]));
    assert!(
        matches!(found, OpenError::Field { what: Item::The("capacity of the VMDK footer"), .. }),
        "{found:?}"
    );
    let sector = built.tables[&0] as u64 / 512;
    let expected = OpenError::Field {
        what: Item::The("gdOffset of the VMDK footer"),
        found: sector,
        expected: "the sector behind the marker of the grain directory",
    };
    assert_eq!(refusal(&built.with(footer + 56, &sector.to_le_bytes())), expected);
}

/// A built sparse file with a second directory and second tables.
fn with_redundant(built: &Built) -> (Vec<u8>, usize) {
    let mut file = built.bytes.clone();
    file.resize(file.len().next_multiple_of(512), 0);
    let start = file.len();
    file.resize(start + 512, 0);
    for (index, table) in &built.tables {
        let copy = file.len();
        file.extend_from_within(*table..*table + 2048);
        let entry = start + *index as usize * 4;
        file[entry..entry + 4].copy_from_slice(&(copy as u32 / 512).to_le_bytes());
    }
    file[8] |= 2;
    file[48..56].copy_from_slice(&(start as u64 / 512).to_le_bytes());
    (file, start)
}

#[test]
fn a_damaged_directory_has_a_copy() {
    let builder = populated(Builder::sparse(ODD_CAPACITY));
    let built = builder.build();
    let (good, redundant) = with_redundant(&built);
    let with = |file: &[u8], at: usize, bytes: &[u8]| {
        let mut file = file.to_vec();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    assert_eq!(open(&good).unwrap().image.warnings(), []);
    let far = [0xff, 0xff, 0xff, 0x7f];
    for at in [56, built.directory + 4, built.entry(0), built.entry(600)] {
        let damaged = with(&good, at, &far);
        let disk = open(&damaged).unwrap();
        assert_eq!(disk.image.warnings(), [Warning::RedundantDirectory], "{at:#x}");
        assert_eq!(directory(&disk), Directory::Redundant);
        assert!(disk.guest().unwrap() == builder.guest());
        // It is used only where the header says that there is one.
        assert!(open(&with(&damaged, 8, &[1])).is_err());
        // Both damaged: what is wrong with the first one is told.
        let both = with(&damaged, redundant, &far);
        assert_eq!(refusal(&both), refusal(&with(&damaged, 8, &[1])), "{at:#x}");
        let nowhere = with(&damaged, 48, &far);
        assert_eq!(refusal(&nowhere), refusal(&with(&damaged, 8, &[1])), "{at:#x}");
    }
    // A damaged copy hurts nobody.
    assert_eq!(open(&with(&good, redundant, &far)).unwrap().image.warnings(), []);
    // A copy does not bring back what was cut off.
    let cut = &good[..good.len() - 1];
    assert!(open(cut).is_ok());
    assert!(open(&with(cut, built.entry(0), &far)).is_err());
}

/// The copy serves streams, too.
#[test]
fn a_damaged_directory_of_a_stream_has_a_copy() {
    let builder = Builder { footer: false, ..populated(Builder::stream(ODD_CAPACITY)) };
    let built = builder.build();
    let (mut file, _) = with_redundant(&built);
    let at = built.entry(2);
    file[at..at + 4].fill(0x7f);
    let disk = open(&file).unwrap();
    assert_eq!(disk.image.warnings(), [Warning::RedundantDirectory]);
    assert!(disk.guest().unwrap() == builder.guest());
}
