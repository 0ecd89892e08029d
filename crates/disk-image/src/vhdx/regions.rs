//! The region table, which leads to everything else.
//!
//! Source: \[MS-VHDX\] 2.2.3. It is there twice; the second copy is read where the first is damaged.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::MIB;
use super::header::check;
use crate::fields::Fields;
use crate::{Feature, Guid, Item, OpenError, Span};

/// `2dc27766-f623-4200-9d64-115e9bfd4a08`.
const BAT: Guid = Guid(0x2dc2_7766_f623_4200_9d64_115e_9bfd_4a08_u128.to_be_bytes());
/// `8b7ca206-4790-4b9a-b8fe-575f050f886e`.
const METADATA: Guid = Guid(0x8b7c_a206_4790_4b9a_b8fe_575f_050f_886e_u128.to_be_bytes());

/// Most entries, as the specification says: what fits behind the header of 16 bytes.
const MOST: u32 = 2047;
const ENTRY: usize = 32;

const TABLE: &str = "VHDX region table";

/// Where the regions are.
#[derive(Debug)]
pub(super) struct Regions {
    /// The block allocation table.
    pub(super) bat: Span,
    pub(super) metadata: Span,
    /// All regions, also those that are not known, with the entries that point to them.
    pub(super) all: Vec<(Span, Item)>,
}

impl Regions {
    /// Where the copies of the table are.
    pub(super) const PLACES: [Span; 2] = [Span::new(192 << 10, 64 << 10), Span::new(256 << 10, 64 << 10)];

    pub(super) fn parse(first: &[u8], second: &[u8], file_len: u64) -> Result<Self, OpenError> {
        let [first_place, second_place] = Self::PLACES;
        let what = Item::The(TABLE);
        let table = match check(first, *b"regi", what, first_place) {
            Ok(()) => first,
            // If both are damaged, the first says how.
            Err(error) => check(second, *b"regi", what, second_place).map(|()| second).map_err(|_| error)?,
        };
        let count = Fields(table).le32(8);
        if count > MOST {
            let (what, limit) = (Item::The("number of VHDX regions"), MOST.into());
            return Err(OpenError::Limit { what, found: count.into(), limit });
        }
        let (mut bat, mut metadata, mut all) = (None, None, Vec::new());
        let entries = table.get(16..).unwrap_or_default().chunks_exact(ENTRY);
        for (index, entry) in (0_u64..count.into()).zip(entries) {
            let fields = Fields(entry);
            let what = Item::Entry(TABLE, index);
            let id = Guid::from_windows(fields.bytes(0));
            let place = Span::new(fields.le64(16), fields.le32(24).into());
            let known = match id {
                BAT => &mut bat,
                METADATA => &mut metadata,
                _ if fields.le32(28) & 1 != 0 => {
                    return Err(OpenError::Unsupported(Feature::VhdxRegion(id)));
                }
                _ => &mut None,
            };
            if known.replace(place).is_some() {
                let expected = "a region that no other entry is of";
                return Err(OpenError::Field { what, found: place.start, expected });
            }
            for found in [place.start, place.len] {
                if found == 0 || !found.is_multiple_of(MIB) {
                    let expected = "a multiple of 1 MiB, above 0";
                    return Err(OpenError::Field { what, found, expected });
                }
            }
            if place.end() > file_len {
                return Err(OpenError::Truncated { what, span: place, file_len });
            }
            all.push((place, what));
        }
        let missing = |what| OpenError::Missing { what: Item::The(what), span: first_place };
        Ok(Self {
            bat: bat.ok_or_else(|| missing("VHDX region of the block allocation table"))?,
            metadata: metadata.ok_or_else(|| missing("VHDX metadata region"))?,
            all,
        })
    }
}
