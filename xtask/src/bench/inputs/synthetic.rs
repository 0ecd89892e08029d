//! QCOW2 files put together by hand, for what qemu-img takes too long or too much room to write.
//!
//! Version 3, clusters of 64 KiB, an empty refcount table: to be read only. In a file: header, refcount table, the table of the first
//! level, those of the second level, data. (QEMU, docs/interop/qcow2.txt.)

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::CLUSTER;

/// Entries of a table of the second level; guest bytes behind it.
const PER_TABLE: u64 = CLUSTER / 8;
const TABLE_SPAN: u64 = PER_TABLE * CLUSTER;

/// Where the table of the first level lies.
const L1: u64 = 2 * CLUSTER;

/// Unit in which the length of compressed data is told.
const SECTOR: u64 = 512;

/// An entry whose cluster has one reference.
const COPIED: u64 = 1 << 63;

/// An entry of a compressed cluster: bits 0 to 53 its offset, those above the further sectors that it touches.
const COMPRESSED: u64 = 1 << 62;
const SECTORS_SHIFT: u32 = 54;

/// Bytes of all tables of the second level, were all of the disk mapped.
pub(super) fn tables(virtual_size: u64) -> u64 {
    virtual_size.div_ceil(TABLE_SPAN) * CLUSTER
}

/// A file while it is written: a table of the second level for each part of the disk that has one.
struct Writer {
    file: File,
    /// Parts of the disk with a table, ascending.
    tables: Vec<u64>,
    l2: u64,
}

impl Writer {
    fn create(path: &Path, virtual_size: u64, tables: Vec<u64>) -> Result<Self> {
        let file = File::create(path)?;
        let l1_len = virtual_size.div_ceil(TABLE_SPAN);
        let mut header = [0; 112];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"QFI\xfb");
        put(4, &3_u32.to_be_bytes());
        put(20, &CLUSTER.trailing_zeros().to_be_bytes());
        put(24, &virtual_size.to_be_bytes());
        put(36, &u32::try_from(l1_len)?.to_be_bytes());
        put(40, &L1.to_be_bytes());
        put(48, &CLUSTER.to_be_bytes());
        put(56, &1_u32.to_be_bytes());
        // Refcounts of 16 bits, and how long this header is.
        put(96, &4_u32.to_be_bytes());
        put(100, &112_u32.to_be_bytes());
        file.write_all_at(&header, 0)?;
        let l2 = L1 + (l1_len * 8).next_multiple_of(CLUSTER);
        for (number, table) in (0..).zip(&tables) {
            file.write_all_at(&(COPIED | (l2 + number * CLUSTER)).to_be_bytes(), L1 + table * 8)?;
        }
        Ok(Self { file, tables, l2 })
    }

    /// The first byte behind the tables.
    fn data(&self) -> u64 {
        self.l2 + self.tables.len() as u64 * CLUSTER
    }

    /// Writes the tables: an entry for each guest cluster.
    fn entries(&self, mut entry: impl FnMut(u64) -> u64) -> Result<()> {
        for (number, table) in (0..).zip(&self.tables) {
            let bytes: Vec<u8> =
                (0..PER_TABLE).flat_map(|index| entry(table * PER_TABLE + index).to_be_bytes()).collect();
            self.file.write_all_at(&bytes, self.l2 + number * CLUSTER)?;
        }
        Ok(())
    }
}

/// The same compressed clusters, `sample` bytes of disk, again and again until there are `len` bytes. They are taken evenly from all
/// of an image that qemu-img made.
pub(super) fn repeated(path: &Path, image: &Path, len: u64, sample: u64) -> Result<()> {
    let clusters = compressed_clusters(image, sample / CLUSTER)?;
    let writer = Writer::create(path, len, (0..len.div_ceil(TABLE_SPAN)).collect())?;
    let mut at = writer.data();
    let mut entries = Vec::new();
    for bytes in clusters.iter().cycle().take(usize::try_from(len / CLUSTER)?) {
        writer.file.write_all_at(bytes, at)?;
        let sectors = bytes.len() as u64 / SECTOR;
        entries.push(COMPRESSED | ((sectors - 1) << SECTORS_SHIFT) | at);
        at += sectors * SECTOR;
    }
    let mut entries = entries.into_iter();
    writer.entries(|_| entries.next().unwrap_or(0))
}

/// `len` bytes of plain data in 16 runs, spread evenly over the disk: as many tables of the second level in a small one as in a large
/// one. They are bytes of an image that qemu-img compressed.
pub(super) fn spread(path: &Path, image: &Path, virtual_size: u64, len: u64) -> Result<()> {
    const RUNS: u64 = 16;
    let run = len / RUNS / CLUSTER;
    let starts: Vec<u64> = (0..RUNS).map(|index| virtual_size / RUNS * index / CLUSTER).collect();
    let mut tables: Vec<u64> = starts
        .iter()
        .flat_map(|start| [*start, start + run - 1])
        .map(|cluster| cluster / PER_TABLE)
        .collect();
    tables.dedup();
    let writer = Writer::create(path, virtual_size, tables)?;
    let source = File::open(image)?;
    let available = source.metadata()?.len() / CLUSTER;
    let mut buffer = vec![0; usize::try_from(CLUSTER)?];
    for number in 0..RUNS * run {
        // Not the header, so that no data looks like an image.
        source.read_exact_at(&mut buffer, (1 + number % (available - 1)) * CLUSTER)?;
        writer.file.write_all_at(&buffer, writer.data() + number * CLUSTER)?;
    }
    writer.entries(|cluster| {
        let index = starts.partition_point(|start| *start <= cluster);
        match index.checked_sub(1).and_then(|index| Some((index as u64, cluster - starts.get(index)?))) {
            Some((index, within)) if within < run => {
                COPIED | (writer.data() + (index * run + within) * CLUSTER)
            }
            _ => 0,
        }
    })
}

/// A disk that is all compressed clusters of which no byte exists: one after the other, as long as 30,000 bytes in the mean.
pub(super) fn mapped(path: &Path, virtual_size: u64) -> Result<()> {
    let writer = Writer::create(path, virtual_size, (0..virtual_size.div_ceil(TABLE_SPAN)).collect())?;
    let start = |cluster: u64| writer.data() + cluster * 30_000 + cluster % 7 * 100;
    writer.entries(|cluster| {
        let further = (start(cluster + 1) - 1) / SECTOR - start(cluster) / SECTOR;
        COMPRESSED | further << SECTORS_SHIFT | start(cluster)
    })?;
    writer.file.set_len(start(virtual_size / CLUSTER).next_multiple_of(CLUSTER))?;
    Ok(())
}

/// What so many compressed clusters of an image store, evenly from all that it has.
fn compressed_clusters(image: &Path, count: u64) -> Result<Vec<Vec<u8>>> {
    let file = File::open(image)?;
    let word = |at: u64| -> Result<u64> {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at)?;
        Ok(u64::from_be_bytes(bytes))
    };
    ensure!(word(16)? & 0xffff_ffff == u64::from(CLUSTER.trailing_zeros()), "clusters are not of 64 KiB");
    let (l1_len, l1) = (word(32)? & 0xffff_ffff, word(40)?);
    let offset = (COMPRESSED - 1) >> (62 - SECTORS_SHIFT);
    let mut entries = Vec::new();
    for index in 0..l1_len {
        let table = word(l1 + index * 8)? & !COPIED;
        for index in 0..if table == 0 { 0 } else { PER_TABLE } {
            let entry = word(table + index * 8)?;
            if entry & COMPRESSED != 0 {
                entries.push(entry);
            }
        }
    }
    let count = usize::try_from(count)?;
    ensure!(entries.len() >= count, "{} has only {} compressed clusters", image.display(), entries.len());
    let chosen = (0..count).filter_map(|index| entries.get(index * entries.len() / count));
    let stored = chosen.map(|entry| {
        let at = entry & offset;
        let sectors = ((entry & !COMPRESSED) >> SECTORS_SHIFT) + 1;
        let len = usize::try_from(sectors * SECTOR - at % SECTOR)?;
        let mut bytes = vec![0; len];
        // The last sector of a file need not be whole.
        let room = usize::try_from(file.metadata()?.len() - at)?.min(len);
        file.read_exact_at(&mut bytes[..room], at)?;
        bytes.resize(len.next_multiple_of(usize::try_from(SECTOR)?), 0);
        Ok(bytes)
    });
    stored.collect::<Result<_>>().context("a compressed cluster")
}
