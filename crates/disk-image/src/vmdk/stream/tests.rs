//! Streams without content: what was placed is found again by our own reader, at every edge.

#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

use super::*;
use crate::testing::Files;
use crate::{Details, Encoder, ExtentMapBuilder, Image, State, Stored, Warning};

const MIB: u64 = 1 << 20;

fn map(len: u64, stored: &[Span]) -> ExtentMap {
    let mut map = ExtentMapBuilder::new();
    for run in stored {
        map.push(run.start - map.guest_len(), State::Hole);
        map.push(run.len, State::Data(Stored::image(run.start, run.len)));
    }
    map.finish(len)
}

/// A file in which the grains with these numbers hold their number, and its layout.
fn file(layout: &mut Stream, grains: &[u64]) -> Vec<u8> {
    let mut encoder = Encoder::new(Codec::Zlib);
    let mut file: Vec<u8> = Vec::new();
    let mut write = |at: u64, bytes: &[u8]| {
        file.resize(file.len().max(at as usize + bytes.len()), 0);
        file[at as usize..][..bytes.len()].copy_from_slice(bytes);
    };
    for grain in grains {
        let content: Vec<u8> = grain.to_le_bytes().repeat(GRAIN as usize / 8);
        let mut frame = vec![0; layout.max_frame_len() as usize];
        let len = encoder.encode(&content, &mut frame).unwrap();
        frame.truncate(len);
        let Placed { offset, lead } = layout.place(grain * GRAIN, Frame::Encoded(len as u64), &frame);
        write(offset - lead.len() as u64, &lead);
        write(offset, &frame);
        let Unsettled { gap, end } = layout.unsettled();
        assert!(gap.is_empty() && end.is_multiple_of(SECTOR) && end >= offset + len as u64);
    }
    let len = layout.seal();
    assert!(len <= layout.max_len() && len.is_multiple_of(SECTOR));
    let mut at = 0;
    while let Some((start, literal)) = layout.literal_from(at) {
        assert!(start >= at && !literal.is_empty());
        write(start, &literal);
        at = start + literal.len() as u64;
    }
    file.resize(len as usize, 0);
    file
}

fn open(file: &[u8]) -> Image {
    let image = Files::one(file.to_vec()).open().unwrap();
    assert!(image.warnings().is_empty(), "{:?}", image.warnings());
    let Details::Vmdk(details) = image.details() else { panic!("{:?}", image.details()) };
    assert_eq!(details.create_type, crate::vmdk::CreateType::StreamOptimized);
    let sparse = details.sparse.unwrap();
    assert_eq!((sparse.version, sparse.grain_size, sparse.compressed), (3, GRAIN, true));
    assert_eq!(sparse.directory, crate::vmdk::Directory::Footer);
    image
}

fn cid(file: &[u8]) -> u32 {
    match open(file).details() {
        Details::Vmdk(details) => details.cid.unwrap(),
        other => panic!("{other:?}"),
    }
}

fn stored(image: &Image) -> Vec<u64> {
    let grains = |extent: crate::Extent| extent.guest.start / GRAIN..extent.guest.end().div_ceil(GRAIN);
    image.map().iter().filter(|extent| extent.state.is_stored()).flat_map(grains).collect()
}

/// Grains around the ends of tables and of the disk, and tables without any in between.
#[test]
fn what_is_placed_is_found_again() {
    let per_table = u64::from(TABLE_ENTRIES);
    let len = 200 * MIB + 512;
    let last = len / GRAIN;
    let all = map(len, &[Span::new(0, len)]);
    for grains in [
        vec![],
        vec![0],
        vec![last],
        vec![per_table - 1, per_table],
        vec![3, per_table, 3 * per_table + 1, 4 * per_table - 1, last],
        (0..=last).collect(),
        (5..last).step_by(3).collect(),
    ] {
        let file = file(&mut Stream::new(&all).unwrap(), &grains);
        let image = open(&file);
        assert_eq!(image.virtual_size(), len);
        assert_eq!(stored(&image), grains);
        // The markers alone lead to the same disk: the one before the footer is where the stream ends then.
        let cut = [&file[..file.len() - 3 * SECTOR as usize], &[0; 512]].concat();
        let scanned = Files::one(cut).open().unwrap();
        assert_eq!(scanned.warnings(), [Warning::NoFooter]);
        assert_eq!(stored(&scanned), grains);
    }
}

#[test]
fn the_content_id_is_that_of_the_content() {
    let len = 100 * MIB;
    let all = map(len, &[Span::new(0, len)]);
    let of = |grains: &[u64]| cid(&file(&mut Stream::new(&all).unwrap(), grains));
    assert_eq!(of(&[1, 600]), of(&[1, 600]));
    // What a source says of holes is not the content.
    let some = map(len, &[Span::new(GRAIN, GRAIN), Span::new(600 * GRAIN, 512)]);
    assert_eq!(cid(&file(&mut Stream::new(&some).unwrap(), &[1, 600])), of(&[1, 600]));
    let ids = [of(&[]), of(&[1]), of(&[2]), of(&[1, 600]), of(&[1, 601])];
    for (i, id) in ids.iter().enumerate() {
        assert!(!ids[..i].contains(id) && *id != u32::MAX);
    }
    // Of the same place and length: the checksum at the stream's end is what differs.
    let id = |last: u8| {
        let mut layout = Stream::new(&all).unwrap();
        layout.place(0, Frame::Encoded(9), &[1, 2, 3, 4, 5, 6, 7, 8, last]);
        layout.seal();
        layout.cid
    };
    assert_ne!(id(1), id(2));
}

/// A literal may be asked for from its middle on.
#[test]
fn literals_are_the_same_from_any_offset() {
    let mut layout = Stream::new(&map(3 << 40, &[Span::new(0, 2 * GRAIN)])).unwrap();
    let file = file(&mut layout, &[0, 1]);
    for at in (0..file.len()).step_by(997) {
        let Some((start, literal)) = layout.literal_from(at as u64) else { continue };
        assert!(start >= at as u64);
        assert!(literal == file[start as usize..][..literal.len()], "{at}");
    }
    assert_eq!(layout.literal_from(file.len() as u64 - SECTOR), None);
}

#[test]
fn the_longest_that_it_can_be() {
    // All stored: each grain a sector longer than itself.
    let len = 33 * MIB;
    let mut layout = Stream::new(&map(len, &[Span::new(0, len)])).unwrap();
    for guest in (0..len).step_by(GRAIN as usize) {
        layout.place(guest, Frame::Encoded(layout.max_frame_len()), &[]);
    }
    assert_eq!(layout.seal(), layout.max_len());
    // Header and descriptor; directory, footer, end; and their markers.
    let mut empty = Stream::new(&map(64 << 40, &[])).unwrap();
    assert_eq!(empty.seal(), empty.max_len());
    assert_eq!(empty.max_len(), HEAD_LEN + 4 * 512 + (8 << 20));
}

#[test]
fn disks_that_cannot_be() {
    let layout = |len, stored: &[Span]| Stream::new(&map(len, stored)).map(|layout| layout.max_len());
    assert_eq!(layout(0, &[]), Err(StreamError::Empty));
    assert_eq!(layout((64 << 40) + 1, &[]), Err(StreamError::VirtualSize((64 << 40) + 1)));
    let two_tib = 2 << 40;
    assert!(
        matches!(layout(two_tib, &[Span::new(0, two_tib)]), Err(StreamError::TooMuchData(len)) if len > two_tib)
    );
    assert!(layout(two_tib, &[Span::new(0, two_tib - (64 << 30))]).is_ok());
}
