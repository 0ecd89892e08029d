//! Files that look like two formats, and hostile images of Microsoft's.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::case::{Case, little, put};
use super::qcow2;
use crate::repo::output;
use crate::seed::Seed;

const CONFUSION: &str = "format confusion";
const FIELDS: &str = "header fields";
const MAPPING: &str = "mapping lies";
const REFERENCES: &str = "names a file";

/// Files that look like two formats.
pub(super) fn confusion() -> Vec<Case> {
    let case = |name: &str, image: Vec<u8>| {
        Case::new(
            CONFUSION,
            name,
            &image,
            &["matches both", "first bytes", "not a", "past the end", "descriptor", "is "],
        )
    };
    let disk = |fills: &[(usize, &[u8])]| {
        let mut image = vec![0; 1 << 20];
        put(&mut image, 4096, &Seed::new(8, "disk").bytes(64 << 10));
        put(&mut image, 510, b"\x55\xaa");
        for (at, bytes) in fills {
            put(&mut image, *at, bytes);
        }
        image
    };
    let header = &qcow2::over("/etc/passwd", Some("raw"))[..510];
    let mut boots = qcow2::good();
    put(&mut boots, 510, b"\x55\xaa");
    let mut ext4 = qcow2::good();
    put(&mut ext4, 1080, b"\x53\xef");
    let text =
        b"# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
                 RW 2 FLAT \"/etc/passwd\" 0\n";
    let len = 1 << 20;
    vec![
        case("a disk whose guest wrote a QCOW2 header", disk(&[(0, header)])),
        case("a disk whose guest wrote four bytes", disk(&[(0, b"QFI\xfb")])),
        case("a disk whose guest wrote a VMDK header", disk(&[(0, b"KDMV\x01\0\0\0\x03\0\0\0")])),
        case("a disk whose guest wrote a VMDK descriptor", disk(&[(0, text)])),
        case("a disk whose guest wrote a VHD header", disk(&[(0, b"conectix")])),
        case("a disk whose guest wrote a VHD footer", disk(&[(len - 512, b"conectix\0\0\0\x02\0\x01\0\0")])),
        case("a disk whose guest wrote a VHDX signature", disk(&[(0, b"vhdxfile")])),
        case("a QCOW2 that boots", boots),
        case("a QCOW2 that is ext4", ext4),
    ]
}

/// Hostile images of Microsoft's formats. Good images are made in `folder`.
pub(super) fn microsoft(folder: &Path) -> Result<Vec<Case>> {
    std::fs::write(folder.join("disk.raw"), disk())?;
    let made = |format: &str, options: &str| {
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-f", "raw", "-O", format, "-o", options, "disk.raw", "good"]);
        output(convert.current_dir(folder))?;
        anyhow::Ok(std::fs::read(folder.join("good"))?)
    };
    Ok([vhd(&made("vpc", "force_size=on")?)?, vhdx(&made("vhdx", "block_size=1M")?)?].concat())
}

/// Something in each block.
fn disk() -> Vec<u8> {
    let mut disk = vec![0; 4 << 20];
    for block in 0..4 {
        put(&mut disk, block << 20, &Seed::new(block as u64, "disk").bytes(4096));
    }
    disk
}

/// Byte 65 of a dynamic header, and 64 of a footer: the sum of all other bytes, inverted.
fn with_checksum(image: &mut [u8], at: usize, len: usize, field: usize) {
    image[at + field..at + field + 4].fill(0);
    let sum: u32 = image[at..at + len].iter().map(|byte| u32::from(*byte)).sum();
    image[at + field..at + field + 4].copy_from_slice(&(!sum).to_be_bytes());
}

fn vhd(good: &[u8]) -> Result<Vec<Case>> {
    const HEADER: usize = 512;
    let big = |at: usize| -> Result<usize> {
        let bytes = good.get(at..at + 4).context("the VHD is shorter than expected")?;
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    let table = big(HEADER + 20)?;
    let (first, second) = (big(table)?, big(table + 4)?);
    let mut cases = Vec::new();
    let mut add = |class, name: &str, says: &[&'static str], changes: &[(usize, &[u8])]| {
        let mut image = good.to_vec();
        for (at, bytes) in changes {
            put(&mut image, *at, bytes);
        }
        let end = image.len() - 512;
        // Of what was changed on purpose the checksum is right; the copy at the end says the same.
        with_checksum(&mut image, 0, 512, 64);
        image.copy_within(0..512, end);
        with_checksum(&mut image, HEADER, 1024, 36);
        cases.push(Case::new(class, &format!("VHD {name}"), &image, says).told("vpc"));
    };
    let entry = ["block allocation table", "BAT"];
    let sector = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
    add(MAPPING, "two entries, one block", &entry, &[(table, &sector(second))]);
    add(MAPPING, "blocks that overlap", &entry, &[(table, &sector(first + 1))]);
    add(MAPPING, "block past the end", &entry, &[(table, &sector(0x7fff_ffff))]);
    add(MAPPING, "block in the header", &entry, &[(table, &sector(1))]);
    add(MAPPING, "block is the table", &entry, &[(table, &sector(table / 512))]);
    for size in [0_u32, 511, 1 << 31] {
        add(
            FIELDS,
            &format!("block size {size:#x}"),
            &["block size", "block allocation table"],
            &[(HEADER + 32, &size.to_be_bytes())],
        );
    }
    for entries in [0_u32, 1, u32::MAX] {
        let says = ["block allocation table", "BAT", "number of table entries"];
        add(FIELDS, &format!("{entries:#x} table entries"), &says, &[(HEADER + 28, &entries.to_be_bytes())]);
    }
    add(FIELDS, "table past the end", &entry, &[(HEADER + 16, &(1_u64 << 40).to_be_bytes())]);
    add(FIELDS, "size 2^63", &["size"], &[(48, &(1_u64 << 63).to_be_bytes())]);
    add(FIELDS, "header in the footer", &["header", "offset"], &[(16, &0_u64.to_be_bytes())]);
    add(
        REFERENCES,
        "differencing",
        &["names the", "parent", "differencing", "backing file"],
        &[(60, &4_u32.to_be_bytes())],
    );
    let mut flipped = good.to_vec();
    flipped[HEADER + 40] ^= 1;
    cases.push(Case::new(FIELDS, "VHD header checksum wrong", &flipped, &["checksum"]).told("vpc"));
    Ok(cases)
}

fn vhdx(good: &[u8]) -> Result<Vec<Case>> {
    const BAT: [u8; 16] =
        [0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08];
    /// The first region table.
    const REGIONS: usize = 192 << 10;
    let regions = good.get(REGIONS..REGIONS + 4096).context("the VHDX is shorter than expected")?;
    let entry = regions.windows(16).position(|guid| guid == BAT).context("the VHDX has no BAT region")?;
    let table = usize::try_from(little::<8>(good, REGIONS + entry + 16)?)?;
    let (first, second) = (little::<8>(good, table)?, little::<8>(good, table + 8)?);
    let mut cases = Vec::new();
    let mut add = |class, name: &str, says: &[&'static str], at: usize, bytes: &[u8]| {
        let mut image = good.to_vec();
        put(&mut image, at, bytes);
        cases.push(Case::new(class, &format!("VHDX {name}"), &image, says).told("vhdx"));
    };
    let entry = ["block allocation table", "BAT"];
    add(MAPPING, "two entries, one block", &entry, table, &second.to_le_bytes());
    add(MAPPING, "block past the end", &entry, table, &((1_u64 << 50) | 6).to_le_bytes());
    add(MAPPING, "block in the header", &entry, table, &((1_u64 << 20) | 6).to_le_bytes());
    add(MAPPING, "block is the table", &entry, table, &(table as u64 | 6).to_le_bytes());
    add(MAPPING, "reserved bits of an entry", &entry, table, &(first | 1 << 10).to_le_bytes());
    add(MAPPING, "state 4 of an entry", &entry, table, &(first & !7 | 4).to_le_bytes());
    add(
        MAPPING,
        "block partly present",
        &[&entry[..], &["parent", "partial"]].concat(),
        table,
        &(first | 7).to_le_bytes(),
    );
    // Both copies of the headers and of the region table have checksums, and all of these break one copy of them.
    for (name, at) in [("first header", 64 << 10), ("first region table", REGIONS)] {
        let mut image = good.to_vec();
        image[at + 100] ^= 1;
        image[at + (64 << 10) + 100] ^= 1;
        let case = Case::new(
            FIELDS,
            &format!("VHDX {name} and its copy damaged"),
            &image,
            &["header", "region table", "checksum"],
        );
        cases.push(case.told("vhdx"));
    }
    let metadata = regions
        .windows(16)
        .position(|guid| guid[..4] == [0x06, 0xa2, 0x7c, 0x8b])
        .context("the VHDX has no metadata region")?;
    let metadata = usize::try_from(little::<8>(good, REGIONS + metadata + 16)?)?;
    let mut add = |name: &str, at: usize, bytes: &[u8]| {
        let mut image = good.to_vec();
        put(&mut image, metadata + at, bytes);
        cases.push(
            Case::new(FIELDS, &format!("VHDX {name}"), &image, &["metadata", "file parameters"]).told("vhdx"),
        );
    };
    add("2^16 metadata entries", 10, &u16::MAX.to_le_bytes());
    add("no metadata entries", 10, &0_u16.to_le_bytes());
    add("metadata item past its region", 32 + 16, &u32::MAX.to_le_bytes());
    add("metadata item of 2^32 bytes", 32 + 20, &u32::MAX.to_le_bytes());
    Ok(cases)
}
