//! VMDK: VMware virtual disks. Opening reads those in one file or in several, [`Stream`] writes one file.
//!
//! Sources: VMware *Virtual Disk Format 5.0*; where it is silent, what QEMU's `block/vmdk.c` and VMware's open-vmdk do. A
//! descriptor (text, `descriptor.rs`) lists the extents of the disk. It stands in a file of its own, with the extents in others
//! (`extents.rs`): flat, or sparse in one of three kinds (`shape.rs`: hosted, COWD, seSparse). Or it stands inside of the one
//! sparse file that is all of the disk: monolithicSparse, or streamOptimized, whose grains are compressed and whose directory may be at
//! the end, where a footer leads to it. A sparse file holds a grain directory whose entries point to grain tables, which
//! point to grains; pointers count sectors of 512 bytes, all numbers are little-endian. A delta names the disk beneath it.
//!
//! Refused by name: an extent file without its descriptor, device-backed and vSAN disks, NOACCESS extents with a file, encryption,
//! compressed grains without markers, a seSparse file whose journal must be replayed, file names in unknown encodings. Refused as
//! damaged: whatever points outside of a file, into the metadata, or where something else points; a stream that was cut; a
//! parent with another CID. Where the grain directory is damaged, the redundant one is read, and a warning says so.
//!
//! Cost: one read for the header, one for descriptor and footer, then directory and tables in steps of
//! [`METADATA_STEP`](crate::limits::METADATA_STEP) that are not held; time grows with the allocated tables. Besides the map, about
//! one bit of memory for each grain that is stored (`claims.rs`): 4 MiB for 2 TiB in grains of 64 KiB.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod cowd;
mod create_type;
mod descriptor;
mod extents;
mod footer;
mod header;
mod mapper;
mod names;
mod scan;
mod sesparse;
mod shape;
mod sparse;
mod stream;
mod tables;

pub use create_type::CreateType;
pub use stream::{Stream, StreamError};

use bytes::Bytes;

use crate::backing::over_checked;
use crate::limits::MAX_VMDK_DESCRIPTOR;
use crate::probe::is_descriptor;
use crate::span::Window;
use crate::{Feature, FileId, Format, Image, Item, Layer, Open, OpenError, Reference, Role, Span, Stored};
use descriptor::{Descriptor, Parent};
use header::Header;

/// What all pointers and sizes of the format count.
const SECTOR: u64 = 512;

/// What the descriptor and the headers say of a VMDK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// The kind of VMDK, by its descriptor.
    pub create_type: CreateType,
    /// Extents that the disk is made of.
    pub extents: u64,
    /// The content id, which a delta on this disk repeats; it changes when the content does.
    pub cid: Option<u32>,
    /// The first sparse extent, if there is one.
    pub sparse: Option<Sparse>,
}

/// What the header of a sparse extent file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sparse {
    /// The header's version: 1 to 3.
    pub version: u32,
    /// Guest bytes in a grain, the unit of allocation: a power of two.
    pub grain_size: u64,
    /// True if each grain is a zlib stream.
    pub compressed: bool,
    /// Where the grain directory was found.
    pub directory: Directory,
}

/// What led to the grain directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Directory {
    /// The header at the start of the file.
    Header,
    /// The footer, its copy at the end.
    Footer,
    /// The directory's marker in the stream, as the footer is not at the end.
    Marker,
    /// The redundant directory, as the other one is damaged.
    Redundant,
}

/// Opens the VMDK in a window.
pub(crate) fn open(file: Window, layer: &Layer) -> Result<Open<Image>, OpenError> {
    let head = file.at(0, Header::LEN.min(file.len));
    let layer = layer.clone();
    Ok(Open::need_one(head, move |head| match is_descriptor(&head) {
        true => open_descriptor(file, layer),
        false => open_sparse(Header::parse(&head, 0, file.len)?, file, layer),
    }))
}

/// A descriptor in a file of its own.
fn open_descriptor(file: Window, layer: Layer) -> Result<Open<Image>, OpenError> {
    let place = Span::new(0, file.len);
    let text = descriptor_within_limit(file, place)?;
    Ok(Open::need_one(text, move |text| extents::open(&Descriptor::parse(&text)?, place, file.file, &layer)))
}

/// A sparse file with the descriptor inside.
fn open_sparse(header: Header, file: Window, layer: Layer) -> Result<Open<Image>, OpenError> {
    header.check_version()?;
    let Some(place) = header.descriptor(file.len)? else {
        return Err(OpenError::Unsupported(Feature::VmdkExtentAlone));
    };
    let mut wants = vec![descriptor_within_limit(file, place)?];
    if header.directory_is_at_end() {
        wants.push(file.stored(footer::tail(file.len)));
    }
    Ok(Open::need(wants, move |answers| {
        let mut answers = answers.into_iter();
        let descriptor = Descriptor::parse(&answers.next().unwrap_or_default())?;
        open_described(header, &descriptor, place, answers.next().as_ref(), file, &layer)
    }))
}

/// Continues with the descriptor, and with the end of the file where the header says that the directory is there.
fn open_described(
    header: Header,
    descriptor: &Descriptor,
    place: Span,
    tail: Option<&Bytes>,
    file: Window,
    layer: &Layer,
) -> Result<Open<Image>, OpenError> {
    if header.is_only_descriptor() {
        return extents::open(descriptor, place, file.file, layer);
    }
    // The descriptor comes first: what the header of a kind not read here holds may be anything.
    let create_type = descriptor.create_type(place)?;
    if !create_type.is_one_file() {
        return Err(OpenError::Unsupported(Feature::VmdkExtentFiles));
    }
    let extent = Span::new(0, descriptor.own_sectors(place)?.saturating_mul(SECTOR));
    let (parent, cid) = (descriptor.parent(place)?, descriptor.cid());
    let layer = layer.clone();
    sparse::open_hosted(header, tail, file, extent)?.and_then(move |opened| {
        let details = Details { create_type, extents: 1, cid, sparse: Some(opened.sparse) };
        let mut image = Image::new(extent.len, opened.map, crate::Details::Vmdk(details));
        image.warnings = opened.warnings;
        over_parent(image, parent, file.file, &layer)
    })
}

/// The image, over the disk that its descriptor names as its parent, if any; that one must be the disk that the delta was made on.
fn over_parent(
    image: Image,
    parent: Option<Parent>,
    by: FileId,
    layer: &Layer,
) -> Result<Open<Image>, OpenError> {
    let Some(Parent { cid, name }) = parent else { return Ok(Open::Ready(image)) };
    let reference = Reference { by, name, role: Role::BackingFile, format: Format::Vmdk };
    over_checked(image, reference, layer, move |below| match below.details() {
        crate::Details::Vmdk(Details { cid: Some(found), .. }) if *found == cid => Ok(()),
        crate::Details::Vmdk(Details { cid: Some(found), .. }) => {
            Err(OpenError::ParentCid { found: *found, expected: cid })
        }
        _ => Err(OpenError::Missing {
            what: Item::The("CID of the parent's descriptor"),
            span: Span::default(),
        }),
    })
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
