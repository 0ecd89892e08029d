//! The descriptor: the text that says what kind of VMDK this is and which extents hold its sectors.
//!
//! Source: *Virtual Disk Format 5.0*, "The Descriptor File". Lines end in LF or CRLF, the text ends at its first NUL. A line is empty,
//! a comment (`#`), an extent line (`RW 4192256 SPARSE "disk.vmdk"`), or `key = value` with or without spaces and quotes. Keys not
//! known here are ignored; a line that is none of these is refused, because what it hides may be an extent. So is a key
//! that counts and stands there twice: readers disagree about which one it is.
//!
//! A disk without a parent has parentCID ffffffff or none. With any other, the file in parentFileNameHint is the disk beneath.

use super::create_type::{CreateType, Named};
use super::names::Charset;
use crate::limits::MAX_VMDK_EXTENTS;
use crate::{Feature, Item, OpenError, Span};

/// `parentCID` of a disk without a parent.
const NO_PARENT: u32 = u32::MAX;

const EXTENT: &str = "an extent: access, sectors, type, file name in quotes";

/// What a descriptor says, as far as it matters here.
#[derive(Debug, Default)]
pub(super) struct Descriptor {
    create_type: Option<Named>,
    cid: Option<u32>,
    parent_cid: Option<u32>,
    /// As it is written, where it is not empty.
    parent_name: Option<Vec<u8>>,
    charset: Option<Charset>,
    encrypted: bool,
    extents: Vec<Line>,
    /// The first line that breaks the grammar. A disk on a device has extents of its own grammar, so its type comes first.
    damaged: Option<OpenError>,
}

/// An extent line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// False for NOACCESS.
    pub(super) readable: bool,
    /// Guest sectors, above 0.
    pub(super) sectors: u64,
    pub(super) kind: ExtentType,
    /// As it is written; empty for ZERO.
    pub(super) name: Vec<u8>,
    /// First sector in the file; 0 but for flat files.
    pub(super) offset: u64,
}

/// Types of extents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExtentType {
    /// The sectors, nothing else.
    Flat,
    /// A sparse file: hosted, or COWD.
    Sparse,
    /// A sparse file of ESX 5.5 and later.
    SeSparse,
    /// Zeroes, and no file.
    Zero,
    /// Not read.
    Other(&'static str),
}

const EXTENT_TYPES: &[(&str, ExtentType)] = &[
    ("FLAT", ExtentType::Flat),
    ("VMFS", ExtentType::Flat),
    ("SPARSE", ExtentType::Sparse),
    ("VMFSSPARSE", ExtentType::Sparse),
    ("SESPARSE", ExtentType::SeSparse),
    ("ZERO", ExtentType::Zero),
    ("VMFSRDM", ExtentType::Other("VMFSRDM")),
    ("VMFSRAW", ExtentType::Other("VMFSRAW")),
    ("VSANSPARSE", ExtentType::Other("VSANSPARSE")),
];

/// The disk beneath a delta.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parent {
    /// The CID that it must have.
    pub(super) cid: u32,
    /// The name of its file.
    pub(super) name: String,
}

impl Descriptor {
    /// Reads the text. What breaks the grammar is kept until [`Descriptor::create_type`] is asked for.
    pub(super) fn parse(text: &[u8]) -> Result<Self, OpenError> {
        let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
        if text.trim_ascii().is_empty() {
            // QEMU leaves room for a descriptor in each extent of a split disk, and writes none.
            return Err(OpenError::Unsupported(Feature::VmdkExtentAlone));
        }
        let mut descriptor = Self::default();
        for (line, number) in text.split(|&byte| byte == b'\n').zip(1_u64..) {
            if let Err(expected) = descriptor.line(line.trim_ascii()) {
                descriptor.damaged.get_or_insert(OpenError::Descriptor { line: number, expected });
            }
        }
        Ok(descriptor)
    }

    /// Reads one line; the error is what was expected.
    fn line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        if line.is_empty() || line.starts_with(b"#") {
            return Ok(());
        }
        let (word, rest) = split_word(line);
        if ["RW", "RDONLY", "NOACCESS"].iter().any(|access| word.eq_ignore_ascii_case(access.as_bytes())) {
            let extent = Line::parse(!word.eq_ignore_ascii_case(b"NOACCESS"), rest)?;
            self.extents.push(extent);
            return Ok(());
        }
        let mut halves = line.splitn(2, |&byte| byte == b'=');
        match (halves.next().map(<[u8]>::trim_ascii), halves.next()) {
            (Some(key), Some(value)) if !key.is_empty() => self.pair(key, value.trim_ascii()),
            _ => Err("a key with a value, an extent or a comment"),
        }
    }

    fn pair(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let is = |known: &[u8]| key.eq_ignore_ascii_case(known);
        if is(b"createType") {
            let value = unquoted(value).ok_or("a createType in quotes")?;
            once(&mut self.create_type, Named::of(value), "the only createType")
        } else if is(b"CID") {
            let cid = unquoted(value).and_then(hex).ok_or("a CID of up to 8 hexadecimal digits")?;
            once(&mut self.cid, cid, "the only CID")
        } else if is(b"parentCID") {
            let cid = unquoted(value).and_then(hex).ok_or("a parentCID of up to 8 hexadecimal digits")?;
            once(&mut self.parent_cid, cid, "the only parentCID")
        } else if is(b"parentFileNameHint") {
            let name = unquoted(value).ok_or("a parentFileNameHint in quotes")?;
            match name {
                b"" => Ok(()),
                name => once(&mut self.parent_name, name.to_vec(), "the only parentFileNameHint"),
            }
        } else if is(b"encoding") {
            let name = unquoted(value).ok_or("an encoding in quotes")?;
            once(&mut self.charset, Charset::named(name), "the only encoding")
        } else {
            self.encrypted |= key.get(..11).is_some_and(|start| start.eq_ignore_ascii_case(b"encryption."));
            Ok(())
        }
    }

    /// The createType. Refuses what is not read here, and text that is damaged. `place` is where the descriptor lies.
    pub(super) fn create_type(&self, place: Span) -> Result<CreateType, OpenError> {
        if self.encrypted {
            return Err(OpenError::Unsupported(Feature::VmdkEncryption));
        }
        match (self.create_type, &self.damaged) {
            (Some(Named::Refused(name)), _) => Err(OpenError::Unsupported(Feature::VmdkCreateType(name))),
            (_, Some(damaged)) => Err(damaged.clone()),
            (Some(Named::Unknown), None) => Err(OpenError::Unsupported(Feature::VmdkUnknownCreateType)),
            (Some(Named::Read(create_type)), None) => Ok(create_type),
            (None, None) => Err(missing("createType of the VMDK descriptor", place)),
        }
    }

    /// What identifies the disk's content; it changes when the content does.
    pub(super) fn cid(&self) -> Option<u32> {
        self.cid
    }

    /// The extents, in the order of the disk: at least one, and no more than the limit.
    pub(super) fn extents(&self, place: Span) -> Result<&[Line], OpenError> {
        if self.extents.is_empty() {
            return Err(missing("extent line of the VMDK descriptor", place));
        }
        if self.extents.len() > MAX_VMDK_EXTENTS {
            return Err(OpenError::Limit {
                what: Item::The("number of extents in the VMDK descriptor"),
                found: self.extents.len() as u64,
                limit: MAX_VMDK_EXTENTS as u64,
            });
        }
        Ok(&self.extents)
    }

    /// The disk beneath, if this is a delta.
    pub(super) fn parent(&self, place: Span) -> Result<Option<Parent>, OpenError> {
        match (self.parent_cid.filter(|&cid| cid != NO_PARENT), &self.parent_name) {
            (None, None) => Ok(None),
            (Some(cid), Some(name)) => Ok(Some(Parent { cid, name: self.name(name)? })),
            (Some(_), None) => Err(missing("parentFileNameHint of the VMDK descriptor", place)),
            // One says that there is a parent, the other that there is none: what the holes are would be a guess.
            (None, Some(_)) => Err(OpenError::Field {
                what: Item::The("parentCID of the VMDK descriptor"),
                found: NO_PARENT.into(),
                expected: "the CID of the parent that parentFileNameHint names",
            }),
        }
    }

    /// A file name that stands in the descriptor.
    pub(super) fn name(&self, name: &[u8]) -> Result<String, OpenError> {
        self.charset.unwrap_or_default().decode(name)
    }

    /// Sectors of the one extent of a descriptor that stands inside of it.
    pub(super) fn own_sectors(&self, place: Span) -> Result<u64, OpenError> {
        match self.extents(place)? {
            [Line { readable: true, kind: ExtentType::Sparse, sectors, .. }] => Ok(*sectors),
            [Line { readable: false, kind: ExtentType::Sparse, .. }] => {
                Err(OpenError::Unsupported(Feature::VmdkNoAccess))
            }
            _ => Err(OpenError::Unsupported(Feature::VmdkExtentFiles)),
        }
    }
}

impl Line {
    /// An extent line after its access: sectors, type, and for all types but ZERO a file name and perhaps an offset.
    fn parse(readable: bool, rest: &[u8]) -> Result<Self, &'static str> {
        let (sectors, rest) = split_word(rest);
        let (kind, rest) = split_word(rest);
        let sectors = decimal(sectors).ok_or(EXTENT)?;
        if sectors == 0 {
            return Err("an extent of at least 1 sector");
        }
        let known = EXTENT_TYPES.iter().find(|(name, _)| kind.eq_ignore_ascii_case(name.as_bytes()));
        let (word, kind) = *known.ok_or("an extent of a known type")?;
        let line = |name: &[u8], offset| Self { readable, sectors, kind, name: name.to_vec(), offset };
        match kind {
            ExtentType::Other(_) => return Ok(line(b"", 0)),
            ExtentType::Zero if rest.is_empty() => return Ok(line(b"", 0)),
            ExtentType::Zero => return Err("an extent of zeroes: access, sectors, type, nothing else"),
            _ => {}
        }
        let name = rest.strip_prefix(b"\"").ok_or(EXTENT)?;
        let mut parts = name.splitn(2, |&byte| byte == b'"');
        let (name, offset) = (parts.next().unwrap_or_default(), parts.next().ok_or(EXTENT)?.trim_ascii());
        if name.is_empty() {
            return Err(EXTENT);
        }
        // Only FLAT must have an offset; ESX writes VMFS without one.
        let offset = match (kind, offset) {
            (_, b"") if word != "FLAT" => 0,
            (ExtentType::Flat, digits) => {
                decimal(digits).ok_or("a flat extent with its offset, in sectors, after the file name")?
            }
            (_, digits) if decimal(digits) == Some(0) => 0,
            _ => return Err("a sparse extent that starts at offset 0 of its file"),
        };
        Ok(line(name, offset))
    }
}

fn missing(what: &'static str, place: Span) -> OpenError {
    OpenError::Missing { what: Item::The(what), span: place }
}

/// Sets a value that may stand in a descriptor once: with two, readers disagree about which one counts.
fn once<T>(slot: &mut Option<T>, value: T, expected: &'static str) -> Result<(), &'static str> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(expected),
    }
}

/// The first word, and what follows it.
fn split_word(text: &[u8]) -> (&[u8], &[u8]) {
    let text = text.trim_ascii_start();
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    text.split_at_checked(end).map_or((text, &[]), |(word, rest)| (word, rest.trim_ascii()))
}

/// A value without its quotes; `None` if only one of the two is there.
fn unquoted(value: &[u8]) -> Option<&[u8]> {
    match value.strip_prefix(b"\"") {
        Some(inner) => inner.strip_suffix(b"\""),
        None if value.ends_with(b"\"") => None,
        None => Some(value),
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let digits = str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?;
    digits.parse().ok()
}

fn hex(digits: &[u8]) -> Option<u32> {
    let digits = str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?;
    u32::from_str_radix(digits, 16).ok()
}
