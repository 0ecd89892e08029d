//! Builds VMDK files byte by byte, also such as no converter writes: with a footer, with grains in any order, damaged.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;

use super::qemu::Dice;

pub(crate) const SECTOR: u64 = 512;

/// Where the descriptor of a built file starts, and how much room it has, bytes.
pub(crate) const DESCRIPTOR: usize = 512;
pub(crate) const DESCRIPTOR_ROOM: usize = 20 * 512;

/// Where grains start, or in a file with a header directory the first place where they may.
pub(crate) const OVERHEAD: u64 = 128 * SECTOR;

/// Guest bytes of a grain, where a test says nothing else.
pub(crate) const GRAIN: usize = 64 << 10;

/// Sectors of a disk that takes two tables and ends with a grain of three sectors.
pub(crate) const ODD_CAPACITY: u64 = 700 * 128 + 3;

const ENTRIES: u64 = 512;

/// A grain.
#[derive(Debug, Clone)]
pub(crate) enum Grain {
    /// Table entry 1.
    Zero,
    /// Guest bytes; in a compressed file, compressed at this level.
    Data(Vec<u8>, i32),
}

/// A VMDK to build.
#[derive(Debug, Clone)]
pub(crate) struct Builder {
    pub(crate) capacity_sectors: u64,
    pub(crate) grain_sectors: u64,
    pub(crate) flags: u32,
    pub(crate) version: u32,
    pub(crate) algorithm: u16,
    /// True for a directory at the end.
    pub(crate) footer: bool,
    pub(crate) descriptor: String,
    /// By index.
    pub(crate) grains: BTreeMap<u64, Grain>,
    /// Grains in the order in which they are stored; ascending where it is empty.
    pub(crate) order: Vec<u64>,
}

/// A built file, and where its parts are.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    pub(crate) bytes: Vec<u8>,
    /// Byte offset of the directory.
    pub(crate) directory: usize,
    /// Byte offset of each table that there is, by its index.
    pub(crate) tables: BTreeMap<u64, usize>,
    /// Byte offset of each stored grain, by its index.
    pub(crate) grains: BTreeMap<u64, usize>,
}

impl Builder {
    pub(crate) fn sparse(capacity_sectors: u64) -> Self {
        Self {
            capacity_sectors,
            grain_sectors: 128,
            flags: 1,
            version: 1,
            algorithm: 0,
            footer: false,
            descriptor: descriptor("monolithicSparse", capacity_sectors),
            grains: BTreeMap::new(),
            order: Vec::new(),
        }
    }

    /// streamOptimized as VMware products write it: with a footer.
    pub(crate) fn stream(capacity_sectors: u64) -> Self {
        Self {
            flags: 0x30001,
            version: 3,
            algorithm: 1,
            footer: true,
            descriptor: descriptor("streamOptimized", capacity_sectors),
            ..Self::sparse(capacity_sectors)
        }
    }

    pub(crate) fn grain(mut self, index: u64, data: Vec<u8>) -> Self {
        self.grains.insert(index, Grain::Data(data, 6));
        self
    }

    pub(crate) fn zero_grain(mut self, index: u64) -> Self {
        self.grains.insert(index, Grain::Zero);
        self
    }

    /// The guest bytes that the file stands for.
    pub(crate) fn guest(&self) -> Vec<u8> {
        let mut guest = vec![0; (self.capacity_sectors * SECTOR) as usize];
        for (index, grain) in &self.grains {
            if let Grain::Data(data, _) = grain {
                let start = (index * self.grain_sectors * SECTOR) as usize;
                let len = data.len().min(guest.len() - start);
                guest[start..start + len].copy_from_slice(&data[..len]);
            }
        }
        guest
    }

    pub(crate) fn build(&self) -> Built {
        let tables = self.capacity_sectors.div_ceil(self.grain_sectors * ENTRIES);
        let used: Vec<u64> =
            (0..tables).filter(|table| self.grains.keys().any(|grain| grain / ENTRIES == *table)).collect();
        let mut built = Built {
            bytes: vec![0; DESCRIPTOR],
            directory: 0,
            tables: BTreeMap::new(),
            grains: BTreeMap::new(),
        };
        built.bytes.extend(self.descriptor.bytes());
        assert!(built.bytes.len() <= DESCRIPTOR + DESCRIPTOR_ROOM);
        built.bytes.resize(DESCRIPTOR + DESCRIPTOR_ROOM, 0);
        if !self.footer {
            built.reserve_tables(tables, &used);
        }
        built.bytes.resize(built.bytes.len().next_multiple_of(OVERHEAD as usize), 0);
        let overhead = built.bytes.len() as u64 / SECTOR;

        let stored = |index: &u64| matches!(self.grains.get(index), Some(Grain::Data(..)));
        let order: Vec<u64> = match self.order.as_slice() {
            [] => self.grains.keys().copied().collect(),
            order => order.to_vec(),
        };
        for index in order.iter().filter(|index| stored(index)) {
            built.grains.insert(*index, built.bytes.len());
            self.store(*index, &mut built.bytes);
        }
        if self.footer {
            for table in &used {
                built.marker(2048 / SECTOR, 1);
                built.tables.insert(*table, built.bytes.len());
                built.bytes.resize(built.bytes.len() + 2048, 0);
            }
            built.marker((tables * 4).div_ceil(SECTOR), 2);
            built.directory = built.bytes.len();
            built.bytes.resize(built.bytes.len() + (tables * 4).next_multiple_of(SECTOR) as usize, 0);
        }
        self.fill_tables(&mut built);
        let directory = built.directory as u64 / SECTOR;
        if self.footer {
            built.marker(1, 3);
            built.bytes.extend(self.header(directory, overhead));
            built.bytes.extend([0; SECTOR as usize]);
        }
        let header = self.header(if self.footer { u64::MAX } else { directory }, overhead);
        built.bytes[..header.len()].copy_from_slice(&header);
        built
    }

    fn header(&self, directory: u64, overhead: u64) -> Vec<u8> {
        let mut header = b"KDMV".to_vec();
        header.extend(self.version.to_le_bytes());
        header.extend(self.flags.to_le_bytes());
        header.extend(self.capacity_sectors.to_le_bytes());
        header.extend(self.grain_sectors.to_le_bytes());
        header.extend(1_u64.to_le_bytes());
        header.extend((DESCRIPTOR_ROOM as u64 / SECTOR).to_le_bytes());
        header.extend((ENTRIES as u32).to_le_bytes());
        header.extend(0_u64.to_le_bytes());
        header.extend(directory.to_le_bytes());
        header.extend(overhead.to_le_bytes());
        header.extend(b"\0\n \r\n");
        header.extend(self.algorithm.to_le_bytes());
        header.resize(SECTOR as usize, 0);
        header
    }

    fn store(&self, index: u64, bytes: &mut Vec<u8>) {
        let Some(Grain::Data(data, level)) = self.grains.get(&index) else { return };
        if self.algorithm == 0 {
            bytes.extend(data);
        } else {
            let stream = zlib(data, *level);
            bytes.extend((index * self.grain_sectors).to_le_bytes());
            bytes.extend((stream.len() as u32).to_le_bytes());
            bytes.extend(stream);
        }
        bytes.resize(bytes.len().next_multiple_of(SECTOR as usize), 0);
    }

    fn fill_tables(&self, built: &mut Built) {
        for (index, grain) in &self.grains {
            let sector = match grain {
                Grain::Zero => 1,
                Grain::Data(..) => (built.grains[index] as u64 / SECTOR) as u32,
            };
            let at = built.tables[&(index / ENTRIES)] + (index % ENTRIES) as usize * 4;
            built.bytes[at..at + 4].copy_from_slice(&sector.to_le_bytes());
        }
        for (index, at) in &built.tables {
            let sector = (*at as u64 / SECTOR) as u32;
            let entry = built.directory + *index as usize * 4;
            built.bytes[entry..entry + 4].copy_from_slice(&sector.to_le_bytes());
        }
    }
}

impl Built {
    fn reserve_tables(&mut self, tables: u64, used: &[u64]) {
        self.directory = self.bytes.len();
        self.bytes.resize(self.bytes.len() + (tables * 4).next_multiple_of(SECTOR) as usize, 0);
        for table in used {
            self.tables.insert(*table, self.bytes.len());
            self.bytes.resize(self.bytes.len() + 2048, 0);
        }
    }

    fn marker(&mut self, sectors: u64, kind: u32) {
        self.bytes.extend(sectors.to_le_bytes());
        self.bytes.extend(0_u32.to_le_bytes());
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(SECTOR as usize), 0);
    }

    /// The file with other bytes at `at`.
    pub(crate) fn with(&self, at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut file = self.bytes.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    }

    /// Byte offset of the table entry of grain `index`.
    pub(crate) fn entry(&self, index: u64) -> usize {
        self.tables[&(index / ENTRIES)] + (index % ENTRIES) as usize * 4
    }
}

/// Grains of a kind each: compressible, not compressible, one byte.
pub(crate) fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut dice = Dice(seed);
    match seed % 3 {
        0 => (0..len as u64).map(|i| ((i * seed) >> 7) as u8).collect(),
        1 => (0..len).map(|_| dice.roll(256) as u8).collect(),
        _ => vec![seed as u8; len],
    }
}

/// A disk over two tables with an odd end: grains 0, 1, 2, 5, 511, 512, 600 and the last, which has 3 sectors.
pub(crate) fn populated(empty: Builder) -> Builder {
    let last = empty.capacity_sectors / empty.grain_sectors;
    [0, 1, 2, 5, 511, 512, 600].into_iter().chain([last]).fold(empty, |builder, index| {
        let seed = index + 1;
        builder.grain(index, content(seed, GRAIN))
    })
}

/// A descriptor as VMware writes it.
pub(crate) fn descriptor(create_type: &str, capacity_sectors: u64) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"{create_type}\"\n\n\
         # Extent description\nRW {capacity_sectors} SPARSE \"disk.vmdk\"\n\n\
         # The Disk Data Base\n#DDB\n\nddb.adapterType = \"lsilogic\"\nddb.virtualHWVersion = \"4\"\n"
    )
}

fn zlib(data: &[u8], level: i32) -> Vec<u8> {
    let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::new(level).unwrap());
    let mut stream = vec![0; compressor.zlib_compress_bound(data.len())];
    let len = compressor.zlib_compress(data, &mut stream).unwrap();
    stream.truncate(len);
    stream
}
