//! Files that are compressed as a whole: what they unpack to, read at random.
//!
//! Nothing in a gzip file (RFC 1952) says where in it which byte of its content is: a deflate stream (RFC 1951) is decoded from its
//! start, and each byte may lean on the 32 KiB before it. So a file is read once from start to end ([`Scan`]), which proves it whole,
//! and on the way *checkpoints* are kept: where a member or a deflate block begins, at which bit, and the 32 KiB before it. After that
//! [`Checkpoints::seek`] gives a decoder that stands at the checkpoint before any byte: reads cost what they are long and a checkpoint's distance, and
//! run beside each other. This is what zlib's example `zran.c` does. Of a Zstandard file (RFC 8878) the checkpoints are its frames.
//!
//! Nothing is read here: bytes of the file go in, in order, and content comes out. Archives of our own have an index and need none
//! of this ([`gce`](crate::gce)).
//!
//! Refused: what is no gzip from its first byte to its last but for [`MAX_PADDING`](crate::limits::MAX_PADDING) zeroes at the end,
//! checksums and lengths that are not those of the content, references to bytes before a member's start, content beyond what the
//! caller wants. Cost: the scan decodes everything once, on one core; checkpoints take
//! [`MAX_CHECKPOINT_MEMORY`](crate::limits::MAX_CHECKPOINT_MEMORY), whatever the file: where they would take more, every other one goes.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod checkpoints;
mod filled;
mod gzip;
mod scan;
mod step;
mod zstd;

pub use checkpoints::{Checkpoints, Cursor};
pub use scan::Scan;

/// How a file is compressed as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// gzip members, RFC 1952.
    Gzip,
    /// Zstandard frames, RFC 8878.
    Zstandard,
}

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Zstandard => "Zstandard",
        })
    }
}
