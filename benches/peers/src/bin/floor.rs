//! `peer-floor RAW OUT`: reads the runs of a raw disk that the file system stores, and writes them to a file, on two threads.
//!
//! Nothing is understood, decoded, checked or left out: what this takes, the kernel takes for the pages alone.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Result, anyhow};
use peers::{CHUNK, Paths};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

const THREADS: usize = 2;

fn main() -> Result<()> {
    let paths = Paths::from_arguments()?;
    let disk = File::open(&paths.image)?;
    let raw = paths.create_raw(disk.metadata()?.len())?;
    let chunks = stored(&disk)?;
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let workers: Vec<_> =
            (0..THREADS).map(|_| scope.spawn(|| copy(&disk, &raw, &chunks, &next))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?)
    })
}

/// Offset and length of each piece that is not a hole.
fn stored(disk: &File) -> Result<Vec<(u64, usize)>> {
    let mut chunks = Vec::new();
    let mut at = 0;
    loop {
        at = match seek(disk, SeekFrom::Data(at)) {
            Ok(at) => at,
            Err(Errno::NXIO) => return Ok(chunks),
            Err(error) => return Err(error.into()),
        };
        let end = seek(disk, SeekFrom::Hole(at))?;
        while at < end {
            let len = (end - at).min(CHUNK as u64);
            chunks.push((at, usize::try_from(len)?));
            at += len;
        }
    }
}

/// Copies pieces until there are none.
fn copy(disk: &File, raw: &File, chunks: &[(u64, usize)], next: &AtomicUsize) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    while let Some((at, len)) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
        disk.read_exact_at(&mut buffer[..*len], *at)?;
        raw.write_all_at(&buffer[..*len], *at)?;
    }
    Ok(())
}
