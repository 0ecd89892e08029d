//! The scan: a file from start to end, once.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::Compression;
use super::checkpoints::{Checkpoints, Point, Window};
use super::filled::Filled;
use super::gzip::Between;
use super::step::Stream;
use crate::limits::{CHECKPOINT_SPACING, MAX_CHECKPOINT_MEMORY, MAX_EXPANSION, MAX_EXPANSION_RATIO};
use crate::{Item, OpenError};

/// How quickly windows are compressed, and not how well: there is one for each MiB.
const WINDOW_LEVEL: i32 = 1;

/// A file that is compressed as a whole, while it is read for the first time.
pub struct Scan {
    stream: Stream,
    compression: Compression,
    file_len: u64,
    /// The most that the content may be, bytes.
    max_len: u64,
    points: Vec<Point>,
    /// Memory of the points, bytes.
    memory: usize,
    spacing: u64,
    filled: Filled,
    compressor: libdeflater::Compressor,
}

impl Scan {
    /// For a file of `file_len` bytes, whose content may have `max_len` bytes.
    pub fn new(compression: Compression, file_len: u64, max_len: u64) -> Self {
        // Deflate cannot expand further by itself.
        let most = file_len.saturating_mul(MAX_EXPANSION_RATIO).max(MAX_EXPANSION);
        let max_len = if compression == Compression::Gzip { max_len } else { max_len.min(most) };
        let level = libdeflater::CompressionLvl::new(WINDOW_LEVEL).unwrap_or_default();
        Self {
            stream: Stream::new(compression, 0, 0),
            compression,
            file_len,
            max_len,
            points: Vec::new(),
            memory: 0,
            spacing: CHECKPOINT_SPACING,
            filled: Filled::default(),
            compressor: libdeflater::Compressor::new(level),
        }
    }

    /// The same with checkpoints `spacing` bytes of content apart, at least 1, as long as they fit: for content that is short.
    #[must_use]
    pub fn spaced(mut self, spacing: u64) -> Self {
        self.spacing = spacing.max(1);
        self
    }

    /// Bytes of the file taken so far: where the next ones come from.
    pub fn file(&self) -> u64 {
        self.stream.file()
    }

    /// Bytes of content seen so far.
    pub fn content(&self) -> u64 {
        self.stream.content()
    }

    /// Takes the next bytes of the file, all of them.
    ///
    /// # Errors
    ///
    /// If they are damaged, or decode to more than is allowed.
    pub fn push(&mut self, mut input: &[u8]) -> Result<(), OpenError> {
        loop {
            let is_due = self.is_due();
            if is_due && self.stream.is_at_start() && !input.is_empty() {
                self.keep(Point { content: self.stream.content(), file: self.stream.file(), inside: None });
            }
            let room = self.max_len.saturating_sub(self.stream.content()).saturating_add(1);
            let step = self.stream.step(input, usize::try_from(room).unwrap_or(usize::MAX), is_due)?;
            input = input.get(step.taken..).unwrap_or_default();
            let made = self.stream.made(&step);
            self.filled.add(made);
            let found = self.stream.content();
            if found > self.max_len {
                let what = Item::The("length of what the file unpacks to");
                return Err(OpenError::Limit { what, found, limit: self.max_len });
            }
            if step.taken == 0 && made.is_empty() && !step.boundary {
                return Ok(());
            }
            if step.boundary
                && let Some(Between { bits, window }) = self.stream.boundary()
            {
                let window = Window::new(window, &mut self.compressor);
                let inside = Some(Between { bits, window });
                self.keep(Point { content: found, file: self.stream.file(), inside });
            }
        }
    }

    /// Whether the last checkpoint is far enough.
    fn is_due(&self) -> bool {
        match self.points.last() {
            Some(last) => self.stream.content() >= last.content.saturating_add(self.spacing),
            None => true,
        }
    }

    fn keep(&mut self, point: Point) {
        self.memory = self.memory.saturating_add(point.memory());
        self.points.push(point);
        while self.memory > MAX_CHECKPOINT_MEMORY && self.points.len() > 1 {
            let mut is_kept = false;
            self.points.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
            self.memory = self.points.iter().map(Point::memory).fold(0, usize::saturating_add);
            self.spacing = self.spacing.saturating_mul(2);
        }
    }

    /// What was found, once the whole file was taken.
    ///
    /// # Errors
    ///
    /// If the file ends too early.
    pub fn finish(self) -> Result<Checkpoints, OpenError> {
        self.stream.check_end()?;
        let Self { stream, compression, file_len, mut points, spacing, filled, .. } = self;
        points.shrink_to_fit();
        Ok(Checkpoints {
            compression,
            points,
            len: stream.content(),
            file_len,
            filled: filled.finish(),
            spacing,
        })
    }
}
