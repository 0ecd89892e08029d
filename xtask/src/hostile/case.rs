//! A crafted image: its files, what may be opened of them, and the only disk that it may become.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{CWD, Mode, mkfifoat};

use crate::kinds::IMAGE;

/// What is stored of a file: pages that are not zero, and the length.
#[derive(Debug, Clone)]
pub(super) struct Pages {
    pages: Vec<(u64, Box<[u8]>)>,
    len: u64,
}

impl Pages {
    fn new(bytes: &[u8], len: u64) -> Self {
        const PAGE: usize = 4096;
        let pages = bytes.chunks(PAGE).zip((0..).step_by(PAGE));
        let stored = pages.filter(|(page, _)| page.iter().any(|byte| *byte != 0));
        Self { pages: stored.map(|(page, at)| (at, page.into())).collect(), len }
    }

    fn write(&self, path: &Path) -> Result<()> {
        let file = File::create(path)?;
        for (at, page) in &self.pages {
            file.write_all_at(page, *at)?;
        }
        file.set_len(self.len)?;
        Ok(())
    }
}

/// A file of a case.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// A file.
    File(Pages),
    /// A symbolic link to there.
    Link(&'static str),
    /// Another name of the image.
    SameAsImage,
    /// Nobody writes into it.
    Fifo,
}

impl Content {
    /// A file of these bytes.
    pub(super) fn bytes(bytes: &[u8]) -> Self {
        Self::File(Pages::new(bytes, bytes.len() as u64))
    }
}

/// A crafted image.
#[derive(Debug, Clone)]
pub(super) struct Case {
    /// The class of attack.
    pub(super) class: &'static str,
    /// What it is.
    pub(super) name: String,
    files: Vec<(String, Content)>,
    /// Further arguments of `image-prep convert`.
    pub(super) ours: Vec<&'static str>,
    /// The format to tell qemu-img, where it would otherwise not see what is attacked.
    pub(super) format: Option<&'static str>,
    /// Files beyond the image that may be opened.
    pub(super) may_open: Vec<String>,
    /// The disk that it may become instead of being refused, and its length.
    truth: Option<Pages>,
    /// A refusal says one of these.
    pub(super) says: Vec<&'static str>,
}

impl Case {
    /// An image of these bytes. Its refusal must say one of `says`.
    pub(super) fn new(class: &'static str, name: &str, image: &[u8], says: &[&'static str]) -> Self {
        Self {
            class,
            name: name.to_owned(),
            files: vec![(IMAGE.to_owned(), Content::bytes(image))],
            ours: Vec::new(),
            format: None,
            may_open: Vec::new(),
            truth: None,
            says: says.to_vec(),
        }
    }

    /// Another name in its folder. It may be opened, unless it leads elsewhere.
    pub(super) fn with(mut self, name: &str, content: Content) -> Self {
        if !matches!(content, Content::Link(_)) {
            self.may_open.push(name.to_owned());
        }
        self.files.push((name.to_owned(), content));
        self
    }

    /// References are allowed.
    pub(super) fn allowed(mut self) -> Self {
        self.ours.push("--allow-references");
        self
    }

    /// qemu-img is told this format.
    pub(super) fn told(mut self, format: &'static str) -> Self {
        self.format = Some(format);
        self
    }

    /// It may become this disk: the bytes, and zeroes up to the length.
    pub(super) fn or_disk(mut self, bytes: &[u8], len: u64) -> Self {
        self.truth = Some(Pages::new(bytes, len));
        self
    }

    /// Writes the files.
    pub(super) fn make(&self, folder: &Path) -> Result<()> {
        for (name, content) in &self.files {
            let path = folder.join(name);
            match content {
                Content::File(pages) => pages.write(&path)?,
                Content::Link(to) => std::os::unix::fs::symlink(to, path)?,
                Content::SameAsImage => fs::hard_link(folder.join(IMAGE), path)?,
                Content::Fifo => mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR)?,
            }
        }
        Ok(())
    }

    /// The length of the disk that it may become.
    pub(super) fn truth_len(&self) -> Option<u64> {
        self.truth.as_ref().map(|pages| pages.len)
    }

    /// Whether the disk that it may become has no data.
    pub(super) fn is_empty_disk(&self) -> bool {
        self.truth.as_ref().is_some_and(|pages| pages.pages.is_empty())
    }

    /// The digest of the disk that it may become.
    pub(super) fn truth(&self, folder: &Path) -> Result<Option<String>> {
        let Some(pages) = &self.truth else { return Ok(None) };
        let path = folder.join("truth.raw");
        pages.write(&path)?;
        let digest = crate::sparse::digest(&path)?;
        fs::remove_file(path)?;
        Ok(Some(digest))
    }
}

/// Puts `bytes` at `at`, making room where there is none.
pub(super) fn put(image: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if image.len() < at + bytes.len() {
        image.resize(at + bytes.len(), 0);
    }
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A number of `N` bytes, little-endian.
pub(super) fn little<const N: usize>(image: &[u8], at: usize) -> Result<u64> {
    let bytes = image.get(at..at + N).context("the image is shorter than expected")?;
    Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}
