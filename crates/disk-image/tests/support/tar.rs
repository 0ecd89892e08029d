//! Archives that are put together header by header.

#![allow(dead_code, reason = "each test binary uses a part")]

use disk_image::{OpenError, OpenOptions};

use crate::driver::Disk;

/// An archive without its end.
#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    pub(crate) fn file(self, name: &str, content: &[u8]) -> Self {
        self.member(name, b'0', content)
    }

    pub(crate) fn member(self, name: &str, kind: u8, content: &[u8]) -> Self {
        self.with(name, kind, content, |_| ())
    }

    /// A member whose header is changed before its checksum is made.
    pub(crate) fn with(
        mut self,
        name: &str,
        kind: u8,
        content: &[u8],
        change: impl FnOnce(&mut [u8]),
    ) -> Self {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[156] = kind;
        header[257..265].copy_from_slice(b"ustar\x0000");
        change(&mut header);
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend(header);
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// With the end of the archive.
    pub(crate) fn end(&self) -> Vec<u8> {
        let mut bytes = self.0.clone();
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }

    pub(crate) fn open(&self) -> Result<Disk, OpenError> {
        open(self.end(), None)
    }

    #[track_caller]
    pub(crate) fn refused(&self, expected: &str) {
        assert_eq!(self.open().map(|_| ()).unwrap_err().to_string(), expected);
    }
}

pub(crate) fn open(file: Vec<u8>, member: Option<&str>) -> Result<Disk, OpenError> {
    let member = member.map(str::to_owned);
    Disk::parse(file.into(), &OpenOptions { member, ..OpenOptions::default() })
}
