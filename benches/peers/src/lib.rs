//! What the converters share: their arguments, and writing a raw file that is as sparse as they know how.
//!
//! Each program is what somebody would write with that crate in an afternoon and then tune: reads of 1 MiB, holes skipped where
//! the crate names them, pages of zeroes left out where it does not. They measure the crate, not the program.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use anyhow::{Result, bail};

/// Bytes that are read at a time. Larger ones leave the cache of a core; smaller ones cost calls.
pub const CHUNK: usize = 1 << 20;

/// Unit in which zeroes are looked for.
const PAGE: usize = 4096;

/// Where an image is, and where its raw form goes.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The image.
    pub image: PathBuf,
    /// The raw file.
    pub raw: PathBuf,
}

impl Paths {
    /// The two arguments of the command line.
    ///
    /// # Errors
    ///
    /// If there are not two.
    pub fn from_arguments() -> Result<Self> {
        Self::of(&std::env::args_os().skip(1).collect::<Vec<_>>())
    }

    /// The same after a word that is not always there, and whether it is.
    ///
    /// # Errors
    ///
    /// If there are not two besides.
    pub fn after(word: &str) -> Result<(bool, Self)> {
        let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
        match arguments.split_first() {
            Some((first, rest)) if first == word => Ok((true, Self::of(rest)?)),
            _ => Ok((false, Self::of(&arguments)?)),
        }
    }

    fn of(arguments: &[OsString]) -> Result<Self> {
        let [image, raw] = arguments else { bail!("usage: IMAGE RAW") };
        Ok(Self { image: image.into(), raw: raw.into() })
    }

    /// Makes the raw file, all of it a hole.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub fn create_raw(&self, len: u64) -> io::Result<File> {
        let raw = File::create(&self.raw)?;
        raw.set_len(len)?;
        Ok(raw)
    }
}

/// Writes what is not zero, run by run.
///
/// # Errors
///
/// If a write fails.
pub fn write_sparse(raw: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    const ZEROES: [u8; PAGE] = [0; PAGE];
    let is_zero = |at: usize| {
        let page = &bytes[at..bytes.len().min(at + PAGE)];
        page == &ZEROES[..page.len()]
    };
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        while at < bytes.len() && !is_zero(at) {
            at += PAGE;
        }
        let end = at.min(bytes.len());
        if start < end {
            raw.write_all_at(&bytes[start..end], offset + start as u64)?;
        }
        at += PAGE;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_pages_are_left_out_and_nothing_else() {
        let mut bytes = vec![0; 5 * PAGE + 7];
        bytes[PAGE + 1] = 1;
        bytes[2 * PAGE] = 2;
        bytes[5 * PAGE + 6] = 3;
        let path = std::env::temp_dir().join(format!("peers-{}", std::process::id()));
        let raw = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        raw.set_len(100 + bytes.len() as u64).unwrap();
        write_sparse(&raw, &bytes, 100).unwrap();
        let mut back = vec![0; bytes.len()];
        raw.read_exact_at(&mut back, 100).unwrap();
        std::fs::remove_file(path).unwrap();
        assert_eq!(back, bytes);
    }
}
