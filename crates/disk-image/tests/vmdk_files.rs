//! Descriptors and the files that they name: what is refused, by which name, and files that may be anything.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

#[path = "support/driver.rs"]
mod driver;
#[path = "support/esx.rs"]
mod esx;
#[path = "support/folder.rs"]
mod folder;
#[path = "support/qemu.rs"]
mod qemu;
#[path = "support/vmdk.rs"]
mod vmdk;

use disk_image::{
    Feature, FileId, Format, Item, ObjectMap, OpenError, OpenOptions, Reference, Span, Warning,
};
use driver::Disk;
use folder::{
    Folder, cowd_sample, delta, descriptor, details, in_file, sesparse_sample, stream_sample, unsupported,
};
use qemu::Dice;
use vmdk::{Builder, GRAIN, content};

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

/// A file that is changed: name, bytes, and where.
type Target<'a> = (&'a str, &'a [u8], &'a [std::ops::Range<usize>]);

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
    let targets: &[Target] = &[
        ("", text.as_bytes(), &[0..40, 40..text.len()]),
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
