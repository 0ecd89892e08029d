//! What is refused, and that nothing panics.

use super::*;
use crate::testing::Dice;
use crate::{Feature, Item, Span};

#[test]
fn footers() {
    let refused = |change: &dyn Fn(&mut File) -> &mut File, expected: &str| {
        File::dynamic().refused(change, expected);
    };
    refused(&|f| f.footer(12, &[0, 2, 0, 0]), "the image needs VHD version 0x20000, which is not supported");
    refused(
        &|f| f.footer(60, &[0, 0, 0, 6]),
        "the disk type in the VHD footer is 0x6, expected 2 (fixed), 3 (dynamic) or 4 (differencing)",
    );
    let size = "expected a multiple of 512, above 0";
    refused(&|f| f.footer(48, &[0; 8]), &format!("the current size in the VHD footer is 0x0, {size}"));
    refused(
        &|f| f.footer(48, &700_u64.to_be_bytes()),
        &format!("the current size in the VHD footer is 0x2bc, {size}"),
    );
    refused(
        &|f| f.footer(48, &(1_u64 << 60).to_be_bytes()),
        "the current size in the VHD footer is 1152921504606846976, the limit is 70368744177664",
    );
    refused(
        &|f| f.footer(16, &u64::MAX.to_be_bytes()),
        "the VHD header is 1024 bytes at 0xffffffffffffffff, past the end of the file (0x4000)",
    );
    File::fixed().refused(
        |f| f.footer(48, &(SIZE as u64 + 512).to_be_bytes()),
        "the VHD disk before its footer is 15360 bytes at 0x0, past the end of the file (0x3a00)",
    );
    let mut bytes = File::fixed().good();
    bytes[SIZE + 100] ^= 1;
    let message = error(&Files::one(bytes)).to_string();
    assert!(message.starts_with("the checksum in the VHD footer is 0xffff"), "{message}");
    assert_eq!(
        error(&Files::one(vec![0x11; 4096])).to_string(),
        "not a vhd image: its first bytes are [11, 11, 11, 11], expected [63, 6f, 6e, 65]"
    );
    let short = error(&Files::one(b"conectix".to_vec()));
    assert!(matches!(short, OpenError::Missing { .. }), "{short}");
}

#[test]
fn copies_of_the_footer() {
    let refused = |at: usize, bytes: &[u8], what: &str| {
        let mut file = File::dynamic();
        file.put(at, bytes);
        let message = error(&file.files()).to_string();
        assert!(message.starts_with(&format!("the {what} in the copy of the VHD footer is")), "{message}");
        assert!(message.ends_with("expected what the footer at the end of the file says"), "{message}");
    };
    refused(16, &[1], "data offset");
    refused(48, &[1], "current size");
    refused(57, &[7], "geometry");
    refused(63, &[4], "type, creator or id");
    refused(28, b"qem2", "type, creator or id");
    refused(68, &[1], "type, creator or id");
    let mut file = File::dynamic();
    file.put(0, &[0]);
    let expected = OpenError::Missing { what: Item::The("copy of the VHD footer"), span: Span::new(0, 512) };
    assert_eq!(error(&file.files()), expected);
    let mut bytes = File::dynamic().good();
    bytes[100] ^= 1;
    assert!(matches!(error(&Files::one(bytes)), OpenError::Checksum { .. }));
    // What says nothing of the disk may differ: the time stamp, the saved state.
    let mut file = File::dynamic();
    file.put(24, &[1; 4]).put(84, &[1]);
    file.files().open().unwrap();
}

#[test]
fn headers() {
    let refused = |change: &dyn Fn(&mut File) -> &mut File, expected: &str| {
        File::dynamic().refused(change, expected);
    };
    refused(&|f| f.put(HEADER, &[0]), "the VHD header was not found between 0x0 and 0x4000");
    refused(
        &|f| f.u32(HEADER + 24, 0x0003_0000),
        "the image needs VHD version 0x30000, which is not supported",
    );
    for size in [0, 256, 4097] {
        refused(
            &|f| f.u32(HEADER + 32, size),
            &format!("the block size in the VHD header is {size:#x}, expected a power of two, at least 512"),
        );
    }
    refused(
        &|f| f.u32(HEADER + 28, 3),
        "the number of table entries in the VHD header is 0x3, expected one for each block of the disk",
    );
    refused(
        &|f| f.u32(HEADER + 28, u32::MAX),
        "the VHD block allocation table is 17179869180 bytes at 0x600, past the end of the file (0x4000)",
    );
    refused(
        &|f| f.u32(HEADER + 32, 512).footer(48, &(16_u64 << 30).to_be_bytes()),
        "the number of blocks of the VHD is 33554432, the limit is 16777216",
    );
    let mut bytes = File::dynamic().good();
    bytes[HEADER + 900] ^= 1;
    assert!(matches!(error(&Files::one(bytes)), OpenError::Checksum { what: Item::The("VHD header"), .. }));
    assert!(Feature::VhdVersion(2).to_string().contains("VHD"));
}

#[test]
fn nothing_is_referenced_twice() {
    let claimed = |change: &dyn Fn(&mut File) -> &mut File, what: &str, at: usize| {
        let used = "which something else in the image uses";
        File::dynamic().refused(change, &format!("{what} points to the bytes at {at:#x}, {used}"));
    };
    let entry = |file: &mut File, index: usize, at: usize| {
        file.u32(TABLE + 4 * index, (at / SECTOR) as u32);
    };
    let cases = [(1, FIRST), (1, FIRST + SECTOR), (1, FIRST + STEP), (0, FIRST)];
    for (index, at) in cases {
        let mut file = File::dynamic();
        entry(&mut file, index, at);
        assert!(matches!(error(&file.files()), OpenError::Claimed { .. }), "{index} {at}");
    }
    claimed(
        &|f| {
            entry(f, 1, 0);
            f
        },
        "VHD block allocation table entry 1",
        0,
    );
    claimed(&|f| f.u64(HEADER + 16, 16), "the table offset in the VHD header", 16);
}

#[test]
fn truncation_is_always_seen() {
    for file in [File::fixed(), File::dynamic()] {
        let whole = file.good();
        // One byte less is the footer of old Virtual PC.
        for len in 0..whole.len() - 1 {
            assert!(Files::one(whole[..len].to_vec()).open_with(&named()).is_err(), "{len}");
        }
    }
    let mut file = File::dynamic();
    file.u32(TABLE + 4, 0x00ff_ffff);
    let expected = "VHD block allocation table entry 1 points to 4608 bytes at 0x1fffffe00, past the end of the file (0x4000)";
    assert_eq!(error(&file.files()).to_string(), expected);
}

#[test]
fn mutations_never_panic() {
    let mut dice = Dice(1);
    let mut opened = 0;
    for turn in 0..30_000 {
        let good = if turn % 2 == 0 { File::dynamic() } else { File::differencing() };
        let mut file = good.clone();
        for _ in 0..=dice.roll(3) {
            let at = [0, HEADER, HEADER + 576, TABLE, LOCATOR, FIRST][dice.roll(6)] + dice.roll(64);
            let value = [0, 1, 0x7f, 0x80, 0xff, dice.roll(256) as u8][dice.roll(6)];
            if at < SECTOR {
                file.footer(at, &[value]);
            } else {
                file.put(at, &[value]);
            }
        }
        // Checksums are made good: what lies behind them is to be reached.
        let mut bytes = file.good();
        if dice.roll(8) == 0 {
            bytes.truncate(dice.roll(bytes.len()));
        }
        let files = Files::one(bytes).and("sub/base.vhd", File::fixed().good());
        let files = if files.0[0].1.is_empty() { continue } else { files };
        let Ok(image) = files.open_with(&named()) else { continue };
        opened += 1;
        if image.virtual_size() < 1 << 20 {
            assert_eq!(files.guest(&image).len() as u64, image.virtual_size());
        }
    }
    assert!((3_000..27_000).contains(&opened), "{opened} of 30000 were accepted");
}
