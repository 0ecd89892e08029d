//! A driver for unit tests: files by name, all in memory.

use bytes::Bytes;

use crate::{FileId, Image, Open, OpenError, OpenOptions, Referred, State, Stored, open};

/// Files, the first of which is the image.
#[derive(Clone, Default)]
pub(crate) struct Files(pub(crate) Vec<(String, Vec<u8>)>);

impl Files {
    pub(crate) fn one(bytes: Vec<u8>) -> Self {
        Self(vec![("image".to_owned(), bytes)])
    }

    pub(crate) fn and(mut self, name: &str, bytes: Vec<u8>) -> Self {
        self.0.push((name.to_owned(), bytes));
        self
    }

    pub(crate) fn open(&self) -> Result<Image, OpenError> {
        self.open_with(&OpenOptions::default())
    }

    /// Files get the id of their place in the list.
    pub(crate) fn open_with(&self, options: &OpenOptions) -> Result<Image, OpenError> {
        let mut step = open(self.0[0].1.len() as u64, options)?;
        loop {
            step = match step {
                Open::Ready(image) => return Ok(image),
                Open::Need(need) => {
                    assert!(!need.wants().is_empty());
                    let answers = need.wants().iter().map(|want| self.stored(*want)).collect();
                    need.resume(answers)?
                }
                Open::Refer(refer) => {
                    let opened = refer.references().iter().map(|reference| {
                        let name = &reference.name;
                        match self.0.iter().position(|(known, _)| known == name) {
                            Some(at) => Referred::File {
                                file: FileId(at as u16),
                                len: self.0[at].1.len() as u64,
                                allocation: None,
                            },
                            None => Referred::Skipped,
                        }
                    });
                    let opened = opened.collect();
                    refer.resume(opened)?
                }
            }
        }
    }

    pub(crate) fn stored(&self, Stored { file, span }: Stored) -> Bytes {
        let bytes = &self.0[usize::from(file.0)].1;
        assert!(span.end() <= bytes.len() as u64, "{span:?} is outside a file of {} bytes", bytes.len());
        Bytes::copy_from_slice(&bytes[span.start as usize..span.end() as usize])
    }

    /// The guest bytes of an image without encoded units.
    pub(crate) fn guest(&self, image: &Image) -> Vec<u8> {
        let mut guest = Vec::new();
        for extent in image.map().iter() {
            match extent.state {
                State::Data(stored) => guest.extend(self.stored(stored)),
                _ => guest.resize(guest.len() + extent.guest.len as usize, 0),
            }
        }
        guest
    }
}

/// Numbers that look random and never change.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}
