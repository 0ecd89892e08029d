//! VMDK files that must be refused, each for its reason, and files that may be anything.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

#[path = "support/driver.rs"]
mod driver;
#[path = "support/qemu.rs"]
mod qemu;
#[path = "support/vmdk.rs"]
mod vmdk;

use bytes::Bytes;
use disk_image::{Feature, Format, Image, Item, ObjectMap, OpenError, OpenOptions, Span};
use driver::Disk;
use qemu::Dice;
use vmdk::{Builder, DESCRIPTOR, GRAIN, ODD_CAPACITY, OVERHEAD, content, descriptor, populated};

fn open(file: &[u8]) -> Result<Image, OpenError> {
    Disk::parse(Bytes::copy_from_slice(file), &OpenOptions::default()).map(|disk| disk.image)
}

/// Opens what the user has said to be a VMDK.
fn open_named(file: &[u8]) -> Result<Disk, OpenError> {
    Disk::parse(
        Bytes::copy_from_slice(file),
        &OpenOptions { format: Some(Format::Vmdk), ..OpenOptions::default() },
    )
}

fn entry_of(table: u64, entry: u64) -> Item {
    Item::EntryOf("grain table", table, entry)
}

#[test]
fn a_footer_must_agree_with_the_header() {
    let built = populated(Builder::stream(ODD_CAPACITY)).build();
    let len = built.bytes.len();
    let footer = len - 1024;
    assert!(matches!(open(&built.with(footer, b"JDMV")), Err(OpenError::Signature { .. })));
    let cases = [
        (4, "version of the VMDK footer"),
        (8, "flags of the VMDK footer"),
        (12, "capacity of the VMDK footer"),
        (20, "grainSize of the VMDK footer"),
        (77, "compressAlgorithm of the VMDK footer"),
    ];
    for (at, name) in cases {
        let found = open(&built.with(footer + at, &[0xfe])).unwrap_err();
        assert!(matches!(found, OpenError::Field { what: Item::The(what), .. } if what == name), "{found:?}");
    }
    let again = open(&built.with(footer + 56, &[0xff; 8])).unwrap_err();
    assert_eq!(
        again.to_string(),
        "the gdOffset of the VMDK header is 0xffffffffffffffff, expected the sector of the grain directory"
    );
}

#[test]
fn markers_are_checked() {
    let built = populated(Builder::stream(ODD_CAPACITY)).build();
    let last = *built.grains.values().max().unwrap();
    let found = open(&built.with(last, &[1])).unwrap_err();
    let what = Item::The("sector in the marker of the last grain");
    assert!(matches!(found, OpenError::Field { what: found, .. } if found == what), "{found:?}");
    let found = open(&built.with(last + 8, &[0xff; 4])).unwrap_err();
    assert!(
        matches!(found, OpenError::Truncated { what: Item::EntryOf("grain table", 1, 188), .. }),
        "{found:?}"
    );

    // Of all others the markers are read with their data.
    let sixth_grain = |file: &[u8]| {
        let disk = open_named(file).unwrap();
        disk.part(&ObjectMap::raw(disk.image.virtual_size()), Span::new(5 * GRAIN as u64, 512))
    };
    assert!(sixth_grain(&built.bytes).is_ok());
    let file = built.with(built.grains[&5], &[0xff]);
    assert!(sixth_grain(&file).is_err());
    let twice = built.with(built.entry(5), &built.bytes[built.entry(2)..][..4]);
    let at = built.grains[&2] as u64;
    assert_eq!(open(&twice).unwrap_err(), OpenError::Claimed { what: entry_of(0, 5), at });
}

#[test]
fn header_fields_are_checked() {
    let field = |what, found, expected| OpenError::Field { what: Item::The(what), found, expected };
    let sparse = Builder::sparse(ODD_CAPACITY);
    let unsupported = OpenError::Unsupported;
    let cases: Vec<(usize, &[u8], OpenError)> = vec![
        (4, &[0], unsupported(Feature::VmdkVersion(0))),
        (4, &[4], unsupported(Feature::VmdkVersion(4))),
        (10, &[4], unsupported(Feature::VmdkFlags(4 << 16))),
        (
            73,
            b"\n \n ",
            field(
                "newline test of the VMDK header",
                0x0a20_0a20,
                "0xa200d0a (the file was changed in transfer as text)",
            ),
        ),
        (20, &[0], field("grainSize of the VMDK header", 0, "a power of two from 8 to 2048 sectors")),
        (20, &[4], field("grainSize of the VMDK header", 4, "a power of two from 8 to 2048 sectors")),
        (20, &[129], field("grainSize of the VMDK header", 129, "a power of two from 8 to 2048 sectors")),
        (20, &[0, 16], field("grainSize of the VMDK header", 4096, "a power of two from 8 to 2048 sectors")),
        (
            27,
            &[128],
            field("grainSize of the VMDK header", 128 << 56 | 128, "a power of two from 8 to 2048 sectors"),
        ),
        (
            12,
            &[1],
            field("length of the extent in the VMDK descriptor", ODD_CAPACITY, "the capacity in the header"),
        ),
        (44, &[1, 2], field("numGTEsPerGT of the VMDK header", 513, "512")),
        (56, &[0; 8], field("gdOffset of the VMDK header", 0, "the sector of the grain directory")),
        (36, &[0; 8], field("descriptorSize of the VMDK header", 0, "at least 1 sector")),
        (
            37,
            &[16],
            OpenError::Limit {
                what: Item::The("length of the VMDK descriptor"),
                found: (4096 + 20) * 512,
                limit: 1 << 20,
            },
        ),
        (28, &[0; 8], unsupported(Feature::VmdkExtentAlone)),
        (DESCRIPTOR, &[0], unsupported(Feature::VmdkExtentAlone)),
        (77, &[2], unsupported(Feature::VmdkCompression(2))),
        (77, &[1], unsupported(Feature::VmdkWithoutMarkers)),
        (
            10,
            &[1],
            field(
                "compressAlgorithm of the VMDK header",
                0,
                "1 (deflate), because the flags say that grains are compressed",
            ),
        ),
        (19, &[1], OpenError::Limit { what: Item::The("virtual size"), found: u64::MAX, limit: 64 << 40 }),
    ];
    // Long enough for a descriptor of 2 MiB.
    let mut built = populated(sparse).build();
    built.bytes.resize(4 << 20, 0);
    for (at, bytes, expected) in cases {
        assert_eq!(open(&built.with(at, bytes)).unwrap_err(), expected, "{bytes:x?} at {at}");
    }
    // The newline test is one only where its flag says so.
    let mut file = built.with(73, b"\0\0\0\0");
    file[8] = 0;
    assert!(open(&file).is_ok());
}

#[test]
fn pointers_are_checked() {
    let built = populated(Builder::sparse(ODD_CAPACITY)).build();
    let len = built.bytes.len() as u64;
    let past = (len / 512) as u32;
    let truncated = |what, start, len_of, file_len| OpenError::Truncated {
        what,
        span: Span::new(start, len_of),
        file_len,
    };

    let at_end = truncated(Item::The("VMDK grain directory"), len, 8, len);
    assert_eq!(open(&built.with(56, &past.to_le_bytes())).unwrap_err(), at_end);
    let wrapping = open(&built.with(56, &(u64::MAX - 1).to_le_bytes())).unwrap_err();
    assert!(matches!(wrapping, OpenError::Truncated { what: Item::The("VMDK grain directory"), .. }));

    let what = Item::Entry("grain directory", 1);
    let file = built.with(built.directory + 4, &(past - 3).to_le_bytes());
    assert_eq!(open(&file).unwrap_err(), truncated(what, len - 1536, 2048, len));
    // Header, descriptor, directory and the first table are no tables.
    let claimed = |what, at| OpenError::Claimed { what, at };
    let sector = |at: usize| (at as u32 / 512).to_le_bytes();
    for at in [DESCRIPTOR, built.directory, built.tables[&0]] {
        let file = built.with(built.directory + 4, &sector(at));
        let error = open(&file).unwrap_err();
        assert!(
            matches!(error, OpenError::Claimed { what: found, .. } if found == what),
            "{at:#x}: {error:?}"
        );
    }
    // Nor is the directory one of them.
    let file = built.with(56, &[1]);
    assert_eq!(open(&file).unwrap_err(), claimed(Item::The("VMDK grain directory"), 512));

    // Grain 600 is entry 88 of table 1. The last grain needs only three sectors.
    let file = built.with(built.entry(600), &(past - 127).to_le_bytes());
    let start = len - 127 * 512;
    assert_eq!(open(&file).unwrap_err(), truncated(entry_of(1, 88), start, GRAIN as u64, len));
    assert!(open(&built.bytes[..built.bytes.len() - GRAIN + 3 * 512]).is_ok());

    let file = built.with(built.entry(600), &(OVERHEAD as u32 / 512 - 1).to_le_bytes());
    let expected = "0 or a sector past the metadata";
    assert_eq!(open(&file).unwrap_err(), OpenError::Field { what: entry_of(1, 88), found: 127, expected });

    let first = built.bytes[built.entry(0)..][..4].to_vec();
    let file = built.with(built.entry(600), &first);
    assert_eq!(open(&file).unwrap_err(), claimed(entry_of(1, 88), built.grains[&0] as u64));
    // One sector before the end of the first grain.
    let file = built.with(built.entry(600), &sector(built.grains[&0] + GRAIN - 512));
    let found = open(&file).unwrap_err();
    assert!(matches!(found, OpenError::Claimed { what, .. } if what == entry_of(1, 88)), "{found:?}");
}

#[test]
fn one_table_for_all_entries_is_refused() {
    // 1 TiB in grains of 4 KiB: half a million tables, which would take a gigabyte to read.
    let capacity = 1 << 31;
    let builder = Builder { grain_sectors: 8, ..Builder::sparse(capacity) };
    let mut built = builder.grain(0, content(1, 4096)).build();
    let table = (built.tables[&0] as u32 / 512).to_le_bytes();
    let end = built.directory + (capacity / 8 / 512 * 4) as usize;
    built.bytes[built.directory..end].as_chunks_mut().0.fill(table);
    let at = built.tables[&0] as u64;
    let found = open(&built.bytes).unwrap_err();
    assert_eq!(found, OpenError::Claimed { what: Item::Entry("grain directory", 1), at });
}

#[test]
fn one_stream_for_all_entries_is_refused() {
    let mut built = Builder::stream(512 * 128).grain(0, content(2, GRAIN)).build();
    let sector = (built.grains[&0] as u32 / 512).to_le_bytes();
    let table = built.tables[&0];
    built.bytes[table..table + 2048].as_chunks_mut().0.fill(sector);
    let found = open(&built.bytes).unwrap_err();
    let at = built.grains[&0] as u64;
    assert_eq!(found, OpenError::Claimed { what: entry_of(0, 1), at });
}

#[test]
fn descriptors_are_read_by_their_grammar() {
    let with = |text: &str| open(&Builder { descriptor: text.into(), ..Builder::sparse(1024) }.build().bytes);
    let good = descriptor("monolithicSparse", 1024);
    let accepted = [
        good.replace('\n', "\r\n"),
        good.replace("createType=", "createType = ").replace("CID=", "CID = "),
        good.replace("RW", "RDONLY"),
        good.replace("RW", "rw").replace("SPARSE", "sparse").replace("createType", "CREATETYPE"),
        good.replace("disk.vmdk\"", "../../etc/a b#c=d.vmdk\" 0"),
        good.replace("version=1", "version=1\nencoding=\"windows-1252\"\nunknown.key = with = signs"),
        good.replace("# Extent", "# createType=\"vmfs\"\n# RW 5 FLAT \"x\"\n#"),
        good.replace("parentCID=ffffffff\n", ""),
        format!("{good}parentFileNameHint=\"\"\n"),
        format!("{good}\0garbage after the end\u{1}"),
        good.trim_end().to_owned(),
    ];
    for text in &accepted {
        assert!(with(text).is_ok(), "{:?}: {text}", with(text));
    }

    let unsupported = |feature| OpenError::Unsupported(feature);
    let line = |line, expected| OpenError::Descriptor { line, expected };
    let missing = |what| OpenError::Missing { what: Item::The(what), span: Span::new(512, 20 * 512) };
    let extent = "an extent: access, sectors, type, file name in quotes";
    let refused = [
        (good.replace("=ffffffff", "=12345678"), missing("parentFileNameHint of the VMDK descriptor")),
        (good.replace("monolithicSparse", "vmfsThin"), unsupported(Feature::VmdkExtentFiles)),
        (good.replace("monolithicSparse", "vmfsRDM"), unsupported(Feature::VmdkCreateType("vmfsRDM"))),
        (good.replace("monolithicSparse", "/bin/sh"), unsupported(Feature::VmdkUnknownCreateType)),
        (good.replace("SPARSE \"disk.vmdk\"", "FLAT \"disk.vmdk\" 0"), unsupported(Feature::VmdkExtentFiles)),
        (good.replace("RW", "NOACCESS"), unsupported(Feature::VmdkNoAccess)),
        (good.replace("RW", "RW 1 ZERO\nRW"), unsupported(Feature::VmdkExtentFiles)),
        (good.replace("RW", "RW 5 FLAT \"/etc/passwd\" 0\nRW"), unsupported(Feature::VmdkExtentFiles)),
        (format!("{good}encryption.keySafe = \"vmware:key/list\""), unsupported(Feature::VmdkEncryption)),
        (good.replace("createType", "kreateType"), missing("createType of the VMDK descriptor")),
        (good.replace("RW", "#"), missing("extent line of the VMDK descriptor")),
        (good.replace("version=1", "version"), line(2, "a key with a value, an extent or a comment")),
        (good.replace("version=1", "=1"), line(2, "a key with a value, an extent or a comment")),
        (good.replace("RW 1024", "WR 1024"), line(8, "a key with a value, an extent or a comment")),
        (good.replace("RW 1024", "RW many"), line(8, extent)),
        (good.replace("RW 1024", "RW +1024"), line(8, extent)),
        (good.replace("RW 1024", "RW 18446744073709551616"), line(8, extent)),
        (good.replace("SPARSE", "SPARS"), line(8, "an extent of a known type")),
        (good.replace("\"disk.vmdk\"", "disk.vmdk"), line(8, extent)),
        (good.replace("\"disk.vmdk\"", "\"disk.vmdk"), line(8, extent)),
        (good.replace("\"disk.vmdk\"", "\"\""), line(8, extent)),
        (
            good.replace(".vmdk\"", ".vmdk\" 128"),
            line(8, "a sparse extent that starts at offset 0 of its file"),
        ),
        (good.replace("Sparse\"", "Sparse"), line(5, "a createType in quotes")),
        (good.replace("CID=fffffffe", "CID=xyz"), line(3, "a CID of up to 8 hexadecimal digits")),
        (good.replace("CID=fffffffe", "CID=1\nCID=2"), line(4, "the only CID")),
        (format!("{good}parentFileNameHint=\"x"), line(15, "a parentFileNameHint in quotes")),
        (
            format!("{good}parentFileNameHint=\"x\"\nparentFileNameHint=\"y\""),
            line(16, "the only parentFileNameHint"),
        ),
        (format!("{good}encoding=\"x"), line(15, "an encoding in quotes")),
        (good.replace("=ffffffff", "=none"), line(4, "a parentCID of up to 8 hexadecimal digits")),
        (good.replace("=ffffffff", "=ffffffff\nparentCID=0"), line(5, "the only parentCID")),
        (format!("{good}createType=\"streamOptimized\""), line(15, "the only createType")),
    ];
    for (text, expected) in refused {
        assert_eq!(with(&text).unwrap_err(), expected, "{text}");
    }
}

#[test]
fn a_descriptor_alone_is_checked_before_its_files() {
    let refusal = |text: &str| open(text.as_bytes()).unwrap_err();
    assert!(matches!(
        refusal("# Disk DescriptorFile\n"),
        OpenError::Missing { what: Item::The("createType of the VMDK descriptor"), .. }
    ));
    assert!(matches!(
        refusal("# Disk DescriptorFile\ncreateType=custom"),
        OpenError::Missing { what: Item::The("extent line of the VMDK descriptor"), .. }
    ));
    assert!(matches!(refusal("# Disk DescriptorFile\nx"), OpenError::Descriptor { line: 2, .. }));
    let long = descriptor("monolithicFlat", 5) + &"#".repeat(1 << 20);
    assert!(matches!(refusal(&long), OpenError::Limit { .. }));
    let locked = descriptor("monolithicFlat", 5) + "encryption.data = \"x\"";
    assert_eq!(refusal(&locked), OpenError::Unsupported(Feature::VmdkEncryption));
}

#[test]
fn other_extents_and_formats_are_named() {
    let refusal = |head: &[u8]| {
        let mut file = head.to_vec();
        file.resize(4096, 0);
        open_named(&file).map(|disk| disk.image).unwrap_err()
    };
    let alone = OpenError::Unsupported(Feature::VmdkExtentAlone);
    assert_eq!(refusal(b"COWD"), alone);
    assert_eq!(refusal(b"\xbe\xba\xfe\xca\0\0\0\0"), alone);
    let signature = OpenError::Signature { expected: Format::Vmdk, found: *b"QFI\xfb", signature: *b"KDMV" };
    assert_eq!(refusal(b"QFI\xfb"), signature);
    for len in 1..512 {
        let found = open_named(&b"KDMV".repeat(128)[..len]).map(|disk| disk.image).unwrap_err();
        assert!(matches!(found, OpenError::Truncated { what: Item::The("VMDK header"), .. }), "{found:?}");
    }
}

/// A file that was cut anywhere is refused while opening, before anything is written.
#[test]
fn truncation_is_refused() {
    // The last grain takes three sectors of a sparse file, and several of a stream: its content does not compress.
    let built = |empty: Builder| populated(empty).grain(700, content(7, 3 * 512)).build();
    let sparse = built(Builder::sparse(ODD_CAPACITY)).bytes;
    let footer = built(Builder::stream(ODD_CAPACITY)).bytes;
    let header = built(Builder { footer: false, ..Builder::stream(ODD_CAPACITY) });
    // What follows the last stream in its sector is padding, and may go.
    let last = header.grains[&700];
    let stream = u32::from_le_bytes(*header.bytes[last + 8..].first_chunk().unwrap());
    assert!(stream > 1024);
    let stream_end = last + 12 + stream as usize;
    assert!(open(&header.bytes[..stream_end]).is_ok());
    for (name, file, len) in [
        ("sparse", &sparse, sparse.len()),
        ("footer", &footer, footer.len()),
        ("header", &header.bytes, stream_end),
    ] {
        assert!(open(file).is_ok(), "{name}");
        let cuts = (0..len).step_by(311).chain((0..len).step_by(512)).chain(len - 2000..len);
        for cut in cuts {
            assert!(open(&file[..cut]).is_err(), "{name} cut to {cut} of {}", file.len());
        }
    }
}

/// Any bytes may change: no panic, no read outside the file, no endless work.
#[test]
fn mutations_never_panic() {
    let sparse = Builder { flags: 5, ..populated(Builder::sparse(ODD_CAPACITY)) };
    let stream = Builder { flags: 0x30005, ..populated(Builder::stream(ODD_CAPACITY)) };
    let mut dice = Dice(2026);
    let mut opened = 0;
    for builder in [sparse.zero_grain(3), stream.zero_grain(3)] {
        let built = builder.build();
        let len = built.bytes.len();
        let mut regions = vec![0..80, DESCRIPTOR..DESCRIPTOR + 400, built.directory..built.directory + 8];
        regions.push(built.entry(0)..built.entry(0) + 32);
        regions.push(len - 1536..len);
        regions.extend(built.grains.values().map(|start| *start..start + 64));
        for _ in 0..3000 {
            let mut file = built.bytes.clone();
            for _ in 0..=dice.roll(3) {
                let region = &regions[dice.roll(regions.len() as u64) as usize];
                let at = region.start + dice.roll(region.len() as u64) as usize;
                let values = [0, 1, 0x7f, 0x80, 0xff, dice.roll(256) as u8];
                file[at] = values[dice.roll(6) as usize];
            }
            if dice.roll(4) == 0 {
                file.truncate(dice.roll(len as u64) as usize);
            }
            opened += u32::from(exercise(&file).is_ok());
        }
    }
    // The test means something only if many mutants get past the header.
    assert!(opened > 1000, "{opened}");
}

/// Opens a file and reads from the first of its extents.
fn exercise(file: &[u8]) -> Result<(), OpenError> {
    let disk = open_named(file)?;
    let layout = ObjectMap::raw(disk.image.virtual_size());
    let stored = disk.image.map().iter().filter(|extent| extent.state.is_stored());
    for extent in stored.take(64) {
        // A stream may be damaged; what matters is that its place is inside the file.
        let _ = disk.part(&layout, Span::new(extent.guest.start, extent.guest.len.min(128 << 10)));
    }
    let covered: u64 = disk.image.map().iter().map(|extent| extent.guest.len).sum();
    assert_eq!(covered, disk.image.virtual_size());
    Ok(())
}
