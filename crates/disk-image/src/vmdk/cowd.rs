//! COWD: the copy-on-write extents of ESX before 6.5, vmfsSparse, in files called `-delta.vmdk`.
//!
//! Source: *Virtual Disk Format 5.0*, "ESXi Host Sparse Extents", and QEMU's `block/vmdk.c` (`vmdk_open_vmfs_sparse`).
//! Four sectors of header, then directory, tables of 4096 entries and grains (most often of one sector) in any order. All numbers are
//! u32, little-endian; sizes and pointers count sectors. Nothing is compressed and no entry means zeroes.
//!
//! Refused: another version, and flags other than 1 and 2 (both set in all files known; what others mean is not).

use super::SECTOR;
use super::shape::{Kind, Shape, sectors, take};
use crate::limits::{MAX_VIRTUAL_SIZE, MAX_VMDK_GRAIN};
use crate::{Feature, Item, OpenError, Span};

pub(super) const MAGIC: [u8; 4] = *b"COWD";

/// Bytes of the header.
pub(super) const HEADER_LEN: u64 = 4 * SECTOR;

/// Flags that all known files have.
const FLAGS: u32 = 3;

/// What a COWD header says.
pub(super) struct Cowd {
    pub(super) shape: Shape,
    /// The file was not closed.
    pub(super) unclean: bool,
}

/// Reads the header in the first bytes of a file.
pub(super) fn parse(head: &[u8], file_len: u64) -> Result<Cowd, OpenError> {
    let header = Span::new(0, HEADER_LEN);
    let truncated = OpenError::Truncated { what: Item::The("COWD header"), span: header, file_len };
    let Some(head) = head.first_chunk::<2048>() else { return Err(truncated) };
    let field = |name, found: u32, expected| OpenError::Field {
        what: Item::The(name),
        found: found.into(),
        expected,
    };
    let mut rest = head.as_slice();
    let mut next = || take::<4>(&mut rest).map(u32::from_le_bytes).unwrap_or_default();
    let (_magic, version, flags, capacity, grain_size) = (next(), next(), next(), next(), next());
    let (directory_sector, directory_entries) = (next(), next());
    if version != 1 {
        return Err(OpenError::Unsupported(Feature::VmdkVersion(version)));
    }
    if flags & !FLAGS != 0 {
        return Err(OpenError::Unsupported(Feature::VmdkFlags(flags)));
    }
    if capacity == 0 {
        return Err(field("capacity of the COWD header", 0, "at least 1 sector"));
    }
    // 2 TiB at most, by the width of the field.
    let guest_len = u64::from(capacity).saturating_mul(SECTOR).min(MAX_VIRTUAL_SIZE);
    let grain_len = u64::from(grain_size).saturating_mul(SECTOR);
    if !grain_size.is_power_of_two() || grain_len > MAX_VMDK_GRAIN {
        let expected = "a power of two from 1 to 2048 sectors";
        return Err(field("grainSize of the COWD header", grain_size, expected));
    }
    if u64::from(directory_sector) < HEADER_LEN / SECTOR {
        let expected = "a sector past the header";
        return Err(field("gdOffset of the COWD header", directory_sector, expected));
    }
    let shape = Shape {
        kind: Kind::Cowd,
        guest_len,
        grain_len,
        compressed: false,
        directory_start: sectors(directory_sector.into(), 0).start,
        redundant_start: None,
        first_grain: HEADER_LEN,
        fixed: vec![(header, Item::The("COWD header"))],
    };
    if u64::from(directory_entries) < guest_len.div_ceil(shape.table_covers()) {
        let expected = "as many as the capacity needs";
        return Err(field("numGDEntries of the COWD header", directory_entries, expected));
    }
    let unclean = head.get(UNCLEAN..UNCLEAN_END).is_some_and(|flag| flag != [0; 4]);
    Ok(Cowd { shape, unclean })
}

/// @1648. uncleanShutdown, u32.
const UNCLEAN: usize = 1648;
const UNCLEAN_END: usize = 1652;
