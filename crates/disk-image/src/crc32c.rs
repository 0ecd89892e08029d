//! CRC-32C, which VHDX puts into its headers: RFC 3720, section 12.1.

use crc::{CRC_32_ISCSI, Crc};

const CASTAGNOLI: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// The checksum of pieces that follow one another.
pub(crate) fn crc32c(pieces: &[&[u8]]) -> u32 {
    let mut digest = CASTAGNOLI.digest();
    for piece in pieces {
        digest.update(piece);
    }
    digest.finalize()
}
