//! What a raw disk holds, computed without any code of the crates that are checked with it.
//!
//! The guest digest and the storage size are defined in `crates/README.md`; this is that definition written down a second time,
//! sequentially and in the plainest way.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Result;
use sha2::{Digest, Sha256};

/// Unit of the guest digest and of the storage size.
const BLOCK: usize = 4 << 20;

/// What a raw disk holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    /// Length of the disk, bytes.
    pub(crate) virtual_size: u64,
    /// SHA-256 of all bytes, hexadecimal.
    pub(crate) sha256: String,
    /// SHA-256 over the virtual size (u64, little-endian) and the SHA-256 of each 4 MiB block, hexadecimal.
    pub(crate) guest_digest: String,
    /// Bytes of the blocks that are not zero throughout.
    pub(crate) storage_size: u64,
}

impl Content {
    /// Reads a raw disk from one end to the other.
    pub(crate) fn of(raw: &Path) -> Result<Self> {
        let mut file = File::open(raw)?;
        let virtual_size = file.metadata()?.len();
        let mut whole = Sha256::new();
        let mut blocks = Sha256::new_with_prefix(virtual_size.to_le_bytes());
        let zeroes = vec![0; BLOCK];
        let zero_block = Sha256::digest(&zeroes);
        let mut storage_size = 0;
        let mut buffer = vec![0; BLOCK];
        loop {
            let len = read_full(&mut file, &mut buffer)?;
            if len == 0 {
                break;
            }
            let bytes = &buffer[..len];
            whole.update(bytes);
            let zero = *bytes == zeroes[..len];
            if !zero {
                storage_size += len as u64;
            }
            blocks.update(if zero && len == BLOCK { zero_block } else { Sha256::digest(bytes) });
        }
        Ok(Self {
            virtual_size,
            sha256: hex::encode(whole.finalize()),
            guest_digest: hex::encode(blocks.finalize()),
            storage_size,
        })
    }

    /// The virtual size rounded up to whole blocks: the smallest disk that an Image of it can be put on.
    pub(crate) fn min_disk_size(&self) -> u64 {
        self.virtual_size.next_multiple_of(BLOCK as u64)
    }
}

/// Fills the buffer, or as much of it as the file still has.
fn read_full(file: &mut File, into: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read(&mut into[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_with_a_short_last_block() {
        let raw = tempfile::NamedTempFile::new().unwrap();
        let mut bytes = vec![0; BLOCK];
        bytes.extend_from_slice(b"tail");
        std::fs::write(raw.path(), &bytes).unwrap();
        let content = Content::of(raw.path()).unwrap();
        assert_eq!(content.virtual_size, BLOCK as u64 + 4);
        assert_eq!(content.storage_size, 4);
        assert_eq!(content.min_disk_size(), 2 * BLOCK as u64);
        assert_eq!(content.sha256, hex::encode(Sha256::digest(&bytes)));
        let mut digest = Sha256::new_with_prefix(content.virtual_size.to_le_bytes());
        digest.update(Sha256::digest(&bytes[..BLOCK]));
        digest.update(Sha256::digest(b"tail"));
        assert_eq!(content.guest_digest, hex::encode(digest.finalize()));
    }
}
