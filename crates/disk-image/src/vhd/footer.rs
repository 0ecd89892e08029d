//! The footer, and what follows from it.
//!
//! Source: *Virtual Hard Disk Image Format Specification* 1.0, "Hard Disk Footer Format". It fills the last sector of the file. What
//! Virtual PC wrote before 2004 lacks the last byte, which is reserved.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::{Details, DiskType, SECTOR};
use crate::fields::Fields;
use crate::limits::MAX_VIRTUAL_SIZE;
use crate::{Feature, Format, Guid, Item, OpenError, Span};

pub(crate) const COOKIE: &[u8; 8] = b"conectix";

/// Where the checksum stands, which does not count itself.
const CHECKSUM: usize = 64;

/// The largest geometry, sectors: 65,535 cylinders, 16 heads, 255 sectors. Disks above 127 GiB have it, whatever their size.
const MAX_GEOMETRY: u64 = 65_535 * 16 * 255;

/// Creators that go by the geometry.
const BY_GEOMETRY: [&[u8; 4]; 2] = [b"vpc ", b"qemu"];

/// What is read of the footer. `@` is the byte offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Footer {
    /// @16. Where the header is.
    data_offset: u64,
    /// @28. The program that made the file.
    creator: [u8; 4],
    /// @32. Its version.
    creator_version: u32,
    /// @48. Bytes.
    current_size: u64,
    /// @56. Cylinders (2), heads (1), sectors (1), multiplied.
    geometry: u64,
    /// @60.
    pub(super) disk_type: DiskType,
    /// @68.
    pub(super) id: Guid,
}

/// Where the footer of a file is read.
pub(super) fn tail(file_len: u64) -> Span {
    Span::between(file_len.saturating_sub(Footer::LEN), file_len)
}

/// True if a file that ends with these bytes may be a VHD.
pub(crate) fn is_footer(tail: &[u8]) -> bool {
    find_cookie(tail).is_some()
}

/// Where in the last sector the footer begins.
fn find_cookie(tail: &[u8]) -> Option<usize> {
    // A shorter tail is that of a file which is too short.
    let full = tail.len() as u64 == Footer::LEN;
    [0, 1].into_iter().find(|&at| full && Fields(tail).bytes(at) == *COOKIE)
}

impl Footer {
    pub(super) const LEN: u64 = 512;

    /// The footer of a file that begins with `head` and ends with `tail`, and where it is.
    pub(super) fn find(head: &[u8], tail: &[u8], file_len: u64) -> Result<(Self, Span), OpenError> {
        let Some(at) = find_cookie(tail) else {
            let what = Item::The("VHD footer");
            if Fields(head).bytes(0) == *COOKIE {
                return Err(OpenError::Missing { what, span: super::footer::tail(file_len) });
            }
            let (found, signature) = (Fields(tail).bytes(0), Fields(COOKIE).bytes(0));
            return Err(OpenError::Signature { expected: Format::Vhd, found, signature });
        };
        let bytes = tail.get(at..).unwrap_or_default();
        let footer = Self::parse(bytes, Item::The("VHD footer"))?;
        Ok((footer, Span::between(file_len.saturating_sub(bytes.len() as u64), file_len)))
    }

    pub(super) fn parse(bytes: &[u8], what: Item) -> Result<Self, OpenError> {
        let fields = Fields(bytes);
        if fields.bytes(0) != *COOKIE {
            return Err(OpenError::Missing { what, span: Span::new(0, Self::LEN) });
        }
        check_sum(bytes, CHECKSUM, what)?;
        let version = fields.be32(12);
        if version >> 16 != 1 {
            return Err(OpenError::Unsupported(Feature::VhdVersion(version)));
        }
        let disk_type = match fields.be32(60) {
            2 => DiskType::Fixed,
            3 => DiskType::Dynamic,
            4 => DiskType::Differencing,
            found => {
                let expected = "2 (fixed), 3 (dynamic) or 4 (differencing)";
                return Err(OpenError::Field {
                    what: Item::The("disk type in the VHD footer"),
                    found: found.into(),
                    expected,
                });
            }
        };
        let [cylinders_high, cylinders_low, heads, sectors] = fields.bytes(56);
        let cylinders = u16::from_be_bytes([cylinders_high, cylinders_low]);
        // At most 2^16 * 2^8 * 2^8.
        let geometry = u64::from(cylinders).saturating_mul(heads.into()).saturating_mul(u64::from(sectors));
        Ok(Self {
            data_offset: fields.be64(16),
            creator: fields.bytes(28),
            creator_version: fields.be32(32),
            current_size: fields.be64(48),
            geometry,
            disk_type,
            id: Guid(fields.bytes(68)),
        })
    }

    /// Refuses a copy that says something else of the disk.
    pub(super) fn check_copy(&self, copy: &Self) -> Result<(), OpenError> {
        let differs = |what, found| {
            let expected = "what the footer at the end of the file says";
            Err(OpenError::Field { what: Item::The(what), found, expected })
        };
        if copy.data_offset != self.data_offset {
            return differs("data offset in the copy of the VHD footer", copy.data_offset);
        }
        if copy.current_size != self.current_size {
            return differs("current size in the copy of the VHD footer", copy.current_size);
        }
        if copy.geometry != self.geometry {
            return differs("geometry in the copy of the VHD footer", copy.geometry);
        }
        if copy.disk_type != self.disk_type || copy.creator != self.creator || copy.id != self.id {
            return differs("type, creator or id in the copy of the VHD footer", copy.disk_type as u64);
        }
        Ok(())
    }

    /// Bytes that the guest sees.
    pub(super) fn virtual_size(&self) -> Result<u64, OpenError> {
        let by_geometry = BY_GEOMETRY.contains(&&self.creator) && !matches!(self.geometry, 0 | MAX_GEOMETRY);
        let size = if by_geometry { self.geometry.saturating_mul(SECTOR) } else { self.current_size };
        let what = Item::The("current size in the VHD footer");
        if size == 0 || !size.is_multiple_of(SECTOR) {
            let expected = "a multiple of 512, above 0";
            return Err(OpenError::Field { what, found: size, expected });
        }
        if size > MAX_VIRTUAL_SIZE {
            return Err(OpenError::Limit { what, found: size, limit: MAX_VIRTUAL_SIZE });
        }
        Ok(size)
    }

    /// Where the header is.
    pub(super) fn header(&self, place: Span) -> Result<Span, OpenError> {
        let header = Span::new(self.data_offset, super::Header::LEN);
        if header.end() > place.start {
            return Err(OpenError::Truncated {
                what: Item::The("VHD header"),
                span: header,
                file_len: place.start,
            });
        }
        Ok(header)
    }

    /// True if bitmaps have the bits of a byte the other way round: those of the first Xen.
    pub(super) fn has_old_bitmaps(&self) -> bool {
        self.creator == *b"tap\0" && self.creator_version == 1
    }

    pub(super) fn details(&self, block_size: Option<u64>) -> Details {
        let creator = self.creator.iter().map(|&byte| match byte {
            b'!'..=b'~' => char::from(byte),
            _ => ' ',
        });
        Details {
            disk_type: self.disk_type,
            creator: creator.collect::<String>().trim().to_owned(),
            block_size,
            id: self.id,
        }
    }
}

/// Checks the checksum at `at`: the complement of the sum of all other bytes.
pub(super) fn check_sum(bytes: &[u8], at: usize, what: Item) -> Result<(), OpenError> {
    let field = at..at.saturating_add(4);
    let others = bytes.iter().enumerate().filter(|(place, _)| !field.contains(place));
    let expected = !others.fold(0_u32, |sum, (_, &byte)| sum.wrapping_add(byte.into()));
    let found = Fields(bytes).be32(at);
    if found == expected { Ok(()) } else { Err(OpenError::Checksum { what, found, expected }) }
}
