//! FAT made by hand: the tools that make it are not everywhere.

use super::MIB;

const SECTOR: usize = 512;
const CLUSTER: usize = 2048;
const RESERVED: usize = 4;

/// A FAT16 of 16 MiB or more with empty files at these paths, in short names.
pub(crate) fn with_files(len: u64, paths: &[&str]) -> Vec<u8> {
    assert!((16 * MIB..128 * MIB).contains(&len));
    let sectors = len as usize / SECTOR;
    let table_sectors = (sectors / 4 * 2).div_ceil(SECTOR) + 1;
    let mut disk = vec![0; RESERVED * SECTOR + 2 * table_sectors * SECTOR + 32 * SECTOR + CLUSTER * 64];
    disk[..11].copy_from_slice(b"\xeb\x3c\x90mkfs.fat");
    disk[11..13].copy_from_slice(&(SECTOR as u16).to_le_bytes());
    disk[13] = (CLUSTER / SECTOR) as u8;
    disk[14..16].copy_from_slice(&(RESERVED as u16).to_le_bytes());
    disk[16] = 2;
    disk[17..19].copy_from_slice(&512_u16.to_le_bytes());
    disk[21] = 0xf8;
    disk[22..24].copy_from_slice(&(table_sectors as u16).to_le_bytes());
    disk[32..36].copy_from_slice(&(sectors as u32).to_le_bytes());
    disk[36] = 0x80;
    disk[38] = 0x29;
    disk[39..43].copy_from_slice(&0x1234_abcd_u32.to_le_bytes());
    disk[43..54].copy_from_slice(b"EFI SYS    ");
    disk[54..62].copy_from_slice(b"FAT16   ");
    disk[510..512].copy_from_slice(b"\x55\xaa");

    let table = RESERVED * SECTOR;
    let root = table + 2 * table_sectors * SECTOR;
    let data = root + 32 * SECTOR;
    let mut next = 2_u16;
    for path in paths {
        let mut folder = root;
        let names: Vec<&str> = path.split('/').collect();
        for (i, name) in names.iter().enumerate() {
            let short = short(name);
            let is_folder = i + 1 < names.len();
            let slots = (folder..).step_by(32);
            let at = slots.into_iter().find(|at| disk[*at] == 0 || disk[*at..*at + 11] == short).unwrap();
            if disk[at] == 0 {
                disk[at..at + 11].copy_from_slice(&short);
                disk[at + 11] = if is_folder { 0x10 } else { 0x20 };
                disk[at + 26..at + 28].copy_from_slice(&next.to_le_bytes());
                for copy in [table, table + table_sectors * SECTOR] {
                    let entry = copy + usize::from(next) * 2;
                    disk[entry..entry + 2].copy_from_slice(b"\xff\xff");
                }
                next += 1;
            }
            let cluster = u16::from_le_bytes([disk[at + 26], disk[at + 27]]);
            folder = data + (usize::from(cluster) - 2) * CLUSTER;
        }
    }
    disk
}

fn short(name: &str) -> [u8; 11] {
    let (stem, extension) = name.split_once('.').unwrap_or((name, ""));
    format!("{stem:<8}{extension:<3}").into_bytes().try_into().unwrap()
}
