//! File systems and other contents of a partition, by their signatures, with label and id.
//!
//! Sources: each system's own description of its superblock (Linux `Documentation/filesystems`, `fs/*/`; Microsoft's FAT
//! specification of 2005; LUKS1 1.2.3 and LUKS2; LVM2 `lib/format_text/layout.h`), with what blkid calls them as the judge. A signature
//! says what a volume claims to be, no more. Cost: three pages a volume.

use std::fmt;

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use crate::ext4;
use crate::source::{Volume, be16, byte, label, le16, le32, le64, slice};

/// What a partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub enum Kind {
    /// ext2: no journal.
    Ext2,
    /// ext3: a journal, and nothing of ext4.
    Ext3,
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
    /// Btrfs.
    Btrfs,
    /// NTFS.
    Ntfs,
    /// exFAT.
    Exfat,
    /// FAT with 12 bits.
    Fat12,
    /// FAT with 16 bits.
    Fat16,
    /// FAT with 32 bits.
    Fat32,
    /// A physical volume of LVM.
    LvmPv,
    /// LUKS, version 1.
    Luks1,
    /// LUKS, version 2.
    Luks2,
    /// Microsoft's encryption.
    Bitlocker,
    /// Linux swap.
    Swap,
    /// ISO 9660.
    Iso9660,
    /// SquashFS.
    Squashfs,
    /// A member of a Linux software RAID.
    MdRaid,
}

impl Kind {
    /// True if the content can be read with a key only.
    pub fn is_encrypted(self) -> bool {
        matches!(self, Self::Luks1 | Self::Luks2 | Self::Bitlocker)
    }

    /// True for the three that are read alike.
    pub fn is_ext(self) -> bool {
        matches!(self, Self::Ext2 | Self::Ext3 | Self::Ext4)
    }

    /// True for FAT, whatever its width.
    pub fn is_fat(self) -> bool {
        matches!(self, Self::Fat12 | Self::Fat16 | Self::Fat32)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Ntfs => "ntfs",
            Self::Exfat => "exfat",
            Self::Fat12 => "fat12",
            Self::Fat16 => "fat16",
            Self::Fat32 => "fat32",
            Self::LvmPv => "lvm-pv",
            Self::Luks1 => "luks1",
            Self::Luks2 => "luks2",
            Self::Bitlocker => "bitlocker",
            Self::Swap => "swap",
            Self::Iso9660 => "iso9660",
            Self::Squashfs => "squashfs",
            Self::MdRaid => "md-raid",
        })
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// A file system, or what else lies in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FileSystem {
    /// What it is.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The name that somebody gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Its id, as `blkid` prints it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
}

impl FileSystem {
    fn new(kind: Kind, label: Option<String>, uuid: Option<String>) -> Self {
        Self { kind, label, uuid }
    }
}

/// Bytes from the start in which most signatures lie.
const HEAD: usize = 0x1100;

/// What a volume holds; `None` if that is nothing that is known here, or cannot be read.
pub(crate) fn probe(volume: Volume<'_>) -> Option<FileSystem> {
    let head = volume.head(HEAD).ok()?;
    let found =
        locked(&head).or_else(|| member(&head)).or_else(|| linux(&head)).or_else(|| microsoft(volume, &head));
    found.or_else(|| swap(volume)).or_else(|| btrfs(volume)).or_else(|| iso9660(volume))
}

/// What wants a key.
fn locked(head: &[u8]) -> Option<FileSystem> {
    if slice(head, 0, 6) == b"LUKS\xba\xbe" {
        let uuid = label(slice(head, 168, 40));
        return match be16(head, 6) {
            1 => Some(FileSystem::new(Kind::Luks1, None, uuid)),
            2 => Some(FileSystem::new(Kind::Luks2, label(slice(head, 24, 48)), uuid)),
            _ => None,
        };
    }
    (slice(head, 3, 8) == b"-FVE-FS-").then(|| FileSystem::new(Kind::Bitlocker, None, None))
}

/// What is only a part of something larger.
fn member(head: &[u8]) -> Option<FileSystem> {
    // The label of LVM lies in one of the first four sectors.
    for at in [0_usize, 512, 1024, 1536] {
        if slice(head, at, 8) == b"LABELONE" && slice(head, at.saturating_add(24), 8) == b"LVM2 001" {
            let id =
                label(slice(head, at.saturating_add(32), 32)).filter(|id| id.len() == 32 && id.is_ascii());
            let dashed = id.map(|id| dashed(&id, &[6, 4, 4, 4, 4, 4, 6]));
            return Some(FileSystem::new(Kind::LvmPv, None, dashed));
        }
    }
    // RAID superblocks of version 1.1 and 1.2; the others lie at the end, over a file system that is seen as such.
    for at in [0_usize, 4096] {
        if le32(head, at) == 0xa92b_4efc && le32(head, at.saturating_add(4)) == 1 {
            let name = label(slice(head, at.saturating_add(32), 32));
            return Some(FileSystem::new(Kind::MdRaid, name, uuid(slice(head, at.saturating_add(16), 16))));
        }
    }
    None
}

fn linux(head: &[u8]) -> Option<FileSystem> {
    if le16(head, 0x438) == ext4::MAGIC {
        let kind = ext4::kind(slice(head, 0x400, 0x400));
        return Some(FileSystem::new(kind, label(slice(head, 0x478, 16)), uuid(slice(head, 0x468, 16))));
    }
    if slice(head, 0, 4) == b"XFSB" {
        return Some(FileSystem::new(Kind::Xfs, label(slice(head, 108, 12)), uuid(slice(head, 32, 16))));
    }
    (slice(head, 0, 4) == b"hsqs" && le16(head, 28) == 4).then(|| FileSystem::new(Kind::Squashfs, None, None))
}

fn microsoft(volume: Volume<'_>, head: &[u8]) -> Option<FileSystem> {
    if le16(head, 510) != 0xaa55 {
        return None;
    }
    if slice(head, 3, 8) == b"NTFS    " {
        let serial = format!("{:016X}", le64(head, 72));
        return Some(FileSystem::new(Kind::Ntfs, ntfs_label(volume, head), Some(serial)));
    }
    if slice(head, 3, 8) == b"EXFAT   " {
        return Some(FileSystem::new(Kind::Exfat, None, Some(serial(le32(head, 100)))));
    }
    let geometry = crate::fat::Geometry::parse(head)?;
    let (kind, at) = match geometry.bits {
        12 => (Kind::Fat12, 39_usize),
        16 => (Kind::Fat16, 39),
        _ => (Kind::Fat32, 67),
    };
    let name = label(slice(head, at.saturating_add(4), 11)).filter(|name| name != "NO NAME");
    Some(FileSystem::new(kind, name, Some(serial(le32(head, at)))))
}

fn serial(number: u32) -> String {
    format!("{:04X}-{:04X}", number >> 16, number & 0xffff)
}

/// The label of NTFS is an attribute of the file record with number 3.
fn ntfs_label(volume: Volume<'_>, head: &[u8]) -> Option<String> {
    let sector = u64::from(le16(head, 11));
    let cluster = sector.checked_mul(u64::from(byte(head, 13)))?;
    let record_len = match byte(head, 64) {
        clusters @ 1..=127 => cluster.checked_mul(u64::from(clusters))?,
        negative => 1_u64.checked_shl(256_u32.checked_sub(u32::from(negative))?)?,
    };
    if !(512..=65536).contains(&record_len) {
        return None;
    }
    let at = le64(head, 48).checked_mul(cluster)?.checked_add(record_len.checked_mul(3)?)?;
    let record = volume.bytes(at, usize::try_from(record_len).ok()?).ok()?;
    if slice(&record, 0, 4) != b"FILE" {
        return None;
    }
    let mut at = usize::from(le16(&record, 20));
    // As many attributes as a record can hold, each of 24 bytes at least.
    for _ in 0..record.len() / 24 {
        let (kind, len) = (le32(&record, at), usize::try_from(le32(&record, at.checked_add(4)?)).ok()?);
        if kind == 0x60 {
            let value = at.checked_add(usize::from(le16(&record, at.checked_add(20)?)))?;
            let units = slice(&record, value, usize::try_from(le32(&record, at.checked_add(16)?)).ok()?);
            let units: Vec<u16> = units.chunks_exact(2).map(|unit| le16(unit, 0)).collect();
            return label(String::from_utf16_lossy(&units).as_bytes());
        }
        if kind == u32::MAX || len < 24 {
            return None;
        }
        at = at.checked_add(len)?;
    }
    None
}

/// Swap has its signature at the end of a page, as long as the machine's that made it.
fn swap(volume: Volume<'_>) -> Option<FileSystem> {
    for page in [4096_u64, 8192, 16384, 65536] {
        let found = volume.bytes(page.saturating_sub(10), 10).ok()?;
        if matches!(found.as_slice(), b"SWAPSPACE2" | b"SWAP-SPACE") {
            let head = volume.head(HEAD).ok()?;
            let name = label(slice(&head, 1052, 16));
            return Some(FileSystem::new(Kind::Swap, name, uuid(slice(&head, 1036, 16))));
        }
    }
    None
}

fn btrfs(volume: Volume<'_>) -> Option<FileSystem> {
    let block = volume.bytes(0x10000, 0x1000).ok()?;
    (slice(&block, 0x40, 8) == b"_BHRfS_M").then(|| {
        FileSystem::new(Kind::Btrfs, label(slice(&block, 0x12b, 256)), uuid(slice(&block, 0x20, 16)))
    })
}

fn iso9660(volume: Volume<'_>) -> Option<FileSystem> {
    let block = volume.bytes(0x8000, 0x800).ok()?;
    (slice(&block, 1, 5) == b"CD001" && byte(&block, 0) == 1)
        .then(|| FileSystem::new(Kind::Iso9660, label(slice(&block, 40, 32)), None))
}

/// Sixteen bytes as text; `None` if all of them are zero.
fn uuid(bytes: &[u8]) -> Option<String> {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.iter().any(|byte| *byte != 0).then(|| dashed(&digits, &[8, 4, 4, 4, 12]))
}

/// Text in groups with dashes between them.
fn dashed(text: &str, groups: &[usize]) -> String {
    let mut rest = text;
    let mut parts = Vec::new();
    for len in groups {
        let (part, after) = rest.split_at_checked(*len).unwrap_or((rest, ""));
        parts.push(part);
        rest = after;
    }
    parts.join("-")
}
