//! The headers of a tar archive, one after the other.
//!
//! Source: POSIX.1-2024 `pax`, "ustar Interchange Format" and "pax Extended Header"; for GNU's long names and large numbers the manual of
//! GNU tar, "Basic Tar Format", and for sparse members [`sparse`](super::sparse). A header fills a block of 512 bytes, and so does
//! each begun one of the content. A zero block ends the archive.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use bytes::Bytes;

use super::plain;
use super::sparse::{SparseMap, Text};
use crate::fields::Fields;
use crate::limits::{MAX_ARCHIVE_EXTENSION, MAX_ARCHIVE_MEMBERS, MAX_ARCHIVE_NAME, MAX_ARCHIVE_RUNS};
use crate::span::Window;
use crate::{Feature, Item, Open, OpenError, Span};

/// Headers and contents are padded to this.
pub(crate) const BLOCK: u64 = BLOCK_LEN as u64;

/// The same, in memory.
pub(crate) const BLOCK_LEN: usize = 512;

/// Bytes asked for at once: what is small, descriptor and manifest, mostly comes with the header before it.
const STEP: u64 = 32 << 10;

/// How error messages call a header and its member.
const HEADER: &str = "tar header";

/// A file in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Control characters replaced. Comes from the archive: hostile.
    pub(super) name: String,
    /// What is stored of it.
    pub(super) content: Span,
    /// Which bytes of the file those are, if not all of them.
    pub(super) sparse: Option<SparseMap>,
}

/// How far the archive has been read.
pub(super) struct Archive {
    file: Window,
    /// Where the next header is.
    at: u64,
    /// Headers read.
    headers: u64,
    /// Bytes to ask for next, where it takes more than a step.
    least: u64,
    members: Vec<Member>,
    /// Runs in the maps of all of them.
    runs: usize,
    /// What an extended header says of the next member.
    next: Extension,
    /// The sparse member whose map is being read.
    pending: Option<Pending>,
}

/// What an extended header says of the next member.
#[derive(Debug, Default, PartialEq, Eq)]
struct Extension {
    name: Option<String>,
    size: Option<u64>,
    sparse: PaxSparse,
}

/// What of that is about its holes.
#[derive(Debug, Default, PartialEq, Eq)]
struct PaxSparse {
    /// The format's version; 0 if it does not say.
    version: (u64, u64),
    /// The member's own name, where the other one is made up.
    name: Option<String>,
    real_size: Option<u64>,
    /// Offsets and lengths by turns.
    numbers: Vec<u64>,
}

/// A sparse member whose map goes on.
struct Pending {
    name: String,
    map: SparseMap,
    rest: Rest,
}

/// Where the rest of a map is.
enum Rest {
    /// In blocks before the content, whose length is this.
    Blocks(u64),
    /// In the first blocks of what there is of content.
    Content(Text, Span),
}

/// A header that was checked.
pub(crate) struct Header {
    /// Control characters replaced. Comes from the archive: hostile.
    pub(crate) name: String,
    /// Bytes of the content.
    pub(crate) size: u64,
    /// The type flag.
    pub(crate) kind: u8,
}

impl Archive {
    /// The files of the archive.
    pub(super) fn read(file: Window) -> Result<Open<Vec<Member>>, OpenError> {
        let (members, next) = (Vec::new(), Extension::default());
        Self { file, at: 0, headers: 0, least: 0, members, runs: 0, next, pending: None }.ask()
    }

    fn ask(mut self) -> Result<Open<Vec<Member>>, OpenError> {
        let step = STEP.max(std::mem::take(&mut self.least));
        let want = Span::new(self.at, step.min(self.file.len.saturating_sub(self.at)));
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
            if let Some(pending) = self.pending.take() {
                self.at = self.at.saturating_add(BLOCK);
                self.go_on(pending, block)?;
                continue;
            }
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
                    // Once more, with all of it.
                    self.headers = self.headers.saturating_sub(1);
                    self.least = BLOCK.saturating_add(size);
                    return self.ask();
                };
                self.next.add(header.kind, text, what)?;
                self.at = self.behind(content);
            } else {
                self.member(&header, block, content)?;
            }
        }
        self.ask()
    }

    /// Takes the member with this header.
    fn member(&mut self, header: &Header, block: &[u8], content: Span) -> Result<(), OpenError> {
        let Extension { name, sparse, .. } = std::mem::take(&mut self.next);
        let name = sparse.name.as_ref().or(name.as_ref()).unwrap_or(&header.name);
        if name.len() > MAX_ARCHIVE_NAME {
            let (found, limit) = (name.len() as u64, MAX_ARCHIVE_NAME as u64);
            return Err(OpenError::Limit {
                what: Item::The("length of a name in the archive"),
                found,
                limit,
            });
        }
        let name = plain(name).to_owned();
        match header.kind {
            b'0' | b'\0' | b'7' => match sparse.version {
                (1, 0) => {
                    let map = SparseMap::new(sparse.real_size()?);
                    self.at = content.start;
                    self.pending = Some(Pending { name, map, rest: Rest::Content(Text::default(), content) });
                    Ok(())
                }
                (0, _) if sparse.real_size.is_some() || !sparse.numbers.is_empty() => {
                    self.sparse(name, sparse.map()?, content)
                }
                (0, _) => {
                    self.members.push(Member { name, content, sparse: None });
                    self.at = self.behind(content);
                    Ok(())
                }
                (version, _) => Err(OpenError::Unsupported(Feature::ArchiveSparse(version))),
            },
            b'S' => match SparseMap::of_header(block)? {
                (map, true) => {
                    self.at = content.start;
                    self.pending = Some(Pending { name, map, rest: Rest::Blocks(content.len) });
                    Ok(())
                }
                (map, false) => self.sparse(name, map, content),
            },
            // A folder, or the name of the volume.
            b'5' | b'V' => {
                self.at = self.behind(content);
                Ok(())
            }
            b'1' | b'2' => Err(OpenError::Unsupported(Feature::ArchiveLink)),
            kind => Err(OpenError::Unsupported(Feature::ArchiveMember(char::from(kind)))),
        }
    }

    /// Adds a block to the map of a sparse member; the next one begins at `at`.
    fn go_on(&mut self, pending: Pending, block: &[u8]) -> Result<(), OpenError> {
        let Pending { name, mut map, rest } = pending;
        match rest {
            Rest::Blocks(len) => match map.add_block(block)? {
                true => self.pending = Some(Pending { name, map, rest: Rest::Blocks(len) }),
                false => self.sparse(name, map, Span::new(self.at, len))?,
            },
            Rest::Content(mut text, content) => {
                if self.at > content.end() {
                    let what = Item::The("sparse map of a tar member");
                    return Err(OpenError::Missing { what, span: content });
                }
                match text.add_block(&mut map, block)? {
                    true => self.pending = Some(Pending { name, map, rest: Rest::Content(text, content) }),
                    false => self.sparse(name, map, Span::between(self.at, content.end()))?,
                }
            }
        }
        Ok(())
    }

    /// Takes a sparse member, of which this is stored.
    fn sparse(&mut self, name: String, map: SparseMap, content: Span) -> Result<(), OpenError> {
        if content.end() > self.file.len {
            let what = Item::The("sparse member of the archive");
            return Err(OpenError::Truncated { what, span: content, file_len: self.file.len });
        }
        map.check(content.len)?;
        self.runs = self.runs.saturating_add(map.runs.len());
        check_runs(self.runs)?;
        self.members.push(Member { name, content, sparse: Some(map) });
        self.at = self.behind(content);
        Ok(())
    }

    /// Where the next header is. Padding that is cut off is found missing with the end of the archive.
    fn behind(&self, content: Span) -> u64 {
        content.end().checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX).min(self.file.len)
    }
}

impl PaxSparse {
    /// Length of the file, bytes.
    fn real_size(&self) -> Result<u64, OpenError> {
        let what = Item::The("real size of a sparse member");
        self.real_size.ok_or(OpenError::Missing { what, span: Span::default() })
    }

    /// The map that the extended header has.
    fn map(&self) -> Result<SparseMap, OpenError> {
        let mut map = SparseMap::new(self.real_size()?);
        let (entries, rest) = self.numbers.as_chunks();
        for &[offset, len] in entries {
            map.add(offset, len)?;
        }
        match rest {
            [] => Ok(map),
            &[found, ..] => {
                let what = Item::The("end of a sparse map");
                Err(OpenError::Field { what, found, expected: "an offset and a length" })
            }
        }
    }

    /// Adds the record `GNU.sparse.KEY=value`; `None` if the value is not what it should be.
    fn add(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"major" => self.version.0 = decimal(value)?,
            b"minor" => self.version.1 = decimal(value)?,
            b"name" => self.name = Some(text(value)),
            b"size" | b"realsize" => self.real_size = Some(decimal(value)?),
            b"offset" | b"numbytes" => {
                // An offset comes first, and then its length.
                let is_length = self.numbers.len() & 1 == 1;
                (is_length == (key == b"numbytes")).then_some(())?;
                self.numbers.push(decimal(value)?);
            }
            b"map" => {
                for number in value.split(|&byte| byte == b',') {
                    self.numbers.push(decimal(number)?);
                }
            }
            // How many entries there are is seen.
            _ => {}
        }
        // Several extended headers may go before one member.
        (self.numbers.len() / 2 <= MAX_ARCHIVE_RUNS).then_some(())
    }
}

impl Header {
    /// Where the checksum stands, which counts itself as blanks.
    const CHECKSUM: std::ops::Range<usize> = 148..156;

    /// Checks a header.
    pub(crate) fn parse(block: &[u8], what: Item) -> Result<Self, OpenError> {
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
            })?,
            // What holds for all members says nothing of one; a link's long name is that of a link.
            _ => {}
        }
        Ok(())
    }

    /// Adds records of the form `length key=value\n`; `None` if they have another.
    fn add_records(&mut self, mut bytes: &[u8]) -> Option<()> {
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
                key => {
                    if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                        self.sparse.add(key, value)?;
                    }
                }
            }
            bytes = rest;
        }
        Some(())
    }
}

/// Refuses more runs than there may be in the maps of an archive.
pub(super) fn check_runs(found: usize) -> Result<(), OpenError> {
    if found > MAX_ARCHIVE_RUNS {
        return Err(OpenError::Limit {
            what: Item::The("number of runs in a sparse map"),
            found: found as u64,
            limit: MAX_ARCHIVE_RUNS as u64,
        });
    }
    Ok(())
}

/// Text up to a NUL; what is no UTF-8, or would move the cursor of a terminal, is replaced.
fn text(bytes: &[u8]) -> String {
    let bytes = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

/// A size: octal digits, or a binary number where the highest bit is set.
pub(super) fn number(field: &[u8]) -> Option<u64> {
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

pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    let digits = Some(digits).filter(|digits| !digits.is_empty())?;
    digits.iter().try_fold(0_u64, |sum, &byte| {
        let digit = byte.checked_sub(b'0').filter(|&digit| digit < 10)?;
        sum.checked_mul(10)?.checked_add(digit.into())
    })
}
