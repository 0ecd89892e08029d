//! A stream that is decoded in steps, whichever format it has.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use std::ops::Range;

use super::Compression;
use super::gzip::{Between, Members};
use super::zstd::Frames;
use crate::OpenError;

/// What a step did.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// Bytes of the input that were taken.
    pub(super) taken: usize,
    /// Where the decoder has what it decoded.
    pub(super) made: Range<usize>,
    /// Whether it stands between two deflate blocks.
    pub(super) boundary: bool,
}

/// The decoder of a compressed file.
pub(super) enum Stream {
    Gzip(Members),
    Zstd(Frames),
}

impl Stream {
    /// From where a member or a frame begins, at these offsets in the file and in the content.
    pub(super) fn new(compression: Compression, file: u64, content: u64) -> Self {
        match compression {
            Compression::Gzip => Self::Gzip(Members::new(file, content)),
            Compression::Zstandard => Self::Zstd(Frames::new(file, content)),
        }
    }

    /// Where the next byte is in the file.
    pub(super) fn file(&self) -> u64 {
        match self {
            Self::Gzip(members) => members.file(),
            Self::Zstd(frames) => frames.file(),
        }
    }

    /// Bytes of content before the next one.
    pub(super) fn content(&self) -> u64 {
        match self {
            Self::Gzip(members) => members.content(),
            Self::Zstd(frames) => frames.content(),
        }
    }

    /// Whether decoding can begin here with nothing in hand.
    pub(super) fn is_at_start(&self) -> bool {
        match self {
            Self::Gzip(members) => members.is_at_start(),
            Self::Zstd(frames) => frames.is_at_start(),
        }
    }

    /// What a step decoded.
    pub(super) fn made(&self, step: &Step) -> &[u8] {
        match self {
            Self::Gzip(members) => members.made(step),
            Self::Zstd(frames) => frames.made(step),
        }
    }

    /// The state after a step that ended at a boundary.
    pub(super) fn boundary(&self) -> Option<Between<&[u8]>> {
        match self {
            Self::Gzip(members) => members.boundary(),
            Self::Zstd(_) => None,
        }
    }

    /// Goes on with `input`. Makes `most` bytes at most, and stops between deflate blocks on demand. Neither takes nor makes anything
    /// only where it needs more input.
    pub(super) fn step(&mut self, input: &[u8], most: usize, stop: bool) -> Result<Step, OpenError> {
        match self {
            Self::Gzip(members) => members.step(input, most, stop),
            Self::Zstd(frames) => frames.step(input, most),
        }
    }

    /// Fails unless the file may end here.
    pub(super) fn check_end(&self) -> Result<(), OpenError> {
        match self {
            Self::Gzip(members) => members.check_end(),
            Self::Zstd(frames) => frames.check_end(),
        }
    }
}
