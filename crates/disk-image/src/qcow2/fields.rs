//! Big-endian numbers in bytes that may end too early.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

/// Bytes with big-endian numbers in them. What lies past their end is 0: that is how the specification reads an absent field.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn bytes<const N: usize>(self, at: usize) -> [u8; N] {
        self.0.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
    }

    pub(super) fn u16(self, at: usize) -> u16 {
        u16::from_be_bytes(self.bytes(at))
    }

    pub(super) fn u32(self, at: usize) -> u32 {
        u32::from_be_bytes(self.bytes(at))
    }

    pub(super) fn u64(self, at: usize) -> u64 {
        u64::from_be_bytes(self.bytes(at))
    }
}

/// The 64-bit entries of a table, or of a piece of one.
pub(super) fn entries(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks().0.iter().map(|&entry| u64::from_be_bytes(entry))
}
