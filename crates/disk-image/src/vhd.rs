//! VHD: the virtual hard disks of Virtual PC, Hyper-V up to 2008 R2, Xen and Azure; QEMU calls them vpc.
//!
//! Source: Microsoft *Virtual Hard Disk Image Format Specification* 1.0. Numbers are big-endian; block offsets count sectors of 512
//! bytes. A fixed disk is a raw disk and a footer. A dynamic one begins with a copy of the footer and a header; a block allocation
//! table says where each block is, and a block begins with a bitmap of its sectors. A differencing disk has the same structure on
//! a parent, which is another file.
//!
//! **Size.** Virtual PC shows its guests what cylinders, heads and sectors multiply to, and its "current size" is often larger;
//! everybody else goes by the current size. So geometry counts where the creator is Virtual PC or an early QEMU (`vpc `, `qemu`), and
//! does not if it is the largest there is, since then it was cut off. That is QEMU's rule since 10.0; earlier versions knew fewer
//! creators whose current size holds.
//!
//! **Bitmaps.** A sector whose bit is clear was never written to this file: it reads as zero, or as the parent has it. Virtual PC,
//! VirtualBox and Xen go by that also on dynamic disks, as the specification says. QEMU does not look; it sets all bits, so what it
//! writes reads alike. Xen does not clear what lies beneath a clear bit: to ignore the bitmap would show what was there before.
//!
//! Refused: a footer that is missing (the end of the file, too, then), checksums that are wrong, a copy that says something else, a
//! parent with another id. Not compared is the parent's time stamp: it is that of its file, which is changed by copying.
//!
//! Cost: footer and header, the allocation table in steps, and the bitmap of each block. Memory: the map, a bit a block.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod blocks;
mod footer;
mod header;
#[cfg(test)]
mod tests;

use crate::backing::over_checked;
use crate::span::Window;
use crate::{
    ExtentMapBuilder, Format, Guid, Image, Item, Layer, Open, OpenError, Reference, Role, Span, State,
};
use blocks::Blocks;
use footer::Footer;
use header::{Header, Parent};

pub(crate) use footer::is_footer;

/// What block offsets count.
const SECTOR: u64 = 512;

/// What the footer and the header of a VHD say.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Details {
    /// The kind of disk.
    pub disk_type: DiskType,
    /// Four characters for the program that made it, without blanks.
    pub creator: String,
    /// Guest bytes in a block, the unit of allocation; `None` if the disk is fixed.
    pub block_size: Option<u64>,
    /// By which a differencing disk knows its parent.
    pub id: Guid,
}

/// The kinds of VHD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiskType {
    /// A raw disk and a footer.
    Fixed,
    /// Blocks that were written.
    Dynamic,
    /// Sectors that differ from those of a parent.
    Differencing,
}

impl std::fmt::Display for DiskType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fixed => "fixed",
            Self::Dynamic => "dynamic",
            Self::Differencing => "differencing",
        })
    }
}

/// Opens the VHD in a window.
pub(crate) fn open(file: Window, layer: &Layer) -> Result<Open<Image>, OpenError> {
    let layer = layer.clone();
    let tail = footer::tail(file.len);
    let wants = vec![file.at(0, Footer::LEN.min(file.len)), file.stored(tail)];
    Ok(Open::need(wants, move |answers| {
        let [head, tail] = answers.try_into().map_err(|_| OpenError::Answer)?;
        let (footer, place) = Footer::find(&head, &tail, file.len)?;
        let virtual_size = footer.virtual_size()?;
        if footer.disk_type == DiskType::Fixed {
            return fixed(file, &footer, place, virtual_size).map(Open::Ready);
        }
        footer.check_copy(&Footer::parse(&head, Item::The("copy of the VHD footer"))?)?;
        let header = footer.header(place)?;
        Ok(Open::need_one(file.stored(header), move |bytes| {
            let header = Header::parse(&bytes, &footer, place, virtual_size)?;
            let blocks = Blocks::new(file, &header, &footer, place, virtual_size)?;
            match header.parent {
                Some(parent) => differencing(file, blocks, parent, layer),
                None => blocks.next(),
            }
        }))
    }))
}

fn fixed(file: Window, footer: &Footer, place: Span, virtual_size: u64) -> Result<Image, OpenError> {
    if virtual_size > place.start {
        return Err(OpenError::Truncated {
            what: Item::The("VHD disk before its footer"),
            span: Span::new(0, virtual_size),
            file_len: place.start,
        });
    }
    let mut map = ExtentMapBuilder::new();
    map.push(virtual_size, State::Data(file.at(0, virtual_size)));
    let details = footer.details(None);
    Ok(Image::new(virtual_size, map.finish(virtual_size), crate::Details::Vhd(details)))
}

/// Reads the parent's name where it stands outside of the header, then the blocks, then the parent.
fn differencing(
    file: Window,
    mut blocks: Blocks,
    parent: Parent,
    layer: Layer,
) -> Result<Open<Image>, OpenError> {
    let expected = parent.id;
    let over = move |blocks: Blocks, name: String| {
        let reference = Reference { by: file.file, name, role: Role::BackingFile, format: Format::Vhd };
        blocks.next()?.and_then(move |top| {
            over_checked(top, reference, &layer, move |below| match below.details() {
                crate::Details::Vhd(Details { id, .. }) if *id == expected => Ok(()),
                crate::Details::Vhd(Details { id, .. }) => Err(OpenError::BackingId { found: *id, expected }),
                _ => Ok(()),
            })
        })
    };
    match parent.place {
        None => over(blocks, parent.name),
        Some((place, encoding)) => {
            blocks.claim(place, Item::The("VHD parent locator"))?;
            Ok(Open::need_one(file.stored(place), move |bytes| over(blocks, encoding.decode(&bytes)?)))
        }
    }
}
