//! What is refused, and that nothing panics.

use super::*;
use crate::testing::Dice;

#[test]
fn headers() {
    let file = File::dynamic();
    file.refused(|f| f.headers(66, &[2]), "the image needs VHDX version 2, which is not supported");
    file.refused(
        |f| f.put(HEADERS[1] + 63, &[1]),
        "the image needs the replay of its VHDX log, as it was not closed cleanly, which is not supported",
    );
    // The log of an older header is none.
    let mut old = file.clone();
    old.put(HEADERS[0] + 48, &[1]);
    old.files().open().unwrap();
    file.refused(
        |f| f.headers(72, &[0xff; 8]),
        "the VHDX log is 1048576 bytes at 0xffffffffffffffff, past the end of the file (0x800000)",
    );
    file.refused(
        |f| f.put(0, b"VHDX"),
        "not a vhdx image: its first bytes are [56, 48, 44, 58], expected [76, 68, 64, 78]",
    );
}

#[test]
fn region_tables() {
    // Either copy will do.
    for damaged in REGIONS {
        for at in [0, 4, 65535] {
            let mut file = File::dynamic();
            file.sum().0[damaged + at] ^= 1;
            Files::one(file.0).open().unwrap();
        }
    }
    let mut file = File::dynamic();
    file.sum();
    REGIONS.into_iter().for_each(|at| file.0[at + 1000] ^= 1);
    let message = error(&Files::one(file.0)).to_string();
    assert!(message.starts_with("the checksum in the VHDX region table is 0x"), "{message}");

    let file = File::dynamic();
    file.refused(|f| f.regions(8, &[0, 8]), "the number of VHDX regions is 2048, the limit is 2047");
    file.refused(
        |f| f.regions(16, &[1]),
        "the image needs the unknown VHDX region 2dc27701-f623-4200-9d64-115e9bfd4a08, which is not supported",
    );
    let missing = "was not found between 0x30000 and 0x40000";
    file.refused(
        |f| f.regions(16, &[1]).regions(44, &[0]),
        &format!("the VHDX region of the block allocation table {missing}"),
    );
    file.refused(|f| f.regions(48, &[1]).regions(76, &[0]), &format!("the VHDX metadata region {missing}"));
    let id = windows("2dc27766-f623-4200-9d64-115e9bfd4a08");
    file.refused(
        |f| f.regions(48, &id),
        "VHDX region table entry 1 is 0x200000, expected a region that no other entry is of",
    );
    let mib = "expected a multiple of 1 MiB, above 0";
    file.refused(|f| f.regions(34, &[0]), &format!("VHDX region table entry 0 is 0x0, {mib}"));
    file.refused(|f| f.regions(33, &[1]), &format!("VHDX region table entry 0 is 0x300100, {mib}"));
    file.refused(|f| f.regions(42, &[0]), &format!("VHDX region table entry 0 is 0x0, {mib}"));
    file.refused(
        |f| f.regions(34, &[0x80]),
        "VHDX region table entry 0 points to 1048576 bytes at 0x800000, past the end of the file (0x800000)",
    );
    // Regions that need not be known still have their place.
    let mut more = file.clone();
    more.regions(8, &[3]);
    REGIONS.into_iter().for_each(|at| {
        more.region(at, 2, "11111111-1111-1111-1111-111111111111", BITMAP).put(at + 16 + 64 + 28, &[0]);
    });
    more.files().open().unwrap();
    more.refused(
        |f| f.entry(0, 6, BITMAP),
        "VHDX block allocation table entry 0 points to the bytes at 0x400000, which something else in the image uses",
    );
}

#[test]
fn metadata() {
    let file = File::dynamic();
    let refused = |change: &dyn Fn(&mut File) -> &mut File, expected: &str| file.refused(change, expected);
    let entry = METADATA + 32;
    refused(
        &|f| f.put(METADATA, b"M"),
        "the VHDX metadata table was not found between 0x200000 and 0x210000",
    );
    refused(
        &|f| f.put(METADATA + 10, &[0, 8]),
        "the number of VHDX metadata items is 2048, the limit is 2047",
    );
    refused(
        &|f| f.put(entry, &[1]),
        "the image needs the unknown VHDX metadata item caa16701-fa36-4d43-b3b6-33f0aa44e76b, which is not supported",
    );
    for (index, name) in [
        "file parameters",
        "virtual disk size",
        "logical sector size",
        "physical sector size",
        "virtual disk id",
    ]
    .into_iter()
    .enumerate()
    {
        refused(
            &|f| f.put(entry + 32 * index + 24, &[1]),
            &format!("the VHDX {name} was not found between 0x200000 and 0x300000"),
        );
        refused(
            &|f| f.put(entry + 32 * index + 20, &[3]),
            &format!(
                "VHDX metadata table entry {index} is 0x3, expected an item as long as the specification says"
            ),
        );
    }
    let item = "VHDX metadata table entry 0";
    let inside = "expected an item inside of the region, past its table";
    refused(&|f| f.u32(entry + 16, 65535), &format!("{item} is 0xffff, {inside}"));
    refused(&|f| f.u32(entry + 16, MIB as u32 - 7), &format!("{item} is 0xffff9, {inside}"));
    refused(
        &|f| f.u32(entry + 20, MIB as u32 + 1),
        "the length of a VHDX metadata item is 1048577, the limit is 1048576",
    );
    refused(
        &|f| f.u32(entry + 32 + 16, 64 << 10),
        "VHDX metadata table entry 1 points to the bytes at 0x210000, which something else in the image uses",
    );
    let parameters = windows("caa16737-fa36-4d43-b3b6-33f0aa44e76b");
    refused(
        &|f| f.put(entry + 32, &parameters),
        "VHDX metadata table entry 1 is 0x10008, expected an item that no other entry is of",
    );
    for size in [0, 1 << 19, 3 << 20, 1 << 29] {
        let expected = "expected a power of two from 1 MiB to 256 MiB";
        refused(&|f| f.u32(ITEMS, size), &format!("the VHDX block size is {size:#x}, {expected}"));
    }
    refused(
        &|f| f.u32(ITEMS + 4, 4),
        "the flags in the VHDX file parameters is 0x4, expected bits 2-31 to be 0",
    );
    for (at, name) in [(16, "logical"), (20, "physical")] {
        refused(
            &|f| f.u32(ITEMS + at, 1024),
            &format!("the VHDX {name} sector size is 0x400, expected 512 or 4096"),
        );
    }
    let size = "the VHDX virtual disk size is";
    let sectors = "expected a multiple of the sector size, above 0";
    refused(&|f| f.u64(ITEMS + 8, 0), &format!("{size} 0x0, {sectors}"));
    refused(&|f| f.u64(ITEMS + 8, 513), &format!("{size} 0x201, {sectors}"));
    refused(
        &|f| f.u64(ITEMS + 8, 1 << 60),
        &format!("{size} 1152921504606846976, the limit is 70368744177664"),
    );
    refused(
        &|f| f.u64(ITEMS + 8, 1 << 40),
        "the length of the VHDX block allocation table is 0x100000, expected room for an entry for each block",
    );
}

#[test]
fn entries() {
    let refused = |file: &File, index: usize, entry: u64, expected: &str| {
        let item = format!("VHDX block allocation table entry {index} is {entry:#x}, expected {expected}");
        file.refused(|f| f.u64(BAT + 8 * index, entry), &item);
    };
    let (dynamic, differencing) = (File::dynamic(), File::differencing());
    for state in [4, 5] {
        refused(&dynamic, 1, state, "a state that is not reserved: 0 to 3, 6 or 7");
    }
    refused(&dynamic, 1, BITMAP as u64 | 7, "no partially present block, as there is no parent");
    refused(&dynamic, 0, FIRST as u64 | 8 | 6, "bits 3-19 to be 0");
    // What lies past the disk's end, or nowhere, belongs to nobody.
    let mut file = dynamic.clone();
    file.u64(BAT + 48, u64::MAX).entry(2, 2, FIRST).entry(4, 3, 1 << 40);
    file.files().open().unwrap();
    refused(&differencing, 4096, 0, "a sector bitmap, as a block of its chunk is partially present");
    refused(&differencing, 4096, BITMAP as u64 | 7, "a state that is not reserved: 0 or 6");
    let mut two_chunks = dynamic;
    two_chunks.u64(ITEMS + 8, 5 << 30);
    two_chunks.files().open().unwrap();
    refused(&two_chunks, 4096, BITMAP as u64 | 6, "no sector bitmap, as there is no parent");
    refused(&two_chunks, 4097, 5, "a state that is not reserved: 0 to 3, 6 or 7");
}

#[test]
fn nothing_is_referenced_twice() {
    let claimed = |file: &File, index: usize, at: usize| {
        let mut file = file.clone();
        file.entry(index, 6, at);
        let message = error(&file.files()).to_string();
        let expected =
            format!("VHDX block allocation table entry {index} points to the bytes at {at:#x}, which");
        assert!(message.starts_with(&expected), "{message}");
    };
    let file = File::dynamic();
    for at in [0, LOG, METADATA, BAT, FIRST] {
        claimed(&file, 1, at);
    }
    claimed(&File::differencing(), 4096, FIRST);
    file.refused(
        |f| f.headers(72, &(MIB as u64 / 2).to_le_bytes()),
        "the VHDX log offset points to the bytes at 0x80000, which something else in the image uses",
    );
    file.refused(
        |f| f.regions(34, &[0x20]),
        "VHDX region table entry 1 points to the bytes at 0x200000, which something else in the image uses",
    );
}

#[test]
fn truncation_is_always_seen() {
    let mut file = File::differencing();
    let whole = file.sum().0.clone();
    let places = [0, 1, 7, 8, HEADERS[0], REGIONS[1], MIB, LOG, METADATA, ITEMS, LOCATOR, BAT, BITMAP_ENTRY];
    for at in places.into_iter().chain([BITMAP, FIRST, FIRST + MIB, FIRST + 2 * MIB]) {
        for len in [at, at + 1, at + 511, at + 1535] {
            let error = error(&Files::one(whole[..len].to_vec()));
            // The first bytes say nothing yet.
            let early = len < 8 && matches!(error, OpenError::Signature { .. } | OpenError::Empty);
            assert!(early || matches!(error, OpenError::Truncated { .. }), "{len}: {error}");
        }
    }
}

#[test]
fn mutations_never_panic() {
    let parent = File::base().files().0.remove(0).1;
    let mut files = File::differencing().files().and("sub/base.vhdx", parent);
    let mut dice = Dice(1);
    let mut opened = 0;
    for _ in 0..4_000 {
        let mut undo = Vec::new();
        for _ in 0..=dice.roll(3) {
            let places =
                [HEADERS[1], REGIONS[0], METADATA, METADATA + 192, ITEMS, LOCATOR, BAT, BITMAP_ENTRY];
            let reach = [8, 80][dice.roll(2)];
            let at = places[dice.roll(8)] + dice.roll(reach);
            let bytes = &mut files.0[0].1;
            undo.push((at, bytes[at]));
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff, dice.roll(256) as u8][dice.roll(6)];
        }
        // Checksums are made good: what lies behind them is to be reached.
        let mut file = File(std::mem::take(&mut files.0[0].1));
        file.sum();
        files.0[0].1 = file.0;
        if let Ok(image) = files.open() {
            opened += 1;
            assert_eq!(image.map().iter().map(|extent| extent.guest.len).sum::<u64>(), image.virtual_size());
        }
        for (at, byte) in undo.into_iter().rev() {
            files.0[0].1[at] = byte;
        }
    }
    assert!((400..3_600).contains(&opened), "{opened} of 4000 were accepted");
}
