//! What a raw file holds, at the cost of what it stores.
//!
//! SHA-256 over the length and every page that is not zero, with its place. Two files have the same digest if and only if they
//! have the same bytes, however sparse either is: what `sha256sum` would say, without reading terabytes of holes. Reading those of
//! a file on disk would also fill the page cache with zeroes and push out of it what is measured.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{Advice, SeekFrom, fadvise, seek};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::watch::parallel;

const PAGE: usize = 4096;
const CHUNK: usize = 1 << 20;

/// Files are read in spans of this length, on all processors.
const SPAN: u64 = 64 << 20;

/// The digest of a file, hexadecimal. The file counts as if it were filled up to whole sectors, which is what qemu-img does.
pub(crate) fn digest(path: &Path) -> Result<String> {
    let len = path.metadata().with_context(|| format!("cannot open {}", path.display()))?.len();
    let mut hash = Sha256::new_with_prefix(len.next_multiple_of(512).to_le_bytes());
    for span in spans(path, len, digest_of_span)?.into_iter().flatten() {
        hash.update(span);
    }
    Ok(hex::encode(hash.finalize()))
}

/// SHA-256 over the pages of a span that are not zero, with their places; nothing if there are none.
fn digest_of_span(file: &File, span: Range<u64>) -> Result<Option<String>> {
    let mut hash = None;
    read(file, span, |at, bytes| {
        for (index, page) in bytes.chunks(PAGE).enumerate() {
            // The last page counts without the zeroes that fill up its sector.
            if let Some(last) = page.iter().rposition(|byte| *byte != 0) {
                let hash = hash.get_or_insert_with(Sha256::new);
                hash.update((at + (index * PAGE) as u64).to_le_bytes());
                hash.update((last as u64).to_le_bytes());
                hash.update(&page[..=last]);
            }
        }
    })?;
    Ok(hash.map(|hash| hex::encode(hash.finalize())))
}

/// Reads a file into the page cache, as far as it is stored.
pub(crate) fn warm(path: &Path) -> Result<()> {
    let len = path.metadata().with_context(|| format!("cannot open {}", path.display()))?.len();
    spans(path, len, |file, span| {
        read(file, span, |_, bytes| {
            std::hint::black_box(bytes);
        })
    })?;
    Ok(())
}

/// Does something to each span of a file in which anything may be stored, and gives the results in order.
fn spans<R: Send>(
    path: &Path,
    len: u64,
    work: impl Fn(&File, Range<u64>) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut starts = Vec::new();
    let mut at = 0;
    while let Some((start, _)) = next_run(&file, at, len)? {
        let start = start.max(at) / SPAN * SPAN;
        starts.push(start);
        at = start + SPAN;
    }
    let results = parallel(&starts, |_, start| {
        // A file of its own: a seek moves what a file's users share.
        work(&File::open(path)?, *start..len.min(start + SPAN))
    });
    results.into_iter().collect()
}

/// Takes a file out of the page cache: somebody read its holes too.
pub(crate) fn forget(path: &Path) -> Result<()> {
    fadvise(File::open(path)?, 0, None, Advice::DontNeed)?;
    Ok(())
}

/// Reads what is stored of a span, in order, whole pages at their places.
fn read(file: &File, span: Range<u64>, mut each: impl FnMut(u64, &[u8])) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut at = span.start;
    while let Some((start, end)) = next_run(file, at, span.end)? {
        // A run may begin within a page whose beginning was read with the run before it.
        let mut place = (start / PAGE as u64 * PAGE as u64).max(at);
        while place < end.min(span.end) {
            let wanted = usize::try_from((span.end - place).min(CHUNK as u64))?;
            file.read_exact_at(&mut buffer[..wanted], place)?;
            each(place, &buffer[..wanted]);
            place += wanted as u64;
        }
        at = place.max(end);
    }
    Ok(())
}

/// The next run of a file that may hold data.
fn next_run(file: &File, at: u64, len: u64) -> Result<Option<(u64, u64)>> {
    if at >= len {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // Not every file system knows.
        Err(Errno::INVAL) => return Ok(Some((at, len))),
        Err(error) => return Err(error.into()),
    };
    Ok(Some((start, seek(file, SeekFrom::Hole(start))?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sees_bytes_places_and_lengths_and_no_holes() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, len: u64, fills: &[(u64, &[u8])]| {
            let path = folder.path().join(name);
            let file = File::create(&path).unwrap();
            file.set_len(len).unwrap();
            for (at, bytes) in fills {
                file.write_all_at(bytes, *at).unwrap();
            }
            digest(&path).unwrap()
        };
        let base = make("a", 5 << 20, &[(3 << 20, b"x")]);
        assert_eq!(base, make("b", 5 << 20, &[(3 << 20, b"x"), (1 << 20, &[0; 100_000])]));
        assert_eq!(base, make("c", (5 << 20) - 100, &[(3 << 20, b"x")]), "the last sector is filled up");
        assert_ne!(base, make("d", (5 << 20) + 512, &[(3 << 20, b"x")]));
        assert_ne!(base, make("e", 5 << 20, &[((3 << 20) + 1, b"x")]));
        assert_ne!(base, make("f", 5 << 20, &[(3 << 20, b"x"), (0, b"y")]));
        assert_ne!(base, make("g", 5 << 20, &[(3 << 20, b"y")]));
        let far = make("h", 5 << 30, &[(3 << 20, b"x"), (3 * SPAN - 1, b"yz"), (4 << 30, b"w")]);
        assert_eq!(
            far,
            make("i", 5 << 30, &[(0, &[0; 9]), (4 << 30, b"w"), (3 << 20, b"x"), (3 * SPAN - 1, b"yz")])
        );
        assert_ne!(far, make("j", 5 << 30, &[(3 << 20, b"x"), (3 * SPAN, b"yz"), (4 << 30, b"w")]));
        assert_ne!(far, make("k", 5 << 30, &[(3 << 20, b"x"), (3 * SPAN - 1, b"yz")]));
    }
}
