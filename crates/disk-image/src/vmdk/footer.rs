//! The end of a streamOptimized file: a footer marker, the footer, an end-of-stream marker, a sector each.
//!
//! Source: *Virtual Disk Format 5.0*, "Stream-Optimized Compressed Sparse Extents". An end-of-stream marker is all zeroes, so a file
//! that was padded (by tar, by a store that counts blocks) looks like one with more of them: the search goes back over
//! zeroes. Where the last thing in the file is not a footer, `scan.rs` looks whether the stream is whole all the same.

use super::SECTOR;
use super::header::Header;
use crate::limits::VMDK_FOOTER_SEARCH;
use crate::{OpenError, Span};

/// A marker's `type` where it announces the footer.
pub(super) const FOOTER: u32 = 3;

/// [`SECTOR`] bytes.
pub(super) type Sector = [u8; 512];

/// Where the footer is looked for.
pub(super) fn tail(file_len: u64) -> Span {
    let start = file_len.saturating_sub(VMDK_FOOTER_SEARCH).next_multiple_of(SECTOR).min(file_len);
    Span::between(start, file_len)
}

/// The footer in the bytes of [`tail`]; `None` if there is none with its markers.
pub(super) fn find(bytes: &[u8], file_len: u64) -> Result<Option<Header>, OpenError> {
    let (sectors, rest) = bytes.as_chunks();
    let ends = sectors.last().is_some_and(is_zero) && rest.iter().all(|&byte| byte == 0);
    let mut back = sectors.iter().enumerate().rev().skip_while(|(_, sector)| is_zero(sector));
    match (back.next(), back.next()) {
        (Some((index, footer)), Some((_, marker))) if ends && is_footer_marker(marker) => {
            let start = tail(file_len).start.saturating_add((index as u64).saturating_mul(SECTOR));
            Header::parse(footer, start, file_len).map(Some)
        }
        _ => Ok(None),
    }
}

/// True if the bytes of [`tail`] may hold an end-of-stream marker. A file that was cut among its grains has none.
pub(super) fn may_end(bytes: &[u8]) -> bool {
    bytes.as_chunks().0.iter().any(is_zero)
}

/// A marker: sectors of what follows (8 bytes), 0 (4 bytes), type (4 bytes).
fn is_footer_marker(sector: &Sector) -> bool {
    sector.get(8..12) == Some(&[0; 4]) && sector.get(12..16) == Some(&FOOTER.to_le_bytes())
}

pub(super) fn is_zero(sector: &Sector) -> bool {
    *sector == [0; 512]
}
