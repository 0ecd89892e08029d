//! The disk that is measured, in the formats that are read.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

/// Bytes that the disk stores, of the [`VIRTUAL`] that it has.
pub const STORED: u64 = 64 << 20;

/// Size of the disk.
const VIRTUAL: u64 = 256 << 20;

/// Data lies in runs of this length, with holes as long as three runs between them.
const RUN: u64 = 1 << 20;

/// Images in a temporary folder, which goes with this value.
#[derive(Debug)]
pub struct Images {
    folder: TempDir,
}

impl Images {
    /// Makes the raw disk.
    ///
    /// # Errors
    ///
    /// If there is no room for it.
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let raw = File::create(folder.path().join("raw"))?;
        raw.set_len(VIRTUAL)?;
        let mut pages = Pages::new();
        for index in 0..STORED / RUN {
            let run: Vec<u8> = (0..RUN / PAGE as u64).flat_map(|_| pages.next()).collect();
            raw.write_all_at(&run, index * RUN * (VIRTUAL / STORED))?;
        }
        Ok(Self { folder })
    }

    /// The raw disk.
    pub fn raw(&self) -> PathBuf {
        self.folder.path().join("raw")
    }

    /// The disk in another form, by `qemu-img convert` with these arguments.
    ///
    /// # Errors
    ///
    /// If qemu-img is missing or fails.
    pub fn form(&self, name: &str, arguments: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-f", "raw"]).args(arguments.split(' ')).arg(self.raw()).arg(&path);
        quietly(&mut convert)?;
        Ok(path)
    }

    /// A QCOW2 of 8 TiB with `clusters` clusters of 64 KiB scattered over it.
    ///
    /// # Errors
    ///
    /// If qemu-img or qemu-io are missing or fail.
    pub fn huge(&self, clusters: u64) -> Result<PathBuf> {
        let path = self.folder.path().join("huge");
        quietly(Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&path).arg("8T"))?;
        let distance = (8 << 40) / clusters;
        let mut write = Command::new("qemu-io");
        write.args(["-f", "qcow2", "-t", "unsafe"]);
        for index in 0..clusters {
            write.args(["-c", &format!("write -q -P 7 {} 64k", index * distance / 65_536 * 65_536)]);
        }
        quietly(write.arg(&path))?;
        Ok(path)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

fn quietly(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot run {program} (Debian package qemu-utils)"))?;
    ensure!(status.success(), "{program} failed: {status}");
    Ok(())
}

const PAGE: usize = 4096;

/// Bytes that compress about as well as the files of an operating system do: three pages of words, one of noise.
struct Pages {
    random: Random,
    words: Vec<Vec<u8>>,
}

impl Pages {
    /// Every run of the benchmark has the same pages.
    fn new() -> Self {
        let mut random = Random(1);
        let word = |_| {
            let letters = 4 + random.below(8);
            (0..letters).map(|_| LETTERS[random.below(LETTERS.len())]).chain([b' ']).collect()
        };
        let words = (0..1024).map(word).collect();
        Self { random, words }
    }

    fn next(&mut self) -> Vec<u8> {
        let noise = self.random.below(4) == 0;
        let mut page = Vec::with_capacity(PAGE + 16);
        while page.len() < PAGE {
            if noise {
                page.extend_from_slice(&self.random.next().to_le_bytes());
            } else {
                page.extend_from_slice(&self.words[self.random.below(self.words.len())]);
            }
        }
        page.truncate(PAGE);
        page
    }
}

const LETTERS: &[u8; 26] = b"abcdefghijklmnopqrstuvwxyz";

/// xorshift64 (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`. The bias is of no matter here.
    #[allow(clippy::cast_possible_truncation, reason = "the remainder is below a usize")]
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
