//! Pictures of small disks, whole: snapshots.

use disk_image::{Encoding, ExtentMapBuilder, Stored as At};
use guest_info::{FileSystem, Kind, Partition};

use super::*;

const MIB: u64 = 1 << 20;

/// 16 MiB: data, compressed, zero and nothing, and crumbs of data in the last quarter.
fn map() -> ExtentMap {
    let mut map = ExtentMapBuilder::new();
    let encoded =
        || State::Encoded { stored: At::image(MIB, 500), encoding: Encoding::Zstd, unit_len: 65536, skip: 0 };
    map.push(MIB, State::Data(At::image(8 * MIB, MIB)));
    map.push(3 * MIB, State::Hole);
    for _ in 0..32 {
        map.push(65536, encoded());
    }
    map.push(3 * MIB, State::Zero);
    map.push(3 * MIB, State::Data(At::image(16 * MIB, 3 * MIB)));
    for at in 0..32 {
        map.push(4096, State::Data(At::image(20 * MIB + at * 4096, 4096)));
        map.push(65536 - 4096, State::Hole);
    }
    map.finish(16 * MIB)
}

fn partition(number: u32, start: u64, size: u64, label: &str) -> Partition {
    let label = Some(label.to_owned());
    Partition {
        number,
        start,
        size,
        type_id: "0x83".to_owned(),
        type_name: Some("Linux"),
        name: None,
        active: number == 1,
        file_system: Some(FileSystem { kind: Kind::Ext4, label, uuid: None }),
        volumes: Vec::new(),
    }
}

fn drawn(picture: &Picture, in_colour: bool) -> String {
    let mut out = Vec::new();
    picture.write_text(&mut out, in_colour).unwrap();
    String::from_utf8(out).unwrap()
}

/// Two partitions side by side, a third one inside of the second, and one that goes on past the end.
fn partitioned() -> Vec<Partition> {
    vec![
        partition(1, MIB, 5 * MIB, "root"),
        partition(2, 6 * MIB, 6 * MIB, "outer"),
        partition(5, 7 * MIB, 2 * MIB, "<in & \"ner\">"),
        partition(6, 14 * MIB, 90 * MIB, "beyond"),
    ]
}

fn picture(columns: usize) -> Picture {
    let title = "disk.qcow2: qcow2, 16 MiB".to_owned();
    Picture::new(title, &map(), &partitioned(), columns)
}

#[test]
fn in_80_columns_without_colour() {
    insta::assert_snapshot!(drawn(&picture(80), false));
}

#[test]
fn in_200_columns_without_colour() {
    insta::assert_snapshot!(drawn(&picture(200), false));
}

#[test]
fn without_partitions_the_disk_is_one() {
    let picture = Picture::new("disk.raw: raw, 16 MiB".to_owned(), &map(), &[], 64);
    insta::assert_snapshot!(drawn(&picture, false));
}

#[test]
fn colours_change_no_letter() {
    let text = drawn(&picture(40), true);
    assert!(text.contains("\u{1b}[36m####"), "{text:?}");
    let mut plain = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain += before;
        rest = after.split_once('m').unwrap().1;
    }
    assert_eq!(plain + rest, drawn(&picture(40), false));
}

#[test]
fn as_svg() {
    let mut out = Vec::new();
    picture(svg::COLUMNS).write_svg(&mut out).unwrap();
    insta::assert_snapshot!(String::from_utf8(out).unwrap());
}

#[test]
fn what_xml_cannot_have_is_left_out() {
    let title = "a\u{1b}[31m<b>".to_owned();
    let mut out = Vec::new();
    Picture::new(title, &map(), &[], 8).write_svg(&mut out).unwrap();
    let svg = String::from_utf8(out).unwrap();
    assert!(svg.contains("<title>a\u{fffd}[31m&lt;b&gt;</title>") && !svg.contains('\u{1b}'), "{svg}");
}

#[test]
fn cells_are_gapless_and_every_byte_is_counted_once() {
    for columns in [1, 7, 80, 1000] {
        let picture = picture(columns);
        let mut at = 0;
        for ((_, span), region) in regions(16 * MIB, &partitioned()).iter().zip(&picture.regions) {
            assert_eq!(span.start, at);
            at = span.end();
            assert_eq!(region.cells.len() as u64, span.len.div_ceil(picture.cell));
        }
        let Stored { data, compressed, zero, absent } = picture.stored();
        assert_eq!((at, data + compressed + zero + absent), (16 * MIB, 16 * MIB));
        assert_eq!((data, compressed), (4 * MIB + 32 * 4096, 2 * MIB));
        let lines: usize = picture.regions.iter().map(|region| region.cells.len().div_ceil(columns)).sum();
        assert!(lines as u64 <= LINES + picture.regions.len() as u64, "{columns}: {lines}");
    }
}
