//! Ranges of bytes in one of the three address spaces: guest, stored, object.

/// A run of bytes, `start .. start + len`. Which address space it lies in is said by the name of the field that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u64,
    /// Number of bytes.
    pub len: u64,
}

impl Span {
    /// The run of `len` bytes from `start`.
    pub const fn new(start: u64, len: u64) -> Self {
        Self { start, len }
    }

    /// The run from `start` up to, not including, `end`; empty if `end` is not above `start`.
    pub const fn between(start: u64, end: u64) -> Self {
        Self { start, len: end.saturating_sub(start) }
    }

    /// Offset just past the last byte. Saturates: a span that a hostile header describes must not wrap into a small one.
    pub const fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// True if it holds no byte.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True if `offset` lies inside.
    pub const fn contains(&self, offset: u64) -> bool {
        offset >= self.start && offset < self.end()
    }

    /// True if all of `other` lies inside.
    pub const fn covers(&self, other: Span) -> bool {
        other.start >= self.start && other.end() <= self.end()
    }

    /// The bytes that both have; empty if they do not meet.
    pub fn intersect(&self, other: Span) -> Span {
        Span::between(self.start.max(other.start), self.end().min(other.end()))
    }
}

/// Which of the files that make up a disk image: the image itself, or one that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u16);

impl FileId {
    /// The file that was opened.
    pub const IMAGE: FileId = FileId(0);
}

/// A run of bytes in a source file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stored {
    /// The file.
    pub file: FileId,
    /// The bytes in it.
    pub span: Span,
}

impl Stored {
    /// A run of the opened file itself.
    pub const fn image(start: u64, len: u64) -> Self {
        Self { file: FileId::IMAGE, span: Span::new(start, len) }
    }
}

/// The bytes that a parser sees as its file: a source file, or a member inside of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// The source file.
    pub(crate) file: FileId,
    /// Where the window begins in it.
    start: u64,
    /// Length of the window. What a parser calls the end of the file is the end of its window.
    pub(crate) len: u64,
}

impl Window {
    /// A whole file.
    pub(crate) const fn file(file: FileId, len: u64) -> Self {
        Self { file, start: 0, len }
    }

    /// A file that lies inside of the window.
    pub(crate) const fn inside(&self, span: Span) -> Self {
        Self { file: self.file, start: self.start.saturating_add(span.start), len: span.len }
    }

    /// A run of the window.
    pub(crate) const fn at(&self, start: u64, len: u64) -> Stored {
        Stored { file: self.file, span: Span::new(self.start.saturating_add(start), len) }
    }

    /// The same for a span.
    pub(crate) const fn stored(&self, span: Span) -> Stored {
        self.at(span.start, span.len)
    }
}
