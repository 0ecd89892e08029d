//! The header extensions, and the name of the backing file behind them.
//!
//! Source: QEMU `docs/interop/qcow2.rst`, sections "Header extensions" and "String header extensions". All of it lies in the first
//! cluster. Extensions that are not needed for reading are passed over: feature names, and those that nobody knows.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::{Header, field, limit};
use crate::limits::MAX_BACKING_NAME;
use crate::qcow2::fields::Fields;
use crate::{Feature, Format, Item, OpenError, Span};

/// Types of header extension that are looked at.
const END: u32 = 0;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const BITMAPS: u32 = 0x2385_2875;
const DATA_FILE: u32 = 0x4441_5441;

/// What is read of the header extensions.
#[derive(Default)]
pub(super) struct Extensions {
    pub bitmaps: u32,
    /// An error where it is a format that is not read here: it matters only if there is a backing file.
    pub backing_format: Option<Result<Format, OpenError>>,
    pub data_file: Option<String>,
}

impl Extensions {
    /// Walks the header extensions.
    pub(super) fn read(header: &Header, head: &[u8]) -> Result<Self, OpenError> {
        // Old writers put the name directly behind the header, without an end marker before it.
        let end = match header.backing_file_offset {
            0 => header.cluster_size(),
            name => name.min(header.cluster_size()),
        };
        let area = usize::try_from(end).unwrap_or(usize::MAX).min(head.len());
        let mut rest = head.get(header.header_length as usize..area).unwrap_or_default();
        let mut found = Self::default();
        while let Some((extension, behind)) = rest.split_first_chunk::<8>() {
            let [kind, len] = [Fields(extension).u32(0), Fields(extension).u32(4)];
            if kind == END {
                break;
            }
            let too_long = OpenError::Field {
                what: Item::The("length of a QCOW2 header extension"),
                found: len.into(),
                expected: "an extension inside the first cluster and its first 64 KiB",
            };
            let content = behind.get(..len as usize).ok_or(too_long.clone())?;
            let padded = (len as usize).checked_next_multiple_of(8);
            rest = padded.and_then(|padded| behind.get(padded..)).ok_or(too_long)?;
            match kind {
                BITMAPS => found.bitmaps = Fields(content).u32(0),
                // An empty name declares nothing.
                BACKING_FORMAT if content.is_empty() => {}
                BACKING_FORMAT if found.backing_format.is_none() => {
                    found.backing_format = Some(backing_format(content));
                }
                DATA_FILE if found.data_file.is_none() => {
                    found.data_file = Some(String::from_utf8_lossy(content).into_owned());
                }
                // Which of two would hold, the specification does not say.
                BACKING_FORMAT | DATA_FILE => {
                    let expected = "at most one of this type";
                    return Err(field("type of a QCOW2 header extension", kind, expected));
                }
                _ => {}
            }
        }
        found.data_file = found.data_file.filter(|name| !name.is_empty());
        Ok(found)
    }
}

impl Header {
    /// The name of the backing file. It must end inside the first cluster. An empty one is none, as in QEMU.
    pub(super) fn backing_name(&self, head: &[u8]) -> Result<Option<String>, OpenError> {
        if self.backing_file_offset == 0 || self.backing_file_size == 0 {
            return Ok(None);
        }
        if self.backing_file_size > MAX_BACKING_NAME {
            let name = "backing_file_size of the QCOW2 header";
            return Err(limit(name, self.backing_file_size, MAX_BACKING_NAME.into()));
        }
        let span = Span::new(self.backing_file_offset, self.backing_file_size.into());
        let bytes = usize::try_from(span.start)
            .ok()
            .filter(|_| span.start >= self.header_length.into() && span.end() <= self.cluster_size())
            .and_then(|start| head.get(start..)?.get(..self.backing_file_size as usize))
            .ok_or(field(
                "backing_file_offset of the QCOW2 header",
                self.backing_file_offset,
                "a name behind the header, inside the first cluster and its first 64 KiB",
            ))?;
        Ok(Some(String::from_utf8_lossy(bytes).into_owned()))
    }
}

/// The format that QEMU calls by this name.
fn backing_format(name: &[u8]) -> Result<Format, OpenError> {
    match name {
        b"raw" | b"file" | b"host_device" => Ok(Format::Raw),
        b"qcow2" => Ok(Format::Qcow2),
        b"vmdk" => Ok(Format::Vmdk),
        b"vpc" => Ok(Format::Vhd),
        b"vhdx" => Ok(Format::Vhdx),
        _ => Err(OpenError::Unsupported(Feature::BackingFormat)),
    }
}
