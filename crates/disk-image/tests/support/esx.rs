//! Builds the extent files of ESX, which no tool at hand writes: COWD and seSparse.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;

const SECTOR: usize = 512;

/// Entries in a grain table of both kinds.
const ENTRIES: u64 = 4096;

/// A COWD file: directory at sector 4, each table before the first grain that needs it, as ESX allocates.
pub(crate) fn cowd(capacity: u32, grain_sectors: u32, grains: &BTreeMap<u64, Vec<u8>>) -> Vec<u8> {
    let grain_len = grain_sectors as usize * SECTOR;
    let tables = u64::from(capacity).div_ceil(u64::from(grain_sectors) * ENTRIES);
    let mut file = b"COWD".to_vec();
    for field in [1, 3, capacity, grain_sectors, 4, tables as u32, 0] {
        file.extend(field.to_le_bytes());
    }
    file.extend(b"base.vmdk");
    file.resize(2048 + (tables as usize * 4).next_multiple_of(SECTOR), 0);
    let put = |file: &mut Vec<u8>, at: usize, sector: usize| {
        file[at..at + 4].copy_from_slice(&(sector as u32).to_le_bytes());
    };
    let mut known = BTreeMap::new();
    for (index, data) in grains {
        let table = *known.entry(index / ENTRIES).or_insert_with(|| {
            let start = file.len();
            file.resize(start + ENTRIES as usize * 4, 0);
            put(&mut file, 2048 + (index / ENTRIES) as usize * 4, start / SECTOR);
            start
        });
        let start = file.len();
        put(&mut file, table + (index % ENTRIES) as usize * 4, start / SECTOR);
        file.extend(data);
        file.resize(start + grain_len, 0);
    }
    let free = file.len() / SECTOR;
    put(&mut file, 28, free);
    file
}

/// What a seSparse table entry says.
#[derive(Debug, Clone)]
pub(crate) enum SeGrain {
    /// Type 1, with what ESX leaves in the other bits.
    Unmapped,
    /// Type 2.
    Zero,
    /// Type 3: 4 KiB.
    Data(Vec<u8>),
}

/// Where the parts of a built seSparse file are, bytes.
pub(crate) mod se {
    pub(crate) const VOLATILE: usize = 512;
    pub(crate) const DIRECTORY: usize = 4096;
    pub(crate) const TABLES: usize = 8192;
    pub(crate) const TABLE_LEN: usize = 32768;
}

/// A seSparse file with room for `tables` tables. Tables and grains are numbered backwards, so that number and place are not the same.
pub(crate) fn sesparse(capacity: u64, grains: &BTreeMap<u64, SeGrain>) -> Vec<u8> {
    let tables = capacity.div_ceil(8 * ENTRIES) as usize;
    assert!(tables * 8 <= se::TABLES - se::DIRECTORY);
    let first_grain = se::TABLES + tables * se::TABLE_LEN;
    let stored = grains.values().filter(|grain| matches!(grain, SeGrain::Data(_))).count();
    let sectors = |bytes: usize| (bytes / SECTOR) as u64;
    let mut file = Vec::new();
    for field in [0xcafe_babe, 0x2_0000_0001, capacity, 8, 64, 0, 0, 0, 0, 0] {
        file.extend(u64::to_le_bytes(field));
    }
    for (start, len) in [
        (se::VOLATILE, SECTOR),
        (1024, SECTOR),
        (1536, SECTOR),
        (se::DIRECTORY, se::TABLES - se::DIRECTORY),
        (se::TABLES, tables * se::TABLE_LEN),
        (2048, SECTOR),
        (2560, SECTOR),
        (first_grain, stored * 4096),
    ] {
        file.extend(sectors(start).to_le_bytes());
        file.extend(sectors(len).to_le_bytes());
    }
    file.resize(first_grain + stored * 4096, 0);
    file[se::VOLATILE..se::VOLATILE + 8].copy_from_slice(&0xcafe_cafe_u64.to_le_bytes());
    let mut next = stored;
    for (index, grain) in grains {
        let entry = match grain {
            SeGrain::Unmapped => 0x1000_0000_0000_0000,
            SeGrain::Zero => 0x2000_0000_0000_0000,
            SeGrain::Data(data) => {
                next -= 1;
                let start = first_grain + next * 4096;
                file[start..start + data.len()].copy_from_slice(data);
                let next = next as u64;
                0x3000_0000_0000_0000 | (next & 0xfff) << 48 | next >> 12
            }
        };
        let table = index / ENTRIES;
        let number = tables as u64 - 1 - table;
        let at = se::DIRECTORY + table as usize * 8;
        file[at..at + 8].copy_from_slice(&(0x1000_0000_0000_0000 | number).to_le_bytes());
        let at = se::TABLES + number as usize * se::TABLE_LEN + (index % ENTRIES) as usize * 8;
        file[at..at + 8].copy_from_slice(&u64::to_le_bytes(entry));
    }
    file
}
