//! The bytes of a guest as the parsers here see them: random access, in pages that are read once, counted and limited.
//!
//! Whatever a parser does with a hostile disk, it does it through [`View`], which refuses when [`limits::MAX_READ`] bytes were read
//! or [`limits::MAX_QUESTIONS`] questions asked. A source that fails is remembered, so that its error is told in the end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::error::Error as StdError;

use crate::limits::{self, MAX_AT_ONCE, MAX_QUESTIONS, MAX_READ, QUESTION};

/// Why a source failed.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// The bytes that a guest would see.
pub trait GuestBytes {
    /// Length of the disk, bytes.
    fn len(&self) -> u64;

    /// True if there is no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Length of the largest unit that only decodes as a whole, bytes; 0 if there is none. Reads are made of whole ones.
    fn unit(&self) -> u64 {
        0
    }

    /// Fills `into` from `offset` on, all of it inside of the disk.
    ///
    /// # Errors
    ///
    /// If the bytes cannot be had. Nothing is asked for after that.
    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), Cause>;
}

impl GuestBytes for Vec<u8> {
    fn len(&self) -> u64 {
        self.as_slice().len() as u64
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), Cause> {
        let run = usize::try_from(offset).ok().and_then(|at| self.get(at..)?.get(..into.len()));
        into.copy_from_slice(run.ok_or("past the end")?);
        Ok(())
    }
}

/// Why something about a disk is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("the disk could not be read")]
    Source,
    #[error("{} MiB of the disk were read, and no more are", MAX_READ >> 20)]
    ReadLimit,
    #[error("the disk asks for more work than any should")]
    WorkLimit,
    #[error("{0} points past the end")]
    Beyond(&'static str),
    #[error("{0} makes no sense")]
    Damaged(&'static str),
    #[error("{0} is not read here")]
    Unsupported(&'static str),
    #[error("{0} is too long")]
    TooLong(&'static str),
}

/// What may be asked of a disk in all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    /// Guest bytes.
    pub(crate) read: u64,
    /// Questions.
    pub(crate) questions: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { read: MAX_READ, questions: MAX_QUESTIONS }
    }
}

/// A disk, and what was read of it.
pub(crate) struct View {
    len: u64,
    page: u64,
    budget: Budget,
    inner: RefCell<Inner>,
}

struct Inner {
    source: Box<dyn GuestBytes>,
    pages: BTreeMap<u64, Vec<u8>>,
    read: u64,
    questions: u64,
    failed: Option<Cause>,
}

impl View {
    pub(crate) fn new(source: Box<dyn GuestBytes>, budget: Budget) -> Self {
        let page = source.unit().checked_next_power_of_two().unwrap_or(limits::MAX_PAGE);
        Self {
            len: source.len(),
            page: page.clamp(limits::PAGE, limits::MAX_PAGE),
            budget,
            inner: RefCell::new(Inner {
                source,
                pages: BTreeMap::new(),
                read: 0,
                questions: 0,
                failed: None,
            }),
        }
    }

    /// Length of the disk, bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Guest bytes read so far, whole units where the disk has such.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.inner.borrow().read
    }

    /// The error of the source, if it failed.
    pub(crate) fn into_failure(self) -> Option<Cause> {
        self.inner.into_inner().failed
    }

    /// The whole disk.
    pub(crate) fn disk(&self) -> Volume<'_> {
        Volume { view: self, start: 0, len: self.len }
    }

    /// A run of the disk, cut off where the disk ends.
    pub(crate) fn volume(&self, start: u64, len: u64) -> Volume<'_> {
        let start = start.min(self.len);
        Volume { view: self, start, len: len.min(self.len.saturating_sub(start)) }
    }

    /// Counts the questions that so many bytes are.
    fn ask(&self, len: usize) -> Result<(), Trouble> {
        let mut inner = self.inner.borrow_mut();
        inner.questions = inner.questions.saturating_add((len as u64 / QUESTION).saturating_add(1));
        match inner.questions > self.budget.questions {
            true => Err(Trouble::WorkLimit),
            false => Ok(()),
        }
    }

    fn bytes(&self, offset: u64, len: usize) -> Result<Vec<u8>, Trouble> {
        self.ask(len)?;
        let mut inner = self.inner.borrow_mut();
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = offset.saturating_add(bytes.len() as u64);
            let number = at.checked_div(self.page).unwrap_or(0);
            let page = inner.page(number, self)?;
            let skip = at.checked_rem(self.page).and_then(|skip| usize::try_from(skip).ok()).unwrap_or(0);
            let rest = page.get(skip..).unwrap_or_default();
            let wanted = len.saturating_sub(bytes.len()).min(rest.len());
            if wanted == 0 {
                return Err(Trouble::Beyond("a structure"));
            }
            bytes.extend_from_slice(rest.get(..wanted).unwrap_or_default());
        }
        Ok(bytes)
    }
}

impl Inner {
    fn page(&mut self, number: u64, view: &View) -> Result<&[u8], Trouble> {
        if !self.pages.contains_key(&number) {
            if self.failed.is_some() {
                return Err(Trouble::Source);
            }
            let start = number.saturating_mul(view.page);
            let len = view.page.min(view.len.saturating_sub(start));
            // To read anything of a unit is to decode all of it.
            let read = self.read.saturating_add(len.max(self.source.unit()));
            if read > view.budget.read {
                return Err(Trouble::ReadLimit);
            }
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
            if let Err(cause) = self.source.read(start, &mut bytes) {
                self.failed = Some(cause);
                return Err(Trouble::Source);
            }
            self.read = read;
            self.pages.insert(number, bytes);
        }
        Ok(self.pages.get(&number).map(Vec::as_slice).unwrap_or_default())
    }
}

/// A run of a disk in which a table or a file system lies. Cheap to copy.
#[derive(Clone, Copy)]
pub(crate) struct Volume<'v> {
    view: &'v View,
    start: u64,
    len: u64,
}

impl Volume<'_> {
    /// Its length, bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// A run of it, cut off where the volume ends.
    pub(crate) fn run(&self, start: u64, len: u64) -> Self {
        let start = start.min(self.len);
        Self {
            view: self.view,
            start: self.start.saturating_add(start),
            len: len.min(self.len.saturating_sub(start)),
        }
    }

    /// `len` bytes from `offset` of the volume on.
    pub(crate) fn bytes(&self, offset: u64, len: usize) -> Result<Vec<u8>, Trouble> {
        let end = offset.checked_add(len as u64).ok_or(Trouble::Beyond("a structure"))?;
        if end > self.len {
            return Err(Trouble::Beyond("a structure"));
        }
        if len > MAX_AT_ONCE {
            return Err(Trouble::TooLong("a structure"));
        }
        self.view.bytes(self.start.saturating_add(offset), len)
    }

    /// The same; `None` if the volume ends before.
    pub(crate) fn within(&self, offset: u64, len: usize) -> Result<Option<Vec<u8>>, Trouble> {
        match offset.checked_add(len as u64).is_some_and(|end| end <= self.len) {
            true => self.bytes(offset, len).map(Some),
            false => Ok(None),
        }
    }

    /// Counts bytes that are made without reading any.
    pub(crate) fn work(&self, len: usize) -> Result<(), Trouble> {
        self.view.ask(len)
    }

    /// As many of these bytes as the volume has.
    pub(crate) fn head(&self, len: usize) -> Result<Vec<u8>, Trouble> {
        self.bytes(0, usize::try_from(self.len).unwrap_or(usize::MAX).min(len))
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
}

/// `len` bytes at `at`, or as many as there are.
pub(crate) fn slice(bytes: &[u8], at: usize, len: usize) -> &[u8] {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.get(..len).unwrap_or(rest)
}

pub(crate) fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

pub(crate) fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

pub(crate) fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

pub(crate) fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(bytes, at))
}

/// Text of a disk as it may be shown: one line, no control characters, not too long.
pub(crate) fn printable(text: &str) -> String {
    let shown = text.trim().chars().take(limits::MAX_SHOWN);
    shown.map(|c| if c.is_control() || is_format(c) { '\u{fffd}' } else { c }).collect()
}

/// Characters that turn the direction of text or have no width: they would have a terminal show something else.
fn is_format(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Bytes up to the first zero as text that may be shown; `None` if there is none.
pub(crate) fn label(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = printable(&String::from_utf8_lossy(slice(bytes, 0, end)));
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Endless;

    impl GuestBytes for Endless {
        fn len(&self) -> u64 {
            64 << 40
        }

        fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), Cause> {
            if offset == 7 << 30 {
                return Err("gone".into());
            }
            into.fill(1);
            Ok(())
        }
    }

    #[test]
    fn pages_are_read_once_and_not_without_end() {
        let view = View::new(Box::new(Endless), Budget::default());
        for _ in 0..2 {
            assert_eq!(view.disk().bytes(limits::PAGE - 1, 2).unwrap(), [1, 1]);
        }
        assert_eq!(view.bytes_read(), limits::PAGE * 2);
        let step = limits::PAGE;
        let first = (0..).find_map(|i| view.disk().bytes((9 << 40) + i * step, 1).err());
        assert_eq!(first, Some(Trouble::ReadLimit));
        assert_eq!(view.bytes_read(), MAX_READ);
        assert_eq!(view.disk().bytes(0, 1).unwrap(), [1], "what was read is there");
        let last = (0..=MAX_QUESTIONS).find_map(|_| view.disk().bytes(0, 1).err());
        assert_eq!(last, Some(Trouble::WorkLimit));
        assert!(view.into_failure().is_none());
    }

    #[test]
    fn a_source_that_failed_is_left_alone() {
        let view = View::new(Box::new(Endless), Budget::default());
        let volume = view.volume(7 << 30, 10);
        assert_eq!(volume.bytes(0, 1), Err(Trouble::Source));
        assert_eq!(view.disk().bytes(0, 1), Err(Trouble::Source));
        assert_eq!(view.volume(0, 10).bytes(9, 2), Err(Trouble::Beyond("a structure")));
        assert_eq!(view.into_failure().unwrap().to_string(), "gone");
    }

    #[test]
    fn what_is_shown_steers_no_terminal() {
        assert_eq!(printable(" a\u{1b}[31m\u{202e}\u{61c}b\n"), "a\u{fffd}[31m\u{fffd}\u{fffd}b");
        assert_eq!(label(b"\0\0abc"), None);
        assert_eq!(label(b"root\0x"), Some("root".to_owned()));
    }
}
