//! Tests of the packed layout: its tables are read back by our own reader.

use super::*;
use crate::qcow2;
use crate::qcow2::tests::drive;
use crate::span::Window;
use crate::{ExtentMapBuilder, FileId, Image, Layer, State, Stored};

fn map(len: u64, stored: &[Span]) -> ExtentMap {
    let mut map = ExtentMapBuilder::new();
    for run in stored {
        map.push(run.start - map.guest_len(), State::Hole);
        map.push(run.len, State::Data(Stored::image(run.start, run.len)));
    }
    map.finish(len)
}

/// The literals of a sealed layout, from any offset on.
fn bytes(layout: &Packed, want: Span) -> Bytes {
    let mut bytes = vec![0; want.len as usize];
    let mut at = want.start;
    while let Some((start, literal)) = layout.literal_from(at).filter(|(start, _)| *start < want.end()) {
        let len = literal.len().min((want.end() - start) as usize);
        bytes[(start - want.start) as usize..][..len].copy_from_slice(&literal[..len]);
        at = start + literal.len() as u64;
    }
    bytes.into()
}

fn read_back(layout: &Packed, len: u64) -> Image {
    let opened = qcow2::open(Window::file(FileId::IMAGE, len), &Layer::default()).unwrap();
    drive(opened, |want| bytes(layout, want)).unwrap()
}

#[test]
fn what_is_placed_is_found_again() {
    let len = (9 << 20) + 512;
    let stored = [Span::new(700, 10), Span::new(1 << 20, 3 << 20), Span::new(len - 512, 512)];
    for cluster_size in [512, 4096, 65536, 2 << 20] {
        for codec in [Codec::Deflate, Codec::Zstd] {
            let options = PackedOptions { cluster_size, codec };
            let mut layout = Packed::new(&map(len, &stored), &options).unwrap();
            let mut placed = Vec::new();
            for guest in (0..len).step_by(cluster_size as usize) {
                let unit = Span::new(guest, cluster_size);
                if stored.iter().all(|run| run.intersect(unit).is_empty()) {
                    continue;
                }
                // Some stay as they are, some are zero.
                let frame = match guest / cluster_size % 5 {
                    1 => Frame::Plain,
                    4 => continue,
                    n => Frame::Encoded(1 + n * 37 * cluster_size / 200),
                };
                placed.push((guest, frame, layout.place(guest, frame, &[]).offset));
            }
            assert!(layout.unsettled().end > layout.head_len());
            let object = layout.seal();
            assert!(object <= layout.max_len() && object.is_multiple_of(cluster_size));
            let image = read_back(&layout, object);
            assert_eq!(image.virtual_size(), len);
            let mut left = placed.len();
            for extent in image.map().iter().filter(|extent| extent.state.is_stored()) {
                let mut guest = extent.guest.start;
                while guest < extent.guest.end() {
                    let (_, frame, offset) = placed.iter().find(|(start, ..)| *start == guest).unwrap();
                    match (extent.state, frame) {
                        (State::Data(stored), Frame::Plain) => {
                            assert_eq!(stored.span.start + (guest - extent.guest.start), *offset);
                        }
                        (State::Encoded { stored, .. }, Frame::Encoded(len)) => {
                            // Lengths are counted in sectors; the shortest are given room.
                            let room = (*len).max(cluster_size / 1024);
                            let end = (offset + room).next_multiple_of(SECTOR);
                            assert_eq!(stored.span, Span::between(*offset, end), "{guest:#x}");
                        }
                        state => panic!("{guest:#x}: {state:?}"),
                    }
                    left -= 1;
                    guest += cluster_size;
                }
            }
            assert_eq!(left, 0);
        }
    }
}

/// A literal may be asked for from its middle on.
#[test]
fn tables_are_the_same_from_any_offset() {
    let mut layout = Packed::new(
        &map(64 << 20, &[Span::new(0, 20 << 20), Span::new(40 << 20, 1 << 20)]),
        &PackedOptions { cluster_size: 4096, codec: Codec::Zstd },
    )
    .unwrap();
    for i in (0..5000).chain(10_240..10_400) {
        layout.place(i * 4096, Frame::Encoded(1 + i % 4095), &[]);
    }
    let len = layout.seal();
    let whole = bytes(&layout, Span::new(0, len));
    for start in (0..len).step_by(1009) {
        let part = Span::new(start, 3000.min(len - start));
        assert!(bytes(&layout, part) == whole[start as usize..part.end() as usize], "{start}");
    }
}

#[test]
fn an_empty_disk_is_a_header_and_empty_tables() {
    for len in [512, 64 << 40] {
        let options = PackedOptions { cluster_size: DEFAULT_PACKED_CLUSTER_SIZE, codec: Codec::Deflate };
        let mut layout = Packed::new(&map(len, &[]), &options).unwrap();
        let object = layout.seal();
        assert_eq!(object, layout.max_len());
        assert_eq!(read_back(&layout, object).map().stats().encoded, 0);
    }
}

/// Constant bytes shrink to nothing under Zstandard: our own reader must not take the file for a bomb.
#[test]
fn what_shrinks_to_nothing_is_given_room() {
    let len = 64 << 30;
    let options = PackedOptions { cluster_size: 2 << 20, codec: Codec::Zstd };
    let mut layout = Packed::new(&map(len, &[Span::new(0, len)]), &options).unwrap();
    for guest in (0..len).step_by(2 << 20) {
        layout.place(guest, Frame::Encoded(80), &[]);
    }
    let object = layout.seal();
    assert!(object < 100 << 20);
    assert_eq!(read_back(&layout, object).map().stats().encoded, len);
}

#[test]
fn layouts_that_cannot_be() {
    let layout = |map: &ExtentMap, cluster_size| {
        Packed::new(map, &PackedOptions { cluster_size, codec: Codec::Deflate })
            .map(|layout| layout.max_len())
    };
    let full = map(8 << 40, &[Span::new(0, 8 << 40)]);
    assert_eq!(layout(&full, 3 << 10), Err(LayoutError::ClusterSize(3 << 10)));
    assert_eq!(layout(&full, 64 << 10), Err(LayoutError::TooMuchData(64 << 10)));
    assert!(layout(&full, 128 << 10).unwrap() > 8 << 40);
    let too_large = LayoutError::TooLarge { virtual_size: 1 << 40, cluster_size: 512 };
    assert_eq!(layout(&map(1 << 40, &[]), 512), Err(too_large));
}
