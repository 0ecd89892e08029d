//! The smallest driver of the crate: a file in memory, one part at a time.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use bytes::Bytes;
use disk_image::{
    DecodeError, Decoder, FileId, Image, ObjectMap, Open, OpenError, OpenOptions, Origin, Plan, Reference,
    Referred, Span, Stored,
};

/// A file that an image names.
#[derive(Clone)]
pub(crate) struct Named {
    pub(crate) bytes: Bytes,
    /// The runs of it that may hold data, where that is known.
    pub(crate) allocation: Option<Vec<Span>>,
}

/// A source file and the image in it.
pub(crate) struct Disk {
    pub(crate) file: Bytes,
    /// The files that the image names, by their ids from 1 on.
    pub(crate) others: Vec<Bytes>,
    pub(crate) image: Image,
    /// Bytes of metadata that opening asked for.
    pub(crate) asked: u64,
    /// Runs in which it asked for them.
    pub(crate) reads: usize,
    /// The most bytes that it asked for at once.
    pub(crate) largest_step: u64,
}

impl Disk {
    pub(crate) fn open(path: &Path) -> Self {
        Self::open_with(path, &OpenOptions::default())
    }

    pub(crate) fn open_with(path: &Path, options: &OpenOptions) -> Self {
        Self::try_open(path, options).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Opens a file, and those that it names, which are all in the same folder.
    pub(crate) fn try_open(path: &Path, options: &OpenOptions) -> Result<Self, OpenError> {
        let file = Bytes::from(std::fs::read(path).unwrap());
        let folder = path.parent().unwrap();
        let read = |reference: &Reference| {
            let bytes = std::fs::read(folder.join(&reference.name));
            let bytes = bytes.unwrap_or_else(|error| panic!("{reference:?}: {error}"));
            Some(Named { bytes: bytes.into(), allocation: None })
        };
        Self::drive(file, &read, options)
    }

    /// Opens a file that names no other.
    pub(crate) fn parse(file: Bytes, options: &OpenOptions) -> Result<Self, OpenError> {
        Self::drive(file, &|reference| panic!("names {reference:?}"), options)
    }

    /// Opens a file, and those that it names as `read` has them; what it has not is skipped.
    pub(crate) fn parse_with(
        file: Bytes,
        read: &dyn Fn(&Reference) -> Option<Named>,
        options: &OpenOptions,
    ) -> Result<Self, OpenError> {
        Self::drive(file, read, options)
    }

    /// Answers every wish. A wish outside of a file is a broken contract.
    fn drive(
        file: Bytes,
        read: &dyn Fn(&Reference) -> Option<Named>,
        options: &OpenOptions,
    ) -> Result<Self, OpenError> {
        let mut files = vec![file];
        let mut step = disk_image::open(files[0].len() as u64, options)?;
        let (mut asked, mut reads, mut largest_step) = (0, 0, 0);
        loop {
            let need = match step {
                Open::Ready(image) => {
                    let others = files.split_off(1);
                    let file = files.remove(0);
                    return Ok(Self { file, others, image, asked, reads, largest_step });
                }
                Open::Need(need) => need,
                Open::Refer(refer) => {
                    let open = |reference: &Reference| {
                        let Some(Named { bytes, allocation }) = read(reference) else {
                            return Referred::Skipped;
                        };
                        let (file, len) = (FileId(files.len() as u16), bytes.len() as u64);
                        files.push(bytes);
                        Referred::File { file, len, allocation }
                    };
                    let referred = refer.references().iter().map(open).collect();
                    step = refer.resume(referred)?;
                    continue;
                }
            };
            assert!(!need.wants().is_empty(), "a parser that wants nothing never ends");
            let of = |want: &Stored| cut(&files[usize::from(want.file.0)], *want);
            let answers: Vec<Bytes> = need.wants().iter().map(of).collect();
            let bytes = answers.iter().map(|bytes| bytes.len() as u64).sum();
            asked += bytes;
            reads += answers.len();
            largest_step = largest_step.max(bytes);
            step = need.resume(answers)?;
        }
    }

    fn stored(&self, stored: Stored) -> Bytes {
        let file = match usize::from(stored.file.0) {
            0 => &self.file,
            other => &self.others[other - 1],
        };
        cut(file, stored)
    }

    /// The whole guest disk.
    pub(crate) fn guest(&self) -> Result<Vec<u8>, DecodeError> {
        let layout = ObjectMap::raw(self.image.virtual_size());
        self.part(&layout, Span::new(0, layout.len()))
    }

    /// One part of an output.
    pub(crate) fn part(&self, layout: &ObjectMap, object: Span) -> Result<Vec<u8>, DecodeError> {
        let mut out = vec![0; object.len as usize];
        let mut decoder = Decoder::default();
        let mut decoded = HashMap::new();
        for piece in Plan::new(self.image.map(), layout, object).pieces {
            let place = &mut out[piece.at as usize..(piece.at + piece.len) as usize];
            match piece.origin {
                Origin::Literal(bytes) => place.copy_from_slice(&bytes),
                Origin::Stored(stored) => place.copy_from_slice(&self.stored(stored)),
                Origin::Encoded(unit, skip) => {
                    if !decoded.contains_key(&unit.guest.start) {
                        let mut bytes = vec![0; unit.guest.len as usize];
                        decoder.decode(&unit, &self.stored(unit.stored), &mut bytes)?;
                        decoded.clear();
                        decoded.insert(unit.guest.start, bytes);
                    }
                    let unit = &decoded[&unit.guest.start];
                    place.copy_from_slice(&unit[skip as usize..][..place.len()]);
                }
            }
        }
        Ok(out)
    }

    /// Writes a layout in parts of `part` bytes; zeroes are left out.
    pub(crate) fn write(&self, layout: &ObjectMap, part: u64, path: &Path) {
        let mut out = File::create(path).unwrap();
        out.set_len(layout.len()).unwrap();
        let mut at = 0;
        while let Some(next) = layout.next_filled(self.image.map(), at) {
            let start = next / part * part;
            let object = Span::between(start, layout.len().min(start + part));
            out.seek(SeekFrom::Start(object.start)).unwrap();
            out.write_all(&self.part(layout, object).unwrap()).unwrap();
            at = object.end();
        }
    }
}

fn cut(file: &Bytes, stored: Stored) -> Bytes {
    let Span { start, .. } = stored.span;
    assert!(stored.span.end() <= file.len() as u64, "{stored:?} is outside a file of {} bytes", file.len());
    file.slice(start as usize..stored.span.end() as usize)
}
