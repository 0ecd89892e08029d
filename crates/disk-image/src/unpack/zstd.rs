//! Zstandard frames, decoded one behind the other from pieces of their file.
//!
//! Source: RFC 8878. Only where a frame begins can decoding begin, so a file is read at random by its frames: those of `pzstd` and of
//! the seekable format have some MiB. Skippable frames are passed over.
//!
//! Refused: frames of more than [`MAX_FRAME`] content, which `zstd` makes of any file, windows above [`MAX_WINDOW_LOG`], dictionaries.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

use super::step::Step;
use crate::limits::{MAX_FRAME, MAX_WINDOW_LOG};
use crate::{Feature, Item, OpenError, Span};

/// Room for what is decoded: a block has 128 KiB.
const ROOM: usize = 256 << 10;

/// What the library says of a window above the limit.
const WINDOW_TOO_LARGE: &str = "Frame requires too much memory for decoding";

/// Frames while they are decoded.
pub(super) struct Frames {
    context: DCtx<'static>,
    room: Vec<u8>,
    /// Where the next byte is in the file.
    file: u64,
    /// Bytes decoded.
    content: u64,
    /// Frames that ended.
    ended: u64,
    /// Where the current one begins in the file, and how much of it was decoded.
    start: u64,
    len: u64,
    is_at_start: bool,
}

impl Frames {
    /// From the start of a frame, at these offsets in the file and in the content.
    pub(super) fn new(file: u64, content: u64) -> Self {
        let mut context = DCtx::create();
        // Only a value out of range is refused.
        let _ = context.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG));
        Self { context, room: vec![0; ROOM], file, content, ended: 0, start: file, len: 0, is_at_start: true }
    }

    /// Where the next byte is in the file.
    pub(super) fn file(&self) -> u64 {
        self.file
    }

    /// Bytes of content before the next one.
    pub(super) fn content(&self) -> u64 {
        self.content
    }

    /// Whether the next byte is the first one of a frame.
    pub(super) fn is_at_start(&self) -> bool {
        self.is_at_start
    }

    /// What a step decoded.
    pub(super) fn made(&self, step: &Step) -> &[u8] {
        self.room.get(step.made.clone()).unwrap_or_default()
    }

    /// As for [`gzip`](super::gzip::Members::step); there is nothing to stop at between frames.
    pub(super) fn step(&mut self, input: &[u8], most: usize) -> Result<Step, OpenError> {
        if self.is_at_start {
            self.start = self.file;
            self.len = 0;
        }
        let what = self.item("Zstandard frame");
        let most = most.min(self.room.len());
        let (taken, made, left) = {
            let mut input = InBuffer::around(input);
            let mut output = OutBuffer::around(self.room.get_mut(..most).unwrap_or_default());
            let left = self.context.decompress_stream(&mut output, &mut input);
            (input.pos(), output.pos(), left)
        };
        let left = left.map_err(|code| match get_error_name(code) {
            WINDOW_TOO_LARGE => OpenError::Unsupported(Feature::ZstdWindow),
            _ => OpenError::Damaged { what, content: self.len },
        })?;
        self.file = self.file.saturating_add(taken as u64);
        self.content = self.content.saturating_add(made as u64);
        self.len = self.len.saturating_add(made as u64);
        if self.len > MAX_FRAME {
            return Err(OpenError::Unsupported(Feature::ZstdFrame));
        }
        if taken > 0 || made > 0 {
            self.is_at_start = left == 0;
            self.ended = self.ended.saturating_add(u64::from(left == 0));
        }
        Ok(Step { taken, made: 0..made, boundary: false })
    }

    /// Fails unless the file may end here.
    pub(super) fn check_end(&self) -> Result<(), OpenError> {
        if self.is_at_start && self.ended > 0 {
            return Ok(());
        }
        let what = self.item("end of Zstandard frame");
        Err(OpenError::Missing { what, span: Span::between(self.start, self.file) })
    }

    fn item(&self, what: &'static str) -> Item {
        Item::Numbered(what, self.ended)
    }
}
