//! The master boot record and the chain of records in an extended partition.

use super::Partition;
use crate::limits::MAX_LOGICAL;
use crate::source::{Volume, byte, le16, le32, slice};
use crate::unread::{Unread, keep};

/// Bytes of the first sector that are code.
pub(super) const CODE: usize = 440;

/// Where the four entries lie, and how long each is.
const ENTRIES: [usize; 4] = [446, 462, 478, 494];

const PROTECTIVE: u8 = 0xee;

/// All that MBRs know.
const SECTOR: u64 = 512;

/// One entry; sectors count from wherever the record says.
#[derive(Debug, Clone, Copy)]
struct Entry {
    active: bool,
    kind: u8,
    start: u32,
    sectors: u32,
}

impl Entry {
    /// `None` if no system writes such an entry.
    fn parse(sector: &[u8], at: usize) -> Option<Self> {
        let status = byte(sector, at);
        let kind = byte(sector, at.saturating_add(4));
        let start = le32(sector, at.saturating_add(8));
        let sectors = le32(sector, at.saturating_add(12));
        let is_sane = matches!(status, 0 | 0x80) && (kind == 0 || (start > 0 && sectors > 0));
        is_sane.then_some(Self { active: status == 0x80, kind, start, sectors })
    }

    fn is_used(&self) -> bool {
        self.kind != 0
    }

    fn is_extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }
}

/// A sector with a partition table.
pub(super) struct Record {
    signature: u32,
    entries: [Entry; 4],
}

impl Record {
    /// `None` if the sector is no partition table: its four entries have to make sense and one of them to be used, because boot
    /// sectors of file systems end with the same two bytes.
    pub(super) fn parse(sector: &[u8]) -> Option<Self> {
        if le16(sector, 510) != 0xaa55 || is_boot_sector(sector) {
            return None;
        }
        let [a, b, c, d] = ENTRIES.map(|at| Entry::parse(sector, at));
        let entries = [a?, b?, c?, d?];
        entries.iter().any(Entry::is_used).then(|| Self { signature: le32(sector, CODE), entries })
    }

    pub(super) fn is_protective(&self) -> bool {
        self.entries.iter().any(|entry| entry.kind == PROTECTIVE)
    }

    pub(super) fn has_others(&self) -> bool {
        self.entries.iter().any(|entry| entry.is_used() && entry.kind != PROTECTIVE)
    }

    pub(super) fn id(&self) -> Option<String> {
        (self.signature != 0).then(|| format!("0x{:08x}", self.signature))
    }

    /// The primary partitions, then the logical ones, which count from 5.
    pub(super) fn partitions(
        &self,
        disk: Volume<'_>,
        notes: &mut Vec<String>,
        unread: &mut Unread,
    ) -> Vec<Partition> {
        let numbered = (1_u32..).zip(&self.entries).filter(|(_, entry)| entry.is_used());
        let mut found: Vec<_> = numbered.map(|(number, entry)| partition(number, entry, 0)).collect();
        if let Some(extended) = self.entries.iter().find(|entry| entry.is_extended()) {
            found.extend(logical(disk, u64::from(extended.start), notes, unread));
        }
        found
    }
}

/// A FAT or NTFS volume without a partition table.
fn is_boot_sector(sector: &[u8]) -> bool {
    let named = [(3, &b"NTFS    "[..]), (3, b"EXFAT   "), (54, b"FAT"), (82, b"FAT32   ")];
    matches!(byte(sector, 0), 0xeb | 0xe9)
        && named.iter().any(|(at, name)| slice(sector, *at, name.len()) == *name)
}

fn partition(number: u32, entry: &Entry, base: u64) -> Partition {
    Partition {
        number,
        start: base.saturating_add(u64::from(entry.start)).saturating_mul(SECTOR),
        size: u64::from(entry.sectors).saturating_mul(SECTOR),
        type_id: format!("0x{:02x}", entry.kind),
        type_name: type_name(entry.kind),
        name: None,
        active: entry.active,
        file_system: None,
        volumes: Vec::new(),
    }
}

/// Each record of the chain describes one partition, from itself on, and the next record, from the extended partition on. A
/// chain that does not go forward has no end.
fn logical(disk: Volume<'_>, extended: u64, notes: &mut Vec<String>, unread: &mut Unread) -> Vec<Partition> {
    let mut found = Vec::new();
    let mut at = extended;
    for number in 5..MAX_LOGICAL.saturating_add(5) {
        let sector = match disk.bytes(at.saturating_mul(SECTOR), 512) {
            Ok(sector) => sector,
            Err(why) if why.is_limit() => {
                keep(&mut unread.partitions, "logical partitions are not read", &why);
                return found;
            }
            Err(_) => {
                notes.push("the chain of logical partitions leaves the disk".to_owned());
                return found;
            }
        };
        let entries = ENTRIES.map(|at| Entry::parse(&sector, at));
        let (true, [Some(here), Some(next), ..]) = (le16(&sector, 510) == 0xaa55, entries) else {
            if number > 5 {
                notes.push(format!("the record before logical partition {number} makes no sense"));
            }
            return found;
        };
        if here.is_used() {
            found.push(partition(number, &here, at));
        }
        let following = extended.saturating_add(u64::from(next.start));
        if !next.is_used() {
            return found;
        }
        if following <= at {
            notes.push("the chain of logical partitions turns back".to_owned());
            return found;
        }
        at = following;
    }
    let why = format!("of them the first {MAX_LOGICAL} are looked at");
    keep(&mut unread.partitions, "there are more logical partitions", &why);
    found
}

fn type_name(kind: u8) -> Option<&'static str> {
    Some(match kind {
        0x01 | 0x04 | 0x06 | 0x0b | 0x0c | 0x0e => "FAT",
        0x05 | 0x0f | 0x85 => "extended",
        0x07 => "NTFS or exFAT",
        0x27 => "Windows recovery",
        0x82 => "Linux swap",
        0x83 => "Linux",
        0x8e => "Linux LVM",
        0xef => super::ESP,
        0xfd => "Linux RAID",
        _ => return None,
    })
}
