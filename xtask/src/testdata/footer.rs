//! Moves the grain directory of a streamOptimized VMDK from its front to its end, behind a footer.
//!
//! ESX and ovftool write such files, because a stream cannot go back to its header; qemu-img never does. Layout: Virtual Disk
//! Format 5.0, "Stream-Optimized Compressed Sparse Extents". Numbers are little-endian; positions count sectors of 512 bytes.

use anyhow::{Context, Result, ensure};

const SECTOR: usize = 512;

/// `gdOffset` that sends the reader to the footer.
const GD_AT_END: u64 = u64::MAX;

/// Offsets of header fields.
mod header {
    pub(super) const CAPACITY: usize = 12;
    pub(super) const GRAIN_SIZE: usize = 20;
    pub(super) const DESCRIPTOR_OFFSET: usize = 28;
    pub(super) const DESCRIPTOR_SIZE: usize = 36;
    pub(super) const ENTRIES_PER_TABLE: usize = 44;
    pub(super) const RGD_OFFSET: usize = 48;
    pub(super) const GD_OFFSET: usize = 56;
    pub(super) const OVERHEAD: usize = 64;
}

/// Marker types.
const GRAIN_TABLE: u32 = 1;
const GRAIN_DIRECTORY: u32 = 2;
const FOOTER: u32 = 3;

/// The same stream with its directory at the end.
pub(super) fn move_to_footer(stream: &[u8]) -> Result<Vec<u8>> {
    let capacity = u64_at(stream, header::CAPACITY)?;
    let per_table = u32_at(stream, header::ENTRIES_PER_TABLE)? as usize;
    let grains = usize::try_from(capacity.div_ceil(u64_at(stream, header::GRAIN_SIZE)?))?;
    let directory = usize::try_from(u64_at(stream, header::GD_OFFSET)?)? * SECTOR;
    let descriptor_end =
        u64_at(stream, header::DESCRIPTOR_OFFSET)? + u64_at(stream, header::DESCRIPTOR_SIZE)?;

    let mut head = stream.get(..SECTOR).context("no header")?.to_vec();
    put(&mut head, header::RGD_OFFSET, &0_u64.to_le_bytes());
    put(&mut head, header::OVERHEAD, &descriptor_end.to_le_bytes());
    // Flag bit 1 speaks of a redundant directory: there is none now.
    head[8] &= !2;
    let mut out = head.clone();
    put(&mut out, header::GD_OFFSET, &GD_AT_END.to_le_bytes());
    out.extend_from_slice(&stream[SECTOR..usize::try_from(descriptor_end)? * SECTOR]);

    let mut tables = Vec::new();
    for table in 0..grains.div_ceil(per_table) {
        let at = u32_at(stream, directory + table * 4)? as usize * SECTOR;
        let mut entries = vec![0_u32; per_table];
        for (index, entry) in entries.iter_mut().enumerate() {
            let grain = u32_at(stream, at + index * 4)? as usize * SECTOR;
            if grain != 0 {
                let len = (12 + u32_at(stream, grain + 8)? as usize).next_multiple_of(SECTOR);
                *entry = sector(&out)?;
                out.extend_from_slice(stream.get(grain..grain + len).context("a grain is cut")?);
            }
        }
        tables.push(entries);
    }
    let mut directory = Vec::new();
    for entries in tables {
        directory.push(put_table(&mut out, GRAIN_TABLE, &entries)?);
    }
    let directory = put_table(&mut out, GRAIN_DIRECTORY, &directory)?;

    marker(&mut out, FOOTER, 1);
    put(&mut head, header::GD_OFFSET, &u64::from(directory).to_le_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(&[0; SECTOR]);
    ensure!(out.len().is_multiple_of(SECTOR), "the stream does not end with a sector");
    Ok(out)
}

/// Appends a table behind its marker; gives the sector where the table starts.
fn put_table(out: &mut Vec<u8>, kind: u32, entries: &[u32]) -> Result<u32> {
    let len = (entries.len() * 4).next_multiple_of(SECTOR);
    marker(out, kind, (len / SECTOR) as u64);
    let at = sector(out)?;
    let end = out.len() + len;
    out.extend(entries.iter().flat_map(|entry| entry.to_le_bytes()));
    out.resize(end, 0);
    Ok(at)
}

fn marker(out: &mut Vec<u8>, kind: u32, sectors: u64) {
    let mut sector = [0; SECTOR];
    put(&mut sector, 0, &sectors.to_le_bytes());
    put(&mut sector, 12, &kind.to_le_bytes());
    out.extend_from_slice(&sector);
}

fn sector(out: &[u8]) -> Result<u32> {
    u32::try_from(out.len() / SECTOR).context("the stream is too long")
}

fn put(into: &mut [u8], at: usize, bytes: &[u8]) {
    into[at..at + bytes.len()].copy_from_slice(bytes);
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    let field = bytes.get(at..at + 4).context("the stream is cut")?;
    Ok(u32::from_le_bytes(field.try_into()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    let field = bytes.get(at..at + 8).context("the stream is cut")?;
    Ok(u64::from_le_bytes(field.try_into()?))
}
