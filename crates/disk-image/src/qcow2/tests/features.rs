//! Subclusters, data files, backing names.

use super::*;
use crate::{Feature, Reference};

/// Clusters of 16 KiB, the smallest with subclusters: header, refcount table, L1 table, L2 table, six guest clusters.
const BITS: u32 = 14;
const BIG: u64 = 1 << BITS;
const BIG_L1: usize = 2 << BITS;
const BIG_L2: usize = 3 << BITS;
const BIG_DATA: u64 = 4 << BITS;
const SUB: u64 = BIG / 32;

fn big(incompatible: u64) -> File {
    let mut file = File(vec![0; 10 << BITS]);
    file.0[..4].copy_from_slice(b"QFI\xfb");
    file.u32(4, 3).u32(20, BITS).u64(24, 8 * BIG).u32(36, 1).u64(40, BIG_L1 as u64).u64(48, BIG).u32(56, 1);
    file.u64(72, incompatible).u32(96, 4).u32(100, 104).u64(BIG_L1, BIG_L2 as u64);
    file
}

fn extended(entries: &[(u64, u64)]) -> File {
    let mut file = big(1 << 4);
    for (i, &(entry, bitmap)) in entries.iter().enumerate() {
        file.u64(BIG_L2 + 16 * i, entry).u64(BIG_L2 + 16 * i + 8, bitmap);
    }
    file
}

fn stored(start: u64, len: u64) -> (u64, State) {
    (len, State::Data(Stored::image(start, len)))
}

#[test]
fn each_subcluster_has_its_state() {
    let all = u64::from(u32::MAX);
    let file = extended(&[
        (COPIED | BIG_DATA, all),
        (BIG_DATA + BIG, 0b1110 | (0b11_0000 << 32)),
        // Only its place is kept.
        (BIG_DATA + 2 * BIG, 0),
        (0, all << 32),
        (0, 1 << 63),
        (BIG_DATA + 3 * BIG, 1 << 31),
        (BIG_DATA + 4 * BIG, all << 32),
    ]);
    let image = file.open().unwrap();
    let expected = [
        stored(BIG_DATA, BIG),
        (SUB, State::Hole),
        stored(BIG_DATA + BIG + SUB, 3 * SUB),
        (2 * SUB, State::Zero),
        (26 * SUB + BIG, State::Hole),
        (BIG, State::Zero),
        (31 * SUB, State::Hole),
        (SUB, State::Zero),
        (31 * SUB, State::Hole),
        stored(BIG_DATA + 3 * BIG + 31 * SUB, SUB),
        (BIG, State::Zero),
        (BIG, State::Hole),
    ];
    assert_eq!(states(image.map()), expected);
    let Details::Qcow2(details) = image.details() else { panic!() };
    assert!(details.subclusters);
}

#[test]
fn the_disk_may_end_inside_a_subcluster_and_the_file_behind_it() {
    let mut file = extended(&[(BIG_DATA, 0b101)]);
    file.u64(24, 3 * SUB - 512).0.truncate((BIG_DATA + 3 * SUB - 512) as usize);
    // Of the last subcluster, which is one sector long, nothing is left.
    assert_eq!(states(file.open().unwrap().map()), [stored(BIG_DATA, SUB), (SUB, State::Hole)]);
    file.u64(24, 3 * SUB);
    let error = file.open().unwrap_err().to_string();
    assert_eq!(
        error,
        "L2 table 0 entry 0 points to 512 bytes at 0x10400, past the end of the file (0x10400)"
    );
}

#[test]
fn subcluster_states_that_cannot_be() {
    let refused = |entry: u64, bitmap: u64, expected: &str| {
        let error = extended(&[(0, 0), (entry, bitmap)]).open().unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    let bitmap = |entry, bitmap: u64, expected: &str| {
        let what = format!("subcluster bitmap in L2 table 0 entry 1 is {bitmap:#x}");
        refused(entry, bitmap, &format!("{what}, expected {expected}"));
    };
    bitmap(BIG_DATA, 1 << 7 | 1 << 39, "no subcluster that is both allocated and zero");
    bitmap(0, 1, "no allocated subcluster, as the cluster has no offset");
    bitmap(COMPRESSED | BIG_DATA, 1, "0, as the cluster is compressed");
    bitmap(COMPRESSED | BIG_DATA, 1 << 32, "0, as the cluster is compressed");
    let entry = |entry: u64, expected: &str| {
        refused(entry, 0, &format!("L2 table 0 entry 1 is {entry:#x}, expected {expected}"));
    };
    entry(BIG_DATA | 1, "bits 0-8 and 56-61 to be 0");
    entry(COPIED, "an offset above 0");
    entry(BIG_DATA + 512, "a multiple of the cluster size");
    let twice = extended(&[(BIG_DATA, 1), (BIG_DATA, 2)]).open().unwrap_err();
    assert_eq!(
        twice.to_string(),
        "L2 table 0 entry 1 points to the bytes at 0x10000, which something else in the image uses"
    );
    File::refused(
        |f| f.u64(72, 1 << 4),
        "the cluster_bits of the QCOW2 header is 0x9, expected 14 to 21, as there are extended L2 entries",
    );
}

#[test]
fn a_compressed_cluster_has_no_subclusters() {
    let file = extended(&[(COMPRESSED | BIG_DATA, 0)]);
    let [(len, State::Encoded { .. }), (_, State::Hole)] = states(file.open().unwrap().map())[..] else {
        panic!()
    };
    assert_eq!(len, BIG);
}

/// An image whose clusters lie in `d.raw`.
fn with_data_file(extended: bool) -> File {
    let mut file = big(if extended { 1 << 4 | 1 << 2 } else { 1 << 2 });
    file.u32(104, 0x4441_5441).u32(108, 5).0[112..117].copy_from_slice(b"d.raw");
    file
}

/// Opens the image, the data file being as long as said, or skipped.
fn open_data(file: &File, len: Option<u64>) -> Result<Image, OpenError> {
    let data = |len| Referred::File { file: FileId(7), len, allocation: None };
    open_with(file, &len.map_or(Referred::Skipped, data))
}

fn open_with(file: &File, data: &Referred) -> Result<Image, OpenError> {
    let mut step = open(Window::file(FileId::IMAGE, file.0.len() as u64), &Layer::default())?;
    loop {
        step = match step {
            Open::Ready(image) => return Ok(image),
            Open::Need(need) => {
                let answers = need.wants().iter().map(|want| file.bytes(want.span)).collect();
                need.resume(answers)?
            }
            Open::Refer(refer) => {
                let [reference] = refer.references() else { panic!() };
                let expected = Reference {
                    by: FileId::IMAGE,
                    name: "d.raw".into(),
                    role: Role::DataFile,
                    format: Format::Raw,
                };
                assert_eq!(*reference, expected);
                refer.resume(vec![data.clone()])?
            }
        };
    }
}

fn in_data_file(start: u64, len: u64) -> (u64, State) {
    (len, State::Data(Stored { file: FileId(7), span: Span::new(start, len) }))
}

#[test]
fn clusters_lie_in_the_data_file_at_their_guest_offset() {
    let mut file = with_data_file(false);
    // Offset 0 with bit 63 is an offset. Bit 63 need not be right elsewhere.
    file.u64(BIG_L2, COPIED).u64(BIG_L2 + 16, 2 * BIG).u64(BIG_L2 + 24, COPIED | (3 * BIG) | 1);
    let image = open_data(&file, Some(8 * BIG)).unwrap();
    let rest = [(BIG, State::Zero), (4 * BIG, State::Hole)];
    let expected =
        [&[in_data_file(0, BIG), (BIG, State::Hole), in_data_file(2 * BIG, BIG)], &rest[..]].concat();
    assert_eq!(states(image.map()), expected);
    assert_eq!(image.references().len(), 1);
    let Details::Qcow2(details) = image.details() else { panic!() };
    assert!(details.data_file);

    let image = open_data(&file, None).unwrap();
    assert!(image.is_partial());
    assert_eq!(states(image.map()), [(3 * BIG, State::Hole), rest[0], rest[1]]);

    let mut file = with_data_file(true);
    file.u64(BIG_L2, COPIED).u64(BIG_L2 + 8, 0b10 | 1 << 32).u64(BIG_L2 + 24, 1 << 32);
    let expected = [(SUB, State::Zero), in_data_file(SUB, SUB), (30 * SUB, State::Hole), (SUB, State::Zero)];
    assert_eq!(states(open_data(&file, Some(BIG)).unwrap().map())[..4], expected);
}

#[test]
fn holes_of_the_data_file_are_zero() {
    let mut file = with_data_file(false);
    file.u64(BIG_L2, COPIED).u64(BIG_L2 + 8, COPIED | BIG).u64(BIG_L2 + 16, COPIED | (2 * BIG));
    let runs = [Span::new(0, 512), Span::new(4096, BIG), Span::new(3 * BIG - 512, BIG)];
    let data = Referred::File { file: FileId(7), len: 8 * BIG, allocation: Some(runs.to_vec()) };
    let expected = [
        in_data_file(0, 512),
        (4096 - 512, State::Zero),
        in_data_file(4096, BIG),
        (2 * BIG - 4096 - 512, State::Zero),
        in_data_file(3 * BIG - 512, 512),
        (5 * BIG, State::Hole),
    ];
    assert_eq!(states(open_with(&file, &data).unwrap().map()), expected);
}

#[test]
fn lies_about_the_data_file() {
    let refused = |change: &dyn Fn(&mut File) -> &mut File, expected: &str| {
        let mut file = with_data_file(false);
        file.u64(BIG_L2, COPIED);
        change(&mut file);
        assert_eq!(open_data(&file, Some(8 * BIG)).unwrap_err().to_string(), expected);
    };
    let elsewhere = "expected the guest offset, as the cluster lies in an external data file";
    refused(&|f| f.u64(BIG_L2, BIG), &format!("L2 table 0 entry 0 is 0x4000, {elsewhere}"));
    refused(&|f| f.u64(BIG_L2 + 8, (2 * BIG) | 1), &format!("L2 table 0 entry 1 is 0x8001, {elsewhere}"));
    refused(
        &|f| f.u64(BIG_L2 + 8, COPIED),
        &format!("L2 table 0 entry 1 is 0x8000000000000000, {elsewhere}"),
    );
    refused(
        &|f| f.u64(BIG_L2, COMPRESSED | BIG),
        "L2 table 0 entry 0 is 0x4000000000004000, expected no compressed cluster, as there is an external data file",
    );
    refused(
        &|f| f.u32(60, 1).u64(64, 9 * BIG),
        "the nb_snapshots of the QCOW2 header is 0x1, expected 0, as there is an external data file",
    );
    refused(
        &|f| f.u64(88, 2).u64(8, 4096).u32(16, 4),
        "the backing_file_offset of the QCOW2 header is 0x1000, expected 0, as the external data file is raw",
    );
    refused(&|f| f.u32(108, 0).u64(112, 0), "the image does not name its data file");
    refused(&|f| f.u32(104, 0), "the image does not name its data file");
    refused(
        &|f| {
            f.u32(120, 0x4441_5441);
            f.u32(124, 1)
        },
        "the type of a QCOW2 header extension is 0x44415441, expected at most one of this type",
    );
    File::refused(
        |f| f.u64(88, 2),
        "the autoclear_features of the QCOW2 header is 0x2, expected bit 1 clear, as incompatible feature bit 2 is clear",
    );
}

#[test]
fn a_data_file_that_was_cut_is_refused() {
    let mut file = with_data_file(false);
    file.u64(24, 8 * BIG - 1024).u64(BIG_L2 + 56, COPIED | (7 * BIG));
    let end = 8 * BIG - 1024;
    let last = |len| open_data(&file, Some(len)).map(|image| states(image.map())[1..].to_vec());
    assert_eq!(last(end), Ok(vec![in_data_file(7 * BIG, BIG - 1024)]));
    assert_eq!(last(end + 1), Ok(vec![in_data_file(7 * BIG, BIG - 1024)]));
    // A raw disk may end inside a sector.
    assert_eq!(last(end - 511), Ok(vec![in_data_file(7 * BIG, BIG - 1024 - 511), (511, State::Zero)]));
    for len in [0, 7 * BIG, end - 512] {
        let (file, error) = last(len).unwrap_err().located();
        assert_eq!(file, FileId(7));
        let expected = format!(
            "L2 table 0 entry 7 points to 15360 bytes at 0x1c000, past the end of the file ({len:#x})"
        );
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn backing_names() {
    let backing = |name: &[u8], at: usize, format: &[u8]| {
        let mut file = big(0);
        file.u64(8, at as u64).u32(16, name.len() as u32).0[at..at + name.len()].copy_from_slice(name);
        if !format.is_empty() {
            file.u32(104, 0xe279_2aca).u32(108, format.len() as u32);
            file.0[112..112 + format.len()].copy_from_slice(format);
        }
        file
    };
    // Whatever is written there is a name.
    for name in
        [&b"base.img"[..], b"json:{\"driver\":\"nbd\"}", b"nbd://host/x", b"/etc/passwd", b"a\0b", b"\xff"]
    {
        let image = backing(name, 512, b"raw").open().unwrap();
        let [reference] = image.references() else { panic!() };
        assert_eq!(
            (reference.name.as_str(), reference.role),
            (&*String::from_utf8_lossy(name), Role::BackingFile)
        );
        assert!(image.is_partial());
    }
    let error = |file: File| file.open().unwrap_err();
    let undeclared = |name: &str| OpenError::Undeclared { role: Role::BackingFile, name: name.into() };
    assert_eq!(error(backing(b"base", 512, b"")), undeclared("base"));
    assert_eq!(error(backing(b"base", 512, b"dmg")), OpenError::Unsupported(Feature::BackingFormat));
    // Directly behind the header, with no end of extensions before it.
    assert_eq!(error(backing(b"base.img", 104, b"")), undeclared("base.img"));
    // An empty name is none, and then the format does not matter.
    assert!(backing(b"", 512, b"dmg").open().unwrap().references().is_empty());
    assert!(big(0).u32(104, 0xe279_2aca).u32(108, 3).u8(112, b'x').open().is_ok());
    let outside = "a name behind the header, inside the first cluster and its first 64 KiB";
    let at = big(0).u64(8, 96).u32(16, 4).open().unwrap_err();
    assert_eq!(
        at.to_string(),
        format!("the backing_file_offset of the QCOW2 header is 0x60, expected {outside}")
    );
    assert!(big(0).u64(8, BIG - 3).u32(16, 4).open().is_err());
    assert!(big(0).u64(8, u64::MAX).u32(16, 4).open().is_err());
    let long = big(0).u64(8, 512).u32(16, 1024).open().unwrap_err();
    assert_eq!(long.to_string(), "the backing_file_size of the QCOW2 header is 1024, the limit is 1023");
}

#[test]
fn mutations_never_panic() {
    let good = extended(&[
        (COPIED | BIG_DATA, 0xf0),
        (BIG_DATA + BIG, 7 << 40),
        (COMPRESSED | (BIG_DATA + 3 * BIG), 0),
    ]);
    let opened = mutated(&good, &[0, BIG as usize, BIG_L1, BIG_L2, BIG_L2], File::open);
    assert!((5_000..45_000).contains(&opened), "{opened} of {MUTATIONS} were accepted");

    let mut good = with_data_file(true);
    good.u64(BIG_L2, COPIED).u64(BIG_L2 + 8, 0b10 | 1 << 32).u64(BIG_L2 + 16, BIG).u64(BIG_L2 + 24, 1 << 31);
    let allocation = Some(vec![Span::new(700, 9000), Span::new(BIG + 5, BIG)]);
    let data = Referred::File { file: FileId(7), len: 8 * BIG - 3, allocation };
    // A change of the name is one of the reference; it need not be the expected one here.
    let opened =
        mutated(&good, &[0, BIG as usize, BIG_L1, BIG_L2, BIG_L2], |file| match file.0.get(104..117) {
            Some(name) if *name == good.0[104..117] => open_with(file, &data),
            _ => file.open(),
        });
    assert!((5_000..45_000).contains(&opened), "{opened} of {MUTATIONS} were accepted");
}
