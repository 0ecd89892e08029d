//! Files too large to exist, made up while they are read.

use bytes::Bytes;

use super::*;
use crate::limits::MAX_MAP_MEMORY;

/// An image that exists only as answers: each L1 entry has an L2 table, each of its entries is compressed or stored. The tables lie
/// below 2 GiB.
struct MadeUp<E> {
    header: File,
    file_len: u64,
    /// The L2 entry of a guest cluster.
    entry: E,
}

impl<E: Fn(u64) -> u64> MadeUp<E> {
    const BITS: u32 = 16;
    const PER_TABLE: u64 = 1 << (Self::BITS - 3);
    const L2: u64 = 8 << 20;

    fn new(virtual_size: u64, entry: E) -> Self {
        let mut header = File(vec![0; MAX_HEADER_LEN as usize]);
        header.0[..4].copy_from_slice(b"QFI\xfb");
        let l1_size = virtual_size >> (2 * Self::BITS - 3);
        header.u32(4, 3).u32(20, Self::BITS).u64(24, virtual_size).u32(36, l1_size as u32);
        header.u64(40, 1 << 20).u64(48, 1 << 16).u32(56, 1).u32(96, 4).u32(100, 104);
        Self { header, file_len: 1 << 45, entry }
    }

    fn open(&self, step: u64) -> Result<Image, OpenError> {
        let head = Header::read(&self.header.0, self.file_len)?;
        let window = Window::file(FileId::IMAGE, self.file_len);
        drive(open_tables(head, window, Store::Image, None, step)?, |want| {
            assert!(want.len <= step.max(1 << Self::BITS), "{want:?}");
            let words = |from: u64, word: &dyn Fn(u64) -> u64| -> Bytes {
                let first = (want.start - from) / 8;
                (first..first + want.len / 8).flat_map(|i| word(i).to_be_bytes()).collect()
            };
            match want.start {
                0..0x10_0000 => words(0, &|_| 0),
                0x10_0000..0x20_0000 => words(1 << 20, &|i| Self::L2 + (i << (Self::BITS + 1))),
                // Between two tables there is a gap, so that each is asked for by itself.
                start => {
                    let table = (start - Self::L2) >> (Self::BITS + 1);
                    words(start, &|i| (self.entry)(table * Self::PER_TABLE + i))
                }
            }
        })
    }
}

/// 64 KiB clusters that compress to 30000 bytes on average, one after the other.
fn compressed(i: u64) -> u64 {
    let start = |i: u64| (2 << 30) + i * 30_000 + i % 7 * 100;
    let more_sectors = (start(i + 1) - 1) / 512 - start(i) / 512;
    COMPRESSED | more_sectors << 54 | start(i)
}

#[test]
fn a_fully_compressed_disk_of_4_tib_fits_in_memory() {
    let disk = MadeUp::new(4 << 40, compressed);
    let image = disk.open(METADATA_STEP).unwrap();
    assert_eq!(image.map().stats().encoded, 4 << 40);
    assert!(image.map().memory() < MAX_MAP_MEMORY, "{}", image.map().memory());
}

#[test]
fn more_fragments_than_memory_are_refused() {
    // Each cluster lies far from its neighbours: 9 bytes a run.
    let disk = MadeUp::new(4 << 40, |i| (1 << 42) + ((i * 5_000_011 % (1 << 26)) << 16));
    let error = disk.open(METADATA_STEP).unwrap_err();
    assert!(matches!(error, OpenError::Limit { limit, .. } if limit == MAX_MAP_MEMORY as u64), "{error}");
}

#[test]
fn steps_of_any_length_give_the_same_map() {
    let disk = MadeUp::new(1 << 35, |i| if i % 5 == 0 { 0 } else { (2 << 30) + (i << 16) });
    let expected = states(disk.open(METADATA_STEP).unwrap().map());
    for step in [8, 64, 1 << 16, 1 << 17] {
        assert_eq!(states(disk.open(step).unwrap().map()), expected, "{step}");
    }
}

#[test]
fn more_output_than_the_file_can_hold_is_refused() {
    // A sector for each cluster of 64 KiB: 128 to 1.
    let dense = |i: u64| COMPRESSED | ((2 << 30) + i * 512);
    let disk = MadeUp::new(8 << 30, dense);
    assert_eq!(disk.open(METADATA_STEP).unwrap().map().stats().encoded, 8 << 30);

    let of = |virtual_size: u64, file_len: u64| {
        // 8 bytes a cluster.
        let mut disk = MadeUp::new(virtual_size, |i| COMPRESSED | ((16 << 20) + i * 8));
        disk.file_len = file_len;
        disk.open(METADATA_STEP).map(|image| image.map().stats().encoded)
    };
    assert_eq!(of(4 << 30, 20 << 20), Ok(4 << 30));
    let limit = 20 * (1 << 30);
    assert_eq!(of(20 << 30, 23 << 20), Ok(20 << 30));
    let error = of((20 << 30) + (1 << 29), 20 << 20).unwrap_err();
    let what = Item::The("number of guest bytes in compressed clusters");
    let OpenError::Limit { what: found_what, found, limit: found_limit } = error else { panic!("{error}") };
    assert_eq!((found_what, found_limit), (what, limit));
    assert!(found > limit);
}
