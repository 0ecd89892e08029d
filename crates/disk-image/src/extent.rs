//! What a disk image says of a run of guest bytes: where they are stored, and how.

use crate::{Span, Stored};

/// A maximal run of guest bytes with one state and contiguous storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The guest bytes.
    pub guest: Span,
    /// Where and how they are stored.
    pub state: State,
}

/// Where and how a run of guest bytes is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No layer holds these bytes; they read as zero.
    Hole,
    /// Present, and marked as zero.
    Zero,
    /// Stored as they are; as long as the guest run.
    Data(Stored),
    /// Stored in an encoded unit that only decodes as a whole.
    Encoded {
        /// The encoded unit's bytes. An upper bound where the format knows no exact length: the decoder ignores what follows.
        stored: Stored,
        /// How it is encoded.
        encoding: Encoding,
        /// Guest bytes that the whole unit decodes to.
        unit_len: u64,
        /// Guest bytes of the unit that lie before this extent's first one.
        skip: u64,
    },
}

impl State {
    /// True if the bytes have to be read to be known.
    pub fn is_stored(&self) -> bool {
        matches!(self, State::Data(_) | State::Encoded { .. })
    }

    /// The state of what remains after the first `by` bytes of an extent in this state are cut off.
    pub(crate) fn advanced(self, by: u64) -> Self {
        match self {
            State::Hole | State::Zero => self,
            State::Data(Stored { file, span }) => State::Data(Stored {
                file,
                span: Span { start: span.start.saturating_add(by), len: span.len.saturating_sub(by) },
            }),
            State::Encoded { stored, encoding, unit_len, skip } => {
                State::Encoded { stored, encoding, unit_len, skip: skip.saturating_add(by) }
            }
        }
    }

    /// The state of the first `len` bytes of an extent in this state.
    pub(crate) fn truncated(self, len: u64) -> Self {
        match self {
            State::Data(Stored { file, span }) => {
                State::Data(Stored { file, span: Span { start: span.start, len: span.len.min(len) } })
            }
            other => other,
        }
    }
}

/// How an encoded unit is encoded. The codec of a unit is known from the metadata alone; [`crate::Decoder`] runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// A raw deflate stream, RFC 1951 (QCOW2 compression type 0).
    Deflate,
    /// Zstandard frames, RFC 8878 (QCOW2 compression type 1).
    Zstd,
    /// A gzip member, RFC 1952 (an archive for Compute Engine).
    Gzip,
    /// A VMDK grain marker (sector number, length), then a zlib stream, RFC 1950 (*Virtual Disk Format 5.0*, "Grain marker").
    Grain {
        /// Guest bytes of the extent that the grain belongs to: the marker's sector counts from its start, and a grain that
        /// reaches past its end may be short.
        extent: Span,
    },
}
