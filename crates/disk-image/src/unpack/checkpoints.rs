//! Checkpoints, and the decoders that begin at them.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::Compression;
use super::gzip::{Between, Members};
use super::step::Stream;
use crate::{OpenError, Span};

/// Where decoding can begin.
#[derive(Debug)]
pub(super) struct Point {
    /// The next byte of the content.
    pub(super) content: u64,
    /// The next byte of the file.
    pub(super) file: u64,
    /// Nothing, where a member begins.
    pub(super) inside: Option<Between<Window>>,
}

impl Point {
    /// Memory that it takes, bytes.
    pub(super) fn memory(&self) -> usize {
        let window = self.inside.as_ref().map_or(0, |between| between.window.bytes.len());
        size_of::<Self>().saturating_add(window)
    }
}

/// What a member holds before a checkpoint, compressed if that makes it shorter: what disks hold mostly takes a third.
#[derive(Debug, Clone)]
pub(super) struct Window {
    bytes: Box<[u8]>,
    /// How long it is.
    len: usize,
}

impl Window {
    pub(super) fn new(bytes: &[u8], compressor: &mut libdeflater::Compressor) -> Self {
        let mut packed = vec![0; bytes.len()];
        let len = match compressor.deflate_compress(bytes, &mut packed) {
            Ok(len) if len < bytes.len() => len,
            // It does not shrink.
            _ => bytes.len(),
        };
        let bytes = if len < bytes.len() { packed.get(..len).unwrap_or_default() } else { bytes };
        Self { bytes: bytes.into(), len: packed.len() }
    }

    fn unpacked(&self) -> Vec<u8> {
        if self.bytes.len() == self.len {
            return self.bytes.to_vec();
        }
        let mut bytes = vec![0; self.len];
        // Our own: it decodes to what it was. If memory had failed, the content would not, and that is an error.
        let _ = libdeflater::Decompressor::new().deflate_decompress(&self.bytes, &mut bytes);
        bytes
    }
}

/// What a [`Scan`](super::Scan) found: the length of the content, what of it is not zero, and where decoding can begin.
#[derive(Debug)]
pub struct Checkpoints {
    pub(super) compression: Compression,
    /// Ascending; the first one is the start.
    pub(super) points: Vec<Point>,
    pub(super) len: u64,
    pub(super) file_len: u64,
    pub(super) filled: Vec<Span>,
    pub(super) spacing: u64,
}

impl Checkpoints {
    /// Length of the content, bytes.
    pub fn content_len(&self) -> u64 {
        self.len
    }

    /// Runs of the content that may hold something: ascending, apart. All else is zero.
    pub fn filled(&self) -> &[Span] {
        &self.filled
    }

    /// Bytes of content from one checkpoint to the next, but for deflate blocks that are longer.
    pub fn spacing(&self) -> u64 {
        self.spacing
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.points.len()
    }

    /// Memory that they take, bytes.
    pub fn memory(&self) -> usize {
        let points = self.points.iter().map(Point::memory).fold(0, usize::saturating_add);
        points.saturating_add(self.filled.len().saturating_mul(size_of::<Span>()))
    }

    /// A decoder that stands at the checkpoint before byte `at` of the content.
    pub fn seek(&self, at: u64) -> Cursor {
        let after = self.points.partition_point(|point| point.content <= at);
        let point = after.checked_sub(1).and_then(|i| self.points.get(i));
        let stream = match point {
            Some(Point { content, file, inside: Some(Between { bits, window }) }) => {
                let between = Between { bits: *bits, window: window.unpacked() };
                Stream::Gzip(Members::between(*file, *content, &between))
            }
            Some(point) => Stream::new(self.compression, point.file, point.content),
            None => Stream::new(self.compression, 0, 0),
        };
        Cursor { stream }
    }

    /// Where the checkpoint before byte `at` of the content is, in the content.
    pub fn before(&self, at: u64) -> u64 {
        let after = self.points.partition_point(|point| point.content <= at);
        after.checked_sub(1).and_then(|i| self.points.get(i)).map_or(0, |point| point.content)
    }

    /// Where the bytes of the file end that are needed for the content up to byte `end`.
    pub fn file_end(&self, end: u64) -> u64 {
        let after = self.points.partition_point(|point| point.content < end);
        self.points.get(after).map_or(self.file_len, |point| point.file)
    }
}

/// A decoder of some of the content, from a checkpoint on.
pub struct Cursor {
    stream: Stream,
}

impl Cursor {
    /// The byte of the content that it stands at.
    pub fn content(&self) -> u64 {
        self.stream.content()
    }

    /// The byte of the file that it needs next.
    pub fn file(&self) -> u64 {
        self.stream.file()
    }

    /// Takes `input`, the bytes of the file from [`Cursor::file`] on, and fills `out` with the content from byte `from` on. Ends when
    /// all of it was taken, or nothing more is wanted; gives how many bytes were filled. `from` is not before [`Cursor::content`].
    ///
    /// # Errors
    ///
    /// If the file is not what was scanned.
    pub fn read(&mut self, mut input: &[u8], from: u64, out: &mut [u8]) -> Result<usize, OpenError> {
        let mut filled = 0_usize;
        loop {
            let Some(rest) = out.get_mut(filled..).filter(|rest| !rest.is_empty()) else { return Ok(filled) };
            let target = from.saturating_add(filled as u64);
            let skip = usize::try_from(target.saturating_sub(self.stream.content())).unwrap_or(usize::MAX);
            let step = self.stream.step(input, skip.saturating_add(rest.len()), false)?;
            input = input.get(step.taken..).unwrap_or_default();
            let made = self.stream.made(&step);
            if let Some(wanted) = made.get(skip..) {
                if let Some(place) = rest.get_mut(..wanted.len()) {
                    place.copy_from_slice(wanted);
                }
                filled = filled.saturating_add(wanted.len());
            }
            if step.taken == 0 && made.is_empty() {
                return Ok(filled);
            }
        }
    }
}
