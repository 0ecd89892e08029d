//! Disk image formats in both directions, without I/O.
//!
//! Metadata bytes go in: [`open`] turns them into an [`Image`], whose [`ExtentMap`] says for each guest byte where it is
//! stored and how it is encoded. The other direction is a layout: an [`ObjectMap`] says for each byte of an output what
//! fills it. [`Plan`] joins the two for one part of the output, and [`Decoder`] decodes what was stored encoded.
//!
//! Nothing here reads, writes, spawns or waits; a parser that needs bytes says so ([`Open::Need`]). Every pointer, count and
//! size is checked while opening, against [`limits`]; lookups after that cannot fail.
//!
//! All offsets and lengths are bytes unless a name says `_sectors`, `_clusters` or `_bits`.

#![cfg_attr(test, allow(clippy::cast_possible_truncation))]

mod decode;
mod error;
mod extent;
mod image;
pub mod limits;
mod map;
mod object;
mod open;
mod plan;
mod probe;
pub mod qcow2;
pub mod raw;
mod span;
mod varint;
pub mod vmdk;

pub use decode::{DecodeError, Decoder};
pub use error::{Feature, Item, OpenError};
pub use extent::{Encoding, Extent, State};
pub use image::{Details, Format, Image, Warning};
pub use map::{ExtentMap, ExtentMapBuilder, Extents, MapStats};
pub use object::{Fill, ObjectMap, Segment, Segments};
pub use open::{Need, Open};
pub use plan::{Encoded, Origin, Piece, Plan, ReadShape};
pub use span::{FileId, Span, Stored};

use limits::MAX_FILE_LEN;
use probe::{PROBE_LEN, probe};

/// How to open a disk image.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// The format, where the user has named it; by content otherwise.
    pub format: Option<Format>,
}

/// Opens the disk image in a file of `file_len` bytes.
///
/// # Errors
///
/// Here and at each [`Need::resume`]: whatever makes the image unreadable or unsafe to read.
pub fn open(file_len: u64, options: &OpenOptions) -> Result<Open<Image>, OpenError> {
    if file_len == 0 {
        return Err(OpenError::Empty);
    }
    if file_len > MAX_FILE_LEN {
        return Err(OpenError::Limit {
            what: Item::The("file length"),
            found: file_len,
            limit: MAX_FILE_LEN,
        });
    }
    match options.format {
        Some(format) => open_as(format, file_len),
        None => Ok(Open::need_one(Stored::image(0, PROBE_LEN.min(file_len)), move |head| {
            open_as(probe(&head)?, file_len)
        })),
    }
}

fn open_as(format: Format, file_len: u64) -> Result<Open<Image>, OpenError> {
    match format {
        Format::Raw => raw::open(file_len, None).map(Open::Ready),
        Format::Qcow2 => qcow2::open(file_len),
        Format::Vmdk => vmdk::open(file_len),
    }
}
