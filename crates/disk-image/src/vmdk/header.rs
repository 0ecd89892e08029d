//! The sparse extent header, and its copy at the end of a stream, the footer.
//!
//! Source: *Virtual Disk Format 5.0*, "Hosted Sparse Extent Header". 512 bytes; those from 79 on are padding.

use super::footer::Sector;
use super::shape::{Kind, Shape, sectors, take};
use super::{SECTOR, cowd, sesparse};
use crate::limits::{MAX_VIRTUAL_SIZE, MAX_VMDK_GRAIN};
use crate::{Feature, Format, Item, OpenError, Span};

pub(super) const MAGIC: [u8; 4] = *b"KDMV";

/// `gdOffset` of a header that leaves the directory to the footer.
const DIRECTORY_AT_END: u64 = u64::MAX;

/// Smallest grain that the specification allows, bytes: 8 sectors.
const MIN_GRAIN: u64 = 4 << 10;

/// Entries in a grain table; the specification knows no other number.
pub(super) const TABLE_ENTRIES: u32 = 512;

/// What the newline test expects.
const NEWLINES: [u8; 4] = *b"\n \r\n";

/// Bits of the header's `flags`.
mod flag {
    /// The newline characters in the header are a test for damage.
    pub(super) const NEWLINE_TEST: u32 = 1 << 0;
    /// There is a redundant grain directory.
    pub(super) const REDUNDANT: u32 = 1 << 1;
    /// A grain table entry of 1 is a grain of zeroes.
    pub(super) const ZERO_GRAINS: u32 = 1 << 2;
    /// Grains are compressed.
    pub(super) const COMPRESSED: u32 = 1 << 16;
    /// Markers stand before grains and metadata.
    pub(super) const MARKERS: u32 = 1 << 17;
    /// A reader must refuse a bit that it does not know in this half; it may ignore one in the other (open-vmdk).
    pub(super) const INCOMPATIBLE: u32 = 0xffff_0000;
}

/// The header's fields as they stand in the file. `@` is the byte offset.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    /// @4. 1, 2 or 3.
    pub(super) version: u32,
    /// @8. See [`flag`].
    flags: u32,
    /// @12. Guest sectors. 0 if the file holds only a descriptor.
    capacity: u64,
    /// @20. Sectors in a grain.
    grain_size: u64,
    /// @28. First sector of the embedded descriptor; 0 if there is none.
    descriptor_offset: u64,
    /// @36. Sectors of the descriptor.
    descriptor_size: u64,
    /// @44. Entries in a grain table.
    entries_per_table: u32,
    /// @48. First sector of the redundant grain directory.
    redundant_offset: u64,
    /// @56. First sector of the grain directory, or [`DIRECTORY_AT_END`].
    directory_offset: u64,
    /// @64. Sectors before the first grain.
    overhead: u64,
    /// @72. Not 0 while a virtual machine has the disk open.
    pub(super) unclean_shutdown: bool,
    /// @73. `"\n"`, `" "`, `"\r\n"`: anything else was sent as text and changed on the way.
    newlines: [u8; 4],
    /// @77. 0 none, 1 deflate. Not aligned.
    compress_algorithm: u16,
}

impl Header {
    /// Bytes of a header.
    pub(super) const LEN: u64 = SECTOR;

    /// Reads the header in `bytes`, which stand at `start` in the file.
    pub(super) fn parse(bytes: &[u8], start: u64, file_len: u64) -> Result<Self, OpenError> {
        let truncated = OpenError::Truncated {
            what: Item::The("VMDK header"),
            span: Span::new(start, Self::LEN),
            file_len,
        };
        let Some(&found) = bytes.first_chunk::<4>() else { return Err(truncated) };
        if is_other_extent(bytes) {
            return Err(OpenError::Unsupported(Feature::VmdkExtentAlone));
        }
        if found != MAGIC {
            return Err(OpenError::Signature { expected: Format::Vmdk, found, signature: MAGIC });
        }
        if (bytes.len() as u64) < Self::LEN {
            return Err(truncated);
        }
        Self::fields(bytes).ok_or(truncated)
    }

    fn fields(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let rest = &mut rest;
        take::<4>(rest)?;
        Some(Self {
            version: u32::from_le_bytes(take(rest)?),
            flags: u32::from_le_bytes(take(rest)?),
            capacity: u64::from_le_bytes(take(rest)?),
            grain_size: u64::from_le_bytes(take(rest)?),
            descriptor_offset: u64::from_le_bytes(take(rest)?),
            descriptor_size: u64::from_le_bytes(take(rest)?),
            entries_per_table: u32::from_le_bytes(take(rest)?),
            redundant_offset: u64::from_le_bytes(take(rest)?),
            directory_offset: u64::from_le_bytes(take(rest)?),
            overhead: u64::from_le_bytes(take(rest)?),
            unclean_shutdown: take(rest)? != [0],
            newlines: take(rest)?,
            compress_algorithm: u16::from_le_bytes(take(rest)?),
        })
    }

    /// The header of a stream of so many guest sectors, whose grain directory is at the end.
    pub(super) fn of_stream(capacity: u64, grain_size: u64, descriptor_size: u64, overhead: u64) -> Self {
        Self {
            version: 3,
            flags: flag::NEWLINE_TEST | flag::COMPRESSED | flag::MARKERS,
            capacity,
            grain_size,
            descriptor_offset: 1,
            descriptor_size,
            entries_per_table: TABLE_ENTRIES,
            redundant_offset: 0,
            directory_offset: DIRECTORY_AT_END,
            overhead,
            unclean_shutdown: false,
            newlines: NEWLINES,
            compress_algorithm: 1,
        }
    }

    /// The sector that holds this header.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        for field in [self.capacity, self.grain_size, self.descriptor_offset, self.descriptor_size] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(self.entries_per_table.to_le_bytes());
        for field in [self.redundant_offset, self.directory_offset, self.overhead] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.push(self.unclean_shutdown.into());
        bytes.extend(self.newlines);
        bytes.extend(self.compress_algorithm.to_le_bytes());
        bytes.resize(size_of::<Sector>(), 0);
        bytes
    }

    /// Checks what can be said before anything else is read: the version and the newline test.
    pub(super) fn check_version(&self) -> Result<(), OpenError> {
        if !(1..=3).contains(&self.version) {
            return Err(OpenError::Unsupported(Feature::VmdkVersion(self.version)));
        }
        if self.flags & flag::NEWLINE_TEST != 0 && self.newlines != NEWLINES {
            return Err(OpenError::Field {
                what: Item::The("newline test of the VMDK header"),
                found: u64::from(u32::from_be_bytes(self.newlines)),
                expected: "0xa200d0a (the file was changed in transfer as text)",
            });
        }
        Ok(())
    }

    /// Where the embedded descriptor lies, if there is room for one.
    pub(super) fn descriptor(&self, file_len: u64) -> Result<Option<Span>, OpenError> {
        if self.descriptor_offset == 0 {
            return Ok(None);
        }
        let span = sectors(self.descriptor_offset, self.descriptor_size);
        if span.is_empty() {
            return Err(OpenError::Field {
                what: Item::The("descriptorSize of the VMDK header"),
                found: self.descriptor_size,
                expected: "at least 1 sector",
            });
        }
        if span.end() > file_len {
            return Err(OpenError::Truncated { what: Item::The("VMDK descriptor"), span, file_len });
        }
        Ok(Some(span))
    }

    /// What lies at the start of the file. A descriptor that is not read need not be right.
    pub(super) fn fixed(&self, file_len: u64) -> Vec<(Span, Item)> {
        let mut fixed = vec![(Span::new(0, Self::LEN), Item::The("VMDK header"))];
        if let Ok(Some(span)) = self.descriptor(file_len) {
            fixed.push((span, Item::The("VMDK descriptor")));
        }
        fixed
    }

    /// True if there is nothing in the file but the descriptor of extents in other files.
    pub(super) fn is_only_descriptor(&self) -> bool {
        self.capacity == 0
    }

    /// This header with its directory at another place.
    pub(super) fn with_directory(self, sector: u64) -> Self {
        Self { directory_offset: sector, ..self }
    }

    /// Checks that this footer points to the directory at `sector`.
    pub(super) fn check_directory(&self, sector: u64) -> Result<(), OpenError> {
        if self.directory_offset == sector {
            return Ok(());
        }
        Err(OpenError::Field {
            what: Item::The("gdOffset of the VMDK footer"),
            found: self.directory_offset,
            expected: "the sector behind the marker of the grain directory",
        })
    }

    /// Where the first marker of a stream is.
    pub(super) fn first_marker(&self) -> u64 {
        sectors(self.overhead.max(2), 0).start
    }

    /// Guest sectors.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Sectors in a grain.
    pub(super) fn grain_size(&self) -> u64 {
        self.grain_size
    }

    /// True if the footer, not this header, points to the grain directory.
    pub(super) fn directory_is_at_end(&self) -> bool {
        self.directory_offset == DIRECTORY_AT_END
    }

    /// Checks that this footer is a copy of `header` in all that matters.
    pub(super) fn check_same_disk(&self, header: &Self) -> Result<(), OpenError> {
        let known = flag::ZERO_GRAINS | flag::INCOMPATIBLE;
        let pairs = [
            ("version of the VMDK footer", u64::from(self.version), u64::from(header.version)),
            ("flags of the VMDK footer", u64::from(self.flags & known), u64::from(header.flags & known)),
            ("capacity of the VMDK footer", self.capacity, header.capacity),
            ("grainSize of the VMDK footer", self.grain_size, header.grain_size),
            (
                "compressAlgorithm of the VMDK footer",
                u64::from(self.compress_algorithm),
                u64::from(header.compress_algorithm),
            ),
        ];
        match pairs.into_iter().find(|(_, footer, header)| footer != header) {
            Some((name, found, _)) => {
                Err(OpenError::Field { what: Item::The(name), found, expected: "what the header says" })
            }
            None => Ok(()),
        }
    }

    /// Checks every field that leads to guest bytes.
    pub(super) fn validate(&self) -> Result<Shape, OpenError> {
        let compressed = self.compressed()?;
        let field = |name, found, expected| OpenError::Field { what: Item::The(name), found, expected };
        if self.capacity == 0 {
            return Err(field("capacity of the VMDK header", 0, "at least 1 sector"));
        }
        let virtual_size = self.capacity.saturating_mul(SECTOR);
        if virtual_size > MAX_VIRTUAL_SIZE {
            return Err(OpenError::Limit {
                what: Item::The("virtual size"),
                found: virtual_size,
                limit: MAX_VIRTUAL_SIZE,
            });
        }
        let grain_len = self.grain_size.saturating_mul(SECTOR);
        if !self.grain_size.is_power_of_two() || !(MIN_GRAIN..=MAX_VMDK_GRAIN).contains(&grain_len) {
            let expected = "a power of two from 8 to 2048 sectors";
            return Err(field("grainSize of the VMDK header", self.grain_size, expected));
        }
        if self.entries_per_table != TABLE_ENTRIES {
            let found = u64::from(self.entries_per_table);
            return Err(field("numGTEsPerGT of the VMDK header", found, "512"));
        }
        if self.directory_offset == 0 || self.directory_is_at_end() {
            let expected = "the sector of the grain directory";
            return Err(field("gdOffset of the VMDK header", self.directory_offset, expected));
        }
        let has_redundant =
            self.flags & flag::REDUNDANT != 0 && ![0, u64::MAX].contains(&self.redundant_offset);
        Ok(Shape {
            kind: Kind::Hosted { zero_grains: self.flags & flag::ZERO_GRAINS != 0 },
            guest_len: virtual_size,
            grain_len,
            compressed,
            directory_start: sectors(self.directory_offset, 0).start,
            redundant_start: has_redundant.then(|| sectors(self.redundant_offset, 0).start),
            // Header and descriptor take at least a sector each, whatever the header says.
            first_grain: sectors(self.overhead.max(2), 0).start,
            fixed: Vec::new(),
        })
    }

    /// Whether grains are compressed, and that they can be read.
    ///
    /// QEMU goes by the algorithm, open-vmdk by the flags; where the two disagree only one reading makes sense, or none.
    fn compressed(&self) -> Result<bool, OpenError> {
        let unknown = self.flags & flag::INCOMPATIBLE & !(flag::COMPRESSED | flag::MARKERS);
        if unknown != 0 {
            return Err(OpenError::Unsupported(Feature::VmdkFlags(unknown)));
        }
        match self.compress_algorithm {
            0 if self.flags & (flag::COMPRESSED | flag::MARKERS) == 0 => Ok(false),
            0 => Err(OpenError::Field {
                what: Item::The("compressAlgorithm of the VMDK header"),
                found: 0,
                expected: "1 (deflate), because the flags say that grains are compressed",
            }),
            1 if self.flags & flag::MARKERS == 0 => Err(OpenError::Unsupported(Feature::VmdkWithoutMarkers)),
            1 => Ok(true),
            other => Err(OpenError::Unsupported(Feature::VmdkCompression(other))),
        }
    }
}

/// True for the signatures of extent files that have no descriptor inside of them.
pub(super) fn is_other_extent(head: &[u8]) -> bool {
    head.starts_with(&cowd::MAGIC) || head.starts_with(&sesparse::MAGIC)
}
