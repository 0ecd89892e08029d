//! The GUID partition table, and its backup.
//!
//! Either of the two will do, if its checksums are right. Sectors are of 512 or of 4096 bytes: what the header lies at tells.

use disk_image::Guid;

use super::{BIOS_BOOT, ESP, MSR, Partition};
use crate::limits::{MAX_GPT_ENTRIES, MAX_GPT_ENTRY};
use crate::source::{Trouble, Volume, le32, le64, printable, slice};
use crate::unread::{Unread, keep};

const SIGNATURE: &[u8] = b"EFI PART";

/// Length of a header without what a later version may append.
const HEADER: u32 = 92;

/// What a sound table says.
pub(super) struct Found {
    pub(super) id: String,
    pub(super) backup: bool,
    pub(super) sector_size: u64,
    pub(super) partitions: Vec<Partition>,
}

/// The table, or its backup where the table itself is damaged; `None` if neither is sound.
pub(super) fn read(disk: Volume<'_>, notes: &mut Vec<String>, unread: &mut Unread) -> Option<Found> {
    for sector in [512_u64, 4096] {
        let primary = Header::read(disk, sector, 1);
        let last = disk.len().checked_div(sector)?.checked_sub(1)?;
        let mut backup = Header::read(disk, sector, last).map(|found| (last, found));
        if let (Err(_), Ok((header, _))) = (&backup, &primary) {
            // A disk that has grown has its backup where it ended before.
            let was = header.alternate;
            backup = Header::read(disk, sector, was).map(|found| (was, found));
        }
        let (header, entries) = match (primary, &backup) {
            (Ok(primary), Ok((at, _))) => {
                if *at != last {
                    notes.push("the backup GPT is not at the end of the disk, which has grown".to_owned());
                }
                primary
            }
            (Ok(primary), Err(why)) => {
                notes.push(format!("the backup GPT is {why}"));
                primary
            }
            (Err(why), Ok((_, backup))) => {
                notes.push(format!("the GPT is {why}; its backup is sound, and is used"));
                backup.clone()
            }
            (Err(why), Err(other)) => {
                if let Some(limit) = [why, *other].into_iter().find(|why| matches!(why, Unfit::Unread(_))) {
                    keep(&mut unread.partitions, "partitions are not known", &format!("the GPT is {limit}"));
                } else if why != Unfit::Missing {
                    notes.push(format!("the GPT is {why}"));
                }
                continue;
            }
        };
        return Some(Found {
            id: header.disk,
            backup: backup.is_ok(),
            sector_size: sector,
            partitions: partitions(&entries, header.entry_len, sector),
        });
    }
    None
}

/// Why a table is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Unfit {
    #[error("not sound: it has no signature")]
    Missing,
    #[error("not sound: {0}")]
    Unsound(&'static str),
    #[error("not read: {0}")]
    Unread(Trouble),
}

impl Unfit {
    /// What was asked for and not given: by a limit, or because the disk ends before.
    fn of(trouble: Trouble, what: &'static str) -> Self {
        if trouble.is_limit() { Self::Unread(trouble) } else { Self::Unsound(what) }
    }
}

#[derive(Clone)]
struct Header {
    disk: String,
    alternate: u64,
    entry_len: usize,
}

impl Header {
    /// The header at a sector with its entries, if every field and both checksums are right.
    fn read(disk: Volume<'_>, sector: u64, at: u64) -> Result<(Self, Vec<u8>), Unfit> {
        let past = Unfit::Unsound("it lies past the end");
        let offset = at.checked_mul(sector).ok_or(past)?;
        let bytes = disk.bytes(offset, 512).map_err(|why| Unfit::of(why, "it lies past the end"))?;
        if slice(&bytes, 0, 8) != SIGNATURE {
            return Err(Unfit::Missing);
        }
        let header_len = le32(&bytes, 12);
        if !(HEADER..=512).contains(&header_len) {
            return Err(Unfit::Unsound("its header has no sensible length"));
        }
        let mut summed = slice(&bytes, 0, usize::try_from(header_len).unwrap_or(0)).to_vec();
        if let Some(own) = summed.get_mut(16..20) {
            own.fill(0);
        }
        if crc32fast::hash(&summed) != le32(&bytes, 16) {
            return Err(Unfit::Unsound("the checksum of its header is wrong"));
        }
        if le64(&bytes, 24) != at {
            return Err(Unfit::Unsound("its header was made for another place"));
        }
        let (count, entry_len) = (le32(&bytes, 80), le32(&bytes, 84));
        if !(128..=MAX_GPT_ENTRY).contains(&entry_len) || !entry_len.is_multiple_of(128) {
            return Err(Unfit::Unsound("its entries have no sensible length"));
        }
        if count > MAX_GPT_ENTRIES {
            return Err(Unfit::Unread(Trouble::TooLong("its list of partitions")));
        }
        let entry_len = usize::try_from(entry_len).unwrap_or(0);
        let len = usize::try_from(count).unwrap_or(0).saturating_mul(entry_len);
        let start = le64(&bytes, 72).checked_mul(sector).ok_or(past)?;
        let entries = disk.bytes(start, len).map_err(|why| Unfit::of(why, "its entries lie past the end"))?;
        if crc32fast::hash(&entries) != le32(&bytes, 88) {
            return Err(Unfit::Unsound("the checksum of its entries is wrong"));
        }
        Ok((Self { disk: guid(&bytes, 56), alternate: le64(&bytes, 32), entry_len }, entries))
    }
}

fn partitions(entries: &[u8], entry_len: usize, sector: u64) -> Vec<Partition> {
    let mut found = Vec::new();
    for (number, entry) in (1_u32..).zip(entries.chunks_exact(entry_len.max(1))) {
        if slice(entry, 0, 16).iter().all(|byte| *byte == 0) {
            continue;
        }
        let (first, last) = (le64(entry, 32), le64(entry, 40));
        let sectors = last.saturating_add(1).saturating_sub(first);
        let name: Vec<u16> = slice(entry, 56, 72)
            .chunks_exact(2)
            .map(|unit| {
                u16::from_le_bytes([unit.first().copied().unwrap_or(0), unit.last().copied().unwrap_or(0)])
            })
            .take_while(|unit| *unit != 0)
            .collect();
        let name = printable(&String::from_utf16_lossy(&name));
        let type_id = guid(entry, 0);
        found.push(Partition {
            number,
            start: first.saturating_mul(sector),
            size: sectors.saturating_mul(sector),
            type_name: type_name(&type_id),
            type_id,
            name: (!name.is_empty()).then_some(name),
            // Attribute bit 2: legacy BIOS bootable.
            active: le64(entry, 48) & 4 != 0,
            file_system: None,
            volumes: Vec::new(),
        });
    }
    found
}

fn guid(bytes: &[u8], at: usize) -> String {
    let bytes = slice(bytes, at, 16).first_chunk().copied().unwrap_or_default();
    Guid::from_windows(bytes).to_string()
}

fn type_name(guid: &str) -> Option<&'static str> {
    Some(match guid {
        "c12a7328-f81f-11d2-ba4b-00a0c93ec93b" => ESP,
        "21686148-6449-6e6f-744e-656564454649" => BIOS_BOOT,
        "e3c9e316-0b5c-4db8-817d-f92df00215ae" => MSR,
        "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7" => "Microsoft data",
        "de94bba4-06d1-4d40-a16a-bfd50179d6ac" => "Windows recovery",
        "0fc63daf-8483-4772-8e79-3d69d8477de4" => "Linux",
        "4f68bce3-e8cd-4db1-96e7-fbcaf984b709" => "Linux root (x86-64)",
        "b921b045-1df0-41c3-af44-4c6f280d3fae" => "Linux root (ARM64)",
        "bc13c2ff-59e6-4262-a352-b275fd6f7172" => "Linux /boot",
        "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f" => "Linux swap",
        "e6d6d379-f507-44c2-a23c-238f2a3df928" => "Linux LVM",
        "a19d880f-05fc-4d3b-a006-743f0f84911e" => "Linux RAID",
        "933ac7e1-2eb4-4f13-b844-0e14e2aef915" => "Linux /home",
        "9e1a2d38-c612-4316-aa26-8b49521e5a8b" => "PowerPC PReP boot",
        _ => return None,
    })
}
