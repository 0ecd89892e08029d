//! Blocks that an output shares with its source (reflinks): nothing is read, written, or stored a second time.
//!
//! `copy_file_range` shares on file systems that can, if both runs begin at a block and in the same one (`copy_file_range(2)`). Elsewhere, and where
//! sharing was switched off when the file system was made, it copies inside the kernel, on one thread and slower than reading and
//! writing on two; so only file systems that share by default are asked.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;

use disk_image::Span;
use rustix::fs::{copy_file_range, fstatfs};

use crate::assemble::to_usize;

/// `XFS_SUPER_MAGIC` and `BTRFS_SUPER_MAGIC` of `linux/magic.h`.
const SHARING: [u64; 2] = [0x5846_5342, 0x9123_683e];

/// The file system of an output, if it lets files share.
#[derive(Debug)]
pub(super) struct Sharing {
    device: Option<u64>,
}

impl Sharing {
    /// Whether `output` can share. Not being able to tell is no.
    pub(super) fn of(output: &File) -> Self {
        let kind = fstatfs(output).ok().and_then(|found| u64::try_from(found.f_type).ok());
        let shares = kind.is_some_and(|kind| SHARING.contains(&kind));
        Self { device: output.metadata().ok().filter(|_| shares).map(|found| found.dev()) }
    }

    /// Has `output` share the run `span` of `file` from `offset` on. Gives how many bytes of it are there now, from the first.
    ///
    /// No error: what could not be shared is read and written, and fails there, if it does, with a place and a reason.
    pub(super) fn share(&self, output: &File, file: &File, span: Span, offset: u64) -> u64 {
        let Some(device) = self.device else { return 0 };
        if !file.metadata().is_ok_and(|found| found.is_file() && found.dev() == device) {
            return 0;
        }
        let (mut from, mut to) = (span.start, offset);
        while from < span.end() {
            let wanted = to_usize(span.end() - from);
            match copy_file_range(file, Some(&mut from), output, Some(&mut to), wanted) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        from - span.start
    }
}
