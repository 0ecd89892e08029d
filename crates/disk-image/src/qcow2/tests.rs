//! Files built by hand, one field wrong at a time.

mod features;
mod made_up;
mod snapshots;

use bytes::Bytes;

use super::*;
use crate::{
    Decoder, Details, Extent, ExtentMap, FileId, ObjectMap, Origin, Plan, Referred, Span, State, Stored,
    Warning, qcow2,
};

const CLUSTER: usize = 512;
const BLOCK: usize = 2 * CLUSTER;
const L1: usize = 3 * CLUSTER;
const L2: usize = 4 * CLUSTER;
const DATA: usize = 5 * CLUSTER;
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;

/// A good file of 10 clusters: header, refcount table, refcount block, L1 table, one L2 table, guest clusters.
///
/// Guest: clusters 0 and 1 are stored, cluster 2 is a zero cluster with its place kept, cluster 3 is zero, cluster 4 is compressed.
#[derive(Clone)]
struct File(Vec<u8>);

impl File {
    fn new() -> Self {
        let mut file = Self(vec![0; 10 * CLUSTER]);
        file.0[..4].copy_from_slice(b"QFI\xfb");
        file.u32(4, 3).u32(20, 9).u64(24, 20 * CLUSTER as u64 - 100 + 4).u32(36, 1).u64(40, L1 as u64);
        file.u64(48, CLUSTER as u64).u32(56, 1).u32(96, 4).u32(100, 112);
        file.u64(CLUSTER, BLOCK as u64).u64(L1, COPIED | L2 as u64);
        file.u64(L2, COPIED | DATA as u64).u64(L2 + 8, (DATA + CLUSTER) as u64);
        file.u64(L2 + 16, COPIED | (DATA + 2 * CLUSTER) as u64 | 1).u64(L2 + 24, 1);
        let packed = DATA + 3 * CLUSTER + 33;
        file.u64(L2 + 32, COMPRESSED | packed as u64);
        file.0[DATA..DATA + 2 * CLUSTER].fill(0xab);
        let mut encoder = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
        encoder.deflate_compress(&[0xcd; CLUSTER], &mut file.0[packed..packed + 400]).unwrap();
        file
    }

    fn truncate(&mut self, len: usize) -> &mut Self {
        self.0.truncate(len);
        self
    }

    fn u8(&mut self, at: usize, value: u8) -> &mut Self {
        self.0[at] = value;
        self
    }

    fn u32(&mut self, at: usize, value: u32) -> &mut Self {
        self.0[at..at + 4].copy_from_slice(&value.to_be_bytes());
        self
    }

    fn u64(&mut self, at: usize, value: u64) -> &mut Self {
        self.0[at..at + 8].copy_from_slice(&value.to_be_bytes());
        self
    }

    fn open(&self) -> Result<Image, OpenError> {
        self.open_as(&Layer::default())
    }

    fn open_as(&self, layer: &Layer) -> Result<Image, OpenError> {
        let file = Window::file(FileId::IMAGE, self.0.len() as u64);
        drive(open(file, layer)?, |span| self.bytes(span))
    }

    fn bytes(&self, span: Span) -> Bytes {
        Bytes::copy_from_slice(&self.0[span.start as usize..span.end() as usize])
    }

    /// What opening says after a change.
    #[track_caller]
    fn refused(change: impl Fn(&mut File) -> &mut File, expected: &str) {
        let mut file = Self::new();
        change(&mut file);
        let error = file.open().map(|image| image.map.iter().collect::<Vec<_>>()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

pub(super) fn drive(mut step: Open<Image>, read: impl Fn(Span) -> Bytes) -> Result<Image, OpenError> {
    loop {
        match step {
            Open::Ready(image) => return Ok(image),
            Open::Need(need) => {
                let answers = need.wants().iter().map(|want| read(want.span)).collect();
                step = need.resume(answers)?;
            }
            Open::Refer(refer) => {
                let skipped = refer.references().iter().map(|_| Referred::Skipped).collect();
                step = refer.resume(skipped)?;
            }
        }
    }
}

fn data(start: usize, len: usize) -> State {
    State::Data(Stored::image(start as u64, len as u64))
}

fn states(map: &ExtentMap) -> Vec<(u64, State)> {
    map.iter().map(|Extent { guest, state }| (guest.len, state)).collect()
}

#[test]
fn each_kind_of_cluster() {
    let image = File::new().open().unwrap();
    let unit = State::Encoded {
        stored: Stored::image((DATA + 3 * CLUSTER + 33) as u64, (CLUSTER - 33) as u64),
        encoding: Encoding::Deflate,
        unit_len: CLUSTER as u64,
        skip: 0,
    };
    let expected = [
        (2 * CLUSTER as u64, data(DATA, 2 * CLUSTER)),
        (2 * CLUSTER as u64, State::Zero),
        (CLUSTER as u64, unit),
        (15 * CLUSTER as u64, State::Hole),
    ];
    assert_eq!(states(image.map()), expected);
    // 96 bytes are missing to the last sector; the guest sees zeroes there.
    assert_eq!(image.virtual_size(), 20 * CLUSTER as u64);
    assert_eq!(image.warnings(), [Warning::PartialSector(20 * CLUSTER as u64 - 96)]);
    let Details::Qcow2(details) = image.details() else { panic!() };
    let expected = qcow2::Details {
        version: 3,
        cluster_size: 512,
        refcount_bits: 16,
        compression: Encoding::Deflate,
        lazy_refcounts: false,
        subclusters: false,
        data_file: false,
        snapshots: Vec::new(),
        bitmaps: 0,
    };
    assert_eq!(*details, expected);
}

#[test]
fn a_cluster_ends_where_the_disk_ends() {
    let mut file = File::new();
    file.u64(24, 2 * CLUSTER as u64 - 200);
    let expected = [(2 * CLUSTER as u64 - 200, data(DATA, 2 * CLUSTER - 200)), (200, State::Hole)];
    let states = states(file.open().unwrap().map());
    assert_eq!(states.iter().map(|(len, _)| len).sum::<u64>(), 2 * CLUSTER as u64);
    assert_eq!(states[0].1, data(DATA, 2 * CLUSTER - 200));
    assert_eq!(states, expected);
    // Entries past the end belong to nobody, and are not looked at.
    file.u64(L2 + 16, u64::MAX);
    assert_eq!(file.open().unwrap().map().stats().data, 2 * CLUSTER as u64 - 200);
}

#[test]
fn version_2_has_none_of_the_later_fields() {
    let mut file = File::new();
    file.u64(L2 + 16, 0).u64(L2 + 24, 0);
    let expected = states(file.open().unwrap().map());
    file.u32(4, 2)
        .u64(72, 0x1234_5678_0000_0008)
        .u64(80, u64::MAX)
        .u64(88, 0)
        .u32(96, 77)
        .u32(100, 3)
        .u32(104, 0);
    let image = file.open().unwrap();
    assert_eq!(states(image.map()), expected);
    let Details::Qcow2(details) = image.details() else { panic!() };
    assert_eq!((details.version, details.refcount_bits, details.lazy_refcounts), (2, 16, false));
}

#[test]
fn features_that_are_not_read_are_named() {
    let needs = |change: &dyn Fn(&mut File) -> &mut File, what: &str| {
        File::refused(change, &format!("the image needs {what}, which is not supported"));
    };
    needs(&|f| f.u32(4, 1), "QCOW version 1");
    needs(&|f| f.u32(4, 4), "QCOW version 4");
    needs(&|f| f.u32(32, 1), "AES encryption");
    needs(&|f| f.u32(32, 2), "LUKS encryption");
    needs(&|f| f.u64(72, 1 << 5), "the unknown incompatible feature bit 5");
    needs(&|f| f.u64(72, 3 << 62), "the unknown incompatible feature bit 62");
    needs(&|f| f.u64(72, 1 << 3).u8(104, 2), "the unknown compression type 2");
}

#[test]
fn header_fields() {
    let wrong = |change: &dyn Fn(&mut File) -> &mut File, what: &str| {
        File::refused(change, &format!("the {what}").replace("HEADER", "of the QCOW2 header"));
    };
    File::refused(
        |f| f.u8(3, 0),
        "not a qcow2 image: its first bytes are [51, 46, 49, 00], expected [51, 46, 49, fb]",
    );
    wrong(&|f| f.u32(100, 96), "header_length HEADER is 0x60, expected a multiple of 8, at least 104");
    wrong(&|f| f.u32(100, 108), "header_length HEADER is 0x6c, expected a multiple of 8, at least 104");
    wrong(&|f| f.u32(100, 520), "header_length HEADER is 0x208, expected at most the cluster size");
    wrong(&|f| f.u32(100, 1 << 30), "header_length HEADER is 1073741824, the limit is 65536");
    wrong(&|f| f.u8(104, 1), "compression_type HEADER is 0x1, expected 0, as feature bit 3 is clear");
    wrong(&|f| f.u64(72, 8), "compression_type HEADER is 0x0, expected 1, as feature bit 3 is set");
    // The field is absent from a header of 104 bytes, whatever stands there.
    wrong(
        &|f| f.u32(100, 104).u64(72, 8).u8(104, 1),
        "compression_type HEADER is 0x0, expected 1, as feature bit 3 is set",
    );
    wrong(&|f| f.u32(32, 3), "crypt_method HEADER is 0x3, expected 0, 1 or 2");
    wrong(&|f| f.u32(96, 7), "refcount_order HEADER is 0x7, expected at most 6");
    wrong(&|f| f.u32(20, 8), "cluster_bits HEADER is 0x8, expected 9 to 21");
    wrong(&|f| f.u32(20, 22), "cluster_bits HEADER is 0x16, expected 9 to 21");
    wrong(&|f| f.u32(20, u32::MAX), "cluster_bits HEADER is 0xffffffff, expected 9 to 21");
    wrong(&|f| f.u64(24, 0), "size HEADER is 0x0, expected a disk that has bytes");
    wrong(&|f| f.u64(24, u64::MAX), "size HEADER is 18446744073709551615, the limit is 70368744177664");
    wrong(&|f| f.u32(36, 0), "l1_size HEADER is 0x0, expected enough entries for the virtual size");
    wrong(&|f| f.u64(24, 32769), "l1_size HEADER is 0x1, expected enough entries for the virtual size");
    wrong(&|f| f.u32(36, 4_194_305), "l1_size HEADER is 4194305, the limit is 4194304");
    let aligned = "expected a multiple of the cluster size, above 0";
    wrong(&|f| f.u64(40, 0), &format!("l1_table_offset HEADER is 0x0, {aligned}"));
    wrong(&|f| f.u64(40, 1537), &format!("l1_table_offset HEADER is 0x601, {aligned}"));
    wrong(&|f| f.u64(48, 8), &format!("refcount_table_offset HEADER is 0x8, {aligned}"));
    wrong(&|f| f.u32(56, 0), "refcount_table_clusters HEADER is 0x0, expected at least 1");
    wrong(&|f| f.u32(56, 16385), "refcount_table_clusters HEADER is 16385, the limit is 16384");
    wrong(&|f| f.u32(60, 65537), "nb_snapshots HEADER is 65537, the limit is 65536");
    wrong(&|f| f.u32(60, 1).u64(64, 7), &format!("snapshots_offset HEADER is 0x7, {aligned}"));
}

#[test]
fn tables_past_the_end_of_the_file() {
    let cut = |change: &dyn Fn(&mut File) -> &mut File, what: &str| {
        File::refused(change, &format!("{what}, past the end of the file (0x1400)"));
    };
    cut(&|f| f.u64(40, 1 << 62), "the L1 table is 8 bytes at 0x4000000000000000");
    cut(&|f| f.u32(36, 700), "the L1 table is 5600 bytes at 0x600");
    cut(&|f| f.u32(56, 10), "the refcount table is 5120 bytes at 0x200");
    cut(&|f| f.u64(48, u64::MAX << 9), "the refcount table is 512 bytes at 0xfffffffffffffe00");
    cut(&|f| f.u32(60, 1).u64(64, 5120), "the snapshot table is 1 bytes at 0x1400");
    cut(&|f| f.u64(L1, 5120), "L1 table entry 0 points to 512 bytes at 0x1400");
    cut(&|f| f.u64(L2 + 8, 5120), "L2 table 0 entry 1 points to 512 bytes at 0x1400");
    cut(&|f| f.u64(L2, COMPRESSED | 5120), "L2 table 0 entry 0 points to 1 bytes at 0x1400");
    let cut_at = |len: usize, what: &str| {
        let file_len = format!("past the end of the file ({len:#x})");
        File::refused(|f| f.truncate(len), &format!("{what}, {file_len}"));
    };
    cut_at(103, "the QCOW2 header is 104 bytes at 0x0");
    cut_at(111, "the QCOW2 header is 112 bytes at 0x0");
    cut_at(L1 + 7, "the L1 table is 8 bytes at 0x600");
    cut_at(L2 + 511, "L1 table entry 0 points to 512 bytes at 0x800");
    cut_at(DATA + 1023, "L2 table 0 entry 1 points to 512 bytes at 0xc00");
}

#[test]
fn entries() {
    let l2 = |entry: u64, expected: &str| {
        File::refused(
            |f| f.u64(L2, entry),
            &format!("L2 table 0 entry 0 is {entry:#x}, expected {expected}"),
        );
    };
    l2(COPIED | DATA as u64 | 2, "bits 1-8 and 56-61 to be 0");
    l2(COPIED | 1 << 56 | DATA as u64, "bits 1-8 and 56-61 to be 0");
    l2(1 << 61 | 1, "bits 1-8 and 56-61 to be 0");
    l2(COPIED, "an offset above 0");
    l2(COMPRESSED | 511, "an offset past the header's cluster");
    l2(COMPRESSED | 1 << 56 | 5000, "offset bits above 55 to be 0");
    let l1 = |entry: u64, expected: &str| {
        File::refused(|f| f.u64(L1, entry), &format!("L1 table entry 0 is {entry:#x}, expected {expected}"));
    };
    l1(COPIED | L2 as u64 | 1, "bits 0-8 and 56-62 to be 0");
    l1(1 << 62 | L2 as u64, "bits 0-8 and 56-62 to be 0");
    File::refused(
        |f| f.u32(4, 2).u64(L2 + 16, 0),
        "L2 table 0 entry 3 is 0x1, expected no zero flag, as this is version 2",
    );
}

#[test]
fn unaligned_pointers() {
    // With clusters of 512 bytes every pointer is aligned; with 1024 bytes not.
    let file = || {
        let mut file = File(vec![0; 16 << 10]);
        file.0[..4].copy_from_slice(b"QFI\xfb");
        file.u32(4, 3).u32(20, 10).u64(24, 4096).u32(36, 1).u64(40, 1024).u64(48, 2048).u32(56, 1);
        file.u32(96, 4).u32(100, 104).u64(1024, 4096).u64(4096, 5120);
        file
    };
    assert!(file().open().is_ok());
    assert_eq!(
        file().u64(2048, 4608).open().unwrap_err().to_string(),
        "refcount table entry 0 is 0x1200, expected a multiple of the cluster size"
    );
    let refused = |at, entry| file().u64(at, entry).open().unwrap_err().to_string();
    assert_eq!(refused(1024, 4608), "L1 table entry 0 is 0x1200, expected a multiple of the cluster size");
    assert_eq!(refused(4104, 4608), "L2 table 0 entry 1 is 0x1200, expected a multiple of the cluster size");
}

#[test]
fn nothing_lies_on_anything_else() {
    let used = |change: &dyn Fn(&mut File) -> &mut File, what: &str, at: usize| {
        let expected =
            format!("{what} points to the bytes at {at:#x}, which something else in the image uses");
        File::refused(change, &expected);
    };
    let (l1, refcounts, l2) = ("L1 table entry 0", "refcount table entry 0", "L2 table 0 entry 0");
    used(&|f| f.u64(48, L1 as u64), "the L1 table", L1);
    used(&|f| f.u64(512, 512), refcounts, 512);
    used(&|f| f.u64(512, L1 as u64), refcounts, L1);
    used(&|f| f.u64(512, BLOCK as u64).u64(520, BLOCK as u64), "refcount table entry 1", BLOCK);
    used(&|f| f.u64(L1, L1 as u64), l1, L1);
    used(&|f| f.u64(L1, 512), l1, 512);
    used(&|f| f.u64(512, BLOCK as u64).u64(L1, BLOCK as u64), l1, BLOCK);
    used(&|f| f.u64(24, 1 << 20).u32(36, 32).u64(L1 + 56, L2 as u64), "L1 table entry 7", L2);
    for table in [512, BLOCK, L1, L2] {
        used(&|f| f.u64(512, BLOCK as u64).u64(L2, table as u64), l2, table);
        used(&|f| f.u64(512, BLOCK as u64).u64(L2, table as u64 | 1), l2, table);
        used(&|f| f.u64(512, BLOCK as u64).u64(L2, COMPRESSED | (table + 5) as u64), l2, table + 5);
    }
    used(&|f| f.u64(L2 + 8, DATA as u64), "L2 table 0 entry 1", DATA);
    used(&|f| f.u64(L2 + 40, DATA as u64 | 1), "L2 table 0 entry 5", DATA);
    // The place that a zero cluster keeps is in use as well.
    used(&|f| f.u64(L2 + 40, (DATA + 2 * CLUSTER) as u64), "L2 table 0 entry 5", DATA + 2 * CLUSTER);
    let packed = COMPRESSED | (DATA + 3 * CLUSTER + 33) as u64;
    used(&|f| f.u64(L2 + 40, packed), "L2 table 0 entry 5", DATA + 3 * CLUSTER + 33);
    used(&|f| f.u64(L2 + 40, (DATA + 3 * CLUSTER) as u64), "L2 table 0 entry 5", DATA + 3 * CLUSTER);
    // The header's cluster is in use from the first.
    File::refused(
        |f| f.u64(L1, 0).u64(512, 0).u64(40, 512),
        "the L1 table points to the bytes at 0x200, which something else in the image uses",
    );
}

#[test]
fn refcount_table_entries() {
    let refused = |entry: u64, expected: &str| {
        let expected = format!("refcount table entry 3 {expected}");
        File::refused(|f| f.u64(512 + 24, entry), &expected);
    };
    refused(BLOCK as u64 | 2, "is 0x402, expected bits 0-8 to be 0");
    refused(5120, "points to 512 bytes at 0x1400, past the end of the file (0x1400)");
    refused(u64::MAX << 9, "points to 512 bytes at 0xfffffffffffffe00, past the end of the file (0x1400)");
}

#[test]
fn header_extensions() {
    let extension = |kind: u32, len: u32| {
        let mut file = File::new();
        file.u32(112, kind).u32(116, len);
        file
    };
    let too_long = "the length of a QCOW2 header extension is 0x189, expected an extension inside the first cluster \
                    and its first 64 KiB";
    assert_eq!(extension(0x6803_f857, 393).open().unwrap_err().to_string(), too_long);
    assert!(extension(0x6803_f857, 392).open().is_ok());
    assert!(extension(0x6803_f857, u32::MAX).open().is_err());
    // The end marker's length means nothing.
    assert!(extension(0, u32::MAX).open().is_ok());
    let mut bitmaps = extension(7, 3);
    bitmaps.u32(128, 0x2385_2875).u32(132, 24).u32(136, 5);
    let Details::Qcow2(details) = bitmaps.open().unwrap().details else { panic!() };
    assert_eq!(details.bitmaps, 5);
}

#[test]
fn the_last_sector_of_a_compressed_cluster_may_be_missing() {
    let mut file = File::new();
    let entry = |start: u64, more: u64| COMPRESSED | more << 61 | start;
    let stored = |file: &File| match file.open().unwrap().map().extents(Span::new(0, 1)).next().unwrap().state
    {
        State::Encoded { stored, .. } => stored.span,
        other => panic!("{other:?}"),
    };
    file.u64(L2, entry(4700, 1));
    assert_eq!(stored(&file), Span::between(4700, 5120));
    file.0.truncate(4999);
    assert_eq!(stored(file.u64(L2, entry(4700, 0))), Span::between(4700, 4999));
    // One more sector would have to be there.
    let cut = file.clone().u64(L2, entry(4600, 1)).truncate(4607).open().unwrap_err();
    assert_eq!(
        cut.to_string(),
        "L2 table 0 entry 0 points to 8 bytes at 0x11f8, past the end of the file (0x11ff)"
    );
    // Bit 63 is never set on a compressed cluster by QEMU, and need not be right.
    assert_eq!(stored(file.u64(L2, COPIED | entry(4700, 0))), Span::between(4700, 4999));
}

#[test]
fn mutations_never_panic() {
    let good = File::new();
    let mut dice = 1_u64;
    let mut roll = |sides: usize| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) as usize % sides
    };
    let mut opened = 0;
    for _ in 0..50_000 {
        let mut file = good.clone();
        for _ in 0..=roll(3) {
            // Most of the bytes that matter are in the header and at the start of the tables.
            let at = [0, 0, L1, L2, DATA + 3 * CLUSTER][roll(5)] + roll(120);
            file.0[at] = [0, 1, 0x7f, 0x80, 0xff, roll(256) as u8][roll(6)];
        }
        if roll(4) == 0 {
            file.0.truncate(roll(10 * CLUSTER));
        }
        let Ok(image) = file.open() else { continue };
        opened += 1;
        let layout = ObjectMap::raw(image.virtual_size());
        for piece in Plan::new(image.map(), &layout, Span::new(0, 64 << 10)).pieces {
            let Origin::Encoded(unit, _) = piece.origin else { continue };
            let mut out = vec![0; unit.guest.len as usize];
            let _ = Decoder::default().decode(&unit, &file.bytes(unit.stored.span), &mut out);
        }
    }
    assert!((5_000..45_000).contains(&opened), "{opened} of 50000 were accepted");
}
