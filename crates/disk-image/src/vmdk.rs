//! VMDK: VMware virtual disks that lie in one sparse file, monolithicSparse and streamOptimized.
//!
//! Source: VMware *Virtual Disk Format 5.0*, "Hosted Sparse Extents" and "Stream-Optimized Compressed Sparse Extents"; where it
//! is silent, what QEMU's `block/vmdk.c` and VMware's open-vmdk do. The file holds a header, a descriptor (text), a grain directory
//! whose entries point to grain tables, and grains; pointers count sectors of 512 bytes, all numbers are little-endian. A
//! streamOptimized file may have its directory at the end: then a footer, a second header, says where.
//!
//! Refused by name: a descriptor alone, an extent alone, several extents, a parent, encryption, other createTypes, compressed
//! grains without markers. Refused as damaged: whatever points outside the file, into the metadata, or twice at one grain, and a
//! stream whose footer is missing or whose last grain is cut. The redundant grain directory is not read.
//!
//! Cost: one read for the header, one for descriptor and footer, then directory and tables in steps of
//! [`METADATA_STEP`](crate::limits::METADATA_STEP) that are not held; time grows with the allocated tables. Besides the map, one
//! bit of memory for each grain that the file has room for: 4 MiB for 2 TiB in grains of 64 KiB.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod descriptor;
mod footer;
mod header;
mod mapper;
mod tables;

use bytes::Bytes;

use crate::limits::MAX_VMDK_DESCRIPTOR;
use crate::probe::is_descriptor;
use crate::span::Window;
use crate::{Image, Item, Layer, Open, OpenError, Span, Stored, Warning};
use descriptor::Descriptor;
use header::Header;
use tables::Tables;

/// What all pointers and sizes of the format count.
const SECTOR: u64 = 512;

/// What the header and the descriptor say of a VMDK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// The kind of VMDK, by its descriptor.
    pub create_type: CreateType,
    /// The header's version: 1 to 3.
    pub version: u32,
    /// Guest bytes in a grain, the unit of allocation: a power of two.
    pub grain_size: u64,
    /// True if each grain is a zlib stream.
    pub compressed: bool,
    /// Where the grain directory was found.
    pub directory: Directory,
}

/// The kinds of VMDK that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CreateType {
    /// One growing file, as hosted VMware products use it.
    MonolithicSparse,
    /// One compressed file that can be written and read as a stream, as in OVA.
    StreamOptimized,
}

impl std::fmt::Display for CreateType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::MonolithicSparse => "monolithicSparse",
            Self::StreamOptimized => "streamOptimized",
        })
    }
}

/// Which header points to the grain directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Directory {
    /// The one at the start of the file.
    Header,
    /// Its copy at the end.
    Footer,
}

/// Opens the VMDK in a window.
pub(crate) fn open(file: Window, _layer: &Layer) -> Result<Open<Image>, OpenError> {
    let head = file.at(0, Header::LEN.min(file.len));
    Ok(Open::need_one(head, move |head| match is_descriptor(&head) {
        true => refuse_descriptor(file),
        false => open_sparse(Header::parse(&head, 0, file.len)?, file),
    }))
}

/// A descriptor in a file of its own: says why it is refused, by what it describes.
fn refuse_descriptor(file: Window) -> Result<Open<Image>, OpenError> {
    let text = descriptor_within_limit(file, Span::new(0, file.len))?;
    Ok(Open::need_one(text, move |text| Err(Descriptor::parse(&text)?.refusal())))
}

fn open_sparse(header: Header, file: Window) -> Result<Open<Image>, OpenError> {
    let place = header.descriptor(file.len)?;
    let mut wants = vec![descriptor_within_limit(file, place)?];
    if header.directory_is_at_end() {
        wants.push(file.stored(footer::tail(file.len)));
    }
    Ok(Open::need(wants, move |answers| {
        let mut answers = answers.into_iter();
        let descriptor = Descriptor::parse(&answers.next().unwrap_or_default())?;
        open_described(header, &descriptor, place, answers.next().as_ref(), file)
    }))
}

/// Continues with the descriptor, and with the end of the file where the header says that the directory is there.
fn open_described(
    header: Header,
    descriptor: &Descriptor,
    place: Span,
    tail: Option<&Bytes>,
    file: Window,
) -> Result<Open<Image>, OpenError> {
    // The descriptor comes first: what the header of a kind not read here holds may be anything.
    descriptor.check_supported(place)?;
    let (valid, directory) = match tail {
        None => (header.validate()?, Directory::Header),
        Some(tail) => {
            let footer = footer::find(tail, file.len)?;
            footer.check_same_disk(&header)?;
            (footer.validate()?, Directory::Footer)
        }
    };
    let create_type = descriptor.create_type(place, valid.capacity_sectors())?;
    let details = Details {
        create_type,
        version: header.version,
        grain_size: valid.grain_len,
        compressed: valid.compressed,
        directory,
    };
    let warnings = if header.unclean_shutdown { vec![Warning::UncleanShutdown] } else { Vec::new() };
    Tables::new(valid, file, details, warnings)?.next()
}

fn descriptor_within_limit(file: Window, place: Span) -> Result<Stored, OpenError> {
    if place.len > MAX_VMDK_DESCRIPTOR {
        return Err(OpenError::Limit {
            what: Item::The("length of the VMDK descriptor"),
            found: place.len,
            limit: MAX_VMDK_DESCRIPTOR,
        });
    }
    Ok(file.stored(place))
}
