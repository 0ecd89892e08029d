//! The descriptor: the text that says what kind of VMDK this is and which extents hold its sectors.
//!
//! Source: *Virtual Disk Format 5.0*, "The Descriptor File". Lines end in LF or CRLF, the text ends at its first NUL. A line is empty,
//! a comment (`#`), an extent line (`RW 4192256 SPARSE "disk.vmdk"`), or `key = value` with or without spaces and quotes. Keys not
//! known here are ignored; a line that is none of these is refused, because what it hides may be an extent. File names are
//! never followed, and the name of the one extent is not compared: files get renamed.

use super::CreateType;
use crate::{Feature, Item, OpenError, Span};

/// `parentCID` of a disk without a parent.
const NO_PARENT: u32 = u32::MAX;

/// createTypes that are known and not read here.
const OTHER_TYPES: &[&str] = &[
    "monolithicFlat",
    "twoGbMaxExtentSparse",
    "twoGbMaxExtentFlat",
    "2GbMaxExtentSparse",
    "2GbMaxExtentFlat",
    "fullDevice",
    "partitionedDevice",
    "vmfs",
    "vmfsPreallocated",
    "vmfsEagerZeroedThick",
    "vmfsThin",
    "vmfsSparse",
    "vmfsRDM",
    "vmfsRawDeviceMap",
    "vmfsRDMP",
    "vmfsPassthroughRawDeviceMap",
    "vmfsRaw",
    "seSparse",
    "vsanSparse",
    "custom",
];

/// Extent types of the specification, and those that came after it.
const EXTENT_TYPES: &[&str] =
    &["SPARSE", "FLAT", "ZERO", "VMFS", "VMFSSPARSE", "VMFSRDM", "VMFSRAW", "SESPARSE", "VSANSPARSE"];

/// What a descriptor says, as far as it matters here.
#[derive(Debug, Default)]
pub(super) struct Descriptor {
    create_type: Option<Kind>,
    parent_cid: Option<u32>,
    parent_file: bool,
    encrypted: bool,
    extents: u64,
    /// Sectors of the first extent, if that is a sparse one that may be read.
    sparse_sectors: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Read(CreateType),
    Other(&'static str),
    Unknown,
}

impl Descriptor {
    /// Reads the text.
    pub(super) fn parse(text: &[u8]) -> Result<Self, OpenError> {
        let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
        if text.trim_ascii().is_empty() {
            // QEMU leaves room for a descriptor in each extent of a split disk, and writes none.
            return Err(OpenError::Unsupported(Feature::VmdkExtentAlone));
        }
        let mut descriptor = Self::default();
        for (line, number) in text.split(|&byte| byte == b'\n').zip(1_u64..) {
            descriptor
                .line(line.trim_ascii())
                .map_err(|expected| OpenError::Descriptor { line: number, expected })?;
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
            return self.extent(!word.eq_ignore_ascii_case(b"NOACCESS"), rest);
        }
        let mut halves = line.splitn(2, |&byte| byte == b'=');
        match (halves.next().map(<[u8]>::trim_ascii), halves.next()) {
            (Some(key), Some(value)) if !key.is_empty() => self.pair(key, value.trim_ascii()),
            _ => Err("a key with a value, an extent or a comment"),
        }
    }

    fn pair(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if key.eq_ignore_ascii_case(b"createType") {
            let value = unquoted(value).ok_or("a createType in quotes")?;
            once(&mut self.create_type, Kind::of(value), "the only createType")
        } else if key.eq_ignore_ascii_case(b"parentCID") {
            let cid = unquoted(value).and_then(hex).ok_or("a parentCID of up to 8 hexadecimal digits")?;
            once(&mut self.parent_cid, cid, "the only parentCID")
        } else {
            self.parent_file |=
                key.eq_ignore_ascii_case(b"parentFileNameHint") && unquoted(value) != Some(b"");
            self.encrypted |= key.get(..11).is_some_and(|start| start.eq_ignore_ascii_case(b"encryption."));
            Ok(())
        }
    }

    /// An extent line after its access: sectors, type, and for all types but ZERO a file name and perhaps an offset.
    fn extent(&mut self, readable: bool, rest: &[u8]) -> Result<(), &'static str> {
        const EXPECTED: &str = "an extent: access, sectors, type, file name in quotes";
        let (sectors, rest) = split_word(rest);
        let (kind, rest) = split_word(rest);
        let sectors = decimal(sectors).ok_or(EXPECTED)?;
        if !EXTENT_TYPES.iter().any(|name| kind.eq_ignore_ascii_case(name.as_bytes())) {
            return Err("an extent of a known type");
        }
        if kind.eq_ignore_ascii_case(b"SPARSE") {
            let name = rest.strip_prefix(b"\"").ok_or(EXPECTED)?;
            let mut parts = name.splitn(2, |&byte| byte == b'"');
            let (name, offset) = (parts.next(), parts.next().ok_or(EXPECTED)?.trim_ascii());
            if name.is_none_or(<[u8]>::is_empty) {
                return Err(EXPECTED);
            }
            if !offset.is_empty() && decimal(offset) != Some(0) {
                return Err("a sparse extent that starts at offset 0 of its file");
            }
            if self.extents == 0 && readable {
                self.sparse_sectors = Some(sectors);
            }
        }
        self.extents = self.extents.saturating_add(1);
        Ok(())
    }

    /// Refuses what is not read here, whatever the sparse header beside this descriptor (which lies at `place`) says.
    pub(super) fn check_supported(&self, place: Span) -> Result<(), OpenError> {
        let missing = |what| OpenError::Missing { what: Item::The(what), span: place };
        if self.encrypted {
            return Err(OpenError::Unsupported(Feature::VmdkEncryption));
        }
        if self.parent_file || self.parent_cid.is_some_and(|cid| cid != NO_PARENT) {
            return Err(OpenError::Unsupported(Feature::BackingFile));
        }
        match self.create_type.ok_or(missing("createType of the VMDK descriptor"))? {
            Kind::Read(_) => {}
            Kind::Other(name) => return Err(OpenError::Unsupported(Feature::VmdkCreateType(name))),
            Kind::Unknown => return Err(OpenError::Unsupported(Feature::VmdkUnknownCreateType)),
        }
        match (self.extents, self.sparse_sectors) {
            (0, _) => Err(missing("extent line of the VMDK descriptor")),
            (1, Some(_)) => Ok(()),
            _ => Err(OpenError::Unsupported(Feature::VmdkExtentFiles)),
        }
    }

    /// The createType of a descriptor that stands in the one extent it describes, which has `capacity` sectors.
    pub(super) fn create_type(&self, place: Span, capacity: u64) -> Result<CreateType, OpenError> {
        self.check_supported(place)?;
        let sectors = self.sparse_sectors.unwrap_or_default();
        match self.create_type {
            Some(Kind::Read(create_type)) if sectors == capacity => Ok(create_type),
            _ => Err(OpenError::Field {
                what: Item::The("length of the extent in the VMDK descriptor"),
                found: sectors,
                expected: "the capacity in the header",
            }),
        }
    }

    /// Why a descriptor in a file of its own is refused.
    pub(super) fn refusal(&self) -> OpenError {
        match self.check_supported(Span::default()) {
            Err(error @ OpenError::Unsupported(_)) => error,
            _ => OpenError::Unsupported(Feature::VmdkExtentFiles),
        }
    }
}

impl Kind {
    fn of(name: &[u8]) -> Self {
        let read = [CreateType::MonolithicSparse, CreateType::StreamOptimized];
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if let Some(create_type) = read.into_iter().find(|known| is(&known.to_string())) {
            return Self::Read(create_type);
        }
        OTHER_TYPES.iter().find(|known| is(known)).map_or(Self::Unknown, |known| Self::Other(known))
    }
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
