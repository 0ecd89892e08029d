//! Disk image formats in both directions, without I/O.
//!
//! Metadata bytes go in: [`open`] turns them into an [`Image`], whose [`ExtentMap`] says for each guest byte where it is
//! stored and how it is encoded. The other direction is a layout: an [`ObjectMap`] says for each byte of an output what
//! fills it. [`Plan`] joins the two for one part of the output, and [`Decoder`] decodes what was stored encoded. Where an output is
//! encoded, by an [`Encoder`], offsets follow from lengths: a [`PackedLayout`] gives frames their places.
//!
//! Nothing here reads, writes, spawns or waits; a parser that needs bytes says so ([`Open::Need`]). Every pointer, count and
//! size is checked while opening, against [`limits`]; lookups after that cannot fail.
//!
//! All offsets and lengths are bytes unless a name says `_sectors`, `_clusters` or `_bits`.

#![cfg_attr(test, allow(clippy::cast_possible_truncation))]

mod archive;
mod backing;
mod bitmap;
mod claims;
mod crc32c;
mod decode;
mod encode;
mod error;
mod extent;
mod fields;
pub mod gce;
mod guid;
mod image;
pub mod limits;
mod map;
mod object;
mod open;
mod packed;
mod plan;
mod probe;
pub mod qcow2;
pub mod raw;
mod reference;
mod span;
#[cfg(test)]
mod testing;
pub mod unpack;
mod varint;
pub mod vhd;
pub mod vhdx;
pub mod vmdk;
mod windows;

pub use decode::{DecodeError, Decoder};
pub use encode::{Codec, Encoder};
pub use error::{Feature, Item, OpenError};
pub use extent::{Encoding, Extent, State};
pub use guid::Guid;
pub use image::{Details, Format, Image, Warning};
pub use map::{ExtentMap, ExtentMapBuilder, Extents, MapStats};
pub use object::{Fill, ObjectMap, Segment, Segments};
pub use open::{Need, Open};
pub use packed::{Frame, PackedLayout, Placed, Unsettled};
pub use plan::{Encoded, Origin, Piece, Plan, ReadShape};
pub use reference::{Refer, Reference, Referred, Role};
pub use span::{FileId, Span, Stored};
pub use unpack::Compression;

use limits::MAX_FILE_LEN;
use probe::{Head, PROBE_LEN, probe};
use span::Window;

/// How to open a disk image.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// The format, where the user has named it; by content otherwise.
    pub format: Option<Format>,
    /// The internal snapshot to read, by id or name; the current state otherwise.
    pub snapshot: Option<String>,
    /// The format of backing files whose format no header declares.
    pub backing_format: Option<Format>,
    /// The disk to read of an archive that holds several, by its member's name.
    pub member: Option<String>,
}

/// What of the options holds for a layer, and how deep it lies.
#[derive(Debug, Clone, Default)]
struct Layer {
    /// Layers above it.
    depth: u32,
    /// As in [`OpenOptions`]; only ever set for the top layer.
    snapshot: Option<String>,
    /// As in [`OpenOptions`].
    backing_format: Option<Format>,
}

/// Opens the disk image in a file of `file_len` bytes.
///
/// # Errors
///
/// Here and at each [`Need::resume`] and [`Refer::resume`]: whatever makes the image unreadable or unsafe to read. A file that is
/// compressed as a whole is [`Feature::Compressed`]: see [`unpack`] and [`open_unpacked`].
pub fn open(file_len: u64, options: &OpenOptions) -> Result<Open<Image>, OpenError> {
    let window = Window::file(FileId::IMAGE, file_len);
    check_len(window)?;
    let OpenOptions { format, snapshot, backing_format, member } = options.clone();
    let layer = Layer { depth: 0, snapshot, backing_format };
    match format {
        Some(_) if member.is_some() => Err(OpenError::NoArchive),
        Some(format) => open_as(format, window, &layer),
        None => open_by_content(window, layer, member, None),
    }
}

/// Opens the disk image in the `len` bytes that a file unpacks to, which [`open`] found to be compressed as a whole
/// ([`Feature::Compressed`]). All that it asks for of [`FileId::IMAGE`] is of what was unpacked.
///
/// # Errors
///
/// As [`open`]. What is compressed once more is refused.
pub fn open_unpacked(
    compression: Compression,
    len: u64,
    options: &OpenOptions,
) -> Result<Open<Image>, OpenError> {
    let window = Window::file(FileId::IMAGE, len);
    check_len(window)?;
    let OpenOptions { snapshot, backing_format, member, .. } = options.clone();
    open_by_content(window, Layer { depth: 0, snapshot, backing_format }, member, Some(compression))
}

fn open_by_content(
    window: Window,
    layer: Layer,
    member: Option<String>,
    within: Option<Compression>,
) -> Result<Open<Image>, OpenError> {
    Ok(Open::need_one(window.at(0, PROBE_LEN.min(window.len)), move |head| {
        open_probed(&head, window, layer, member, within)
    }))
}

/// Opens what begins with `head`. The end of the file is asked for only where it could change the answer.
fn open_probed(
    head: &[u8],
    window: Window,
    layer: Layer,
    member: Option<String>,
    within: Option<Compression>,
) -> Result<Open<Image>, OpenError> {
    // A format that is named is that of the file, not of what is in it.
    let inside = move |error| match (error, within) {
        (error @ (OpenError::UnknownFormat | OpenError::Ambiguous(..)), Some(compression)) => {
            OpenError::Inside { compression, error: Box::new(error) }
        }
        (error, _) => error,
    };
    let start = match probe(head).map_err(inside)? {
        Head::Archive => return archive::open(window, layer, member),
        Head::Compressed(compression) => {
            return match (within, compression) {
                (Some(first), _) => Err(OpenError::Unsupported(Feature::CompressedTwice(first))),
                (None, Compression::Gzip) => gce::open(window, &layer, member),
                (None, Compression::Zstandard) => {
                    Err(OpenError::Unsupported(Feature::Compressed(compression)))
                }
            };
        }
        _ if member.is_some() => return Err(OpenError::NoArchive),
        Head::Container(format) => return open_as(format, window, &layer),
        Head::Tail(start) => start,
    };
    let tail = probe::tail(window.len);
    if head.len() as u64 == window.len {
        let tail = usize::try_from(tail.start).ok().and_then(|at| head.get(at..));
        return open_as(start.with_tail(tail.unwrap_or_default()).map_err(inside)?, window, &layer);
    }
    Ok(Open::need_one(window.stored(tail), move |tail| {
        open_as(start.with_tail(&tail).map_err(inside)?, window, &layer)
    }))
}

fn check_len(window: Window) -> Result<(), OpenError> {
    if window.len == 0 {
        return Err(OpenError::Empty);
    }
    if window.len > MAX_FILE_LEN {
        return Err(OpenError::Limit {
            what: Item::The("file length"),
            found: window.len,
            limit: MAX_FILE_LEN,
        });
    }
    Ok(())
}

fn open_as(format: Format, window: Window, layer: &Layer) -> Result<Open<Image>, OpenError> {
    if layer.snapshot.is_some() && format != Format::Qcow2 {
        return Err(OpenError::NoSnapshot);
    }
    match format {
        Format::Raw => raw::open_window(window, None).map(Open::Ready),
        Format::Qcow2 => qcow2::open(window, layer),
        Format::Vmdk => vmdk::open(window, layer),
        Format::Vhd => vhd::open(window, layer),
        Format::Vhdx => vhdx::open(window, layer),
    }
}
