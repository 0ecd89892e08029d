//! Disks built by hand, one field wrong at a time. Blocks have 1 MiB, the least that the format allows.

#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "a test fails by panicking")]

use super::{Details, DiskType};
use crate::crc32c::crc32c;
use crate::testing::Files;
use crate::{Format, Guid, OpenError, OpenOptions, Role, State, Stored};

mod refusals;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const HEADERS: [usize; 2] = [64 * KIB, 128 * KIB];
const REGIONS: [usize; 2] = [192 * KIB, 256 * KIB];
const LOG: usize = MIB;
const METADATA: usize = 2 * MIB;
const ITEMS: usize = METADATA + 64 * KIB;
const LOCATOR: usize = ITEMS + 64;
const BAT: usize = 3 * MIB;
/// The entry of the first sector bitmap: behind those of 4096 blocks, 4 GiB.
const BITMAP_ENTRY: usize = BAT + 4096 * 8;
const BITMAP: usize = 4 * MIB;
const FIRST: usize = 5 * MIB;
/// Five blocks and three sectors.
const SIZE: usize = 5 * MIB + 1536;

const PARENT: [u8; 16] = [7; 16];

#[derive(Clone)]
struct File(Vec<u8>);

impl File {
    /// Block 0 is stored, 1 is not there, 2 is zero, 3 undefined, 4 unmapped, 5 stored and the last.
    fn dynamic() -> Self {
        let mut file = Self(vec![0; FIRST + 3 * MIB]);
        file.put(0, b"vhdxfile");
        for (at, sequence) in HEADERS.into_iter().zip([5, 6]) {
            file.put(at, b"head").u64(at + 8, sequence).put(at + 32, &PARENT).put(at + 66, &[1]);
            file.u32(at + 68, MIB as u32).u64(at + 72, LOG as u64);
        }
        for at in REGIONS {
            file.put(at, b"regi").u32(at + 8, 2);
            file.region(at, 0, "2dc27766-f623-4200-9d64-115e9bfd4a08", BAT);
            file.region(at, 1, "8b7ca206-4790-4b9a-b8fe-575f050f886e", METADATA);
        }
        file.put(METADATA, b"metadata").put(METADATA + 10, &[5]);
        file.item(0, "caa16737-fa36-4d43-b3b6-33f0aa44e76b", 0, 8);
        file.item(1, "2fa54224-cd1b-4876-b211-5dbed83bf4b8", 8, 8);
        file.item(2, "8141bf1d-a96f-4709-ba47-f233a8faab5f", 16, 4);
        file.item(3, "cda348c7-445d-4471-9cc9-e9885251c556", 20, 4);
        file.item(4, "beca12ab-b2e6-4523-93ef-c309e000c746", 24, 16);
        file.u32(ITEMS, MIB as u32).u64(ITEMS + 8, SIZE as u64).u32(ITEMS + 16, 512).u32(ITEMS + 20, 4096);
        file.put(ITEMS + 24, &[4; 16]);
        for (index, state) in [6, 0, 2, 1, 3, 6].into_iter().enumerate() {
            file.entry(index, state, if state == 6 { FIRST + index / 5 * 2 * MIB } else { 0 });
        }
        for (block, fill) in [0x20, 0x23, 0x25].into_iter().enumerate() {
            file.0[FIRST + block * MIB..][..MIB].fill(fill);
        }
        file
    }

    /// The same, but block 3 has its second sector, its last eight and no other.
    fn differencing() -> Self {
        let mut file = Self::dynamic();
        file.put(ITEMS + 4, &[2]).entry(3, 7, FIRST + MIB).u64(BITMAP_ENTRY, BITMAP as u64 | 6);
        file.put(BITMAP + 3 * 256, &[2]).put(BITMAP + 4 * 256 - 1, &[0xff]);
        file.put(HEADERS[1] + 32, &[9; 16]);
        let id = Guid(PARENT).to_string();
        file.locator(&[
            ("absolute_win32_path", r"C:\disks\base.vhdx"),
            ("parent_linkage", &format!("{{{id}}}")),
            ("relative_path", r".\sub\base.vhdx"),
        ]);
        file
    }

    /// A parent: all of it stored.
    fn base() -> Self {
        let mut file = Self::dynamic();
        file.0.resize(FIRST + 6 * MIB, 0);
        file.0[FIRST..].fill(0xf1);
        for index in 0..6 {
            file.entry(index, 6, FIRST + index * MIB);
        }
        file.put(ITEMS + 4, &[1]);
        file
    }

    fn region(&mut self, table: usize, index: usize, id: &str, at: usize) -> &mut Self {
        let entry = table + 16 + 32 * index;
        self.put(entry, &windows(id))
            .u64(entry + 16, at as u64)
            .u32(entry + 24, MIB as u32)
            .u32(entry + 28, 1)
    }

    fn item(&mut self, index: usize, id: &str, at: usize, len: u32) -> &mut Self {
        let entry = METADATA + 32 + 32 * index;
        self.put(entry, &windows(id)).u32(entry + 16, (64 * KIB + at) as u32).u32(entry + 20, len);
        self.u32(entry + 24, 4)
    }

    /// A parent locator with these keys and values, as the sixth item.
    fn locator(&mut self, pairs: &[(&str, &str)]) -> &mut Self {
        let mut locator = windows("b04aefb7-d19e-4a81-b789-25b8e9445913").to_vec();
        locator.extend([0, 0, pairs.len() as u8, 0]);
        let mut texts = Vec::new();
        for (key, value) in pairs {
            let [key, value] =
                [key, value].map(|text| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>());
            let start = 20 + 12 * pairs.len() + texts.len();
            locator.extend((start as u32).to_le_bytes());
            locator.extend(((start + key.len()) as u32).to_le_bytes());
            locator.extend((key.len() as u16).to_le_bytes());
            locator.extend((value.len() as u16).to_le_bytes());
            texts.extend(key);
            texts.extend(value);
        }
        locator.extend(texts);
        self.put(METADATA + 10, &[6]).put(LOCATOR, &locator);
        self.item(5, "a8d35f2d-b30b-454d-abf7-d3d84834ab0c", 64, locator.len() as u32)
    }

    fn entry(&mut self, index: usize, state: u64, at: usize) -> &mut Self {
        self.u64(BAT + 8 * index, at as u64 | state)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn u32(&mut self, at: usize, value: u32) -> &mut Self {
        self.put(at, &value.to_le_bytes())
    }

    fn u64(&mut self, at: usize, value: u64) -> &mut Self {
        self.put(at, &value.to_le_bytes())
    }

    /// Changes both headers.
    fn headers(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        HEADERS.into_iter().for_each(|header| {
            self.put(header + at, bytes);
        });
        self
    }

    /// Changes both region tables.
    fn regions(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        REGIONS.into_iter().for_each(|table| {
            self.put(table + at, bytes);
        });
        self
    }

    /// Makes the checksums right.
    fn sum(&mut self) -> &mut Self {
        for (at, len) in HEADERS.map(|at| (at, 4 * KIB)).into_iter().chain(REGIONS.map(|at| (at, 64 * KIB))) {
            self.u32(at + 4, 0);
            let sum = crc32c(&[&self.0[at..at + len]]);
            self.u32(at + 4, sum);
        }
        self
    }

    fn files(&self) -> Files {
        Files::one(self.clone().sum().0.clone())
    }

    #[track_caller]
    fn refused(&self, change: impl Fn(&mut Self) -> &mut Self, expected: &str) {
        let mut file = self.clone();
        change(&mut file);
        assert_eq!(error(&file.files()).to_string(), expected);
    }
}

fn windows(id: &str) -> [u8; 16] {
    // The way there is the way back.
    Guid::from_windows(Guid::parse(id).unwrap().0).0
}

#[track_caller]
fn error(files: &Files) -> OpenError {
    let named = OpenOptions { format: Some(Format::Vhdx), ..OpenOptions::default() };
    files.open_with(&named).map(|image| image.map.iter().collect::<Vec<_>>()).unwrap_err()
}

#[test]
fn dynamic_disks() {
    let files = File::dynamic().files();
    let image = files.open().unwrap();
    assert_eq!((image.format(), image.virtual_size()), (Format::Vhdx, SIZE as u64));
    let crate::Details::Vhdx(details) = image.details() else { panic!() };
    let expected = Details {
        disk_type: DiskType::Dynamic,
        block_size: MIB as u64,
        logical_sector_size: 512,
        physical_sector_size: 4096,
        id: Guid([4; 16]),
        data_write_id: Guid(PARENT),
    };
    assert_eq!(*details, expected);
    let states: Vec<_> = image.map().iter().map(|extent| (extent.guest.len, extent.state)).collect();
    let data = |at: usize, len: usize| State::Data(Stored::image(at as u64, len as u64));
    let mib = MIB as u64;
    let expected = [
        (mib, data(FIRST, MIB)),
        (mib, State::Hole),
        (3 * mib, State::Zero),
        (1536, data(FIRST + 2 * MIB, 1536)),
    ];
    assert_eq!(states, expected);
}

#[test]
fn the_last_block_may_end_with_the_disk() {
    let mut file = File::dynamic();
    file.0.truncate(FIRST + 2 * MIB + 1536);
    file.files().open().unwrap();
    file.0.pop();
    let message = error(&file.files()).to_string();
    let expected = "VHDX block allocation table entry 5 points to 1536 bytes at 0x700000, past the end of the file (0x7005ff)";
    assert_eq!(message, expected);
}

#[test]
fn sectors_of_a_parent_show_through() {
    for (sector_size, sectors) in [(512, vec![1..2, 2040..2048]), (4096, vec![1..2, 248..256])] {
        let mut child = File::differencing();
        child.u32(ITEMS + 16, sector_size as u32);
        if sector_size == 4096 {
            // 4 KiB sectors: eight times as many blocks in a chunk.
            child.u64(ITEMS + 8, 6 << 20).u64(BITMAP_ENTRY, 0).u64(BAT + 32768 * 8, BITMAP as u64 | 6);
            child.put(BITMAP + 3 * 256, &[0]).put(BITMAP + 4 * 256 - 1, &[0]);
            child.put(BITMAP + 3 * 32, &[2]).put(BITMAP + 4 * 32 - 1, &[0xff]);
        }
        let files = child.files().and("sub/base.vhdx", File::base().files().0[0].1.clone());
        let image = files.open().unwrap();
        // What the parent is shorter than this one is zero.
        let mut expected = vec![0; image.virtual_size() as usize];
        expected[..SIZE].fill(0xf1);
        expected[..MIB].fill(0x20);
        expected[2 * MIB..3 * MIB].fill(0);
        expected[4 * MIB..5 * MIB].fill(0);
        expected[5 * MIB..].fill(0x25);
        for sectors in sectors {
            expected[3 * MIB..][sectors.start * sector_size..sectors.end * sector_size].fill(0x23);
        }
        assert!(files.guest(&image) == expected, "{sector_size}");
        let [reference] = image.references() else { panic!("{:?}", image.references()) };
        assert_eq!((reference.role, reference.format), (Role::BackingFile, Format::Vhdx));
    }
    assert!(File::differencing().files().open().unwrap().is_partial());
}

#[test]
fn another_parent_is_refused() {
    let with = |change: &dyn Fn(&mut File), base: &dyn Fn(&mut File)| {
        let (mut child, mut parent) = (File::differencing(), File::base());
        change(&mut child);
        base(&mut parent);
        child.files().and("sub/base.vhdx", parent.files().0.remove(0).1)
    };
    let changed = with(&|_| (), &|f| {
        f.put(HEADERS[1] + 32, &[8; 16]);
    });
    assert_eq!(
        error(&changed).to_string(),
        "the backing file has the id 08080808-0808-0808-0808-080808080808, the image was made on \
         07070707-0707-0707-0707-070707070707"
    );
    // The older header's id is not the file's.
    with(&|_| (), &|f| {
        f.put(HEADERS[0] + 32, &[8; 16]);
    })
    .open()
    .unwrap();
    let second = |f: &mut File| {
        let (one, two) = (Guid([3; 16]).to_string(), Guid(PARENT).to_string());
        let path = ("relative_path", "sub/base.vhdx");
        f.locator(&[("parent_linkage", &one), path, ("parent_linkage2", &two)]);
    };
    with(&second, &|_| ()).open().unwrap();
}

#[test]
fn parent_locators() {
    let linkage = ("parent_linkage", "{07070707-0707-0707-0707-070707070707}");
    let name = |pairs: &[(&str, &str)]| {
        let mut file = File::differencing();
        file.locator(pairs);
        file.files().open().map(|image| image.references()[0].name.clone()).map_err(|error| error.to_string())
    };
    let absolute = ("absolute_win32_path", r"C:\a.vhdx");
    let volume = ("volume_path", r"\\?\Volume{0}\a.vhdx");
    assert_eq!(name(&[linkage, absolute, volume, ("relative_path", r"..\a.vhdx")]).unwrap(), "../a.vhdx");
    assert_eq!(name(&[linkage, absolute, volume]).unwrap(), r"\\?\Volume{0}\a.vhdx");
    assert_eq!(name(&[linkage, absolute]).unwrap(), r"C:\a.vhdx");
    let refused = |pairs: &[(&str, &str)], expected: &str| {
        let error = name(pairs).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    };
    refused(&[linkage], "the path in the VHDX parent locator was not found");
    refused(&[absolute], "the GUID parent_linkage in the VHDX parent locator was not found");
    refused(&[absolute, ("parent_linkage", "{7}")], "the GUID parent_linkage in the VHDX parent locator");
    refused(
        &[linkage, absolute, linkage],
        "VHDX parent locator entry 2 is 0x2, expected a key that no other",
    );
    let file = File::differencing();
    file.refused(
        |f| f.put(LOCATOR, &[0]),
        "the image needs a VHDX parent of the unknown kind b04aef00-d19e-4a81-b789-25b8e9445913, which is not supported",
    );
    let outside = |change: &dyn Fn(&mut File) -> &mut File, expected: &str| {
        let mut file = File::differencing();
        change(&mut file);
        let message = error(&file.files()).to_string();
        assert!(message.starts_with(expected), "{message}");
    };
    outside(
        &|f| f.put(LOCATOR + 19, &[9]),
        "the number of entries in the VHDX parent locator is 0x903, expected",
    );
    outside(
        &|f| f.put(LOCATOR + 23, &[9]),
        "VHDX parent locator entry 0 is 0x9000038, expected the place of a text",
    );
    outside(&|f| f.put(LOCATOR + 45, &[9]), "VHDX parent locator entry 2 is 0x9");
    file.refused(
        |f| f.put(METADATA + 10, &[5]),
        "the VHDX parent locator was not found between 0x0 and 0x10000",
    );
}

#[test]
fn the_newer_good_header_holds() {
    let opens = |change: &dyn Fn(&mut File)| {
        let mut file = File::dynamic();
        file.put(HEADERS[0] + 32, &[1; 16]).put(HEADERS[1] + 32, &[2; 16]).sum();
        change(&mut file);
        Files::one(file.0).open().map(|image| match image.details() {
            crate::Details::Vhdx(details) => details.data_write_id.0[0],
            _ => 0,
        })
    };
    assert_eq!(opens(&|_| ()), Ok(2));
    assert_eq!(
        opens(&|f| {
            f.u64(HEADERS[0] + 8, 7).sum();
        }),
        Ok(1)
    );
    // Damage to either leaves the other one.
    for (damaged, holds) in [(0, 2), (1, 1)] {
        for at in [0, 4, 9, 4095] {
            assert_eq!(opens(&|f| f.0[HEADERS[damaged] + at] ^= 1), Ok(holds), "{damaged} {at}");
        }
    }
    let both = opens(&|f| HEADERS.into_iter().for_each(|at| f.0[at + 9] ^= 1)).unwrap_err().to_string();
    assert!(both.starts_with("the checksum in VHDX header entry 1 is 0x"), "{both}");
    let same = opens(&|f| {
        f.u64(HEADERS[0] + 8, 6).sum();
    });
    let expected =
        "the sequence number of both VHDX headers is 0x6, expected two numbers, as the headers differ";
    assert_eq!(same.unwrap_err().to_string(), expected);
    // Disk2vhd writes the same header twice.
    let twice = opens(&|f| {
        f.headers(8, &[6]).headers(32, &[5; 16]).sum();
    });
    assert_eq!(twice, Ok(5));
}

#[test]
fn large_tables_come_in_steps() {
    // 1 TiB in blocks of 1 MiB: a table of 8 MiB, with one entry far behind.
    let mut file = File::dynamic();
    let table = 8 * MIB;
    file.0.resize(17 * MIB, 0);
    file.u64(ITEMS + 8, 1 << 40).regions(34, &[0x80]).regions(42, &[0x90]);
    let block = 1_000_000;
    let files = file.u64(table + 8 * (block + block / 4096), FIRST as u64 | 6).files();
    let image = files.open().unwrap();
    let stored: Vec<_> = image.map().iter().filter(|extent| extent.state.is_stored()).collect();
    assert_eq!(stored.iter().map(|extent| extent.guest.start).collect::<Vec<_>>(), [(block * MIB) as u64]);
}
