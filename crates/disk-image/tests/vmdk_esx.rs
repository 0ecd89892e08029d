//! COWD and seSparse files: every field and every entry is checked.

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

use disk_image::vmdk::CreateType;
use disk_image::{Feature, Item, OpenError, Span, Warning};
use folder::{Folder, cowd_sample, descriptor, details, in_file, sesparse_sample, unsupported};

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
