//! Looks for files on FAT by their short names: what lies in an EFI system partition.
//!
//! Source: Microsoft, *FAT Specification*, 2005. Long names are passed over, as the names that firmware looks for are short. A chain of
//! clusters is followed for [`MAX_FAT_CHAIN`] clusters, so one that ends in itself does no harm.

use crate::limits::MAX_FAT_CHAIN;
use crate::source::{Trouble, Volume, byte, le16, le32, slice};

const DAMAGED: Trouble = Trouble::Damaged("the FAT file system");

/// Where things lie, bytes; checked to be sensible.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    /// Width of an entry of the table: 12, 16 or 32.
    pub(crate) bits: u32,
    cluster: u64,
    table: u64,
    root: u64,
    root_len: u64,
    data: u64,
    root_cluster: u32,
    clusters: u64,
}

impl Geometry {
    /// From the boot sector; `None` if it is no FAT.
    pub(crate) fn parse(head: &[u8]) -> Option<Self> {
        let sector = u64::from(le16(head, 11));
        let per_cluster = u64::from(byte(head, 13));
        let reserved = u64::from(le16(head, 14));
        let tables = u64::from(byte(head, 16));
        let root_entries = u64::from(le16(head, 17));
        let media = byte(head, 21);
        if !matches!(sector, 512 | 1024 | 2048 | 4096)
            || !per_cluster.is_power_of_two()
            || reserved == 0
            || !matches!(tables, 1 | 2)
            || !(media == 0xf0 || media >= 0xf8)
        {
            return None;
        }
        let table_sectors = match le16(head, 22) {
            0 => u64::from(le32(head, 36)),
            sectors => u64::from(sectors),
        };
        let sectors = match le16(head, 19) {
            0 => u64::from(le32(head, 32)),
            sectors => u64::from(sectors),
        };
        let root_sectors = root_entries.checked_mul(32)?.div_ceil(sector);
        let root = reserved.checked_add(tables.checked_mul(table_sectors)?)?;
        let data = root.checked_add(root_sectors)?;
        let clusters = sectors.checked_sub(data)?.checked_div(per_cluster)?;
        // The specification's own rule: the count of clusters alone tells the width.
        let bits = match clusters {
            0 => return None,
            1..4085 => 12,
            4085..65525 => 16,
            _ => 32,
        };
        if table_sectors == 0 || (bits == 32) != (root_entries == 0) {
            return None;
        }
        Some(Self {
            bits,
            cluster: sector.checked_mul(per_cluster)?,
            table: reserved.checked_mul(sector)?,
            root: root.checked_mul(sector)?,
            root_len: root_sectors.checked_mul(sector)?,
            data: data.checked_mul(sector)?,
            root_cluster: if bits == 32 { le32(head, 44) } else { 0 },
            clusters,
        })
    }
}

/// A FAT file system.
pub(crate) struct Fat<'v> {
    volume: Volume<'v>,
    geometry: Geometry,
}

/// What a directory says of a file.
#[derive(Debug, Clone, Copy)]
struct Entry {
    is_folder: bool,
    cluster: u32,
}

impl<'v> Fat<'v> {
    pub(crate) fn open(volume: Volume<'v>) -> Result<Self, Trouble> {
        let geometry = Geometry::parse(&volume.head(512)?).ok_or(DAMAGED)?;
        Ok(Self { volume, geometry })
    }

    /// True if there is such a file or folder; the path has short names with slashes between them, in capitals.
    pub(crate) fn exists(&self, path: &str) -> Result<bool, Trouble> {
        let mut folder = Entry { is_folder: true, cluster: self.geometry.root_cluster };
        let mut is_root = true;
        for name in path.split('/') {
            if !folder.is_folder {
                return Ok(false);
            }
            match self.find(folder.cluster, is_root, &short_name(name))? {
                Some(entry) => folder = entry,
                None => return Ok(false),
            }
            is_root = false;
        }
        Ok(true)
    }

    fn find(&self, cluster: u32, is_root: bool, name: &[u8; 11]) -> Result<Option<Entry>, Trouble> {
        if is_root && self.geometry.bits != 32 {
            let len = usize::try_from(self.geometry.root_len).map_err(|_| DAMAGED)?;
            let entries = self.volume.bytes(self.geometry.root, len)?;
            return Ok(search(&entries, name, self.geometry.bits).flatten());
        }
        let mut cluster = cluster;
        for _ in 0..MAX_FAT_CHAIN {
            let index = u64::from(cluster).checked_sub(2).filter(|index| *index < self.geometry.clusters);
            let skip = index.and_then(|index| index.checked_mul(self.geometry.cluster)).ok_or(DAMAGED)?;
            let at = self.geometry.data.checked_add(skip).ok_or(DAMAGED)?;
            let len = usize::try_from(self.geometry.cluster).map_err(|_| DAMAGED)?;
            if let Some(found) = search(&self.volume.bytes(at, len)?, name, self.geometry.bits) {
                return Ok(found);
            }
            match self.next(cluster)? {
                Some(next) => cluster = next,
                None => return Ok(None),
            }
        }
        Err(Trouble::TooLong("a directory"))
    }

    /// The cluster after this one; `None` at the end of the chain.
    fn next(&self, cluster: u32) -> Result<Option<u32>, Trouble> {
        let cluster_at = u64::from(cluster);
        let entry = |at: Option<u64>, len| match at.and_then(|at| self.geometry.table.checked_add(at)) {
            Some(at) => self.volume.bytes(at, len),
            None => Err(DAMAGED),
        };
        let (next, last) = match self.geometry.bits {
            12 => {
                let pair = le16(&entry(cluster_at.checked_add(cluster_at / 2), 2)?, 0);
                let next = if cluster.is_multiple_of(2) { pair & 0xfff } else { pair >> 4 };
                (u32::from(next), 0xff8)
            }
            16 => (u32::from(le16(&entry(cluster_at.checked_mul(2), 2)?, 0)), 0xfff8),
            _ => (le32(&entry(cluster_at.checked_mul(4), 4)?, 0) & 0x0fff_ffff, 0x0fff_fff8),
        };
        Ok((next < last).then_some(next))
    }
}

/// Looks for a name among entries. `Some(None)` at the end of the directory, `None` if it goes on.
fn search(entries: &[u8], name: &[u8; 11], bits: u32) -> Option<Option<Entry>> {
    for entry in entries.chunks_exact(32) {
        let attributes = byte(entry, 11);
        match byte(entry, 0) {
            0 => return Some(None),
            // Removed; a long name; the label of the volume.
            0xe5 => {}
            _ if attributes & 0x08 != 0 => {}
            _ if slice(entry, 0, 11) == name => {
                let high = if bits == 32 { le16(entry, 20) } else { 0 };
                let cluster = u32::from(high) << 16 | u32::from(le16(entry, 26));
                return Some(Some(Entry { is_folder: attributes & 0x10 != 0, cluster }));
            }
            _ => {}
        }
    }
    None
}

/// `BOOTX64.EFI` as `BOOTX64 EFI`.
fn short_name(name: &str) -> [u8; 11] {
    let (stem, extension) = name.split_once('.').unwrap_or((name, ""));
    let mut short = [b' '; 11];
    let places = short.iter_mut();
    let padded = stem.bytes().chain(std::iter::repeat(b' ')).take(8).chain(extension.bytes());
    for (place, byte) in places.zip(padded) {
        *place = byte;
    }
    short
}
