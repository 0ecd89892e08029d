//! The header of a QCOW2 file and the extensions behind it.
//!
//! Source: QEMU `docs/interop/qcow2.rst`, sections "Header", "Additional fields", "Header extensions". The header must lie in the
//! first cluster, and so must its extensions. Everything that the header points to is checked here to lie inside the file.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::limits::{
    MAX_BACKING_NAME, MAX_HEADER_LEN, MAX_L1_LEN, MAX_QCOW2_SNAPSHOTS, MAX_REFCOUNT_TABLE_LEN,
    MAX_VIRTUAL_SIZE,
};
use crate::qcow2::Details;
use crate::{Encoding, Feature, Format, Item, OpenError, Span};

/// The first four bytes.
const MAGIC: [u8; 4] = *b"QFI\xfb";

/// Length of a version 2 header, and of the least version 3 header, bytes.
const V2_LEN: u32 = 72;
pub(super) const V3_LEN: u32 = 104;

/// Cluster sizes: the specification's least, and QEMU's largest.
pub(super) const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;

/// Bytes of an entry of the L1, L2 and refcount tables.
pub(super) const ENTRY: u64 = 8;

/// Bits of `incompatible_features`.
mod incompatible {
    pub(super) const DIRTY: u64 = 1 << 0;
    pub(super) const CORRUPT: u64 = 1 << 1;
    pub(super) const DATA_FILE: u64 = 1 << 2;
    pub(super) const COMPRESSION_TYPE: u64 = 1 << 3;
    pub(super) const EXTENDED_L2: u64 = 1 << 4;
    pub(super) const KNOWN: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION_TYPE | EXTENDED_L2;
}

/// Bit of `compatible_features`: lazy refcounts.
const LAZY_REFCOUNTS: u64 = 1 << 0;

/// Types of header extension that are looked at; the others are passed over, as the specification allows.
const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_BITMAPS: u32 = 0x2385_2875;

/// The header. Fields are as stored; a field that the version or `header_length` leaves out is 0, which means the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// Byte 4: version, 2 or 3.
    pub version: u32,
    /// Byte 8: where the backing file's name is stored; 0 if there is none.
    pub backing_file_offset: u64,
    /// Byte 16: length of that name.
    pub backing_file_size: u32,
    /// Byte 20: a cluster has `1 << cluster_bits` bytes.
    pub cluster_bits: u32,
    /// Byte 24: virtual size, bytes.
    pub size: u64,
    /// Byte 32: encryption; 0 none, 1 AES, 2 LUKS.
    pub crypt_method: u32,
    /// Byte 36: entries of the active L1 table.
    pub l1_size: u32,
    /// Byte 40: where it starts; cluster-aligned.
    pub l1_table_offset: u64,
    /// Byte 48: where the refcount table starts; cluster-aligned.
    pub refcount_table_offset: u64,
    /// Byte 56: its length in clusters.
    pub refcount_table_clusters: u32,
    /// Byte 60: number of internal snapshots.
    pub nb_snapshots: u32,
    /// Byte 64: where the snapshot table starts; cluster-aligned.
    pub snapshots_offset: u64,
    /// Byte 72: features that a reader must know.
    pub incompatible_features: u64,
    /// Byte 80: features that may be ignored.
    pub compatible_features: u64,
    /// Byte 88: features that a writer must clear where it does not know them.
    pub autoclear_features: u64,
    /// Byte 96: a refcount has `1 << refcount_order` bits. Always 4 in version 2.
    pub refcount_order: u32,
    /// Byte 100: length of this header, bytes. Always 72 in version 2.
    pub header_length: u32,
    /// Byte 104: 0 deflate, 1 Zstandard.
    pub compression_type: u8,
}

/// What is read of the header extensions.
#[derive(Default)]
struct Extensions {
    bitmaps: u32,
    backing_format: Option<Format>,
}

/// A header that was checked, and what was found behind it.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    pub header: Header,
    /// Number of bitmaps, by the bitmaps extension.
    pub bitmaps: u32,
    /// The layer beneath.
    pub backing: Option<Backing>,
}

/// What a header says of the layer beneath.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backing {
    /// The name, as it is written.
    pub name: String,
    /// The format, by its header extension.
    pub format: Option<Format>,
}

impl Header {
    /// Reads the header from the first bytes of a file: as many as the file has, up to [`MAX_HEADER_LEN`].
    pub(super) fn read(head: &[u8], file_len: u64) -> Result<Checked, OpenError> {
        let header = Self::decode(head, file_len)?;
        header.check_features()?;
        header.check_values()?;
        header.check_geometry(file_len)?;
        let extensions = header.extensions(head)?;
        let backing =
            header.backing_name(head)?.map(|name| Backing { name, format: extensions.backing_format });
        Ok(Checked { header, bitmaps: extensions.bitmaps, backing })
    }

    /// The header as it stands at the start of a version 3 file. Fields behind byte 104 are left out.
    pub(super) fn encode(&self) -> Vec<u8> {
        [
            &MAGIC[..],
            &self.version.to_be_bytes(),
            &self.backing_file_offset.to_be_bytes(),
            &self.backing_file_size.to_be_bytes(),
            &self.cluster_bits.to_be_bytes(),
            &self.size.to_be_bytes(),
            &self.crypt_method.to_be_bytes(),
            &self.l1_size.to_be_bytes(),
            &self.l1_table_offset.to_be_bytes(),
            &self.refcount_table_offset.to_be_bytes(),
            &self.refcount_table_clusters.to_be_bytes(),
            &self.nb_snapshots.to_be_bytes(),
            &self.snapshots_offset.to_be_bytes(),
            &self.incompatible_features.to_be_bytes(),
            &self.compatible_features.to_be_bytes(),
            &self.autoclear_features.to_be_bytes(),
            &self.refcount_order.to_be_bytes(),
            &self.header_length.to_be_bytes(),
        ]
        .concat()
    }

    /// Bytes in a cluster.
    pub(super) fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Entries of an L2 table.
    pub(super) fn l2_entries(&self) -> u64 {
        self.cluster_size() / ENTRY
    }

    /// Guest bytes that an L2 table maps. At most 2^39.
    pub(super) fn l2_reach(&self) -> u64 {
        self.cluster_size().saturating_mul(self.l2_entries())
    }

    /// Entries of the L1 table that map the virtual disk; those behind them map saved VM state.
    pub(super) fn l1_needed(&self) -> u64 {
        self.size.div_ceil(self.l2_reach())
    }

    /// The L1 table, as far as it maps the virtual disk.
    pub(super) fn l1_table(&self) -> Span {
        Span::new(self.l1_table_offset, self.l1_needed().saturating_mul(ENTRY))
    }

    /// The refcount table.
    pub(super) fn refcount_table(&self) -> Span {
        let len = u64::from(self.refcount_table_clusters).saturating_mul(self.cluster_size());
        Span::new(self.refcount_table_offset, len)
    }

    /// How compressed clusters are encoded.
    pub(super) fn compression(&self) -> Encoding {
        if self.compression_type == 0 { Encoding::Deflate } else { Encoding::Zstd }
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.incompatible_features & incompatible::DIRTY != 0
    }

    pub(super) fn is_corrupt(&self) -> bool {
        self.incompatible_features & incompatible::CORRUPT != 0
    }

    fn decode(head: &[u8], file_len: u64) -> Result<Self, OpenError> {
        let whole = Fields(head);
        let found = whole.bytes(0);
        if found != MAGIC {
            return Err(OpenError::Signature { expected: Format::Qcow2, found, signature: MAGIC });
        }
        let version = whole.u32(4);
        let least = match version {
            2 => V2_LEN,
            3 => V3_LEN,
            _ => return Err(OpenError::Unsupported(Feature::QcowVersion(version))),
        };
        let short = |len: u32| {
            let span = Span::new(0, len.into());
            OpenError::Truncated { what: Item::The("QCOW2 header"), span, file_len }
        };
        if file_len < least.into() {
            return Err(short(least));
        }
        let header_length = if version == 2 { V2_LEN } else { whole.u32(100) };
        if header_length < least || header_length % 8 != 0 {
            return Err(field(
                "header_length of the QCOW2 header",
                header_length,
                "a multiple of 8, at least 104",
            ));
        }
        if u64::from(header_length) > MAX_HEADER_LEN {
            return Err(limit("header_length of the QCOW2 header", header_length, MAX_HEADER_LEN));
        }
        if u64::from(header_length) > file_len {
            return Err(short(header_length));
        }
        let fields = Fields(head.get(..header_length as usize).unwrap_or(head));
        Ok(Self {
            version,
            backing_file_offset: fields.u64(8),
            backing_file_size: fields.u32(16),
            cluster_bits: fields.u32(20),
            size: fields.u64(24),
            crypt_method: fields.u32(32),
            l1_size: fields.u32(36),
            l1_table_offset: fields.u64(40),
            refcount_table_offset: fields.u64(48),
            refcount_table_clusters: fields.u32(56),
            nb_snapshots: fields.u32(60),
            snapshots_offset: fields.u64(64),
            incompatible_features: fields.u64(72),
            compatible_features: fields.u64(80),
            autoclear_features: fields.u64(88),
            refcount_order: if version == 2 { 4 } else { fields.u32(96) },
            header_length,
            compression_type: u8::from_be_bytes(fields.bytes(104)),
        })
    }

    /// Refuses what is not read here, by name.
    fn check_features(&self) -> Result<(), OpenError> {
        let bits = self.incompatible_features;
        let unknown = bits & !incompatible::KNOWN;
        let has = |bit| bits & bit != 0;
        let missing = if unknown != 0 {
            #[expect(clippy::cast_possible_truncation, reason = "a bit number is at most 63")]
            Feature::IncompatibleBit(unknown.trailing_zeros() as u8)
        } else if has(incompatible::DATA_FILE) {
            Feature::DataFile
        } else if has(incompatible::EXTENDED_L2) {
            Feature::ExtendedL2
        } else if has(incompatible::COMPRESSION_TYPE) && self.compression_type > 1 {
            Feature::CompressionType(self.compression_type)
        } else if self.crypt_method == 1 {
            Feature::Aes
        } else if self.crypt_method == 2 {
            Feature::Luks
        } else {
            return Ok(());
        };
        Err(OpenError::Unsupported(missing))
    }

    fn check_values(&self) -> Result<(), OpenError> {
        if self.crypt_method != 0 {
            return Err(field("crypt_method of the QCOW2 header", self.crypt_method, "0, 1 or 2"));
        }
        let non_default = self.incompatible_features & incompatible::COMPRESSION_TYPE != 0;
        if non_default != (self.compression_type != 0) {
            let expected =
                if non_default { "1, as feature bit 3 is set" } else { "0, as feature bit 3 is clear" };
            return Err(field("compression_type of the QCOW2 header", self.compression_type, expected));
        }
        if self.refcount_order > 6 {
            return Err(field("refcount_order of the QCOW2 header", self.refcount_order, "at most 6"));
        }
        if !CLUSTER_BITS.contains(&self.cluster_bits) {
            return Err(field("cluster_bits of the QCOW2 header", self.cluster_bits, "9 to 21"));
        }
        if u64::from(self.header_length) > self.cluster_size() {
            return Err(field(
                "header_length of the QCOW2 header",
                self.header_length,
                "at most the cluster size",
            ));
        }
        if self.size == 0 {
            return Err(field("size of the QCOW2 header", self.size, "a disk that has bytes"));
        }
        if self.size > MAX_VIRTUAL_SIZE {
            return Err(limit("size of the QCOW2 header", self.size, MAX_VIRTUAL_SIZE));
        }
        Ok(())
    }

    /// Checks every table that the header points to.
    fn check_geometry(&self, file_len: u64) -> Result<(), OpenError> {
        let l1_len = u64::from(self.l1_size).saturating_mul(ENTRY);
        if l1_len > MAX_L1_LEN {
            return Err(limit("l1_size of the QCOW2 header", self.l1_size, MAX_L1_LEN / ENTRY));
        }
        if u64::from(self.l1_size) < self.l1_needed() {
            return Err(field(
                "l1_size of the QCOW2 header",
                self.l1_size,
                "enough entries for the virtual size",
            ));
        }
        let l1_table = Span::new(self.l1_table_offset, l1_len);
        self.check_table("L1 table", "l1_table_offset of the QCOW2 header", l1_table, file_len)?;

        let refcount_table = self.refcount_table();
        if self.refcount_table_clusters == 0 {
            return Err(field("refcount_table_clusters of the QCOW2 header", 0_u32, "at least 1"));
        }
        if refcount_table.len > MAX_REFCOUNT_TABLE_LEN {
            let most = MAX_REFCOUNT_TABLE_LEN >> self.cluster_bits;
            return Err(limit(
                "refcount_table_clusters of the QCOW2 header",
                self.refcount_table_clusters,
                most,
            ));
        }
        self.check_table(
            "refcount table",
            "refcount_table_offset of the QCOW2 header",
            refcount_table,
            file_len,
        )?;
        if !l1_table.intersect(refcount_table).is_empty() {
            return Err(OpenError::Overlap {
                what: Item::The("L1 table"),
                other: Item::The("refcount table"),
                at: l1_table.start.max(refcount_table.start),
            });
        }

        if self.nb_snapshots > MAX_QCOW2_SNAPSHOTS {
            return Err(limit(
                "nb_snapshots of the QCOW2 header",
                self.nb_snapshots,
                MAX_QCOW2_SNAPSHOTS.into(),
            ));
        }
        if self.nb_snapshots > 0 {
            // Its length is known only by walking it; it leads to no guest byte.
            let start = Span::new(self.snapshots_offset, 1);
            self.check_table("snapshot table", "snapshots_offset of the QCOW2 header", start, file_len)?;
        }
        Ok(())
    }

    fn check_table(
        &self,
        name: &'static str,
        pointer: &'static str,
        span: Span,
        file_len: u64,
    ) -> Result<(), OpenError> {
        if span.start == 0 || !span.start.is_multiple_of(self.cluster_size()) {
            return Err(field(pointer, span.start, "a multiple of the cluster size, above 0"));
        }
        if span.end() > file_len {
            return Err(OpenError::Truncated { what: Item::The(name), span, file_len });
        }
        Ok(())
    }

    /// The name of the backing file. It must end inside the first cluster.
    fn backing_name(&self, head: &[u8]) -> Result<Option<String>, OpenError> {
        if self.backing_file_offset == 0 {
            return Ok(None);
        }
        if self.backing_file_size > MAX_BACKING_NAME {
            let name = "backing_file_size of the QCOW2 header";
            return Err(limit(name, self.backing_file_size, MAX_BACKING_NAME.into()));
        }
        let span = Span::new(self.backing_file_offset, self.backing_file_size.into());
        let bytes = usize::try_from(span.start)
            .ok()
            .filter(|_| span.start >= self.header_length.into() && span.end() <= self.cluster_size())
            .and_then(|start| head.get(start..)?.get(..self.backing_file_size as usize))
            .ok_or(field(
                "backing_file_offset of the QCOW2 header",
                self.backing_file_offset,
                "a name behind the header, inside the first cluster and its first 64 KiB",
            ))?;
        Ok(Some(String::from_utf8_lossy(bytes).into_owned()))
    }

    /// Walks the header extensions.
    fn extensions(&self, head: &[u8]) -> Result<Extensions, OpenError> {
        let area = usize::try_from(self.cluster_size()).unwrap_or(usize::MAX).min(head.len());
        let mut rest = head.get(self.header_length as usize..area).unwrap_or_default();
        let mut found = Extensions::default();
        while let Some((extension, behind)) = rest.split_first_chunk::<8>() {
            let [kind, len] = [Fields(extension).u32(0), Fields(extension).u32(4)];
            match kind {
                EXTENSION_END => break,
                EXTENSION_BITMAPS => found.bitmaps = Fields(behind).u32(0),
                EXTENSION_BACKING_FORMAT => {
                    let name = behind.get(..len as usize).unwrap_or_default();
                    found.backing_format = Some(backing_format(name)?);
                }
                _ => {}
            }
            let padded = (len as usize).checked_next_multiple_of(8);
            rest = padded.and_then(|padded| behind.get(padded..)).ok_or(OpenError::Field {
                what: Item::The("length of a QCOW2 header extension"),
                found: len.into(),
                expected: "an extension inside the first cluster and its first 64 KiB",
            })?;
        }
        Ok(found)
    }
}

impl Checked {
    /// What of the header is public.
    pub(super) fn details(&self) -> Details {
        let Self { header, bitmaps, .. } = self;
        Details {
            version: header.version,
            cluster_size: header.cluster_size(),
            refcount_bits: 1 << header.refcount_order,
            compression: header.compression(),
            lazy_refcounts: header.compatible_features & LAZY_REFCOUNTS != 0,
            snapshots: header.nb_snapshots,
            bitmaps: *bitmaps,
        }
    }
}

/// The format that QEMU calls by this name.
fn backing_format(name: &[u8]) -> Result<Format, OpenError> {
    match name {
        b"raw" | b"file" | b"host_device" => Ok(Format::Raw),
        b"qcow2" => Ok(Format::Qcow2),
        b"vmdk" => Ok(Format::Vmdk),
        b"vpc" => Ok(Format::Vhd),
        b"vhdx" => Ok(Format::Vhdx),
        _ => Err(OpenError::Unsupported(Feature::BackingFormat)),
    }
}

/// Bytes with big-endian numbers in them. What lies past their end is 0: that is how the specification reads an absent field.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.bytes(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_be_bytes(self.bytes(at))
    }
}

fn field(name: &'static str, found: impl Into<u64>, expected: &'static str) -> OpenError {
    OpenError::Field { what: Item::The(name), found: found.into(), expected }
}

fn limit(name: &'static str, found: impl Into<u64>, limit: u64) -> OpenError {
    OpenError::Limit { what: Item::The(name), found: found.into(), limit }
}
