//! VMDK disks in several files, made by hand: extents of all kinds, each at its place.

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

use disk_image::vmdk::{CreateType, Details, Directory, Sparse};
use disk_image::{FileId, Format, Item, ObjectMap, OpenError, Reference, Role, Span, State};
use folder::{
    Folder, assert_reads, cowd_sample, descriptor, details, in_file, sesparse_sample, stream_sample,
};
use vmdk::{Builder, GRAIN, content};

const MIB: usize = 1 << 20;

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
