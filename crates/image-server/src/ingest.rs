//! One ingest: from a byte source to stored blocks and their sizes.

mod error;

use disk_convert::GuestDigest;

use crate::limits;
pub use error::IngestError;

/// What an ingest stored.
#[derive(Clone, Debug)]
pub struct Ingested {
    /// Bytes that the guest sees.
    pub virtual_size: u64,
    /// Bytes of the blocks that are not zero.
    pub storage_size: u64,
    /// Bytes of the smallest disk that may be made from the image.
    pub min_disk_size: u64,
    /// Digest of the disk, the same whatever format it came in.
    pub guest_digest: GuestDigest,
}

/// The smallest disk that holds the guest, and at least what the caller wants.
pub(crate) fn min_disk_size(virtual_size: u64, wanted: u64) -> Result<u64, IngestError> {
    let needed = virtual_size.max(1).checked_next_multiple_of(limits::DISK_UNIT).unwrap_or(u64::MAX);
    match wanted {
        0 => Ok(needed),
        wanted if wanted < needed => Err(IngestError::DiskTooSmall { needed, wanted }),
        wanted => Ok(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smallest_disks() {
        const MIB: u64 = 1 << 20;
        for (virtual_size, needed) in [(512, 4), (4 * MIB, 4), (4 * MIB + 512, 8), (8 << 40, 8 << 20)] {
            assert_eq!(min_disk_size(virtual_size, 0).unwrap(), needed * MIB);
            assert_eq!(min_disk_size(virtual_size, needed * MIB).unwrap(), needed * MIB);
            assert_eq!(min_disk_size(virtual_size, needed * MIB + 1).unwrap(), needed * MIB + 1);
            assert!(matches!(
                min_disk_size(virtual_size, needed * MIB - 1),
                Err(IngestError::DiskTooSmall { needed: n, .. }) if n == needed * MIB
            ));
        }
    }
}
