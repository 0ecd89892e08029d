//! The extents of a descriptor, each at its place, into one disk.
//!
//! Source: *Virtual Disk Format 5.0*, "Extent Descriptions". The extents follow one another from sector 0 on; together they are the disk,
//! and whatever kind one has, the next one starts where its line says that it ends.
//!
//! RW and RDONLY differ only for a writer. NOACCESS says that not even a read is allowed: of ZERO that changes nothing, and its place
//! reads as zeroes. A file behind NOACCESS is refused: to read it would take what the disk must not show, and zeroes in its
//! place would drop what is there; a guest sees an error in either case, which a converted disk cannot have.
//!
//! All files are asked for at once, each name once. Parts of a flat file that are known to be unallocated are zeroes for good: they
//! are this layer's, so no parent shows through. Cost: the extents one after the other, each as `tables.rs` says.

use std::collections::HashMap;

use super::create_type::CreateType;
use super::descriptor::{Descriptor, ExtentType, Parent};
use super::sparse::{self, Family, Opened};
use super::{Details, SECTOR, Sparse, over_parent};
use crate::claims::Claims;
use crate::limits::{MAX_FILE_LEN, MAX_VIRTUAL_SIZE};
use crate::span::Window;
use crate::{
    ExtentMapBuilder, Feature, FileId, Format, Image, Item, Layer, Open, OpenError, Reference, Referred,
    Role, Span, State, Warning, check_len,
};

/// An extent, checked.
#[derive(Debug, Clone, Copy)]
struct Extent {
    guest: Span,
    source: Source,
}

/// Where the bytes of an extent are. Files are counted as they are asked for.
#[derive(Debug, Clone, Copy)]
enum Source {
    Zero,
    Flat { file: usize, start: u64 },
    Sparse { file: usize, family: Family },
}

/// A disk that is put together.
struct Disk {
    create_type: CreateType,
    cid: Option<u32>,
    parent: Option<Parent>,
    by: FileId,
    layer: Layer,
    /// Extents that are still to come.
    extents: std::vec::IntoIter<Extent>,
    count: u64,
    references: Vec<Reference>,
    files: Vec<Referred>,
    /// What of each flat file is in use.
    claims: Vec<Claims>,
    map: ExtentMapBuilder,
    sparse: Option<Sparse>,
    warnings: Vec<Warning>,
    partial: bool,
}

/// Opens the disk of a descriptor, which stands in `by` at `place`, and whose extents are in other files.
pub(super) fn open(
    descriptor: &Descriptor,
    place: Span,
    by: FileId,
    layer: &Layer,
) -> Result<Open<Image>, OpenError> {
    let create_type = descriptor.create_type(place)?;
    let (extents, references) = list(descriptor, place, by)?;
    let mut disk = Disk {
        create_type,
        cid: descriptor.cid(),
        parent: descriptor.parent(place)?,
        by,
        layer: layer.clone(),
        count: extents.len() as u64,
        extents: extents.into_iter(),
        files: Vec::new(),
        claims: references.iter().map(|_| Claims::new(MAX_FILE_LEN)).collect(),
        references: references.clone(),
        map: ExtentMapBuilder::new(),
        sparse: None,
        warnings: Vec::new(),
        partial: false,
    };
    if references.is_empty() {
        return disk.next();
    }
    Ok(Open::refer(references, move |files| {
        disk.files = files;
        disk.next()
    }))
}

/// The extents with their places, and the files that they name.
fn list(
    descriptor: &Descriptor,
    place: Span,
    by: FileId,
) -> Result<(Vec<Extent>, Vec<Reference>), OpenError> {
    let mut extents = Vec::new();
    let mut references: Vec<Reference> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut guest: u64 = 0;
    for (line, index) in descriptor.extents(place)?.iter().zip(0_u64..) {
        let span = Span::new(guest, line.sectors.saturating_mul(SECTOR));
        guest = span.end();
        if guest > MAX_VIRTUAL_SIZE {
            return Err(OpenError::Limit {
                what: Item::The("virtual size"),
                found: guest,
                limit: MAX_VIRTUAL_SIZE,
            });
        }
        let (format, family) = match line.kind {
            ExtentType::Zero => {
                extents.push(Extent { guest: span, source: Source::Zero });
                continue;
            }
            ExtentType::Other(name) => return Err(OpenError::Unsupported(Feature::VmdkExtentType(name))),
            _ if !line.readable => return Err(OpenError::Unsupported(Feature::VmdkNoAccess)),
            ExtentType::Flat => (Format::Raw, None),
            ExtentType::Sparse => (Format::Vmdk, Some(Family::Any)),
            ExtentType::SeSparse => (Format::Vmdk, Some(Family::SeSparse)),
        };
        let name = descriptor.name(&line.name)?;
        let file = match known.get(&name) {
            Some(&file) => {
                // Only flat files have room for several extents.
                let flat = references.get(file).is_some_and(|known| known.format == Format::Raw);
                if family.is_some() || !flat {
                    return Err(OpenError::Claimed { what: Item::Numbered("VMDK extent", index), at: 0 });
                }
                file
            }
            None => {
                let role = Role::ExtentFile;
                references.push(Reference { by, name: name.clone(), role, format });
                known.insert(name, references.len().saturating_sub(1));
                references.len().saturating_sub(1)
            }
        };
        let source = match family {
            None => Source::Flat { file, start: line.offset.saturating_mul(SECTOR) },
            Some(family) => Source::Sparse { file, family },
        };
        extents.push(Extent { guest: span, source });
    }
    Ok((extents, references))
}

impl Disk {
    /// Appends extents until one needs more bytes; finishes after the last one.
    fn next(mut self) -> Result<Open<Image>, OpenError> {
        while let Some(Extent { guest, source }) = self.extents.next() {
            match source {
                Source::Zero => self.map.push(guest.len, State::Zero),
                Source::Flat { file, start } => self.flat(file, Span::new(start, guest.len))?,
                Source::Sparse { file, family } => {
                    if let Some((id, len)) = self.file(file)? {
                        let window = Window::file(id, len);
                        let opened = check_len(window).and_then(|()| sparse::open(window, family, guest));
                        let opened = opened.map_err(|error| error.in_file(id))?.in_file(id);
                        return opened.and_then(move |opened| self.sparse(opened));
                    }
                    self.skip(guest.len);
                }
            }
            self.map.check_memory()?;
        }
        self.finish()
    }

    /// A file by its number, and its length; `None` if it was skipped.
    fn file(&self, number: usize) -> Result<Option<(FileId, u64)>, OpenError> {
        match self.files.get(number) {
            Some(Referred::File { file, len, .. }) => Ok(Some((*file, *len))),
            Some(Referred::Skipped) => Ok(None),
            None => Err(OpenError::Answer),
        }
    }

    fn skip(&mut self, len: u64) {
        self.map.push(len, State::Hole);
        self.partial = true;
    }

    /// Appends the run `stored` of a flat file.
    fn flat(&mut self, number: usize, stored: Span) -> Result<(), OpenError> {
        let index = self.index();
        let Some(Referred::File { file, len, allocation }) = self.files.get(number) else {
            self.skip(stored.len);
            return Ok(());
        };
        let what = Item::Numbered("VMDK extent", index);
        if stored.end() > *len {
            let error = OpenError::Truncated { what, span: stored, file_len: *len };
            return Err(error.in_file(*file));
        }
        if let Some(claims) = self.claims.get_mut(number) {
            claims.claim(stored, what).map_err(|error| error.in_file(*file))?;
        }
        let window = Window::file(*file, *len);
        let whole = [stored];
        let runs = allocation.as_deref().unwrap_or(&whole);
        let first = runs.partition_point(|run| run.end() <= stored.start);
        let mut at = stored.start;
        for run in runs.get(first..).unwrap_or_default() {
            let run = run.intersect(Span::between(at, stored.end()));
            if run.is_empty() {
                break;
            }
            self.map.push(run.start.saturating_sub(at), State::Zero);
            self.map.push(run.len, State::Data(window.stored(run)));
            self.map.check_memory()?;
            at = run.end();
        }
        self.map.push(stored.end().saturating_sub(at), State::Zero);
        Ok(())
    }

    /// The number of the extent that was taken last.
    fn index(&self) -> u64 {
        self.count.saturating_sub(self.extents.len() as u64).saturating_sub(1)
    }

    /// Appends a sparse extent and goes on.
    fn sparse(mut self, opened: Opened) -> Result<Open<Image>, OpenError> {
        self.map.push_extents(opened.map.iter())?;
        self.sparse.get_or_insert(opened.sparse);
        for warning in opened.warnings {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
        self.next()
    }

    fn finish(self) -> Result<Open<Image>, OpenError> {
        let virtual_size = self.map.guest_len();
        let details = Details {
            create_type: self.create_type,
            extents: self.count,
            cid: self.cid,
            sparse: self.sparse,
        };
        let map = self.map.finish(virtual_size);
        let mut image = Image::new(virtual_size, map, crate::Details::Vmdk(details));
        image.references = self.references;
        image.warnings = self.warnings;
        image.partial = self.partial;
        over_parent(image, self.parent, self.by, &self.layer)
    }
}
