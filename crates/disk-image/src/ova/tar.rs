//! The headers of a tar archive, one after the other.
//!
//! Source: POSIX.1-2024 `pax`, "ustar Interchange Format" and "pax Extended Header"; for GNU's long names and large numbers the manual of
//! GNU tar, "Basic Tar Format". A header fills a block of 512 bytes, and so does each begun one of the content. A zero block ends
//! the archive.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use bytes::Bytes;

use super::plain;
use crate::fields::Fields;
use crate::limits::{MAX_ARCHIVE_EXTENSION, MAX_ARCHIVE_MEMBERS};
use crate::span::Window;
use crate::{Feature, Item, Open, OpenError, Span};

/// Headers and contents are padded to this.
const BLOCK: u64 = 512;

/// Bytes asked for at once: what is small, descriptor and manifest, mostly comes with the header before it.
const STEP: u64 = 32 << 10;

/// How error messages call a header and its member.
const HEADER: &str = "tar header";

/// A file in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Control characters replaced. Comes from the archive: hostile.
    pub(super) name: String,
    pub(super) content: Span,
}

/// How far the archive has been read.
pub(super) struct Archive {
    file: Window,
    /// Where the next header is.
    at: u64,
    /// Headers read.
    headers: u64,
    members: Vec<Member>,
    /// What an extended header says of the next member.
    next: Extension,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Extension {
    name: Option<String>,
    size: Option<u64>,
}

/// A header that was checked.
struct Header {
    name: String,
    size: u64,
    kind: u8,
}

impl Archive {
    /// The files of the archive.
    pub(super) fn read(file: Window) -> Result<Open<Vec<Member>>, OpenError> {
        Self { file, at: 0, headers: 0, members: Vec::new(), next: Extension::default() }.ask()
    }

    fn ask(self) -> Result<Open<Vec<Member>>, OpenError> {
        let want = Span::new(self.at, STEP.min(self.file.len.saturating_sub(self.at)));
        if want.len < BLOCK {
            let what = Item::The("end of the tar archive");
            return Err(OpenError::Missing { what, span: Span::between(self.at, self.file.len) });
        }
        Ok(Open::need_one(self.file.stored(want), move |bytes| self.headers(want.start, &bytes)))
    }

    /// Reads the headers in `bytes`, which begin at `start`.
    fn headers(mut self, start: u64, bytes: &Bytes) -> Result<Open<Vec<Member>>, OpenError> {
        let from = |at: u64, len: u64| {
            let at = usize::try_from(at.saturating_sub(start)).ok()?;
            bytes.get(at..at.saturating_add(usize::try_from(len).ok()?))
        };
        while let Some(block) = from(self.at, BLOCK) {
            if block.iter().all(|&byte| byte == 0) {
                return Ok(Open::Ready(self.members));
            }
            let what = Item::Entry(HEADER, self.headers);
            self.headers = self.headers.saturating_add(1);
            if self.headers > MAX_ARCHIVE_MEMBERS {
                return Err(OpenError::Limit {
                    what: Item::The("number of tar headers"),
                    found: self.headers,
                    limit: MAX_ARCHIVE_MEMBERS,
                });
            }
            let header = Header::parse(block, what)?;
            let after = self.at.saturating_add(BLOCK);
            let is_extension = matches!(header.kind, b'x' | b'g' | b'L' | b'K');
            let size = self.next.size.filter(|_| !is_extension).unwrap_or(header.size);
            let content = Span::new(after, size);
            if content.end() > self.file.len {
                return Err(OpenError::Truncated { what, span: content, file_len: self.file.len });
            }
            if is_extension {
                if size > MAX_ARCHIVE_EXTENSION {
                    return Err(OpenError::Limit {
                        what: Item::The("length of an extended tar header"),
                        found: size,
                        limit: MAX_ARCHIVE_EXTENSION,
                    });
                }
                let Some(text) = from(after, size) else {
                    // The rest of it comes with the next step, which is longer than it and its header can be.
                    self.headers = self.headers.saturating_sub(1);
                    return self.ask();
                };
                self.next.add(header.kind, text, what)?;
            } else {
                self.add(header, content)?;
            }
            // Padding that is cut off is found missing with the end of the archive.
            self.at = content.end().checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX).min(self.file.len);
        }
        self.ask()
    }

    fn add(&mut self, header: Header, content: Span) -> Result<(), OpenError> {
        let Extension { name, .. } = std::mem::take(&mut self.next);
        match header.kind {
            b'0' | b'\0' | b'7' => {
                let name = name.unwrap_or(header.name);
                self.members.push(Member { name: plain(&name).to_owned(), content });
                Ok(())
            }
            // A folder, or the name of the volume.
            b'5' | b'V' => Ok(()),
            b'1' | b'2' => Err(OpenError::Unsupported(Feature::OvaLink)),
            b'S' => Err(OpenError::Unsupported(Feature::OvaSparse)),
            kind => Err(OpenError::Unsupported(Feature::OvaMember(char::from(kind)))),
        }
    }
}

impl Header {
    /// Where the checksum stands, which counts itself as blanks.
    const CHECKSUM: std::ops::Range<usize> = 148..156;

    fn parse(block: &[u8], what: Item) -> Result<Self, OpenError> {
        let fields = Fields(block);
        let sum = |sum: u32, (at, &byte): (usize, &u8)| {
            let byte = if Self::CHECKSUM.contains(&at) { b' ' } else { byte };
            sum.saturating_add(byte.into())
        };
        let expected = block.iter().enumerate().fold(0, sum);
        let found = octal(fields.slice(148, 8)).and_then(|found| u32::try_from(found).ok());
        if found != Some(expected) {
            return Err(OpenError::Checksum { what, found: found.unwrap_or(u32::MAX), expected });
        }
        let size = fields.slice(124, 12);
        let size = number(size).ok_or(OpenError::Field {
            what,
            found: Fields(size).be64(0),
            expected: "a header whose size is a number",
        })?;
        let [kind] = fields.bytes(156);
        let name = text(fields.slice(0, 100));
        // GNU's header has other things where POSIX has a prefix.
        let prefix =
            if fields.bytes(257) == *b"ustar\0" { text(fields.slice(345, 155)) } else { String::new() };
        let name = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        Ok(Self { name, size, kind })
    }
}

impl Extension {
    /// Adds what the extended header of this kind says.
    fn add(&mut self, kind: u8, bytes: &[u8], what: Item) -> Result<(), OpenError> {
        match kind {
            b'L' => self.name = Some(text(bytes)),
            b'x' => self.add_records(bytes).ok_or(OpenError::Field {
                what,
                found: bytes.len() as u64,
                expected: "a pax header of records \"length key=value\"",
            })??,
            // What holds for all members says nothing of one; a link's long name is that of a link.
            _ => {}
        }
        Ok(())
    }

    /// Adds records of the form `length key=value\n`; `None` if they have another.
    fn add_records(&mut self, mut bytes: &[u8]) -> Option<Result<(), OpenError>> {
        while !bytes.is_empty() {
            let digits = bytes.iter().position(|&byte| byte == b' ')?;
            let len = decimal(bytes.get(..digits)?)?;
            let (record, rest) = bytes.split_at_checked(usize::try_from(len).ok()?)?;
            let record = record.get(digits.saturating_add(1)..)?.strip_suffix(b"\n")?;
            let at = record.iter().position(|&byte| byte == b'=')?;
            let (key, value) = (record.get(..at)?, record.get(at.saturating_add(1)..)?);
            match key {
                b"path" => self.name = Some(text(value)),
                b"size" => self.size = Some(decimal(value)?),
                key if key.starts_with(b"GNU.sparse.") => {
                    return Some(Err(OpenError::Unsupported(Feature::OvaSparse)));
                }
                _ => {}
            }
            bytes = rest;
        }
        Some(Ok(()))
    }
}

/// Text up to a NUL; what is no UTF-8, or would move the cursor of a terminal, is replaced.
fn text(bytes: &[u8]) -> String {
    let bytes = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

/// A size: octal digits, or a binary number where the highest bit is set.
fn number(field: &[u8]) -> Option<u64> {
    match field.split_first() {
        Some((0x80, rest)) => {
            rest.iter().try_fold(0_u64, |sum, &byte| sum.checked_mul(256)?.checked_add(byte.into()))
        }
        _ => octal(field),
    }
}

/// Octal digits between blanks, which may be NULs.
fn octal(field: &[u8]) -> Option<u64> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\0');
    let start = field.iter().position(|byte| !is_blank(byte)).unwrap_or(field.len());
    let digits = field.get(start..)?;
    let end = digits.iter().position(is_blank).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at_checked(end)?;
    let value = digits.iter().try_fold(0_u64, |sum, &byte| {
        let digit = byte.checked_sub(b'0').filter(|&digit| digit < 8)?;
        sum.checked_mul(8)?.checked_add(digit.into())
    })?;
    rest.iter().all(is_blank).then_some(value)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let digits = Some(digits).filter(|digits| !digits.is_empty())?;
    digits.iter().try_fold(0_u64, |sum, &byte| {
        let digit = byte.checked_sub(b'0').filter(|&digit| digit < 10)?;
        sum.checked_mul(10)?.checked_add(digit.into())
    })
}
