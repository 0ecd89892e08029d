//! Folders of VMDK files in memory, and samples of extent files.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use disk_image::vmdk::Details;
use disk_image::{Feature, FileId, ObjectMap, OpenError, OpenOptions, Reference, Span};

use super::driver::{Disk, Named};
use super::esx::{SeGrain, cowd, sesparse};
use super::vmdk::{Builder, GRAIN, content};

const MIB: usize = 1 << 20;

/// The files of a folder.
#[derive(Default, Clone)]
pub(crate) struct Folder {
    pub(crate) files: HashMap<String, Named>,
    /// True to pass over what is named.
    pub(crate) skip: bool,
}

impl Folder {
    pub(crate) fn with(mut self, name: &str, bytes: impl Into<Bytes>) -> Self {
        self.files.insert(name.into(), Named { bytes: bytes.into(), allocation: None });
        self
    }

    pub(crate) fn with_holes(mut self, name: &str, bytes: impl Into<Bytes>, allocation: Vec<Span>) -> Self {
        self.files.insert(name.into(), Named { bytes: bytes.into(), allocation: Some(allocation) });
        self
    }

    pub(crate) fn open(&self, file: impl Into<Bytes>) -> Result<Disk, OpenError> {
        let read = |reference: &Reference| {
            let named = || self.files.get(&reference.name).cloned();
            (!self.skip).then(|| named().unwrap_or_else(|| panic!("names {reference:?}")))
        };
        Disk::parse_with(file.into(), &read, &OpenOptions::default())
    }

    pub(crate) fn refusal(&self, file: impl Into<Bytes>) -> OpenError {
        self.open(file).map(|disk| disk.image).unwrap_err()
    }
}

/// A descriptor with these extent lines.
pub(crate) fn descriptor(create_type: &str, lines: &[&str]) -> String {
    let lines = lines.join("\n");
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=1234abcd\nparentCID=ffffffff\ncreateType=\"{create_type}\"\n\n\
         # Extent description\n{lines}\n\n# The Disk Data Base\n#DDB\nddb.adapterType = \"ide\"\n"
    )
}

/// The same for a delta on the file `parent`.
pub(crate) fn delta(cid: &str, parent: &str, lines: &[&str]) -> String {
    descriptor("custom", lines)
        .replace("parentCID=ffffffff", &format!("parentCID={cid}\nparentFileNameHint=\"{parent}\""))
}

pub(crate) fn details(disk: &Disk) -> &Details {
    match disk.image.details() {
        disk_image::Details::Vmdk(details) => details,
        other => panic!("{other:?}"),
    }
}

/// Compares in parts that cut grains and extents.
pub(crate) fn assert_reads(disk: &Disk, expected: &[u8]) {
    const PART: usize = MIB + 4096 - 512;
    let layout = ObjectMap::raw(disk.image.virtual_size());
    assert_eq!(layout.len(), expected.len() as u64);
    for (expected, start) in expected.chunks(PART).zip((0..).step_by(PART)) {
        let part = disk.part(&layout, Span::new(start, expected.len() as u64)).unwrap();
        let differs = part.iter().zip(expected).position(|(ours, theirs)| ours != theirs);
        assert_eq!(differs, None, "part at {start:#x}");
    }
    let covered: u64 = disk.image.map().iter().map(|extent| extent.guest.len).sum();
    assert_eq!(covered, disk.image.virtual_size());
}

pub(crate) fn in_file(file: u16, error: OpenError) -> OpenError {
    OpenError::In { file: FileId(file), error: Box::new(error) }
}

pub(crate) fn unsupported(feature: Feature) -> OpenError {
    OpenError::Unsupported(feature)
}

/// A COWD file of `sectors` in grains of a sector, with some data, and its guest bytes.
pub(crate) fn cowd_sample(sectors: u32) -> (Vec<u8>, Vec<u8>) {
    let mut guest = vec![0; sectors as usize * 512];
    let grains: BTreeMap<u64, Vec<u8>> = [0, 1, 2, 77, 4095, 4096, u64::from(sectors) - 1]
        .into_iter()
        .map(|index| (index, content(index + 4, 512)))
        .collect();
    for (index, data) in &grains {
        guest[*index as usize * 512..][..512].copy_from_slice(data);
    }
    (cowd(sectors, 1, &grains), guest)
}

/// The same in seSparse.
pub(crate) fn sesparse_sample(sectors: u64) -> (Vec<u8>, Vec<u8>) {
    let mut guest = vec![0; sectors as usize * 512];
    let mut grains = BTreeMap::new();
    for index in [0, 1, 5, 4095, 4096, 4097] {
        let data = content(index + 2, 4096);
        guest[index as usize * 4096..][..4096].copy_from_slice(&data);
        grains.insert(index, SeGrain::Data(data));
    }
    grains.insert(2, SeGrain::Zero);
    grains.insert(3, SeGrain::Unmapped);
    (sesparse(sectors, &grains), guest)
}

/// A stream whose last grain is short, also in the file, and its guest bytes.
pub(crate) fn stream_sample() -> Builder {
    Builder::stream(128 + 3).grain(0, content(1, GRAIN)).grain(1, content(4, 3 * 512))
}
