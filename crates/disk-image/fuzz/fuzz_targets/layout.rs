//! A QCOW2 layout of any disk is read back as that disk.
#![no_main]

use disk_image::qcow2::{Layout, LayoutOptions};
use disk_image::{
    ExtentMapBuilder, Fill, Format, ObjectMap, Open, OpenOptions, Segment, Span, State, Stored,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, Vec<(u8, u32, u32)>)| {
    let (bits, runs) = input;
    let cluster_size = 512 << (bits % 13);
    let mut map = ExtentMapBuilder::new();
    for (kind, sectors, stored) in runs.into_iter().take(100) {
        let len = u64::from(sectors % 10_000) * 512;
        map.push(
            len,
            match kind % 3 {
                0 => State::Hole,
                1 => State::Zero,
                _ => State::Data(Stored::image(u64::from(stored) * 512, len)),
            },
        );
    }
    let len = map.guest_len().max(512);
    let map = map.finish(len);
    let Ok(layout) = Layout::new(&map, &LayoutOptions { cluster_size }) else { return };
    let layout = ObjectMap::qcow2(layout);

    let options = OpenOptions { format: Some(Format::Qcow2), ..OpenOptions::default() };
    let mut step = disk_image::open(layout.len(), &options).unwrap();
    let image = loop {
        step = match step {
            Open::Ready(image) => break image,
            Open::Need(need) => {
                let answers = need.wants().iter().map(|want| literals(&layout, want.span)).collect();
                need.resume(answers).unwrap()
            }
            Open::Refer(_) => unreachable!("a layout names no file"),
        };
    };
    assert_eq!(image.virtual_size(), len);
    for extent in map.iter().filter(|extent| extent.state.is_stored()) {
        let read: u64 =
            image.map().extents(extent.guest).filter(|e| e.state.is_stored()).map(|e| e.guest.len).sum();
        assert_eq!(read, extent.guest.len, "{extent:?} is lost");
    }
    for extent in image.map().iter() {
        let State::Data(stored) = extent.state else { continue };
        for segment in layout.segments(stored.span) {
            let at = extent.guest.start + (segment.object.start - stored.span.start);
            match segment.fill {
                Fill::Guest(guest) => assert_eq!(guest, at),
                Fill::Zero => {}
                Fill::Literal(_) => panic!("a table as data: {segment:?}"),
            }
        }
    }
});

/// The bytes of a run of the object that are no guest bytes.
fn literals(layout: &ObjectMap, want: Span) -> bytes::Bytes {
    let mut out = vec![0; want.len as usize];
    for Segment { object, fill } in layout.segments(want) {
        if let Fill::Literal(literal) = fill {
            out[(object.start - want.start) as usize..][..literal.len()].copy_from_slice(&literal);
        }
    }
    out.into()
}
