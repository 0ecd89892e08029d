//! VHDX: the virtual hard disks of Hyper-V since 2012.
//!
//! Source: Microsoft \[MS-VHDX\], *Virtual Hard Disk v2 (VHDX) File Format*. Numbers are little-endian; everything but the headers lies
//! at a multiple of 1 MiB. Two headers, of which the newer good one holds, and two copies of a table of regions lead to two regions:
//! metadata (sizes, the parent) and the block allocation table. Its entries give state and place of each block; behind the entries
//! of a chunk of blocks stands that of their sector bitmap, which only differencing disks have.
//!
//! What a block reads as, by its state: not present (0) is a hole, through which a parent shows; undefined, zero and unmapped (1 to
//! 3) are zeroes, though a parent may hold something else there; fully present (6) is stored; partially present (7) takes each
//! sector from the file or from the parent, as the bitmap says. The others are reserved and refused, also 5, a draft's unmapped.
//!
//! Refused by name: a log that has to be replayed, required regions and metadata that are not known, parents that are not
//! found by name. Refused as damaged: wrong checksums, and what points outside of the file or twice to one place.
//!
//! Cost: headers and metadata in three reads, then the allocation table in steps, and for partially present blocks their part of
//! the bitmap. Memory: the map, a bit a block.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod blocks;
mod header;
mod metadata;
mod parent;
mod regions;
#[cfg(test)]
mod tests;

use crate::backing::over_checked;
use crate::span::Window;
use crate::{Format, Guid, Image, Item, Layer, Open, OpenError, Reference, Role, Span};
use blocks::Blocks;
use header::Header;
use metadata::Metadata;
use parent::Parent;
use regions::Regions;

pub use crate::vhd::DiskType;

/// What everything is a multiple of.
const MIB: u64 = 1 << 20;

/// The file identifier, the headers and the region tables: the first MiB.
const HEADER_SECTION: Span = Span::new(0, MIB);

const SIGNATURE: &[u8; 8] = b"vhdxfile";

/// What the metadata of a VHDX say.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Details {
    /// The kind of disk.
    pub disk_type: DiskType,
    /// Guest bytes in a block, the unit of allocation: a power of two from 1 MiB to 256 MiB.
    pub block_size: u64,
    /// Bytes in a sector as the guest sees it: 512 or 4096.
    pub logical_sector_size: u32,
    /// Bytes in a sector of the disk that is pretended: 512 or 4096.
    pub physical_sector_size: u32,
    /// The disk's own id, which it keeps when it is copied.
    pub id: Guid,
    /// Changes when the content does: by which a differencing disk knows its parent.
    pub data_write_id: Guid,
}

/// Opens the VHDX in a window.
pub(crate) fn open(file: Window, layer: &Layer) -> Result<Open<Image>, OpenError> {
    let layer = layer.clone();
    // The signature comes first, so that another file is not called a truncated one.
    Ok(Open::need_one(file.at(0, file.len.min(8)), move |signature| {
        if *signature != SIGNATURE[..] {
            let (found, signature) = (first(&signature), first(SIGNATURE));
            return Err(OpenError::Signature { expected: Format::Vhdx, found, signature });
        }
        if file.len < HEADER_SECTION.len {
            return Err(OpenError::Truncated {
                what: Item::The("VHDX header section"),
                span: HEADER_SECTION,
                file_len: file.len,
            });
        }
        let wants = [Header::PLACES, Regions::PLACES].concat();
        let wants = wants.into_iter().map(|place| file.stored(place)).collect();
        Ok(Open::need(wants, move |answers| {
            let [one, two, three, four] = answers.try_into().map_err(|_| OpenError::Answer)?;
            let header = Header::current(&one, &two)?;
            let regions = Regions::parse(&three, &four, file.len)?;
            open_regions(file, header, regions, layer)
        }))
    }))
}

fn open_regions(
    file: Window,
    header: Header,
    regions: Regions,
    layer: Layer,
) -> Result<Open<Image>, OpenError> {
    let table = file.at(regions.metadata.start, metadata::TABLE_LEN);
    Ok(Open::need_one(table, move |bytes| {
        let items = metadata::Items::parse(&bytes, regions.metadata)?;
        let wants = items.places().map(|place| file.stored(place)).collect();
        Ok(Open::need(wants, move |answers| {
            let (metadata, parent) = Metadata::parse(&answers)?;
            let blocks = Blocks::new(file, &header, &regions, &metadata)?.next()?;
            match parent {
                Some(parent) => blocks.and_then(move |top| over_parent(top, file, parent, &layer)),
                None => Ok(blocks),
            }
        }))
    }))
}

fn over_parent(top: Image, file: Window, parent: Parent, layer: &Layer) -> Result<Open<Image>, OpenError> {
    let Parent { path, linkage, linkage2 } = parent;
    let reference = Reference { by: file.file, name: path, role: Role::BackingFile, format: Format::Vhdx };
    over_checked(top, reference, layer, move |below| match below.details() {
        crate::Details::Vhdx(Details { data_write_id: found, .. })
            if *found != linkage && Some(*found) != linkage2 =>
        {
            Err(OpenError::BackingId { found: *found, expected: linkage })
        }
        _ => Ok(()),
    })
}

/// The first bytes of a file, for an error message.
fn first(bytes: &[u8]) -> [u8; 4] {
    crate::fields::Fields(bytes).bytes(0)
}
