//! Tests of the QCOW2 layout: its files are read back by our own reader.

use super::*;
use crate::qcow2::tests::drive;
use crate::span::Window;
use crate::{ExtentMapBuilder, FileId, Layer, ObjectMap, State, Stored, qcow2};

/// The map of a disk of `len` bytes with these runs stored.
fn sparse(len: u64, stored: &[Span]) -> ExtentMap {
    let mut map = ExtentMapBuilder::new();
    for run in stored {
        map.push(run.start - map.guest_len(), State::Hole);
        map.push(run.len, State::Data(Stored::image(run.start, run.len)));
    }
    map.finish(len)
}

#[test]
fn what_is_laid_out_is_read_back() {
    let stored = [Span::new(700, 10), Span::new(1 << 20, 3 << 20), Span::new((9 << 20) - 512, 512)];
    let map = sparse(9 << 20, &stored);
    for cluster_size in [512, 4096, 65536, 2 << 20] {
        let layout = ObjectMap::qcow2(Layout::new(&map, &LayoutOptions { cluster_size }).unwrap());
        let image = drive(
            qcow2::open(Window::file(FileId::IMAGE, layout.len()), &Layer::default()).unwrap(),
            |want| {
                let mut bytes = vec![0; want.len as usize];
                for Segment { object, fill } in layout.segments(want) {
                    let Fill::Literal(literal) = fill else { continue };
                    bytes[(object.start - want.start) as usize..][..literal.len()].copy_from_slice(&literal);
                }
                bytes.into()
            },
        )
        .unwrap();
        assert_eq!(image.virtual_size(), 9 << 20);
        let clusters = |run: &Span| {
            Span::between(
                run.start / cluster_size * cluster_size,
                run.end().next_multiple_of(cluster_size).min(9 << 20),
            )
        };
        for extent in image.map().iter() {
            let wanted = stored.iter().any(|run| !clusters(run).intersect(extent.guest).is_empty());
            assert_eq!(extent.state.is_stored(), wanted, "{cluster_size}: {extent:?}");
            let State::Data(Stored { span, .. }) = extent.state else { continue };
            let filled = layout.segments(span).map(|segment| segment.fill).next().unwrap();
            assert_eq!(filled, Fill::Guest(extent.guest.start));
        }
    }
}

#[test]
fn guest_runs_are_merged_and_empty_tables_are_zero() {
    let map = sparse(64 << 40, &[Span::new(0, 100 << 20), Span::new(63 << 40, 1)]);
    let layout = Layout::new(&map, &LayoutOptions::default()).unwrap();
    assert_eq!(layout.allocated_clusters(), 51);
    let object = ObjectMap::qcow2(layout);
    let segments: Vec<Segment> = object.segments(Span::new(0, object.len())).collect();
    let guest: Vec<_> = segments.iter().filter(|s| matches!(s.fill, Fill::Guest(_))).collect();
    assert_eq!(guest.len(), 2);
    assert_eq!(guest[0].object.len, 100 << 20);
    let literal: u64 =
        segments.iter().filter(|s| matches!(s.fill, Fill::Literal(_))).map(|s| s.object.len).sum();
    assert!(literal < 4096, "{literal} bytes of tables");
    assert!(segments.len() < 20, "{}", segments.len());
}

#[test]
fn layouts_that_cannot_be() {
    let map = sparse(1 << 40, &[]);
    let layout = |cluster_size| Layout::new(&map, &LayoutOptions { cluster_size }).map(|l| l.len());
    for cluster_size in [0, 1, 256, 513, 3 << 10, 4 << 20, 1 << 63] {
        assert_eq!(layout(cluster_size), Err(LayoutError::ClusterSize(cluster_size)));
    }
    let error = LayoutError::TooLarge { virtual_size: 1 << 40, cluster_size: 512 };
    assert_eq!(layout(512), Err(error));
    assert!(layout(4096).is_ok());
}
