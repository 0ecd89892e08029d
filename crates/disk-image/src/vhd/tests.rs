//! Disks built by hand, one field wrong at a time. Blocks have 4 KiB, eight sectors.

#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "a test fails by panicking")]

use super::Details;
use crate::testing::Files;
use crate::{Format, Guid, Image, OpenError, OpenOptions, Role, State, Stored};

mod refusals;

const SECTOR: usize = 512;
const BLOCK: usize = 4096;
const HEADER: usize = SECTOR;
const TABLE: usize = 1536;
const LOCATOR: usize = 2048;
/// Where blocks begin: a bitmap each, then the sectors.
const FIRST: usize = 2560;
const STEP: usize = SECTOR + BLOCK;
/// Three blocks and five sectors.
const SIZE: usize = 3 * BLOCK + 5 * SECTOR;

const PARENT_ID: [u8; 16] = [7; 16];
const CHILD_ID: [u8; 16] = [9; 16];

/// A file whose checksums are made good when it is opened.
#[derive(Clone)]
struct File {
    bytes: Vec<u8>,
    is_fixed: bool,
}

impl File {
    /// A fixed disk of `SIZE` bytes.
    fn fixed() -> Self {
        let mut file = Self { bytes: vec![0xf1; SIZE], is_fixed: true };
        file.bytes.extend(footer(2, PARENT_ID));
        file
    }

    /// A dynamic disk: block 0 stored whole, 1 not there, 2 with two sectors, 3 the last and with all that the disk has of it.
    fn dynamic() -> Self {
        Self::sparse(3, PARENT_ID)
    }

    /// The same blocks over a parent.
    fn differencing() -> Self {
        let mut file = Self::sparse(4, CHILD_ID);
        file.put(HEADER + 40, &PARENT_ID);
        let name: Vec<u8> = "base.vhd".encode_utf16().flat_map(u16::to_be_bytes).collect();
        file.put(HEADER + 64, &name);
        file.locator(0, b"W2ku", &utf16(r"C:\disks\base.vhd"), LOCATOR + 128);
        file.locator(1, b"W2ru", &utf16(r".\sub\base.vhd"), LOCATOR);
        file
    }

    fn sparse(disk_type: u32, id: [u8; 16]) -> Self {
        let mut file = Self { bytes: footer(disk_type, id), is_fixed: false };
        file.bytes.resize(FIRST, 0);
        file.put(HEADER, b"cxsparse").put(HEADER + 8, &[0xff; 8]);
        file.u64(HEADER + 16, TABLE as u64).u32(HEADER + 24, 0x0001_0000).u32(HEADER + 28, 5);
        file.u32(HEADER + 32, BLOCK as u32);
        file.put(TABLE, &[0xff; 20]);
        for (index, bitmap, fill) in [(2, 0x41, 0x22), (0, 0xff, 0x20), (3, 0xff, 0x23)] {
            file.u32(TABLE + 4 * index, (file.bytes.len() / SECTOR) as u32);
            file.bytes.push(bitmap);
            file.bytes.resize(file.bytes.len() + SECTOR - 1, 0);
            file.bytes.resize(file.bytes.len() + BLOCK, fill);
        }
        file.bytes.extend(footer(disk_type, id));
        file
    }

    fn locator(&mut self, index: usize, platform: &[u8; 4], name: &[u8], at: usize) -> &mut Self {
        let entry = HEADER + 576 + 24 * index;
        self.put(entry, platform).u32(entry + 4, 512).u32(entry + 8, name.len() as u32);
        self.u64(entry + 16, at as u64).put(at, name)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn u32(&mut self, at: usize, value: u32) -> &mut Self {
        self.put(at, &value.to_be_bytes())
    }

    fn u64(&mut self, at: usize, value: u64) -> &mut Self {
        self.put(at, &value.to_be_bytes())
    }

    /// Changes the footer, and its copy if there is one.
    fn footer(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        let end = self.bytes.len() - SECTOR;
        if !self.is_fixed {
            self.put(at, bytes);
        }
        self.put(end + at, bytes)
    }

    /// The same with its checksums right.
    fn good(&self) -> Vec<u8> {
        let mut file = self.clone();
        let end = file.bytes.len() - SECTOR;
        sum(&mut file.bytes[end..], 64);
        if !file.is_fixed {
            sum(&mut file.bytes[..SECTOR], 64);
            sum(&mut file.bytes[HEADER..HEADER + 1024], 36);
        }
        file.bytes
    }

    fn files(&self) -> Files {
        Files::one(self.good())
    }

    /// What opening says after a change.
    #[track_caller]
    fn refused(&self, change: impl Fn(&mut Self) -> &mut Self, expected: &str) {
        let mut file = self.clone();
        change(&mut file);
        assert_eq!(error(&file.files()).to_string(), expected);
    }
}

fn footer(disk_type: u32, id: [u8; 16]) -> Vec<u8> {
    let mut footer = File { bytes: vec![0; SECTOR], is_fixed: true };
    footer.put(0, b"conectix").u32(8, 2).u32(12, 0x0001_0000).u64(16, HEADER as u64).put(28, b"win ");
    footer.u64(40, SIZE as u64).u64(48, SIZE as u64).u32(56, 0x0001_0411).u32(60, disk_type).put(68, &id);
    footer.bytes
}

fn sum(bytes: &mut [u8], at: usize) {
    bytes[at..at + 4].fill(0);
    let sum = !bytes.iter().fold(0_u32, |sum, &byte| sum + u32::from(byte));
    bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn named() -> OpenOptions {
    OpenOptions { format: Some(Format::Vhd), ..OpenOptions::default() }
}

#[track_caller]
fn error(files: &Files) -> OpenError {
    files.open_with(&named()).map(|image| image.map.iter().collect::<Vec<_>>()).unwrap_err()
}

fn details(image: &Image) -> &Details {
    let crate::Details::Vhd(details) = image.details() else { panic!() };
    details
}

/// What the dynamic disk holds.
fn content() -> Vec<u8> {
    let mut guest = vec![0; SIZE];
    guest[..BLOCK].fill(0x20);
    for sector in [1, 7] {
        guest[2 * BLOCK + sector * SECTOR..][..SECTOR].fill(0x22);
    }
    guest[3 * BLOCK..].fill(0x23);
    guest
}

#[test]
fn fixed_disks() {
    let files = File::fixed().files();
    let image = files.open().unwrap();
    assert_eq!((image.format(), image.virtual_size()), (Format::Vhd, SIZE as u64));
    let expected = Details {
        disk_type: super::DiskType::Fixed,
        creator: "win".to_owned(),
        block_size: None,
        id: Guid(PARENT_ID),
    };
    assert_eq!(*details(&image), expected);
    assert_eq!(files.guest(&image), vec![0xf1; SIZE]);
    // The footer of 511 bytes that old Virtual PC wrote.
    let mut short = File::fixed().good();
    short.pop();
    let image = Files::one(short).open().unwrap();
    assert_eq!(image.virtual_size(), SIZE as u64);
}

#[test]
fn dynamic_disks() {
    let files = File::dynamic().files();
    let image = files.open().unwrap();
    assert_eq!(details(&image).block_size, Some(BLOCK as u64));
    assert_eq!(files.guest(&image), content());
    let stored: Vec<_> = image.map().iter().filter(|extent| extent.state.is_stored()).collect();
    let data = |at: usize, len: usize| State::Data(Stored::image(at as u64, len as u64));
    assert_eq!(stored[0].state, data(FIRST + STEP + SECTOR, BLOCK));
    assert_eq!(stored[1].state, data(FIRST + SECTOR + SECTOR, SECTOR));
    assert_eq!(stored.len(), 4, "{stored:?}");
}

#[test]
fn the_last_block_may_end_with_the_disk() {
    let mut file = File::dynamic();
    let end = file.bytes.len() - SECTOR;
    file.bytes.drain(end - 3 * SECTOR..end);
    let files = file.files();
    assert_eq!(files.guest(&files.open().unwrap()), content());
    file.bytes.drain(end - 4 * SECTOR..end - 3 * SECTOR);
    let expected = "VHD block allocation table entry 3 points to 3072 bytes at 0x2e00, past the end of the file (0x3800)";
    assert_eq!(error(&file.files()).to_string(), expected);
}

#[test]
fn old_bitmaps_of_xen_go_the_other_way() {
    let mut file = File::dynamic();
    file.footer(28, b"tap\0\0\0\0\x01").put(FIRST, &[0x82]);
    let files = file.files();
    assert_eq!(files.guest(&files.open().unwrap()), content());
    file.footer(32, &0x0001_0003_u32.to_be_bytes()).put(FIRST, &[0x41]);
    let files = file.files();
    assert_eq!(files.guest(&files.open().unwrap()), content());
}

#[test]
fn which_size_holds() {
    let size = |creator: &[u8; 4], geometry: u32| {
        let mut file = File::dynamic();
        file.footer(28, creator).footer(56, &geometry.to_be_bytes()).u32(HEADER + 32, 1 << 31);
        file.u32(HEADER + 28, 64).put(TABLE, &[0xff; 256]);
        file.files().open().unwrap().virtual_size()
    };
    // 2 cylinders, 4 heads, 17 sectors.
    let by_geometry = 2 * 4 * 17 * 512;
    for creator in [b"vpc ", b"qemu"] {
        assert_eq!(size(creator, 0x0002_0411), by_geometry);
        // The largest geometry says no more than "127 GiB or above".
        assert_eq!(size(creator, 0xffff_10ff), SIZE as u64);
        assert_eq!(size(creator, 0), SIZE as u64);
    }
    for creator in [b"qem2", b"win ", b"d2v ", b"tap\0", b"CTXS", b"wa\0\0", b"vs  ", b"vbox"] {
        assert_eq!(size(creator, 0x0002_0411), SIZE as u64);
    }
}

#[test]
fn sectors_of_a_parent_show_through() {
    let parent = File::fixed().good();
    let files = File::differencing().files().and("sub/base.vhd", parent.clone());
    let image = files.open().unwrap();
    let mut expected = vec![0xf1; SIZE];
    expected[..BLOCK].fill(0x20);
    for sector in [1, 7] {
        expected[2 * BLOCK + sector * SECTOR..][..SECTOR].fill(0x22);
    }
    expected[3 * BLOCK..].fill(0x23);
    assert_eq!(files.guest(&image), expected);
    let [reference] = image.references() else { panic!("{:?}", image.references()) };
    assert_eq!((reference.role, reference.format), (Role::BackingFile, Format::Vhd));
    assert!(!image.is_partial());
    // Without its parent it is good for information.
    assert!(File::differencing().files().open().unwrap().is_partial());
}

#[test]
fn chains_of_three() {
    let mut middle = File::differencing();
    middle.put(HEADER + 40, &[3; 16]).footer(68, &PARENT_ID);
    middle.locator(1, b"W2ru", &utf16("root.vhd"), LOCATOR);
    middle.u32(TABLE, u32::MAX).put(FIRST, &[0x80]);
    let mut root = File::fixed();
    root.footer(68, &[3; 16]);
    let files = File::differencing().files().and("sub/base.vhd", middle.good()).and("root.vhd", root.good());
    let guest = files.guest(&files.open().unwrap());
    let starts: Vec<u8> = guest.chunks(SECTOR).skip(16).take(8).map(|sector| sector[0]).collect();
    assert_eq!(starts, [0x22, 0x22, 0xf1, 0xf1, 0xf1, 0xf1, 0xf1, 0x22]);
    assert_eq!(guest[BLOCK], 0xf1);
}

#[test]
fn another_parent_is_refused() {
    let mut parent = File::fixed();
    parent.footer(68, &[8; 16]);
    let files = File::differencing().files().and("sub/base.vhd", parent.good());
    assert_eq!(
        error(&files).to_string(),
        "the backing file has the id 08080808-0808-0808-0808-080808080808, the image was made on \
         07070707-0707-0707-0707-070707070707"
    );
    // An error inside of the parent is told with its file.
    let mut parent = File::fixed();
    parent.footer(60, &9_u32.to_be_bytes());
    let files = File::differencing().files().and("sub/base.vhd", parent.good());
    assert_eq!(error(&files).located().0.0, 1);
}

#[test]
fn names_of_the_parent() {
    let name = |change: &dyn Fn(&mut File) -> &mut File| {
        let mut file = File::differencing();
        change(&mut file);
        file.files().open().unwrap().references()[0].name.clone()
    };
    let no_locator = |file: &mut File| {
        file.put(HEADER + 576, &[0; 48]);
    };
    assert_eq!(name(&|f| f), "sub/base.vhd");
    assert_eq!(
        name(&|f| f.put(HEADER + 576 + 24, b"MacX").put(LOCATOR, b"file://./a b.vhd\0\0\0\0")),
        "a b.vhd"
    );
    assert_eq!(
        name(&|f| {
            no_locator(f);
            f
        }),
        "base.vhd"
    );
    // The path that only Windows follows comes last, and as it is.
    assert_eq!(name(&|f| f.put(HEADER + 600, &[0; 4]).put(HEADER + 64, &[0; 64])), r"C:\disks\base.vhd");
    File::differencing().refused(
        |f| {
            no_locator(f);
            f.put(HEADER + 64, &[0; 64])
        },
        "the name of the VHD parent was not found between 0x0 and 0x4000",
    );
    let refused = |change: &dyn Fn(&mut File) -> &mut File, expected: &str| {
        File::differencing().refused(change, expected);
    };
    refused(
        &|f| f.u64(HEADER + 616, 0x3fff),
        "VHD parent locator entry 1 points to 28 bytes at 0x3fff, past the end of the file (0x4000)",
    );
    let mut long = File::differencing();
    let end = long.bytes.len();
    long.bytes.splice(end - SECTOR..end - SECTOR, vec![0; 100_000]);
    long.refused(
        |f| f.u32(HEADER + 608, 65_537).u64(HEADER + 616, 0x4000),
        "the length of a VHD parent locator is 65537, the limit is 65536",
    );
    refused(
        &|f| f.put(LOCATOR, &[0; 2]),
        "the name in the VHD parent locator was not found between 0x0 and 0x1c",
    );
    refused(
        &|f| f.u64(HEADER + 616, TABLE as u64),
        "the VHD parent locator points to the bytes at 0x600, which something else in the image uses",
    );
}
