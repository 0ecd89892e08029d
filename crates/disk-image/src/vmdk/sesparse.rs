//! seSparse: the space-efficient extents of ESX, in files called `-sesparse.vmdk`.
//!
//! Source: QEMU's `block/vmdk.c` (`VMDKSESparseConstHeader`, `vmdk_open_se_sparse`), as VMware has published nothing. A constant and a
//! volatile header of a sector each, a journal, then directory, tables of 4096 entries, and grains of 4 KiB. All numbers are u64,
//! little-endian; places count sectors; entries are decoded in `shape.rs`.
//!
//! Checked as strictly as QEMU does, because nothing says what other values would mean: version, sizes, flags, reserved fields.
//! Refused: a file whose journal must be replayed. Its tables are older than its content.

use super::SECTOR;
use super::shape::{Kind, Shape, sectors, take};
use crate::limits::MAX_VIRTUAL_SIZE;
use crate::{Feature, Item, OpenError, Span};

pub(super) const MAGIC: [u8; 8] = 0xcafe_babe_u64.to_le_bytes();

/// What the volatile header begins with.
const VOLATILE_MAGIC: u64 = 0xcafe_cafe;

/// The only version: 2.1.
const VERSION: u64 = 0x0000_0002_0000_0001;

/// Sectors of a grain.
const GRAIN_SIZE: u64 = 8;

/// Sectors of a grain table.
const TABLE_SIZE: u64 = 64;

/// What the constant header says.
#[derive(Debug)]
pub(super) struct Constant {
    pub(super) shape: Shape,
    /// Where the volatile header is; inside the file.
    pub(super) volatile: Span,
}

/// Reads the constant header in the first bytes of a file.
pub(super) fn parse(head: &[u8], file_len: u64) -> Result<Constant, OpenError> {
    let header = Span::new(0, SECTOR);
    let truncated = |what, span| OpenError::Truncated { what: Item::The(what), span, file_len };
    let Some(head) = head.first_chunk::<512>() else {
        return Err(truncated("seSparse header", header));
    };
    let field = |name, found, expected| OpenError::Field { what: Item::The(name), found, expected };
    let mut rest = head.as_slice();
    let mut next = || take::<8>(&mut rest).map(u64::from_le_bytes).unwrap_or_default();
    let (_magic, version, capacity, grain_size, table_size, flags) =
        (next(), next(), next(), next(), next(), next());
    let reserved = [next(), next(), next(), next()];
    let (volatile_offset, _volatile_size) = (next(), next());
    let _journal_header_and_journal = [next(), next(), next(), next()];
    let (directory_offset, directory_size) = (next(), next());
    let (tables_offset, _tables_size) = (next(), next());
    let _free_bitmap_and_back_map = [next(), next(), next(), next()];
    let (grains_offset, _grains_size) = (next(), next());

    for (name, found, wanted, expected) in [
        ("version of the seSparse header", version, VERSION, "0x200000001 (2.1)"),
        ("grainSize of the seSparse header", grain_size, GRAIN_SIZE, "8"),
        ("grainTableSize of the seSparse header", table_size, TABLE_SIZE, "64"),
        ("flags of the seSparse header", flags, 0, "0"),
    ] {
        if found != wanted {
            return Err(field(name, found, expected));
        }
    }
    let unknown =
        reserved.into_iter().chain(rest.iter().map(|&byte| u64::from(byte))).find(|&value| value != 0);
    if let Some(found) = unknown {
        return Err(field("reserved part of the seSparse header", found, "0"));
    }
    let guest_len = capacity.saturating_mul(SECTOR);
    if capacity == 0 {
        return Err(field("capacity of the seSparse header", 0, "at least 1 sector"));
    }
    if guest_len > MAX_VIRTUAL_SIZE {
        return Err(OpenError::Limit {
            what: Item::The("virtual size"),
            found: guest_len,
            limit: MAX_VIRTUAL_SIZE,
        });
    }
    let volatile = sectors(volatile_offset, 1);
    if volatile_offset == 0 {
        return Err(field("volatileHeaderOffset of the seSparse header", 0, "a sector past the header"));
    }
    if volatile.end() > file_len {
        return Err(truncated("volatile seSparse header", volatile));
    }
    let shape = Shape {
        kind: Kind::SeSparse {
            tables: sectors(tables_offset, 0).start,
            grains: sectors(grains_offset, 0).start,
        },
        guest_len,
        grain_len: GRAIN_SIZE.saturating_mul(SECTOR),
        compressed: false,
        directory_start: sectors(directory_offset, 0).start,
        redundant_start: None,
        first_grain: SECTOR,
        fixed: vec![
            (header, Item::The("seSparse header")),
            (volatile, Item::The("volatile seSparse header")),
        ],
    };
    if sectors(0, directory_size).len < shape.directory().len {
        let expected = "as many sectors as the capacity needs";
        return Err(field("grainDirSize of the seSparse header", directory_size, expected));
    }
    Ok(Constant { shape, volatile })
}

/// Checks the volatile header: magic, number of the next free table, sequence number, whether the journal must be replayed.
pub(super) fn check_volatile(bytes: &[u8]) -> Result<(), OpenError> {
    let mut rest = bytes;
    let mut next = || take::<8>(&mut rest).map(u64::from_le_bytes).unwrap_or_default();
    let (magic, _free_table, _sequence, replay) = (next(), next(), next(), next());
    if magic != VOLATILE_MAGIC {
        return Err(OpenError::Field {
            what: Item::The("magic of the volatile seSparse header"),
            found: magic,
            expected: "0xcafecafe",
        });
    }
    if replay != 0 {
        return Err(OpenError::Unsupported(Feature::VmdkJournal));
    }
    if let Some(found) = rest.iter().find(|&&byte| byte != 0) {
        return Err(OpenError::Field {
            what: Item::The("reserved part of the volatile seSparse header"),
            found: u64::from(*found),
            expected: "0",
        });
    }
    Ok(())
}
