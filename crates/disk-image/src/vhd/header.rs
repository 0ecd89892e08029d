//! The header of a dynamic or differencing disk, and what it says of the parent.
//!
//! Source: *Virtual Hard Disk Image Format Specification* 1.0, "Dynamic Disk Header Format". The parent's name stands in the header
//! itself and, with a path, in up to eight locators, each for a platform. The path from this file's folder is what can be followed
//! anywhere; without one the bare name is, and a path that Windows alone understands is the last resort: it is refused when it is
//! followed, by its name.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::DiskType;
use super::footer::{Footer, check_sum};
use crate::fields::Fields;
use crate::limits::{MAX_PARENT_NAME, MAX_VHD_TABLE_LEN};
use crate::windows::{relative_path, utf16_be, utf16_le};
use crate::{Feature, Guid, Item, OpenError, Span};

const COOKIE: &[u8; 8] = b"cxsparse";
const CHECKSUM: usize = 36;

/// Where the eight locators stand, 24 bytes each.
const LOCATORS: usize = 576;
const LOCATOR: usize = 24;

/// Bytes of an entry of the block allocation table.
const ENTRY: u64 = 4;

/// What is read of the header. `@` is the byte offset.
#[derive(Debug)]
pub(super) struct Header {
    /// @16 (8) and @28 (4). The block allocation table.
    pub(super) table: Span,
    /// @32. Guest bytes in a block: a power of two.
    pub(super) block_size: u64,
    /// @40 and behind. What a differencing disk lies on.
    pub(super) parent: Option<Parent>,
}

/// The layer beneath.
#[derive(Debug)]
pub(super) struct Parent {
    /// @40.
    pub(super) id: Guid,
    /// @64. Good if no locator is better.
    pub(super) name: String,
    /// Where a better name stands, and how.
    pub(super) place: Option<(Span, Encoding)>,
}

/// How a name is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// A path of Windows, little-endian although the rest of the format is not.
    Utf16,
    /// A `file:` URL.
    Url,
}

impl Header {
    pub(super) const LEN: u64 = 1024;

    /// Reads the header of a file whose footer is at `place`.
    pub(super) fn parse(
        bytes: &[u8],
        footer: &Footer,
        place: Span,
        virtual_size: u64,
    ) -> Result<Self, OpenError> {
        let fields = Fields(bytes);
        let what = Item::The("VHD header");
        if fields.bytes(0) != *COOKIE {
            let span = Span::new(0, place.start);
            return Err(OpenError::Missing { what, span });
        }
        check_sum(bytes, CHECKSUM, what)?;
        let version = fields.be32(24);
        if version >> 16 != 1 {
            return Err(OpenError::Unsupported(Feature::VhdVersion(version)));
        }
        let block_size = fields.be32(32);
        if !block_size.is_power_of_two() || block_size < 512 {
            return Err(OpenError::Field {
                what: Item::The("block size in the VHD header"),
                found: block_size.into(),
                expected: "a power of two, at least 512",
            });
        }
        let block_size = u64::from(block_size);
        let entries = u64::from(fields.be32(28));
        let needed = virtual_size.div_ceil(block_size);
        if needed.saturating_mul(ENTRY) > MAX_VHD_TABLE_LEN {
            return Err(OpenError::Limit {
                what: Item::The("number of blocks of the VHD"),
                found: needed,
                limit: MAX_VHD_TABLE_LEN / ENTRY,
            });
        }
        if entries < needed {
            return Err(OpenError::Field {
                what: Item::The("number of table entries in the VHD header"),
                found: entries,
                expected: "one for each block of the disk",
            });
        }
        let table = Span::new(fields.be64(16), entries.saturating_mul(ENTRY));
        if table.end() > place.start {
            let what = Item::The("VHD block allocation table");
            return Err(OpenError::Truncated { what, span: table, file_len: place.start });
        }
        let parent = match footer.disk_type {
            DiskType::Differencing => Some(Parent::parse(fields, place)?),
            _ => None,
        };
        Ok(Self { table, block_size, parent })
    }
}

impl Parent {
    fn parse(fields: Fields<'_>, footer: Span) -> Result<Self, OpenError> {
        let written = utf16_be(fields.slice(64, 512));
        // Windows shows the name in its dialogues; some writers put a whole path there.
        let name = relative_path(&written);
        let mut best: Option<(u8, u64, Span, Encoding)> = None;
        for index in 0..8_usize {
            let fields =
                Fields(fields.slice(LOCATORS.saturating_add(index.saturating_mul(LOCATOR)), LOCATOR));
            let (rank, encoding) = match &fields.bytes(0) {
                b"W2ru" => (0, Encoding::Utf16),
                b"MacX" => (1, Encoding::Url),
                b"W2ku" if name.is_empty() => (2, Encoding::Utf16),
                _ => continue,
            };
            let place = Span::new(fields.be64(16), fields.be32(8).into());
            if best.is_none_or(|(best, ..)| rank < best) && !place.is_empty() {
                best = Some((rank, index as u64, place, encoding));
            }
        }
        let Some((_, index, place, encoding)) = best else {
            if name.is_empty() {
                let (what, span) = (Item::The("name of the VHD parent"), Span::new(0, footer.start));
                return Err(OpenError::Missing { what, span });
            }
            return Ok(Self { id: Guid(fields.bytes(40)), name, place: None });
        };
        let what = Item::Entry("VHD parent locator", index);
        if place.end() > footer.start {
            return Err(OpenError::Truncated { what, span: place, file_len: footer.start });
        }
        if place.len > MAX_PARENT_NAME {
            return Err(OpenError::Limit {
                what: Item::The("length of a VHD parent locator"),
                found: place.len,
                limit: MAX_PARENT_NAME,
            });
        }
        Ok(Self { id: Guid(fields.bytes(40)), name, place: Some((place, encoding)) })
    }
}

impl Encoding {
    /// The name that these bytes are.
    pub(super) fn decode(self, bytes: &[u8]) -> Result<String, OpenError> {
        let name = match self {
            Self::Utf16 => relative_path(&utf16_le(bytes)),
            Self::Url => {
                let bytes = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
                let url = String::from_utf8_lossy(bytes);
                let path = url.strip_prefix("file://").unwrap_or(&url);
                path.strip_prefix("./").unwrap_or(path).to_owned()
            }
        };
        if name.is_empty() {
            let (what, span) =
                (Item::The("name in the VHD parent locator"), Span::new(0, bytes.len() as u64));
            return Err(OpenError::Missing { what, span });
        }
        Ok(name)
    }
}
