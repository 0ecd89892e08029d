//! One sparse extent file, of whichever kind, into the map of the guest bytes that it holds.

use bytes::Bytes;

use super::header::{self, Header};
use super::shape::Shape;
use super::tables::Tables;
use super::{Directory, SECTOR, Sparse, cowd, footer, scan, sesparse};
use crate::span::Window;
use crate::{ExtentMap, Format, Item, Open, OpenError, Span, Warning};

/// An opened sparse extent file.
pub(super) struct Opened {
    /// The guest bytes of this file, from 0.
    pub(super) map: ExtentMap,
    pub(super) sparse: Sparse,
    pub(super) warnings: Vec<Warning>,
}

/// Which sparse files an extent line may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Hosted or COWD, by signature: `SPARSE` and `VMFSSPARSE` are used for both.
    Any,
    /// seSparse.
    SeSparse,
}

/// Opens the extent file `file`, which holds `extent` of the disk.
pub(super) fn open(file: Window, family: Family, extent: Span) -> Result<Open<Opened>, OpenError> {
    let head = file.at(0, cowd::HEADER_LEN.min(file.len));
    Ok(Open::need_one(head, move |head| match family {
        Family::SeSparse if !head.starts_with(&sesparse::MAGIC) => {
            Err(signature(&head, *sesparse::MAGIC.first_chunk().unwrap_or(&[0; 4])))
        }
        Family::SeSparse => open_sesparse(&head, file, extent),
        Family::Any if head.starts_with(&cowd::MAGIC) => open_cowd(&head, file, extent),
        Family::Any if !head.starts_with(&header::MAGIC) => Err(signature(&head, header::MAGIC)),
        Family::Any => {
            let header = Header::parse(&head, 0, file.len)?;
            header.check_version()?;
            if !header.directory_is_at_end() {
                return open_hosted(header, None, file, extent);
            }
            let tail = file.stored(footer::tail(file.len));
            Ok(Open::need_one(tail, move |tail| open_hosted(header, Some(&tail), file, extent)))
        }
    }))
}

fn signature(head: &[u8], signature: [u8; 4]) -> OpenError {
    let found = head.first_chunk().copied().unwrap_or_default();
    OpenError::Signature { expected: Format::Vmdk, found, signature }
}

/// Continues with a hosted header, and with the end of the file where the directory is there.
pub(super) fn open_hosted(
    header: Header,
    tail: Option<&Bytes>,
    file: Window,
    extent: Span,
) -> Result<Open<Opened>, OpenError> {
    let hosted = Hosted { header, directory: Directory::Header, grains: None, file, extent };
    let Some(tail) = tail else { return hosted.open(&header) };
    if let Some(footer) = footer::find(tail, file.len)? {
        footer.check_same_disk(&header)?;
        return Hosted { directory: Directory::Footer, ..hosted }.open(&footer);
    }
    // The markers are followed by what the header says of grains, so that is checked first.
    header.with_directory(1).validate()?;
    scan::directory(header, file, tail)?.and_then(move |found| {
        let hosted = Hosted { directory: Directory::Marker, grains: Some(found.grains), ..hosted };
        hosted.open(&found.header)
    })
}

/// A hosted sparse file whose directory is known.
#[derive(Clone, Copy)]
struct Hosted {
    header: Header,
    directory: Directory,
    /// How many grains there must be, where they were counted.
    grains: Option<u64>,
    file: Window,
    extent: Span,
}

impl Hosted {
    /// Reads the directory that `pointer` (the header, the footer) points to; where that one is damaged, its redundant copy.
    fn open(self, pointer: &Header) -> Result<Open<Opened>, OpenError> {
        let shape = Shape { fixed: self.header.fixed(self.file.len), ..pointer.validate()? };
        check_len(shape.guest_len, self.extent)?;
        let redundant = shape.redundant_start.map(|start| Shape { directory_start: start, ..shape.clone() });
        let opened = self.tables(shape);
        let Some(redundant) = redundant else { return opened };
        let again = Self { directory: Directory::Redundant, ..self };
        Open::or_else(opened, move |error| match error {
            OpenError::Answer | OpenError::Limit { .. } => Err(error),
            // What both copies get wrong is told of the first one.
            _ => Open::or_else(again.tables(redundant), move |_| Err(error)),
        })
    }

    fn tables(self, shape: Shape) -> Result<Open<Opened>, OpenError> {
        let Self { header, directory, .. } = self;
        let sparse = Sparse {
            version: header.version,
            grain_size: shape.grain_len,
            compressed: shape.compressed,
            directory,
        };
        let mut warnings = Vec::new();
        for (warning, holds) in [
            (Warning::UncleanShutdown, header.unclean_shutdown),
            (Warning::NoFooter, self.grains.is_some()),
            (Warning::RedundantDirectory, directory == Directory::Redundant),
        ] {
            if holds {
                warnings.push(warning);
            }
        }
        Tables::new(shape, self.file, self.extent)?.next()?.and_then(move |map| {
            self.check_grains(&map)?;
            Ok(Open::Ready(Opened { map, sparse, warnings }))
        })
    }

    /// Compares the grains in the tables with those in the stream. Each is one run of the map: none decodes to a part of one.
    fn check_grains(&self, map: &ExtentMap) -> Result<(), OpenError> {
        let Some(expected) = self.grains else { return Ok(()) };
        let found = map.iter().filter(|extent| extent.state.is_stored()).count() as u64;
        if found == expected {
            return Ok(());
        }
        Err(OpenError::Field {
            what: Item::The("number of grains that the directory of the VMDK stream leads to"),
            found,
            expected: "that of the grains in the stream",
        })
    }
}

fn open_cowd(head: &[u8], file: Window, extent: Span) -> Result<Open<Opened>, OpenError> {
    let cowd::Cowd { shape, unclean } = cowd::parse(head, file.len)?;
    check_len(shape.guest_len, extent)?;
    let warnings = if unclean { vec![Warning::UncleanShutdown] } else { Vec::new() };
    let directory = Directory::Header;
    let sparse = Sparse { version: 1, grain_size: shape.grain_len, compressed: false, directory };
    let tables = Tables::new(shape, file, extent)?.next()?;
    tables.and_then(move |map| Ok(Open::Ready(Opened { map, sparse, warnings })))
}

fn open_sesparse(head: &[u8], file: Window, extent: Span) -> Result<Open<Opened>, OpenError> {
    let sesparse::Constant { shape, volatile } = sesparse::parse(head, file.len)?;
    check_len(shape.guest_len, extent)?;
    let directory = Directory::Header;
    let sparse = Sparse { version: 2, grain_size: shape.grain_len, compressed: false, directory };
    Ok(Open::need_one(file.stored(volatile), move |bytes| {
        sesparse::check_volatile(&bytes)?;
        let tables = Tables::new(shape, file, extent)?.next()?;
        tables.and_then(move |map| Ok(Open::Ready(Opened { map, sparse, warnings: Vec::new() })))
    }))
}

/// The file and its line in the descriptor must agree on the length: otherwise one of them belongs to another disk.
fn check_len(capacity: u64, extent: Span) -> Result<(), OpenError> {
    if capacity == extent.len {
        return Ok(());
    }
    Err(OpenError::Field {
        what: Item::The("length of the extent in the VMDK descriptor"),
        found: extent.len / SECTOR,
        expected: "the capacity in the header",
    })
}
