//! Archives without content: what was placed is found again by our own reader, at every edge.

#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

use super::*;
use crate::archive::tar::Header;
use crate::testing::Files;
use crate::{
    Compression, Decoder, Encoded, Encoding, ExtentMapBuilder, Feature, Image, Item, OpenError, State, Stored,
};

const MIB: u64 = 1 << 20;

fn map(len: u64, stored: &[Span]) -> ExtentMap {
    let mut map = ExtentMapBuilder::new();
    for run in stored {
        map.push(run.start - map.guest_len(), State::Hole);
        map.push(run.len, State::Data(Stored::image(run.start, run.len)));
    }
    map.finish(len)
}

/// What the unit at this offset holds.
fn unit(guest: u64, len: u64) -> Vec<u8> {
    guest.to_le_bytes().repeat(small(len) / 8)
}

/// The archive of a disk whose stored units hold their offsets.
fn file(map: &ExtentMap) -> Vec<u8> {
    let mut encoder = Encoder::new(Codec::Gzip);
    file_of(map, |guest, len| member(&mut encoder, &unit(guest, len)))
}

/// The archive of a disk whose stored units all hold the same, which is quick.
fn uniform_file(map: &ExtentMap) -> Vec<u8> {
    let frame = member(&mut Encoder::new(Codec::Gzip), &unit(0, UNIT));
    file_of(map, |_, _| frame.clone())
}

fn file_of(map: &ExtentMap, mut frame: impl FnMut(u64, u64) -> Vec<u8>) -> Vec<u8> {
    let mut layout = Archive::new(map).unwrap();
    let most = layout.max_len();
    let unit_len = layout.unit_len();
    let mut file: Vec<u8> = Vec::new();
    for run in stored_runs(map, unit_len).unwrap() {
        for guest in (run.start..run.end()).step_by(small(unit_len)) {
            let frame = frame(guest, unit_len);
            let placed = layout.place(guest, Frame::Encoded(frame.len() as u64), &frame);
            file.extend(&placed.lead);
            assert_eq!(placed.offset, file.len() as u64, "nothing is left open");
            file.extend(&frame);
            let end = file.len() as u64;
            assert_eq!(layout.unsettled(), Unsettled { gap: Span::new(end, 0), end });
        }
    }
    let len = layout.seal();
    let (at, rest) = layout.literal_from(0).unwrap();
    assert_eq!(at, file.len() as u64);
    file.extend(&rest);
    assert_eq!(len, file.len() as u64);
    assert!(len <= most);
    for at in (at..len).step_by(7) {
        assert_eq!(layout.literal_from(at), Some((at, file[small(at)..].to_vec().into())));
    }
    assert_eq!(layout.literal_from(len), None);
    file
}

fn open(file: &[u8]) -> Image {
    let image = Files::one(file.to_vec()).open().unwrap();
    assert!(image.warnings().is_empty(), "{:?}", image.warnings());
    assert_eq!(image.member(), Some("disk.raw"));
    image
}

fn stored(image: &Image) -> Vec<Span> {
    let mut runs: Vec<Span> = Vec::new();
    for extent in image.map().iter().filter(|extent| extent.state.is_stored()) {
        match runs.last_mut() {
            Some(last) if last.end() == extent.guest.start => last.len += extent.guest.len,
            _ => runs.push(extent.guest),
        }
    }
    runs
}

/// All units decode to what was put there.
fn check(file: &[u8], image: &Image) {
    let (files, mut decoder) = (Files::one(file.to_vec()), Decoder::default());
    for extent in image.map().iter() {
        let State::Encoded { stored, encoding, unit_len, skip: 0 } = extent.state else {
            assert_eq!(extent.state, State::Hole);
            continue;
        };
        assert_eq!((encoding, unit_len), (Encoding::Gzip, extent.guest.len));
        let mut out = vec![1; small(unit_len)];
        let encoded = Encoded { stored, encoding, guest: extent.guest, wanted: unit_len };
        decoder.decode(&encoded, &files.stored(stored), &mut out).unwrap();
        assert!(out == unit(extent.guest.start, unit_len), "{extent:?}");
    }
}

/// What gzip makes of it: the tar.
fn tar(mut file: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    while !file.is_empty() {
        // No length says where a member ends: what a plain decoder has to find out.
        let extra = if file[3] == 4 { 2 + usize::from(u16::from_le_bytes([file[10], file[11]])) } else { 0 };
        let stream = &file[10 + extra..];
        let mut out = vec![0; small(4 * MIB)];
        let mut state = Box::<miniz_oxide::inflate::core::DecompressorOxide>::default();
        let flags = miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let (status, used, len) =
            miniz_oxide::inflate::core::decompress(&mut state, stream, &mut out, 0, flags);
        assert_eq!(status, miniz_oxide::inflate::TINFLStatus::Done);
        tar.extend(&out[..len]);
        file = &stream[used + 8..];
    }
    tar
}

#[test]
fn what_is_placed_is_found_again() {
    let gib = 1 << 30;
    for (len, runs) in [
        (512, vec![]),
        (512, vec![Span::new(0, 512)]),
        (gib, vec![Span::new(gib - 512, 512)]),
        (gib + 512, vec![Span::new(0, 512), Span::new(gib, 512)]),
        (3 * gib, (0..40).map(|i| Span::new(i * 3 * MIB, MIB + 512)).collect()),
        (20 * gib, vec![Span::new(7, 1), Span::new(8 * gib - 5, 10), Span::new(19 * gib, MIB)]),
        (2 << 40, vec![Span::new(0, UNIT), Span::new((2 << 40) - UNIT, UNIT)]),
        (64 << 40, vec![Span::new(63 << 40, 70 * MIB)]),
    ] {
        let map = map(len, &runs);
        let file = file(&map);
        let image = open(&file);
        assert_eq!(image.virtual_size(), len.next_multiple_of(GIB));
        assert_eq!(stored(&image), stored_runs(&map, UNIT).unwrap(), "{len}");
        check(&file, &image);
        let tar = tar(&file);
        assert!((tar.len() as u64).is_multiple_of(RECORD) && tar[tar.len() - 1024..] == [0; 1024]);
        // The sizes of the header: octal where that does.
        let header = Header::parse(&tar[..512], Item::The("header")).unwrap();
        assert_eq!((header.name.as_str(), header.kind), ("disk.raw", b'S'));
        assert_eq!(header.size, image.map().stats().encoded);
        assert_eq!(tar[483] == 0x80, image.virtual_size() >= 8 * gib, "{len}");
    }
}

/// More members than one member of the index has lengths.
#[test]
fn an_index_of_several_members() {
    for units in [index::MOST - 3, index::MOST - 2, index::MOST - 1, 2 * index::MOST + 5] {
        let len = units as u64 * UNIT;
        let all = map(len, &[Span::new(0, len)]);
        let image = open(&uniform_file(&all));
        assert_eq!(stored(&image), [Span::new(0, len)]);
        assert_eq!(image.map().stats().runs, units as u64 + u64::from(!len.is_multiple_of(GIB)));
    }
}

/// More pieces than the map of a tar may have.
#[test]
fn units_grow_where_there_are_too_many_pieces() {
    let pieces = |count: u64| {
        let runs: Vec<Span> = (0..count).map(|i| Span::new(i * 2 * UNIT, 512)).collect();
        Archive::new(&map(count * 2 * UNIT, &runs)).unwrap()
    };
    let most = MAX_ARCHIVE_RUNS as u64;
    assert_eq!(pieces(most).unit_len(), UNIT);
    let mut coarse = pieces(most + 1);
    assert_eq!(coarse.unit_len(), 2 * UNIT);
    // They all meet now.
    coarse.place(0, Frame::Encoded(500), &[]);
    assert!(coarse.end < 2000, "{}", coarse.end);
    // The worst that a disk can be.
    assert_eq!(crate::limits::MAX_GCE_UNIT * 2 * most, MAX_VIRTUAL_SIZE);
}

#[test]
fn a_long_map_takes_several_members() {
    let runs: Vec<Span> = (0..50_000).map(|i| Span::new(i * 2 * UNIT, UNIT)).collect();
    let map = map(50_000 * 2 * UNIT, &runs);
    let image = open(&uniform_file(&map));
    assert_eq!(stored(&image), runs);
}

#[test]
fn the_longest_that_it_can_be() {
    for len in [33 * MIB, index::MOST as u64 * UNIT] {
        let mut layout = Archive::new(&map(len, &[Span::new(0, len)])).unwrap();
        for guest in (0..len).step_by(small(UNIT)) {
            layout.place(guest, Frame::Encoded(layout.max_frame_len()), &[]);
        }
        assert_eq!(layout.seal(), layout.max_len());
    }
    let mut empty = Archive::new(&map(64 << 40, &[])).unwrap();
    assert_eq!(empty.seal(), empty.max_len());
    assert!(empty.max_len() < 300, "{}", empty.max_len());
}

#[test]
fn disks_that_cannot_be() {
    assert_eq!(Archive::new(&map(0, &[])).unwrap_err(), ArchiveError::Empty);
    let over = MAX_VIRTUAL_SIZE + 1;
    assert_eq!(Archive::new(&map(over, &[])).unwrap_err(), ArchiveError::VirtualSize(over));
}

/// Every byte that is cut off, and every one that is another, is seen or changes nothing.
#[test]
fn damage_is_seen() {
    let map = map(GIB, &[Span::new(0, 512), Span::new(5 * MIB, 512)]);
    let file = file(&map);
    let good = stored(&open(&file));
    for len in 0..file.len() {
        let error = Files::one(file[..len].to_vec()).open().unwrap_err();
        let expected = match len {
            0 => OpenError::Empty,
            1 => OpenError::UnknownFormat,
            _ => OpenError::Unsupported(Feature::Compressed(Compression::Gzip)),
        };
        assert_eq!(error, expected, "{len}");
    }
    let mut refused = 0;
    for at in 0..file.len() {
        let mut file = file.clone();
        file[at] ^= 0x10;
        match Files::one(file).open() {
            Ok(image) => assert_eq!(stored(&image), good, "{at}"),
            Err(_) => refused += 1,
        }
    }
    // What is left is in the two units, whose checksums are theirs.
    assert!(refused > 150, "{refused} of {}", file.len());
}

/// An archive of these members, whatever they are.
fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    let mut index = index::Writer::default();
    members.iter().for_each(|member| index.push(member.len() as u64));
    [members.concat(), index.end()].concat()
}

/// The end of a tar.
fn tail() -> Vec<u8> {
    member(&mut Encoder::new(Codec::Gzip), &vec![0; small(2 * BLOCK)])
}

/// Whoever reads a unit holds what is stored of it: the index cannot make that as long as it likes.
#[test]
fn a_member_is_no_longer_than_a_unit_needs() {
    let head = header::encode(GIB, &[Span::new(0, UNIT)]);
    let of = |len: u64| {
        let encoder = &mut Encoder::new(Codec::Gzip);
        let mut unit = member(encoder, &unit(0, UNIT));
        unit.resize(small(len), 0);
        Files::one(archive(&[member(encoder, &head), unit, tail()])).open()
    };
    assert_eq!(stored(&of(max_member_len(UNIT)).unwrap()), [Span::new(0, UNIT)]);
    let found = max_member_len(UNIT) + 1;
    let (what, expected) = (Item::Numbered("gzip member", 1), "as long as a unit can be");
    assert_eq!(of(found).unwrap_err(), OpenError::Field { what, found, expected });
}

/// A header that is cut into ever so many members.
#[test]
fn a_header_has_so_many_members() {
    let runs: Vec<Span> = (0..6_000).map(|i| Span::new(i * 2 * UNIT, UNIT)).collect();
    let head = header::encode((12_000 * UNIT).next_multiple_of(GIB), &runs);
    let encoder = &mut Encoder::new(Codec::Gzip);
    let frame = member(encoder, &unit(0, UNIT));
    let mut of = |blocks: usize| {
        let mut members: Vec<_> =
            head.chunks(blocks * small(BLOCK)).map(|blocks| member(encoder, blocks)).collect();
        members.extend(runs.iter().map(|_| frame.clone()));
        members.push(tail());
        Files::one(archive(&members)).open()
    };
    assert_eq!(stored(&of(2).unwrap()), runs);
    let what = Item::The("number of members of the tar header");
    assert_eq!(of(1).unwrap_err(), OpenError::Limit { what, found: 257, limit: 256 });
}

/// Bytes behind the stream, which gzip would look at: in a unit, in the header.
#[test]
fn members_end_with_their_streams() {
    let head = header::encode(GIB, &[Span::new(0, UNIT)]);
    let encoder = &mut Encoder::new(Codec::Gzip);
    let [head, mut unit] = [member(encoder, &head), member(encoder, &unit(0, UNIT))];
    let encoded = |stored: &[u8]| {
        let (guest, wanted) = (Span::new(0, UNIT), UNIT);
        let place = Stored::image(0, stored.len() as u64);
        let encoded = Encoded { stored: place, encoding: Encoding::Gzip, guest, wanted };
        Decoder::default().decode(&encoded, stored, &mut vec![0; small(UNIT)])
    };
    assert_eq!(encoded(&unit), Ok(()));
    Files::one(archive(&[head.clone(), unit.clone(), tail()])).open().unwrap();
    let mut long = head.clone();
    // As long as before, by what it ends with.
    long.extend([[0; 4], *head.last_chunk().unwrap()].concat());
    Files::one(archive(&[long, unit.clone(), tail()])).open().unwrap_err();
    unit.push(0);
    assert_eq!(encoded(&unit), Err(crate::DecodeError::Damaged("gzip")));
}
