//! The parent locator: keys and values that say which file a differencing disk lies on.
//!
//! Source: \[MS-VHDX\] 2.6.2.6.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::fields::Fields;
use crate::limits::MAX_PARENT_NAME;
use crate::windows::{relative_path, utf16_le};
use crate::{Feature, Guid, Item, OpenError, Span};

/// `b04aefb7-d19e-4a81-b789-25b8e9445913`: the parent is a VHDX.
const VHDX: Guid = Guid(0xb04a_efb7_d19e_4a81_b789_25b8_e944_5913_u128.to_be_bytes());

const LOCATOR: &str = "VHDX parent locator";
const ENTRY: usize = 12;
/// Where the entries begin.
const ENTRIES: usize = 20;

/// Keys that lead to the parent, best first: the order of the specification.
const PATHS: [&str; 3] = ["relative_path", "volume_path", "absolute_win32_path"];

/// What is read of the locator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parent {
    /// The best path.
    pub(super) path: String,
    /// What the parent's data write id was when this disk was made.
    pub(super) linkage: Guid,
    /// What it may be, too, if a merge was cut short.
    pub(super) linkage2: Option<Guid>,
}

impl Parent {
    pub(super) fn parse(locator: &[u8]) -> Result<Self, OpenError> {
        let fields = Fields(locator);
        let kind = Guid::from_windows(fields.bytes(0));
        if kind != VHDX {
            return Err(OpenError::Unsupported(Feature::VhdxParent(kind)));
        }
        let count = fields.le16(18);
        let end = usize::from(count).saturating_mul(ENTRY).saturating_add(ENTRIES);
        let Some(entries) = locator.get(ENTRIES..end) else {
            return Err(OpenError::Field {
                what: Item::The("number of entries in the VHDX parent locator"),
                found: count.into(),
                expected: "entries that lie inside of the locator",
            });
        };
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (index, entry) in (0_u64..).zip(entries.chunks_exact(ENTRY)) {
            let fields = Fields(entry);
            let text = |offset: u32, len: u16| {
                let span = Span::new(offset.into(), len.into());
                let place = usize::try_from(span.start).ok().zip(usize::try_from(span.end()).ok());
                let bytes = place.and_then(|(start, end)| locator.get(start..end));
                let bytes = bytes.ok_or(OpenError::Field {
                    what: Item::Entry(LOCATOR, index),
                    found: span.start,
                    expected: "the place of a text inside of the locator",
                })?;
                Ok(utf16_le(bytes))
            };
            let key = text(fields.le32(0), fields.le16(8))?;
            // A duplicate would let two readers see two parents.
            if pairs.iter().any(|(known, _)| *known == key) {
                return Err(OpenError::Field {
                    what: Item::Entry(LOCATOR, index),
                    found: index,
                    expected: "a key that no other entry has",
                });
            }
            // Only what is looked for is kept: a value may be as long as the item, in each of 65,535 entries.
            if PATHS.contains(&key.as_str()) || key.starts_with("parent_linkage") {
                pairs.push((key, text(fields.le32(4), fields.le16(10))?));
            }
        }
        let value = |key: &str| pairs.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str());
        let missing =
            |what| OpenError::Missing { what: Item::The(what), span: Span::new(0, locator.len() as u64) };
        let linkage = value("parent_linkage").and_then(Guid::parse);
        let path = PATHS.iter().find_map(|key| value(key)).filter(|path| !path.is_empty());
        let path = path.ok_or_else(|| missing("path in the VHDX parent locator"))?;
        Ok(Self {
            path: relative_path(path),
            linkage: linkage.ok_or_else(|| missing("GUID parent_linkage in the VHDX parent locator"))?,
            linkage2: value("parent_linkage2").and_then(Guid::parse),
        })
    }
}

// A value's length has 16 bits.
const _: () = assert!(MAX_PARENT_NAME >= u16::MAX as u64);
