//! The two headers: of those whose checksum is right, the one with the higher sequence number holds.
//!
//! Source: \[MS-VHDX\] 2.2.2. A writer changes the other one and then counts on, so that one is always good.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::crc32c::crc32c;
use crate::fields::Fields;
use crate::{Feature, Guid, Item, OpenError, Span};

/// What is read of a header. `@` is the byte offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// @8.
    sequence: u64,
    /// @32.
    pub(super) data_write_id: Guid,
    /// @48. Not zero if there is a log to be replayed.
    log_id: Guid,
    /// @66.
    version: u16,
    /// @72 (8) and @68 (4).
    pub(super) log: Span,
}

impl Header {
    /// Where the headers are.
    pub(super) const PLACES: [Span; 2] = [Span::new(64 << 10, 4096), Span::new(128 << 10, 4096)];

    /// The header that holds.
    pub(super) fn current(first: &[u8], second: &[u8]) -> Result<Self, OpenError> {
        let names = [Item::Entry("VHDX header", 1), Item::Entry("VHDX header", 2)];
        let [first_place, second_place] = Self::PLACES;
        let [one, two] = names;
        let current = match (Self::parse(first, one, first_place), Self::parse(second, two, second_place)) {
            (Ok(first), Ok(second)) if first.sequence == second.sequence && first != second => {
                return Err(OpenError::Field {
                    what: Item::The("sequence number of both VHDX headers"),
                    found: first.sequence,
                    expected: "two numbers, as the headers differ",
                });
            }
            (Ok(first), Ok(second)) if first.sequence >= second.sequence => first,
            (_, Ok(second)) => second,
            (Ok(first), Err(_)) => first,
            (Err(error), Err(_)) => return Err(error),
        };
        if current.version != 1 {
            return Err(OpenError::Unsupported(Feature::VhdxVersion(current.version)));
        }
        if current.log_id != Guid::ZERO {
            return Err(OpenError::Unsupported(Feature::VhdxLog));
        }
        Ok(current)
    }

    fn parse(bytes: &[u8], what: Item, place: Span) -> Result<Self, OpenError> {
        check(bytes, *b"head", what, place)?;
        let fields = Fields(bytes);
        Ok(Self {
            sequence: fields.le64(8),
            data_write_id: Guid::from_windows(fields.bytes(32)),
            log_id: Guid::from_windows(fields.bytes(48)),
            version: fields.le16(66),
            log: Span::new(fields.le64(72), fields.le32(68).into()),
        })
    }
}

/// Checks signature and checksum of a header or a region table. The checksum is taken as if it were zero itself.
pub(super) fn check(bytes: &[u8], signature: [u8; 4], what: Item, place: Span) -> Result<(), OpenError> {
    let fields = Fields(bytes);
    if fields.bytes(0) != signature {
        return Err(OpenError::Missing { what, span: place });
    }
    let rest = bytes.get(8..).unwrap_or_default();
    let expected = crc32c(&[&signature, &[0; 4], rest]);
    let found = fields.le32(4);
    if found == expected { Ok(()) } else { Err(OpenError::Checksum { what, found, expected }) }
}
