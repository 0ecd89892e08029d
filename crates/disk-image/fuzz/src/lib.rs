//! What the fuzz targets share: a driver that answers every wish from the input, and what must hold of whatever was opened.

use bytes::Bytes;
use disk_image::{
    DecodeError, Decoder, FileId, Format, Image, ObjectMap, Open, OpenError, OpenOptions, Origin, Plan,
    Referred, Span, State, Stored,
};

/// The files of an input: the image, and what it may name.
pub struct Files(Vec<Bytes>);

impl Files {
    /// The whole input as the image. Names in it are passed over.
    pub fn one(input: &[u8]) -> Self {
        Self(vec![Bytes::copy_from_slice(input)])
    }

    /// The input as files of equal length, the first of which is the image. The first byte says how many.
    pub fn several(input: &[u8]) -> Self {
        let (&count, bytes) = input.split_first().unwrap_or((&0, &[]));
        let len = bytes.len().div_ceil(usize::from(count % 3) + 2).max(1);
        Self(bytes.chunks(len).map(Bytes::copy_from_slice).collect())
    }

    /// A run of a file. Runs outside of it were asked for in breach of the contract.
    pub fn run(&self, stored: Stored) -> Bytes {
        let file = &self.0[usize::from(stored.file.0)];
        assert!(stored.span.end() <= file.len() as u64, "{stored:?} is outside of {} bytes", file.len());
        file.slice(stored.span.start as usize..stored.span.end() as usize)
    }

    /// The image's own file.
    pub fn image(&self) -> Bytes {
        self.0.first().cloned().unwrap_or_default()
    }

    /// Opens the image. Each file that it names is the next one of the input; behind the last one, names are passed over.
    pub fn open(&self, format: Option<Format>) -> Result<Image, OpenError> {
        let options = OpenOptions { format, backing_format: Some(Format::Raw), ..OpenOptions::default() };
        let mut step = disk_image::open(self.image().len() as u64, &options)?;
        let mut next = 1;
        loop {
            step = match step {
                Open::Ready(image) => return Ok(image),
                Open::Need(need) => {
                    assert!(!need.wants().is_empty(), "a parser that wants nothing never ends");
                    let answers = need.wants().iter().map(|want| self.run(*want)).collect();
                    need.resume(answers)?
                }
                Open::Refer(refer) => {
                    let mut referred = Vec::new();
                    for _ in refer.references() {
                        referred.push(match self.0.get(next) {
                            Some(file) => {
                                let len = file.len() as u64;
                                Referred::File { file: FileId(next as u16), len, allocation: None }
                            }
                            None => Referred::Skipped,
                        });
                        next += 1;
                    }
                    refer.resume(referred)?
                }
            };
        }
    }
}

/// Checks what must hold of every image that was opened, and decodes some of it.
pub fn check(files: &Files, image: &Image) {
    let len = image.virtual_size();
    assert!(len > 0 && len.is_multiple_of(512));
    assert_eq!(image.map().guest_len(), len);
    let mut at = 0;
    for extent in image.map().iter() {
        assert_eq!(extent.guest.start, at, "a map has no gaps");
        assert!(!extent.guest.is_empty());
        at = extent.guest.end();
        match extent.state {
            State::Hole | State::Zero => {}
            State::Data(stored) => {
                assert_eq!(stored.span.len, extent.guest.len);
                files.run(stored);
            }
            State::Encoded { stored, unit_len, skip, .. } => {
                assert!(skip + extent.guest.len <= unit_len);
                files.run(stored);
            }
        }
    }
    assert_eq!(at, len, "a map covers the disk");
    let layout = ObjectMap::raw(len);
    if let Some(first) = layout.next_filled(image.map(), 0) {
        let _ = part(files, image, &layout, Span::between(first, len.min(first + (1 << 20))));
    }
}

/// Opens an input in a format, or in the one that its content shows, and checks what comes out.
pub fn fuzz(files: &Files, format: Option<Format>) {
    if let Ok(image) = files.open(format) {
        check(files, &image);
    }
}

/// One part of an output.
pub fn part(files: &Files, image: &Image, layout: &ObjectMap, object: Span) -> Result<Vec<u8>, DecodeError> {
    let mut out = vec![0; object.len as usize];
    let mut decoder = Decoder::default();
    for piece in Plan::new(image.map(), layout, object).pieces {
        let place = &mut out[piece.at as usize..(piece.at + piece.len) as usize];
        match piece.origin {
            Origin::Literal(bytes) => place.copy_from_slice(&bytes),
            Origin::Stored(stored) => place.copy_from_slice(&files.run(stored)),
            Origin::Encoded(unit, skip) => {
                let mut bytes = vec![0; unit.guest.len as usize];
                decoder.decode(&unit, &files.run(unit.stored), &mut bytes)?;
                place.copy_from_slice(&bytes[skip as usize..][..place.len()]);
            }
        }
    }
    Ok(out)
}
