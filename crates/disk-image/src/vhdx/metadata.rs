//! The metadata region: sizes and, for a differencing disk, the parent.
//!
//! Source: \[MS-VHDX\] 2.6. A table of 64 KiB, and items behind it.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use bytes::Bytes;

use super::parent::Parent;
use super::{DiskType, MIB};
use crate::claims::Claims;
use crate::fields::Fields;
use crate::limits::MAX_VIRTUAL_SIZE;
use crate::{Feature, Guid, Item, OpenError, Span};

/// Bytes of the table; items come after it.
pub(super) const TABLE_LEN: u64 = 64 << 10;

const TABLE: &str = "VHDX metadata table";
const ENTRY: usize = 32;
/// Most entries, as the specification says.
const MOST: u16 = 2047;

/// Bits of an entry.
const IS_USER: u32 = 1;
const IS_REQUIRED: u32 = 4;

/// Bits of the file parameters.
const LEAVE_BLOCKS_ALLOCATED: u32 = 1;
const HAS_PARENT: u32 = 2;

/// The items that are known, their names, their lengths if they are fixed.
const KNOWN: [(Guid, &str, Option<u64>); 6] = [
    (guid(0xcaa1_6737_fa36_4d43_b3b6_33f0_aa44_e76b), "VHDX file parameters", Some(8)),
    (guid(0x2fa5_4224_cd1b_4876_b211_5dbe_d83b_f4b8), "VHDX virtual disk size", Some(8)),
    (guid(0x8141_bf1d_a96f_4709_ba47_f233_a8fa_ab5f), "VHDX logical sector size", Some(4)),
    (guid(0xcda3_48c7_445d_4471_9cc9_e988_5251_c556), "VHDX physical sector size", Some(4)),
    (guid(0xbeca_12ab_b2e6_4523_93ef_c309_e000_c746), "VHDX virtual disk id", Some(16)),
    (guid(0xa8d3_5f2d_b30b_454d_abf7_d3d8_4834_ab0c), "VHDX parent locator", None),
];

const fn guid(number: u128) -> Guid {
    Guid(number.to_be_bytes())
}

/// Where the known items are, in the order of [`KNOWN`]. The last one may be missing.
#[derive(Debug)]
pub(super) struct Items {
    required: [Span; 5],
    parent: Option<Span>,
}

/// What the items say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Metadata {
    pub(super) disk_type: DiskType,
    pub(super) block_size: u64,
    pub(super) virtual_size: u64,
    pub(super) logical_sector_size: u32,
    pub(super) physical_sector_size: u32,
    pub(super) id: Guid,
}

impl Items {
    /// Reads the table of the region at `region`, which has room for it.
    pub(super) fn parse(table: &[u8], region: Span) -> Result<Self, OpenError> {
        let fields = Fields(table);
        if fields.bytes(0) != *b"metadata" {
            let span = Span::new(region.start, TABLE_LEN);
            return Err(OpenError::Missing { what: Item::The(TABLE), span });
        }
        let count = fields.le16(10);
        if count > MOST {
            let (what, limit) = (Item::The("number of VHDX metadata items"), MOST.into());
            return Err(OpenError::Limit { what, found: count.into(), limit });
        }
        let mut found: [Option<Span>; KNOWN.len()] = [None; KNOWN.len()];
        let mut claims = Claims::new(TABLE_LEN);
        let entries = table.get(ENTRY..).unwrap_or_default().chunks_exact(ENTRY);
        for (index, entry) in (0_u64..count.into()).zip(entries) {
            let fields = Fields(entry);
            let what = Item::Entry(TABLE, index);
            let place = Span::new(fields.le32(16).into(), fields.le32(20).into());
            let flags = fields.le32(24);
            check_place(place, what, region)?;
            let absolute = Span::new(region.start.saturating_add(place.start), place.len);
            claims.claim(absolute, what)?;
            let id = Guid::from_windows(fields.bytes(0));
            let known = KNOWN.iter().zip(&mut found).find(|((known, ..), _)| *known == id);
            match known.filter(|_| flags & IS_USER == 0) {
                Some(((_, _, len), slot)) => {
                    if len.is_some_and(|len| len != place.len) {
                        let expected = "an item as long as the specification says";
                        return Err(OpenError::Field { what, found: place.len, expected });
                    }
                    if slot.replace(absolute).is_some() {
                        let expected = "an item that no other entry is of";
                        return Err(OpenError::Field { what, found: place.start, expected });
                    }
                }
                None if flags & IS_REQUIRED != 0 => {
                    return Err(OpenError::Unsupported(Feature::VhdxMetadata(id)));
                }
                None => {}
            }
        }
        let [required @ .., parent] = found;
        let mut places = [Span::default(); 5];
        for ((place, found), (_, name, _)) in places.iter_mut().zip(required).zip(KNOWN) {
            *place = found.ok_or(OpenError::Missing { what: Item::The(name), span: region })?;
        }
        Ok(Self { required: places, parent: parent.filter(|place| !place.is_empty()) })
    }

    /// The runs to read, as [`Metadata::parse`] wants them.
    pub(super) fn places(&self) -> impl Iterator<Item = Span> {
        self.required.into_iter().chain(self.parent)
    }
}

/// Refuses an item that is not in the region, or in its table.
fn check_place(place: Span, what: Item, region: Span) -> Result<(), OpenError> {
    if place.len > MIB {
        return Err(OpenError::Limit {
            what: Item::The("length of a VHDX metadata item"),
            found: place.len,
            limit: MIB,
        });
    }
    // An item without bytes is nowhere.
    if !place.is_empty() && (place.start < TABLE_LEN || place.end() > region.len) {
        let expected = "an item inside of the region, past its table";
        return Err(OpenError::Field { what, found: place.start, expected });
    }
    Ok(())
}

impl Metadata {
    /// Reads the items in the order of [`Items::places`].
    pub(super) fn parse(items: &[Bytes]) -> Result<(Self, Option<Parent>), OpenError> {
        let (required, parent) = items.split_first_chunk::<5>().ok_or(OpenError::Answer)?;
        let [parameters, size, logical, physical, id] = required.each_ref().map(|bytes| Fields(bytes));
        let field =
            |what, found: u64, expected| Err(OpenError::Field { what: Item::The(what), found, expected });
        let block_size = u64::from(parameters.le32(0));
        if !block_size.is_power_of_two() || !(MIB..=256 << 20).contains(&block_size) {
            return field("VHDX block size", block_size, "a power of two from 1 MiB to 256 MiB");
        }
        let flags = parameters.le32(4);
        if flags & !(LEAVE_BLOCKS_ALLOCATED | HAS_PARENT) != 0 {
            return field("flags in the VHDX file parameters", flags.into(), "bits 2-31 to be 0");
        }
        let (logical, physical) = (logical.le32(0), physical.le32(0));
        for (what, found) in [("VHDX logical sector size", logical), ("VHDX physical sector size", physical)]
        {
            if found != 512 && found != 4096 {
                return field(what, found.into(), "512 or 4096");
            }
        }
        let virtual_size = size.le64(0);
        if virtual_size == 0 || !virtual_size.is_multiple_of(logical.into()) {
            return field("VHDX virtual disk size", virtual_size, "a multiple of the sector size, above 0");
        }
        if virtual_size > MAX_VIRTUAL_SIZE {
            let what = Item::The("VHDX virtual disk size");
            return Err(OpenError::Limit { what, found: virtual_size, limit: MAX_VIRTUAL_SIZE });
        }
        let (disk_type, parent) = match (flags & HAS_PARENT != 0, parent.first()) {
            (true, Some(locator)) => (DiskType::Differencing, Some(Parent::parse(locator)?)),
            (true, None) => {
                let (what, span) = (Item::The("VHDX parent locator"), Span::new(0, TABLE_LEN));
                return Err(OpenError::Missing { what, span });
            }
            (false, _) if flags & LEAVE_BLOCKS_ALLOCATED != 0 => (DiskType::Fixed, None),
            (false, _) => (DiskType::Dynamic, None),
        };
        let metadata = Self {
            disk_type,
            block_size,
            virtual_size,
            logical_sector_size: logical,
            physical_sector_size: physical,
            id: Guid::from_windows(id.bytes(0)),
        };
        Ok((metadata, parent))
    }
}
