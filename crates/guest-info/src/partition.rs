//! Partition tables: GPT, MBR with logical partitions, or none.
//!
//! Sources: UEFI Specification 2.10, section 5 (GPT, protective MBR); the master boot record as IBM's and Microsoft's systems write
//! it. A GPT is believed only beside a protective MBR, as firmware and Linux do. A table that makes no sense is told in a note and
//! left out. Cost: the first sectors, the last ones, and one sector for each logical partition.

mod gpt;
mod mbr;

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;

use crate::filesystem::FileSystem;
use crate::limits::MAX_PARTITIONS;
use crate::source::{Volume, byte, slice};
use crate::unread::{Unread, keep};

/// How a disk is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    /// Not at all, or by nothing that is known here.
    None,
    /// Master boot record.
    Mbr,
    /// GUID partition table.
    Gpt,
}

/// The partition table of a disk.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    /// Its kind.
    pub kind: TableKind,
    /// The disk's GUID, or the signature of an MBR.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// GPT: the MBR has partitions besides the protective one.
    pub hybrid: bool,
    /// GPT: the backup at the end of the disk is sound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<bool>,
    /// Bytes of a sector that the table counts in.
    pub sector_size: u64,
    /// The first sector begins with code.
    pub boot_code: bool,
    /// Whose code it is, where it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_loader: Option<&'static str>,
}

/// A partition.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Partition {
    /// Its number, as Linux counts; 0 for a file system that has the whole disk.
    pub number: u32,
    /// First byte.
    pub start: u64,
    /// Length, bytes.
    pub size: u64,
    /// What the table says that it is for: a GUID, or a number like `0x83`.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub type_id: String,
    /// The same as words, where they are known here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub type_name: Option<&'static str>,
    /// Its name in a GPT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// MBR: marked to boot from.
    pub active: bool,
    /// What it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_system: Option<FileSystem>,
    /// The logical volumes of LVM in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<LogicalVolume>,
}

/// A logical volume of LVM.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogicalVolume {
    /// Names of its group and of itself, with a slash between them.
    pub name: String,
    /// First byte; none if it is not one run of this partition, and not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<u64>,
    /// Length, bytes.
    pub size: u64,
    /// What it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_system: Option<FileSystem>,
}

/// A volume with a file system, or what else was recognised in it: a partition, or a part of one.
#[derive(Clone, Copy)]
pub(crate) struct Held<'a> {
    /// Number of the partition.
    pub(crate) partition: u32,
    pub(crate) start: u64,
    pub(crate) size: u64,
    pub(crate) found: &'a FileSystem,
}

/// What all volumes hold, those of LVM behind the partition in which they lie.
pub(crate) fn held(partitions: &[Partition]) -> impl Iterator<Item = Held<'_>> + Clone {
    partitions.iter().flat_map(|partition| {
        let number = partition.number;
        let of = move |start, size, found| Held { partition: number, start, size, found };
        let itself =
            partition.file_system.iter().map(move |found| of(partition.start, partition.size, found));
        let inside = partition
            .volumes
            .iter()
            .filter_map(move |volume| Some(of(volume.start?, volume.size, volume.file_system.as_ref()?)));
        itself.chain(inside)
    })
}

/// What firmware of the UEFI kind boots from.
pub(crate) const ESP: &str = "EFI system";

/// Where GRUB puts what has no other place on a GPT.
pub(crate) const BIOS_BOOT: &str = "BIOS boot";

/// What Windows keeps for itself on every GPT.
pub(crate) const MSR: &str = "Microsoft reserved";

/// Each part of a group describes all of its volumes: they are listed where they lie.
pub(crate) fn list_once(partitions: &mut [Partition]) {
    let volumes = partitions.iter().flat_map(|partition| &partition.volumes);
    let placed: BTreeSet<String> =
        volumes.filter(|volume| volume.start.is_some()).map(|volume| volume.name.clone()).collect();
    for partition in partitions {
        partition.volumes.retain(|volume| volume.start.is_some() || !placed.contains(&volume.name));
    }
}

/// Reads the table. What is odd about it is added to `notes`, what is left out of it to `unread`.
pub(crate) fn read(
    disk: Volume<'_>,
    notes: &mut Vec<String>,
    unread: &mut Unread,
) -> (Table, Vec<Partition>) {
    let mut table = Table {
        kind: TableKind::None,
        id: None,
        hybrid: false,
        backup: None,
        sector_size: 512,
        boot_code: false,
        boot_loader: None,
    };
    let first = match disk.bytes(0, 512) {
        Ok(first) => first,
        Err(why) if why.is_limit() => {
            keep(&mut unread.partitions, "the partition table is not read", &why);
            return (table, Vec::new());
        }
        Err(_) => {
            notes.push("the disk has less than a sector".to_owned());
            return (table, Vec::new());
        }
    };
    table.boot_code = slice(&first, 0, mbr::CODE).iter().any(|byte| *byte != 0);
    table.boot_loader = boot_loader(&first);
    let record = mbr::Record::parse(&first);
    let mut partitions = Vec::new();
    if let Some(record) = &record {
        if record.is_protective() {
            match gpt::read(disk, notes, unread) {
                Some(found) => {
                    table.kind = TableKind::Gpt;
                    table.id = Some(found.id);
                    table.backup = Some(found.backup);
                    table.sector_size = found.sector_size;
                    table.hybrid = record.has_others();
                    partitions = found.partitions;
                }
                None if unread.partitions.is_some() => {}
                None => notes.push("there is a protective MBR, and no sound GPT beside it".to_owned()),
            }
        } else {
            table.kind = TableKind::Mbr;
            table.id = record.id();
            partitions = record.partitions(disk, notes, unread);
        }
    }
    if partitions.len() > MAX_PARTITIONS {
        let why = format!("of {} the first {MAX_PARTITIONS} are looked at", partitions.len());
        keep(&mut unread.partitions, "there are many partitions", &why);
        partitions.truncate(MAX_PARTITIONS);
    }
    for partition in &partitions {
        if partition.start.saturating_add(partition.size) > disk.len() {
            notes.push(format!("partition {} reaches past the end of the disk", partition.number));
        }
    }
    (table, partitions)
}

/// Whose boot code a sector holds, by the texts in it.
pub(crate) fn boot_loader(sector: &[u8]) -> Option<&'static str> {
    const TEXTS: [(&[u8], &str); 6] = [
        (b"GRUB", "GRUB"),
        (b"SYSLINUX", "SYSLINUX"),
        (b"EXTLINUX", "EXTLINUX"),
        (b"BOOTMGR", "Windows"),
        (b"Missing operating system", "generic"),
        (b"LILO", "LILO"),
    ];
    let has = |text: &[u8]| sector.windows(text.len()).any(|window| window == text);
    // syslinux's own record has no name in it but its version of the usual words.
    TEXTS.iter().find(|(text, _)| byte(sector, 0) != 0 && has(text)).map(|(_, name)| *name)
}
