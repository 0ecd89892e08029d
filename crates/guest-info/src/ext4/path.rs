//! Paths, directories and symbolic links.

use super::inode::Inode;
use super::{DAMAGED, Ext4};
use crate::limits::{MAX_DIRECTORY, MAX_LINKS, MAX_NAMES, MAX_PATH};
use crate::source::{Trouble, byte, le16, le32, slice};

const ROOT: u32 = 2;

/// Bytes of a directory entry before the name.
const ENTRY: usize = 8;

/// What to do where the last part of a path is a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Follow,
    Keep,
}

impl Ext4<'_> {
    /// A file of at most `max` bytes; `None` if there is none. A directory or a device is none.
    pub(crate) fn file(&self, path: &str, max: u64) -> Result<Option<Vec<u8>>, Trouble> {
        let Some(inode) = self.resolve(path, Last::Follow)?.filter(Inode::is_file) else { return Ok(None) };
        if inode.len > max {
            return Err(Trouble::TooLong("a file"));
        }
        self.content(&inode, max).map(Some)
    }

    /// The first bytes of a file; `None` if there is none.
    pub(crate) fn head(&self, path: &str, len: u64) -> Result<Option<Vec<u8>>, Trouble> {
        match self.resolve(path, Last::Follow)?.filter(Inode::is_file) {
            Some(inode) => self.content(&inode, len).map(Some),
            None => Ok(None),
        }
    }

    /// True if there is anything of this name: a link that leads nowhere, too.
    pub(crate) fn exists(&self, path: &str) -> Result<bool, Trouble> {
        Ok(self.resolve(path, Last::Keep)?.is_some())
    }

    /// Length of a file, bytes; `None` if there is none.
    pub(crate) fn file_len(&self, path: &str) -> Result<Option<u64>, Trouble> {
        Ok(self.resolve(path, Last::Follow)?.filter(Inode::is_file).map(|inode| inode.len))
    }

    /// The names in a directory, sorted; none if there is no such directory.
    pub(crate) fn names(&self, path: &str) -> Result<Vec<String>, Trouble> {
        let Some(folder) = self.resolve(path, Last::Follow)?.filter(Inode::is_folder) else {
            return Ok(Vec::new());
        };
        let mut names = Vec::new();
        let full = self.entries(&folder, |name, _| {
            if !matches!(name, b"." | b"..") {
                names.push(String::from_utf8_lossy(name).into_owned());
            }
            (names.len() > MAX_NAMES).then_some(())
        })?;
        if full.is_some() {
            return Err(Trouble::TooLong("a directory"));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Shows each entry of a directory until one is the right one.
    fn entries<T>(
        &self,
        folder: &Inode,
        mut shown: impl FnMut(&[u8], u32) -> Option<T>,
    ) -> Result<Option<T>, Trouble> {
        if folder.len > MAX_DIRECTORY {
            return Err(Trouble::TooLong("a directory"));
        }
        let content = self.content(folder, MAX_DIRECTORY)?;
        // Entries do not cross blocks; what a hash tree keeps in its blocks looks like an entry without an inode.
        for block in content.chunks(usize::try_from(self.block).map_err(|_| DAMAGED)?) {
            let mut rest = block;
            while rest.len() >= ENTRY {
                let (inode, len) = (le32(rest, 0), usize::from(le16(rest, 4)));
                // In blocks of 64 KiB the length of the last one does not fit its field.
                let len = if matches!(len, 0 | 65535) { rest.len() } else { len };
                let name = slice(rest, ENTRY, usize::from(byte(rest, 6)));
                if len < ENTRY || len > rest.len() {
                    return Err(Trouble::Damaged("a directory"));
                }
                if inode != 0
                    && let Some(found) = shown(name, inode)
                {
                    return Ok(Some(found));
                }
                rest = rest.get(len..).unwrap_or_default();
            }
        }
        Ok(None)
    }

    /// The inode at the end of an absolute path. Links are resolved within this file system, as they would be where it is the root.
    fn resolve(&self, path: &str, last: Last) -> Result<Option<Inode>, Trouble> {
        let mut rest: Vec<Vec<u8>> = parts(path.as_bytes());
        let mut folders = vec![ROOT];
        let mut links = 0_u32;
        while let Some(part) = rest.pop() {
            match part.as_slice() {
                b"." => continue,
                b".." => {
                    if folders.len() > 1 {
                        folders.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let folder = self.inode(folders.last().copied().unwrap_or(ROOT))?;
            if !folder.is_folder() {
                return Ok(None);
            }
            let Some(number) = self.entries(&folder, |name, inode| (name == part).then_some(inode))? else {
                return Ok(None);
            };
            let inode = self.inode(number)?;
            if inode.is_link() && (last == Last::Follow || !rest.is_empty()) {
                links = links.saturating_add(1);
                if links > MAX_LINKS || inode.len > MAX_PATH {
                    return Err(Trouble::TooLong("a symbolic link"));
                }
                let target = self.content(&inode, MAX_PATH)?;
                if target.first() == Some(&b'/') {
                    folders.truncate(1);
                }
                rest.extend(parts(&target));
                if rest.iter().map(Vec::len).sum::<usize>() as u64 > MAX_PATH {
                    return Err(Trouble::TooLong("a path"));
                }
                continue;
            }
            folders.push(number);
        }
        self.inode(folders.last().copied().unwrap_or(ROOT)).map(Some)
    }
}

/// The parts of a path, the last one first.
fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/').rev().filter(|part| !part.is_empty()).map(<[u8]>::to_vec).collect()
}
