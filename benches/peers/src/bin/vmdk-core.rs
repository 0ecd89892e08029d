//! `peer-vmdk-core IMAGE RAW`: a sparse or stream-optimized VMDK to raw with vmdk-core, on one thread.
//!
//! Its reader is `Read + Seek` and keeps a position, so there is one thread. Grains that are not allocated are skipped.

use std::io::{Read as _, Seek as _, SeekFrom};

use anyhow::Result;
use peers::{CHUNK, Paths, write_sparse};
use vmdk::VmdkFileReader;

const SECTOR: u64 = 512;

fn main() -> Result<()> {
    let paths = Paths::from_arguments()?;
    let mut disk = VmdkFileReader::open_path(&paths.image)?;
    let raw = paths.create_raw(disk.virtual_disk_size())?;
    let mut buffer = vec![0; CHUNK];
    for run in disk.iter_allocated_grains()? {
        let mut at = run.start_lba * SECTOR;
        let end = (at + run.sector_count * SECTOR).min(disk.virtual_disk_size());
        disk.seek(SeekFrom::Start(at))?;
        while at < end {
            let wanted = usize::try_from((end - at).min(CHUNK as u64))?;
            disk.read_exact(&mut buffer[..wanted])?;
            write_sparse(&raw, &buffer[..wanted], at)?;
            at += wanted as u64;
        }
    }
    Ok(())
}
