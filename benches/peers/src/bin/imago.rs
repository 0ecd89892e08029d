//! `peer-imago IMAGE RAW`: a qcow2 (plain or zlib) to raw with imago, on two threads.
//!
//! `peer-imago --any IMAGE RAW` also reads VMDK, and opens every file that the image names: for images of our own making, of which
//! `cargo xtask kinds --second-opinion` asks what is in them.
//!
//! Both threads take pieces from one counter. Files of imago are read with `pread` and a qcow2 is decoded by the thread that
//! reads it, so two threads are what it takes to use two cores.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Result, anyhow};
use imago::qcow2::Qcow2;
use imago::vmdk::Vmdk;
use imago::{
    DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, Mapping, PermissiveImplicitOpenGate, Storage,
    StorageOpenOptions,
};
use peers::{CHUNK, Paths, write_sparse};

const THREADS: usize = 2;

fn main() -> Result<()> {
    let (any, paths) = Paths::after("--any")?;
    let disk = if any { open_any(&paths.image)? } else { open(&paths.image)? };
    let raw = paths.create_raw(disk.size())?;
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| copy(&disk, &raw, &next))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?)
    })
}

fn open(image: &Path) -> Result<FormatAccess<imago::file::File>> {
    let file = imago::file::File::open(StorageOpenOptions::new().filename(image))?;
    let qcow2 = Qcow2::<imago::file::File>::builder(file).open(DenyImplicitOpenGate::default())?;
    Ok(FormatAccess::new(qcow2))
}

fn open_any(image: &Path) -> Result<FormatAccess<imago::file::File>> {
    let file = || imago::file::File::open(StorageOpenOptions::new().filename(image));
    let gate = PermissiveImplicitOpenGate::default();
    if std::fs::read(image)?.starts_with(b"QFI\xfb") {
        return Ok(FormatAccess::new(Qcow2::<imago::file::File>::builder(file()?).open(gate)?));
    }
    Ok(FormatAccess::new(Vmdk::<imago::file::File>::builder(file()?).open(gate)?))
}

/// Copies pieces until there are none.
fn copy(disk: &FormatAccess<imago::file::File>, raw: &File, next: &AtomicU64) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let start = next.fetch_add(CHUNK as u64, Ordering::Relaxed);
        if start >= disk.size() {
            return Ok(());
        }
        let end = disk.size().min(start + CHUNK as u64);
        let mut at = start;
        while at < end {
            let (mapping, len) = disk.get_mapping(at, end - at)?;
            if !matches!(mapping, Mapping::Zero { .. }) {
                let bytes = &mut buffer[..usize::try_from(len)?];
                disk.read(&mut *bytes, at)?;
                write_sparse(raw, bytes, at)?;
            }
            at += len;
        }
    }
}
