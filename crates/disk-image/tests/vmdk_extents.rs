//! VMDK disks in several files, made by hand: extents of all kinds in one disk, deltas, names.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

#[path = "support/driver.rs"]
mod driver;
#[path = "support/esx.rs"]
mod esx;
#[path = "support/qemu.rs"]
mod qemu;
#[path = "support/vmdk.rs"]
mod vmdk;

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use disk_image::vmdk::{CreateType, Details, Directory, Sparse};
use disk_image::{
    Feature, FileId, Format, Item, ObjectMap, OpenError, OpenOptions, Reference, Role, Span, State, Warning,
};
use driver::{Disk, Named};
use esx::{SeGrain, cowd, sesparse};
use qemu::Dice;
use vmdk::{Builder, GRAIN, content};

const MIB: usize = 1 << 20;

/// The files of a folder.
#[derive(Default, Clone)]
struct Folder {
    files: HashMap<String, Named>,
    /// True to pass over what is named.
    skip: bool,
}

impl Folder {
    fn with(mut self, name: &str, bytes: impl Into<Bytes>) -> Self {
        self.files.insert(name.into(), Named { bytes: bytes.into(), allocation: None });
        self
    }

    fn with_holes(mut self, name: &str, bytes: impl Into<Bytes>, allocation: Vec<Span>) -> Self {
        self.files.insert(name.into(), Named { bytes: bytes.into(), allocation: Some(allocation) });
        self
    }

    fn open(&self, file: impl Into<Bytes>) -> Result<Disk, OpenError> {
        let read = |reference: &Reference| {
            let named = || self.files.get(&reference.name).cloned();
            (!self.skip).then(|| named().unwrap_or_else(|| panic!("names {reference:?}")))
        };
        Disk::parse_with(file.into(), &read, &OpenOptions::default())
    }

    fn refusal(&self, file: impl Into<Bytes>) -> OpenError {
        self.open(file).map(|disk| disk.image).unwrap_err()
    }
}

/// A descriptor with these extent lines.
fn descriptor(create_type: &str, lines: &[&str]) -> String {
    let lines = lines.join("\n");
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=1234abcd\nparentCID=ffffffff\ncreateType=\"{create_type}\"\n\n\
         # Extent description\n{lines}\n\n# The Disk Data Base\n#DDB\nddb.adapterType = \"ide\"\n"
    )
}

/// The same for a delta on the file `parent`.
fn delta(cid: &str, parent: &str, lines: &[&str]) -> String {
    descriptor("custom", lines)
        .replace("parentCID=ffffffff", &format!("parentCID={cid}\nparentFileNameHint=\"{parent}\""))
}

fn details(disk: &Disk) -> &Details {
    match disk.image.details() {
        disk_image::Details::Vmdk(details) => details,
        other => panic!("{other:?}"),
    }
}

/// Compares in parts that cut grains and extents.
fn assert_reads(disk: &Disk, expected: &[u8]) {
    const PART: usize = MIB + 4096 - 512;
    let layout = ObjectMap::raw(disk.image.virtual_size());
    assert_eq!(layout.len(), expected.len() as u64);
    for (expected, start) in expected.chunks(PART).zip((0..).step_by(PART)) {
        let part = disk.part(&layout, Span::new(start, expected.len() as u64)).unwrap();
        let differs = part.iter().zip(expected).position(|(ours, theirs)| ours != theirs);
        assert_eq!(differs, None, "part at {start:#x}");
    }
    let covered: u64 = disk.image.map().iter().map(|extent| extent.guest.len).sum();
    assert_eq!(covered, disk.image.virtual_size());
}

fn in_file(file: u16, error: OpenError) -> OpenError {
    OpenError::In { file: FileId(file), error: Box::new(error) }
}

fn unsupported(feature: Feature) -> OpenError {
    OpenError::Unsupported(feature)
}

/// A COWD file of `sectors` in grains of a sector, with some data, and its guest bytes.
fn cowd_sample(sectors: u32) -> (Vec<u8>, Vec<u8>) {
    let mut guest = vec![0; sectors as usize * 512];
    let grains: BTreeMap<u64, Vec<u8>> = [0, 1, 2, 77, 4095, 4096, u64::from(sectors) - 1]
        .into_iter()
        .map(|index| (index, content(index + 4, 512)))
        .collect();
    for (index, data) in &grains {
        guest[*index as usize * 512..][..512].copy_from_slice(data);
    }
    (cowd(sectors, 1, &grains), guest)
}

/// The same in seSparse.
fn sesparse_sample(sectors: u64) -> (Vec<u8>, Vec<u8>) {
    let mut guest = vec![0; sectors as usize * 512];
    let mut grains = BTreeMap::new();
    for index in [0, 1, 5, 4095, 4096, 4097] {
        let data = content(index + 2, 4096);
        guest[index as usize * 4096..][..4096].copy_from_slice(&data);
        grains.insert(index, SeGrain::Data(data));
    }
    grains.insert(2, SeGrain::Zero);
    grains.insert(3, SeGrain::Unmapped);
    (sesparse(sectors, &grains), guest)
}

/// A stream whose last grain is short, also in the file, and its guest bytes.
fn stream_sample() -> Builder {
    Builder::stream(128 + 3).grain(0, content(1, GRAIN)).grain(1, content(4, 3 * 512))
}

#[test]
fn extents_of_all_kinds_make_one_disk() {
    let flat = content(7, MIB);
    let sparse = Builder::sparse(700).grain(0, content(1, GRAIN)).grain(5, content(4, GRAIN));
    let (cowd, cowd_guest) = cowd_sample(5000);
    let (sesparse, sesparse_guest) = sesparse_sample(40000);
    let stream = stream_sample();
    let text = descriptor(
        "custom",
        &[
            "RW 100 FLAT \"flat.bin\" 3",
            "RW 33 ZERO",
            "RW 131 SPARSE \"stream.vmdk\"",
            "RDONLY 700 SPARSE \"sparse.vmdk\"",
            "NOACCESS 9 ZERO",
            "RW 5000 VMFSSPARSE \"cowd.vmdk\" 0",
            "RW 7 VMFS \"flat.bin\"",
            "RW 40000 SESPARSE \"se.vmdk\"",
            "rw 500 flat \"flat.bin\" 1000",
            "RW 1 VMFS \"other.bin\" 1",
            "RW 131 SPARSE \"stream2.vmdk\"",
        ],
    );
    // Sectors 0 to 6 and 3 to 102 of the flat file meet.
    let folder = Folder::default()
        .with("flat.bin", flat.clone())
        .with("other.bin", content(4, 1024))
        .with("stream.vmdk", stream.build().bytes)
        .with("stream2.vmdk", stream.build().bytes)
        .with("sparse.vmdk", sparse.build().bytes)
        .with("cowd.vmdk", cowd)
        .with("se.vmdk", sesparse);
    let what = Item::Numbered("VMDK extent", 6);
    assert_eq!(folder.refusal(text.clone()), in_file(1, OpenError::Claimed { what, at: 0 }));

    let text = text.replace("flat.bin\" 3", "flat.bin\" 7");
    let disk = folder.open(text).unwrap();
    let expected = [
        &flat[7 * 512..107 * 512],
        &[0; 33 * 512],
        &stream.guest(),
        &sparse.guest(),
        &[0; 9 * 512],
        &cowd_guest,
        &flat[..7 * 512],
        &sesparse_guest,
        &flat[1000 * 512..1500 * 512],
        &content(4, 1024)[512..],
        &stream.guest(),
    ]
    .concat();
    assert_reads(&disk, &expected);
    let names: Vec<&str> = disk.image.references().iter().map(|reference| reference.name.as_str()).collect();
    let all = ["flat.bin", "stream.vmdk", "sparse.vmdk", "cowd.vmdk", "se.vmdk", "other.bin", "stream2.vmdk"];
    assert_eq!(names, all);
    let expected = Reference {
        by: FileId::IMAGE,
        name: "stream.vmdk".into(),
        role: Role::ExtentFile,
        format: Format::Vmdk,
    };
    assert_eq!(disk.image.references()[1], expected);
    assert_eq!(disk.image.references()[0].format, Format::Raw);
    let expected = Details {
        create_type: CreateType::Custom,
        extents: 11,
        cid: Some(0x1234_abcd),
        sparse: Some(Sparse {
            version: 3,
            grain_size: GRAIN as u64,
            compressed: true,
            directory: Directory::Footer,
        }),
    };
    assert_eq!(*details(&disk), expected);
    assert!(!disk.image.is_partial());
}

#[test]
fn names_alone_make_a_partial_image() {
    let text = descriptor("custom", &["RW 8 FLAT \"a\" 0", "RW 8 ZERO", "RW 700 SPARSE \"b\""]);
    let disk = Folder { skip: true, ..Folder::default() }.open(text).unwrap();
    assert!(disk.image.is_partial());
    assert_eq!(disk.image.references().len(), 2);
    let states: Vec<State> = disk.image.map().iter().map(|extent| extent.state).collect();
    assert_eq!(states, [State::Hole, State::Zero, State::Hole]);
    // Nothing is named, nothing is missing.
    let disk = Folder::default().open(descriptor("custom", &["RW 8 ZERO"])).unwrap();
    assert!(!disk.image.is_partial());
    assert_eq!(disk.image.virtual_size(), 4096);
}

#[test]
fn flat_files_must_be_long_enough() {
    let open = |lines: &[&str], len: usize| {
        Folder::default().with("flat", content(1, len)).open(descriptor("monolithicFlat", lines))
    };
    assert_eq!(open(&["RW 8 FLAT \"flat\" 0"], 4096).unwrap().image.virtual_size(), 4096);
    assert_eq!(open(&["RW 8 FLAT \"flat\" 0"], 9999).unwrap().image.virtual_size(), 4096);
    for (line, len, start) in
        [("RW 8 FLAT \"flat\" 0", 4095, 0), ("RW 8 FLAT \"flat\" 1", 4607, 512), ("RW 8 VMFS \"flat\"", 0, 0)]
    {
        let what = Item::Numbered("VMDK extent", 1);
        let error = OpenError::Truncated { what, span: Span::new(start, 4096), file_len: len };
        let found = open(&["RW 1 ZERO", line], len as usize).map(|disk| disk.image).unwrap_err();
        assert_eq!(found, in_file(1, error));
        assert!(found.hint().is_some());
    }
    let wraps = open(&["RW 8 FLAT \"flat\" 36028797018963968"], 4096).map(|disk| disk.image).unwrap_err();
    assert!(matches!(wraps.located().1, OpenError::Truncated { .. }));
}

#[test]
fn holes_of_flat_files_hide_the_parent() {
    let flat = [vec![0; 8192], content(7, 4096), vec![0; 4096]].concat();
    let lines = ["RW 16 FLAT \"flat\" 0", "RW 8 FLAT \"flat\" 16", "RW 8 FLAT \"flat\" 24", "RW 8 ZERO"];
    let folder = Folder::default()
        .with_holes("flat", flat.clone(), vec![Span::new(4096, 100), Span::new(8192, 1 << 40)])
        .with("base.vmdk", descriptor("monolithicFlat", &["RW 40 FLAT \"base\" 0"]))
        .with("base", vec![0xee; 40 * 512]);
    let disk = folder.open(delta("1234abcd", "base.vmdk", &lines)).unwrap();
    assert_reads(&disk, &[flat.as_slice(), &[0; 4096]].concat());
    assert!(disk.image.map().iter().all(|extent| extent.state != State::Hole));
    let stats = disk.image.map().stats();
    assert_eq!((stats.data, stats.zero), (8192 + 100, 12288 - 100));
}

#[test]
fn deltas_lie_over_their_parents() {
    // A COWD delta over a seSparse delta over a stream with a short last grain, which is smaller than they are.
    let stream = stream_sample();
    let grains = BTreeMap::from([
        (0, SeGrain::Data(content(4, 4096))),
        (1, SeGrain::Zero),
        (2, SeGrain::Unmapped),
        (16, SeGrain::Zero),
    ]);
    let mut cowd_grains = BTreeMap::from([(1, content(7, 512)), (130, content(10, 512))]);
    cowd_grains.insert(199, content(13, 512));
    let stream_text = vmdk::descriptor("streamOptimized", 131).replace("CID=fffffffe", "CID=aa");
    let folder = Folder::default()
        .with("base.vmdk", Builder { descriptor: stream_text, ..stream.clone() }.build().bytes)
        .with("mid.vmdk", delta("000000aa", "base.vmdk", &["RW 200 SESPARSE \"mid-se.vmdk\""]))
        .with("mid-se.vmdk", sesparse(200, &grains))
        .with("top-delta.vmdk", cowd(200, 1, &cowd_grains));
    let top = delta("1234ABCD", "mid.vmdk", &["RW 200 VMFSSPARSE \"top-delta.vmdk\""]);
    let disk = folder.open(top.clone()).unwrap();
    let mut expected = stream.guest();
    expected.resize(200 * 512, 0);
    expected[..4096].copy_from_slice(&content(4, 4096));
    expected[4096..3 * 4096].fill(0);
    expected[16 * 4096..17 * 4096].fill(0);
    for (index, data) in &cowd_grains {
        expected[*index as usize * 512..][..512].copy_from_slice(data);
    }
    assert_reads(&disk, &expected);
    let names: Vec<&str> = disk.image.references().iter().map(|reference| reference.name.as_str()).collect();
    assert_eq!(names, ["top-delta.vmdk", "mid.vmdk", "mid-se.vmdk", "base.vmdk"]);
    let by: Vec<u16> = disk.image.references().iter().map(|reference| reference.by.0).collect();
    assert_eq!(by, [0, 0, 2, 2]);
    assert_eq!(disk.image.references()[3].role, Role::BackingFile);

    // The parent must be the disk that the delta was made on.
    let other = top.replace("parentCID=1234ABCD", "parentCID=1234ABCE");
    let error = OpenError::ParentCid { found: 0x1234_abcd, expected: 0x1234_abce };
    assert_eq!(error.to_string(), "the parent has the CID 1234abcd, and the image was made on 1234abce");
    assert_eq!(folder.refusal(other), in_file(2, error));
    let mid = delta("000000ab", "base.vmdk", &["RW 200 SESPARSE \"mid-se.vmdk\""]);
    let error = OpenError::ParentCid { found: 0xaa, expected: 0xab };
    assert_eq!(folder.clone().with("mid.vmdk", mid).refusal(top.clone()), in_file(4, error));
    let mid = descriptor("custom", &["RW 200 ZERO"]).replace("\nCID=1234abcd", "");
    let found = folder.clone().with("mid.vmdk", mid).refusal(top.clone());
    let what = Item::The("CID of the parent's descriptor");
    assert_eq!(found, in_file(2, OpenError::Missing { what, span: Span::default() }));
    // A parent is a VMDK, whatever it looks like.
    let found = folder.clone().with("mid.vmdk", vec![0; 4096]).refusal(top.clone());
    assert!(matches!(found.located().1, OpenError::Signature { .. }));
    // A disk that is its own parent has no end.
    let own = top.replace("mid.vmdk", "own.vmdk");
    let found = folder.clone().with("own.vmdk", own.clone()).refusal(own);
    assert!(matches!(found.located().1, OpenError::Limit { limit: 64, .. }));

    let skipped = Folder { skip: true, ..folder }.open(top).unwrap();
    assert!(skipped.image.is_partial());
}

#[test]
fn a_delta_needs_both_its_keys() {
    let delta = delta("1234abcd", "base.vmdk", &["RW 8 ZERO"]);
    let refusal = |text: String| Folder::default().refusal(text);
    let found = refusal(delta.replace("parentFileNameHint=\"base.vmdk\"", ""));
    assert!(
        matches!(
            found,
            OpenError::Missing { what: Item::The("parentFileNameHint of the VMDK descriptor"), .. }
        ),
        "{found:?}"
    );
    let expected = OpenError::Field {
        what: Item::The("parentCID of the VMDK descriptor"),
        found: u64::from(u32::MAX),
        expected: "the CID of the parent that parentFileNameHint names",
    };
    assert_eq!(refusal(delta.replace("1234abcd", "ffffffff")), expected);
    assert_eq!(refusal(delta.replace("parentCID=1234abcd", "")), expected);
}

#[test]
fn names_are_read_in_their_encoding() {
    let named = |encoding: &str, name: &[u8]| {
        let text = descriptor("monolithicFlat", &["RW 8 FLAT \"@\" 0"]);
        let text = text.replace("version=1\n", &format!("version=1\n{encoding}\n"));
        let (before, after) = text.split_once('@').unwrap();
        [before.as_bytes(), name, after.as_bytes()].concat()
    };
    let read = |text: Vec<u8>| {
        let disk = Folder { skip: true, ..Folder::default() }.open(text);
        disk.map(|disk| disk.image.references()[0].name.clone())
    };
    assert_eq!(read(named("encoding=\"windows-1252\"", b"\x80\xfc.vmdk")), Ok("€ü.vmdk".into()));
    assert_eq!(read(named("encoding=\"UTF-8\"", "диск.vmdk".as_bytes())), Ok("диск.vmdk".into()));
    assert_eq!(read(named("encoding = UTF-8\r", "диск.vmdk".as_bytes())), Ok("диск.vmdk".into()));
    assert_eq!(read(named("", "диск.vmdk".as_bytes())), Ok("диск.vmdk".into()));
    assert_eq!(read(named("encoding=\"Shift_JIS\"", b"C:\\x\\..\\y.vmdk")), Ok("C:\\x\\..\\y.vmdk".into()));
    let refused = Err(unsupported(Feature::VmdkEncoding));
    assert!(Feature::VmdkEncoding.to_string().contains("windows-1252"));
    assert_eq!(read(named("encoding=\"Shift_JIS\"", b"\x83f.vmdk")), refused);
    assert_eq!(read(named("encoding=\"UTF-8\"", b"\xfc.vmdk")), refused);
    assert_eq!(read(named("", b"\xfc.vmdk")), refused);
    assert!(unsupported(Feature::VmdkEncoding).hint().is_some());
    let twice = read(named("encoding=\"UTF-8\"\nencoding=\"GBK\"", b"a"));
    assert_eq!(twice, Err(OpenError::Descriptor { line: 4, expected: "the only encoding" }));
    // The name of the file that holds all of it is not needed, so it may be anything.
    let text = vmdk::descriptor("monolithicSparse", 1024).replace("# Extent", "encoding=\"GBK\"\n# Extent");
    let mut file = Builder { descriptor: text, ..Builder::sparse(1024) }.build().bytes;
    let at = file.windows(4).position(|bytes| bytes == b"disk").unwrap();
    file[at..at + 4].fill(0xb4);
    assert!(Folder::default().open(file).is_ok());
}

#[test]
fn lines_that_are_not_read_are_refused_by_name() {
    let folder = Folder::default()
        .with("flat", vec![0xff; 4096])
        .with("empty", vec![])
        .with("sparse", Builder::sparse(1024).grain(0, content(1, GRAIN)).build().bytes)
        .with("cowd", cowd_sample(5000).0)
        .with("se", sesparse_sample(40000).0);
    let lines = |lines: &[&str]| folder.refusal(descriptor("custom", lines));
    let at = |expected| OpenError::Descriptor { line: 8, expected };
    let signature = |signature: &[u8; 4], found| {
        in_file(1, OpenError::Signature { expected: Format::Vmdk, found, signature: *signature })
    };
    let field =
        |what, found, expected| in_file(1, OpenError::Field { what: Item::The(what), found, expected });
    let length = "length of the extent in the VMDK descriptor";
    let capacity = "the capacity in the header";
    let twice = |index| OpenError::Claimed { what: Item::Numbered("VMDK extent", index), at: 0 };
    let offset = "a flat extent with its offset, in sectors, after the file name";
    let cases: &[(&[&str], OpenError)] = &[
        (&["NOACCESS 8 FLAT \"flat\" 0"], unsupported(Feature::VmdkNoAccess)),
        (&["NOACCESS 1024 SPARSE \"sparse\""], unsupported(Feature::VmdkNoAccess)),
        (&["RW 8 VMFSRDM \"rdm\""], unsupported(Feature::VmdkExtentType("VMFSRDM"))),
        (&["RW 8 VMFSRAW \"raw\""], unsupported(Feature::VmdkExtentType("VMFSRAW"))),
        (&["RW 8 VSANSPARSE \"vsan\""], unsupported(Feature::VmdkExtentType("VSANSPARSE"))),
        (&["RW 0 ZERO"], at("an extent of at least 1 sector")),
        (&["RW 8 ZERO \"flat\" 0"], at("an extent of zeroes: access, sectors, type, nothing else")),
        (&["RW 8 FLAT \"flat\""], at(offset)),
        (&["RW 8 FLAT \"flat\" -1"], at(offset)),
        (&["RW 8 FLAT \"flat\" 0 partitionUUID x"], at(offset)),
        (&["RW 8 FLAT 0"], at("an extent: access, sectors, type, file name in quotes")),
        (&["RW 8 SESPARSE \"se\" 8"], at("a sparse extent that starts at offset 0 of its file")),
        (&["RW 8 SPARSE \"flat\""], signature(b"KDMV", [0xff; 4])),
        (&["RW 8 VMFSSPARSE \"se\""], signature(b"KDMV", [0xbe, 0xba, 0xfe, 0xca])),
        (&["RW 8 SESPARSE \"cowd\""], signature(&[0xbe, 0xba, 0xfe, 0xca], *b"COWD")),
        (&["RW 8 SPARSE \"empty\""], in_file(1, OpenError::Empty)),
        (&["RW 1023 SPARSE \"sparse\""], field(length, 1023, capacity)),
        (&["RW 1025 SPARSE \"sparse\""], field(length, 1025, capacity)),
        (&["RW 5001 VMFSSPARSE \"cowd\""], field(length, 5001, capacity)),
        (&["RW 39999 SESPARSE \"se\""], field(length, 39999, capacity)),
        (&["RW 1024 SPARSE \"sparse\"", "RW 1024 SPARSE \"sparse\""], twice(1)),
        (&["RW 1024 SPARSE \"sparse\"", "RW 1 ZERO", "RW 1 FLAT \"sparse\" 0"], twice(2)),
        (&["RW 8 FLAT \"flat\" 0", "RW 8 SPARSE \"flat\""], twice(1)),
        (
            &["RW 137438953472 ZERO", "RW 1 ZERO"],
            OpenError::Limit { what: Item::The("virtual size"), found: (64 << 40) + 512, limit: 64 << 40 },
        ),
        (
            &["RW 18446744073709551615 ZERO"],
            OpenError::Limit { what: Item::The("virtual size"), found: u64::MAX, limit: 64 << 40 },
        ),
    ];
    for (case, expected) in cases {
        assert_eq!(lines(case), *expected, "{case:?}");
    }
    for name in
        ["fullDevice", "partitionedDevice", "vmfsRDM", "vmfsRaw", "vmfsPassthroughRawDeviceMap", "vsanSparse"]
    {
        // The lines of such a disk have a grammar of their own.
        let text = descriptor(name, &["RW 8 FLAT \"\\\\.\\PhysicalDrive0\" 0 partitionUUID x"]);
        assert_eq!(folder.refusal(text), unsupported(Feature::VmdkCreateType(name)));
    }
}

#[test]
fn the_number_of_extents_is_limited() {
    let lines = |count| descriptor("twoGbMaxExtentFlat", &vec!["RW 1 ZERO"; count]);
    assert_eq!(details(&Folder::default().open(lines(4096)).unwrap()).extents, 4096);
    let expected = OpenError::Limit {
        what: Item::The("number of extents in the VMDK descriptor"),
        found: 4097,
        limit: 4096,
    };
    assert_eq!(Folder::default().refusal(lines(4097)), expected);
}

/// As many sparse files as there may be: asked for at once, read one after the other.
#[test]
fn many_sparse_extents_are_read() {
    let count = 4096;
    let names: Vec<String> = (0..count).map(|index| format!("RW 128 SPARSE \"s{index}\"")).collect();
    let files = (0..count).fold(Folder::default(), |folder, index| {
        folder
            .with(&format!("s{index}"), Builder::stream(128).grain(0, vec![index as u8; GRAIN]).build().bytes)
    });
    let lines: Vec<&str> = names.iter().map(String::as_str).collect();
    let disk = files.open(descriptor("twoGbMaxExtentSparse", &lines)).unwrap();
    let layout = ObjectMap::raw(disk.image.virtual_size());
    assert_eq!(disk.others.len(), count);
    for index in [0, 1, 255, 256, 4095] {
        let part = disk.part(&layout, Span::new(index * GRAIN as u64, GRAIN as u64)).unwrap();
        assert!(part == vec![index as u8; GRAIN], "{index}");
    }
}

/// A header with no capacity has only a descriptor behind it.
#[test]
fn a_sparse_header_may_hold_only_the_descriptor() {
    let text = descriptor("monolithicFlat", &["RW 8 FLAT \"flat\" 0"]);
    let mut file = Builder { descriptor: text, ..Builder::sparse(8) }.build().bytes;
    file[12..20].fill(0);
    let disk = Folder::default().with("flat", content(1, 4096)).open(file).unwrap();
    assert_reads(&disk, &content(1, 4096));
    // It holds no extent: one that names itself is none.
    let mut own = Builder::sparse(8).build().bytes;
    own[12..20].fill(0);
    let found = Folder::default().with("disk.vmdk", own.clone()).refusal(own);
    let error = OpenError::Field {
        what: Item::The("capacity of the VMDK header"),
        found: 0,
        expected: "at least 1 sector",
    };
    assert_eq!(found, in_file(1, error));
}

#[test]
fn extent_files_alone_want_their_descriptor() {
    let mut split = Builder::sparse(1024).build().bytes;
    split[28..44].fill(0);
    for file in [split, cowd_sample(5000).0, sesparse_sample(40000).0] {
        let found = Folder::default().refusal(file);
        assert_eq!(found, unsupported(Feature::VmdkExtentAlone));
        assert!(found.hint().unwrap().contains("NAME.vmdk for NAME-s001.vmdk"));
    }
}

/// A split file has room for a descriptor and none in it; what it says of its content is checked all the same.
#[test]
fn errors_say_in_which_extent_file_they_are() {
    let good = Builder::sparse(1024).grain(0, content(1, GRAIN)).build();
    let text = descriptor("twoGbMaxExtentSparse", &["RW 1024 SPARSE \"a\"", "RW 1024 SPARSE \"b\""]);
    let mut split = good.clone();
    split.bytes[512..1024].fill(0);
    let folder = Folder::default().with("a", split.bytes.clone());
    assert!(folder.clone().with("b", split.bytes.clone()).open(text.clone()).is_ok());
    let cut = &good.bytes[..good.bytes.len() - 1];
    let found = folder.clone().with("b", cut.to_vec()).refusal(text.clone());
    assert!(
        matches!(&found, OpenError::In { file: FileId(2), error } if matches!(**error, OpenError::Truncated { .. }))
    );
    let found = folder.clone().with("b", split.with(4, &[9])).refusal(text.clone());
    assert_eq!(found, in_file(2, unsupported(Feature::VmdkVersion(9))));
    let unclean = folder.with("b", split.with(72, &[1])).open(text).unwrap();
    assert_eq!(unclean.image.warnings(), [Warning::UncleanShutdown]);
}

#[test]
fn cowd_headers_and_tables_are_checked() {
    let (good, _) = cowd_sample(5000);
    let open = |file: Vec<u8>| {
        let text = descriptor("vmfsSparse", &["RW 5000 VMFSSPARSE \"x-delta.vmdk\""]);
        Folder::default().with("x-delta.vmdk", file).open(text)
    };
    let put = |at: usize, value: u32| {
        let mut file = good.clone();
        file[at..at + 4].copy_from_slice(&value.to_le_bytes());
        file
    };
    assert_eq!(details(&open(good.clone()).unwrap()).create_type, CreateType::VmfsSparse);
    assert_eq!(open(put(1648, 1)).unwrap().image.warnings(), [Warning::UncleanShutdown]);
    let len = good.len() as u64;
    let sectors = (len / 512) as u32;
    let table = u32::from_le_bytes(*good[2048..].first_chunk().unwrap());
    let entry = table as usize * 512;
    let first = u32::from_le_bytes(*good[entry..].first_chunk().unwrap());
    let field = |what, found: u32, expected| OpenError::Field { what, found: found.into(), expected };
    let the = Item::The;
    let grain = "a power of two from 1 to 2048 sectors";
    let of = |index| Item::EntryOf("grain table", 0, index);
    let truncated = |what, start: u32, len_of: u64| {
        let span = Span::new(u64::from(start) * 512, len_of);
        OpenError::Truncated { what, span, file_len: len }
    };
    let cases = [
        (put(4, 2), unsupported(Feature::VmdkVersion(2))),
        (put(8, 7), unsupported(Feature::VmdkFlags(7))),
        (put(12, 0), field(the("capacity of the COWD header"), 0, "at least 1 sector")),
        (put(16, 0), field(the("grainSize of the COWD header"), 0, grain)),
        (put(16, 3), field(the("grainSize of the COWD header"), 3, grain)),
        (put(16, 4096), field(the("grainSize of the COWD header"), 4096, grain)),
        (put(20, 3), field(the("gdOffset of the COWD header"), 3, "a sector past the header")),
        (put(20, sectors), truncated(the("VMDK grain directory"), sectors, 8)),
        (put(24, 1), field(the("numGDEntries of the COWD header"), 1, "as many as the capacity needs")),
        (put(2048, sectors - 1), truncated(Item::Entry("grain directory", 0), sectors - 1, 16384)),
        (put(2048, 3), OpenError::Claimed { what: Item::Entry("grain directory", 0), at: 1536 }),
        (
            put(2052, table),
            OpenError::Claimed { what: Item::Entry("grain directory", 1), at: u64::from(table) * 512 },
        ),
        (put(entry + 4, sectors), truncated(of(1), sectors, 512)),
        (put(entry + 4, 3), field(of(1), 3, "0 or a sector past the metadata")),
        (put(entry + 4, 4), OpenError::Claimed { what: of(1), at: 2048 }),
        (put(entry + 4, table + 31), OpenError::Claimed { what: of(1), at: u64::from(table + 31) * 512 }),
        (put(entry + 4, first), OpenError::Claimed { what: of(1), at: u64::from(first) * 512 }),
        (
            good[..2047].to_vec(),
            OpenError::Truncated { what: the("COWD header"), span: Span::new(0, 2048), file_len: 2047 },
        ),
    ];
    for (file, expected) in cases {
        assert_eq!(open(file).map(|disk| disk.image).unwrap_err(), in_file(1, expected));
    }
    for cut in (0..good.len()).step_by(97) {
        assert!(open(good[..cut].to_vec()).is_err(), "cut to {cut}");
    }
}

#[test]
fn sesparse_headers_and_tables_are_checked() {
    let (good, _) = sesparse_sample(40000);
    let open = |file: Vec<u8>| {
        let text = descriptor("seSparse", &["RW 40000 SESPARSE \"x-sesparse.vmdk\""]);
        Folder::default().with("x-sesparse.vmdk", file).open(text)
    };
    let put = |at: usize, value: u64| {
        let mut file = good.clone();
        file[at..at + 8].copy_from_slice(&value.to_le_bytes());
        file
    };
    assert_eq!(details(&open(good.clone()).unwrap()).create_type, CreateType::SeSparse);
    let len = good.len() as u64;
    let field = |what, found, expected| OpenError::Field { what, found, expected };
    let the = Item::The;
    let reserved = "reserved part of the seSparse header";
    let directory = |index| Item::Entry("grain directory", index);
    let of = |index| Item::EntryOf("grain table", 0, index);
    // 40000 sectors take two tables; the first is stored second.
    let table = esx::se::TABLES + esx::se::TABLE_LEN;
    let entry = u64::from_le_bytes(*good[table..].first_chunk().unwrap());
    let past = 0x3000_0000_0000_0000 | (6 << 48);
    let span = |start: usize, len| Span::new(start as u64, len);
    let first_grain = esx::se::TABLES + 2 * esx::se::TABLE_LEN;
    let table_entry = "0 or 0x10000000 and the number of a table";
    let kinds = "0, or of type 1, 2 or 3 in the upper four bits";
    let cases = [
        (
            put(8, 0x2_0000_0002),
            field(the("version of the seSparse header"), 0x2_0000_0002, "0x200000001 (2.1)"),
        ),
        (put(16, 0), field(the("capacity of the seSparse header"), 0, "at least 1 sector")),
        (put(16, 1 << 38), OpenError::Limit { what: the("virtual size"), found: 128 << 40, limit: 64 << 40 }),
        (put(24, 16), field(the("grainSize of the seSparse header"), 16, "8")),
        (put(32, 32), field(the("grainTableSize of the seSparse header"), 32, "64")),
        (put(40, 1), field(the("flags of the seSparse header"), 1, "0")),
        (put(48, 5), field(the(reserved), 5, "0")),
        (put(72, 6), field(the(reserved), 6, "0")),
        (put(504, 7), field(the(reserved), 7, "0")),
        (
            put(80, 0),
            field(the("volatileHeaderOffset of the seSparse header"), 0, "a sector past the header"),
        ),
        (
            put(80, len / 512),
            OpenError::Truncated {
                what: the("volatile seSparse header"),
                span: Span::new(len, 512),
                file_len: len,
            },
        ),
        (
            put(128, u64::MAX),
            OpenError::Truncated {
                what: the("VMDK grain directory"),
                span: Span::new(u64::MAX, 16),
                file_len: len,
            },
        ),
        (put(128, 1), OpenError::Claimed { what: the("VMDK grain directory"), at: 512 }),
        (
            put(136, 0),
            field(the("grainDirSize of the seSparse header"), 0, "as many sectors as the capacity needs"),
        ),
        (
            put(512, 0xcafe_babe),
            field(the("magic of the volatile seSparse header"), 0xcafe_babe, "0xcafecafe"),
        ),
        (put(512 + 24, 1), unsupported(Feature::VmdkJournal)),
        (put(512 + 64, 9), field(the("reserved part of the volatile seSparse header"), 9, "0")),
        (put(4096, 1), field(directory(0), 1, table_entry)),
        (put(4096, 0x1000_0001_0000_0000), field(directory(0), 0x1000_0001_0000_0000, table_entry)),
        (
            put(4096, 0x1000_0000_0000_0002),
            OpenError::Truncated { what: directory(0), span: span(first_grain, 32768), file_len: len },
        ),
        (put(4104, 0x1000_0000_0000_0001), OpenError::Claimed { what: directory(1), at: table as u64 }),
        (put(table + 56, 1), field(of(7), 1, kinds)),
        (put(table + 56, 4 << 60), field(of(7), 4 << 60, kinds)),
        (put(table + 56, entry), OpenError::Claimed { what: of(7), at: len - 4096 }),
        (
            put(table + 56, past),
            OpenError::Truncated { what: of(7), span: Span::new(len, 4096), file_len: len },
        ),
        (
            put(table + 56, u64::MAX >> 2),
            OpenError::Truncated { what: of(7), span: Span::new(u64::MAX, 4096), file_len: len },
        ),
        (
            good[..100].to_vec(),
            OpenError::Truncated { what: the("seSparse header"), span: Span::new(0, 512), file_len: 100 },
        ),
    ];
    for (number, (file, expected)) in cases.into_iter().enumerate() {
        assert_eq!(open(file).map(|disk| disk.image).unwrap_err(), in_file(1, expected), "case {number}");
    }
    assert!(unsupported(Feature::VmdkJournal).hint().is_some());
    for cut in (0..good.len()).step_by(997).chain([good.len() - 1]) {
        assert!(open(good[..cut].to_vec()).is_err(), "cut to {cut}");
    }
}

/// Any bytes of any file may change: no panic, no read outside of a file, no endless work.
#[test]
fn mutations_never_panic() {
    let (cowd, _) = cowd_sample(5000);
    let (sesparse, _) = sesparse_sample(40000);
    let text = delta(
        "1234abcd",
        "base.vmdk",
        &[
            "RW 5000 VMFSSPARSE \"cowd\"",
            "RW 40000 SESPARSE \"se\"",
            "RW 131 SPARSE \"stream\"",
            "RW 9 FLAT \"flat\" 0",
            "RW 7 ZERO",
        ],
    );
    let stream = stream_sample().build();
    let stream = [&stream.bytes[..stream.bytes.len() - 1536], &[0; 512]].concat();
    let good = Folder::default()
        .with("cowd", cowd.clone())
        .with("se", sesparse.clone())
        .with("stream", stream.clone())
        .with("flat", content(1, 9 * 512))
        .with("base.vmdk", descriptor("custom", &["RW 60000 FLAT \"flat2\" 0"]))
        .with("flat2", vec![1; 60000 * 512]);
    let table = u32::from_le_bytes(*cowd[2048..].first_chunk().unwrap()) as usize * 512;
    let se_table = esx::se::TABLES + esx::se::TABLE_LEN;
    let tail = stream.len() - 8192..stream.len();
    let targets: &[(&str, &[u8], &[std::ops::Range<usize>])] = &[
        ("", text.as_bytes(), &[0..text.len()]),
        ("cowd", &cowd, &[0..32, 2048..2056, table..table + 16]),
        ("se", &sesparse, &[0..208, 512..544, 4096..4112, se_table..se_table + 64]),
        ("stream", &stream, &[0..80, 65536..65552, tail]),
    ];
    let mut dice = Dice(77);
    let mut opened = 0;
    for round in 0..4000 {
        let (name, bytes, regions) = targets[round % targets.len()];
        let mut bytes = bytes.to_vec();
        for _ in 0..=dice.roll(2) {
            let region = &regions[dice.roll(regions.len() as u64) as usize];
            let at = region.start + dice.roll(region.len() as u64) as usize;
            let values = [0, 1, 0x7f, b'0', 0xff, dice.roll(256) as u8];
            bytes[at] = values[dice.roll(6) as usize];
        }
        if dice.roll(8) == 0 {
            bytes.truncate(dice.roll(bytes.len() as u64) as usize);
        }
        let mut folder = good.clone();
        // A mutant may name any file: what is not there is the flat one.
        let read = |folder: &Folder, reference: &Reference| {
            Some(folder.files.get(&reference.name).unwrap_or(&good.files["flat"]).clone())
        };
        let top = if name.is_empty() {
            bytes
        } else {
            folder = folder.with(name, bytes);
            text.clone().into_bytes()
        };
        let options = OpenOptions { format: Some(Format::Vmdk), ..OpenOptions::default() };
        let Ok(disk) = Disk::parse_with(top.into(), &|reference| read(&folder, reference), &options) else {
            continue;
        };
        opened += 1;
        let covered: u64 = disk.image.map().iter().map(|extent| extent.guest.len).sum();
        assert_eq!(covered, disk.image.virtual_size());
        let layout = ObjectMap::raw(disk.image.virtual_size());
        for extent in disk.image.map().iter().filter(|extent| extent.state.is_stored()).take(16) {
            // A stream may be damaged; what matters is that its place is inside of its file.
            let _ = disk.part(&layout, Span::new(extent.guest.start, extent.guest.len.min(64 << 10)));
        }
    }
    // The test means something only if many mutants are opened, and many are not.
    assert!((400..3600).contains(&opened), "{opened}");
}
