//! Sizes that the cloud computes, known beforehand.

use disk_convert::BLOCK_SIZE;

/// The smallest disk that can be made from a disk image of this virtual size: whole blocks, at least one.
pub(crate) fn min_disk_size(virtual_size: u64) -> u64 {
    virtual_size.next_multiple_of(BLOCK_SIZE).max(BLOCK_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_blocks() {
        assert_eq!(min_disk_size(512), BLOCK_SIZE);
        assert_eq!(min_disk_size(BLOCK_SIZE), BLOCK_SIZE);
        assert_eq!(min_disk_size(BLOCK_SIZE + 512), 2 * BLOCK_SIZE);
    }
}
