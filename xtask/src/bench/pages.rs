//! What a file holds, at the cost of what it stores.
//!
//! SHA-256 over the length, and over the place and the bytes of every page that is not zero. Two files have the same digest if
//! and only if they hold the same bytes, however sparse either is. Holes are not read: reading those of a file on disk would
//! fill the page cache with zeroes and push the sources out of it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{Advice, SeekFrom, fadvise, seek};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

const PAGE: usize = 4096;
const CHUNK: usize = 1 << 20;

/// The digest of a file, hexadecimal.
pub(super) fn digest(path: &Path) -> Result<String> {
    let len = path.metadata().with_context(|| format!("cannot open {}", path.display()))?.len();
    let mut hash = Sha256::new_with_prefix(len.to_le_bytes());
    read(path, |at, bytes| {
        for (index, page) in bytes.chunks(PAGE).enumerate() {
            if page.iter().any(|byte| *byte != 0) {
                hash.update((at + (index * PAGE) as u64).to_le_bytes());
                hash.update(page);
            }
        }
    })?;
    Ok(hex::encode(hash.finalize()))
}

/// Reads a file into the page cache, as far as it is stored.
pub(super) fn warm(path: &Path) -> Result<()> {
    read(path, |_, bytes| {
        std::hint::black_box(bytes);
    })
}

/// Takes a file out of the page cache: somebody read its holes too.
pub(super) fn forget(path: &Path) -> Result<()> {
    fadvise(File::open(path)?, 0, None, Advice::DontNeed)?;
    Ok(())
}

/// Reads what is stored, in order, whole pages at their places.
fn read(path: &Path, mut each: impl FnMut(u64, &[u8])) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let len = file.metadata()?.len();
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while let Some((start, end)) = next_run(&file, at, len)? {
        // A run may begin within a page whose beginning was read with the run before it.
        let mut place = (start / PAGE as u64 * PAGE as u64).max(at);
        while place < end {
            let wanted = usize::try_from((len - place).min(CHUNK as u64))?;
            file.read_exact_at(&mut buffer[..wanted], place)?;
            each(place, &buffer[..wanted]);
            place += wanted as u64;
        }
        at = place;
    }
    Ok(())
}

/// The first run of stored bytes that ends behind `at`.
fn next_run(file: &File, at: u64, len: u64) -> Result<Option<(u64, u64)>> {
    if at >= len {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(Some((start, seek(file, SeekFrom::Hole(start))?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_and_zeroes_are_the_same_and_everything_else_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, len: u64, writes: &[(u64, &[u8])]| {
            let path = folder.path().join(name);
            let file = File::create(&path).unwrap();
            file.set_len(len).unwrap();
            for (offset, bytes) in writes {
                file.write_all_at(bytes, *offset).unwrap();
            }
            digest(&path).unwrap()
        };
        let len = 3 * CHUNK as u64 + 5;
        let zeroes = vec![0; 2 * CHUNK];
        let sparse = file("sparse", len, &[(CHUNK as u64 + 9, b"x"), (len - 1, b"y")]);
        let dense = file("dense", len, &[(0, &zeroes), (CHUNK as u64 + 9, b"x"), (len - 1, b"y")]);
        assert_eq!(sparse, dense);
        for (name, len, offset) in [("moved", len, CHUNK as u64 + 10), ("longer", len + 1, CHUNK as u64 + 9)]
        {
            assert_ne!(sparse, file(name, len, &[(offset, b"x"), (3 * CHUNK as u64 + 4, b"y")]));
        }
    }
}
