//! The header of a QCOW2 file.
//!
//! Source: QEMU `docs/interop/qcow2.rst`, sections "Header", "Additional fields". Everything that the header points to is checked
//! ([`check`]) to lie inside the file, as far as the header says how long it is; [`extensions`] reads what follows it.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

pub(super) mod check;
mod extensions;

use crate::fields::Fields;
use crate::limits::MAX_HEADER_LEN;
use crate::qcow2::{Details, Snapshot};
use crate::{Encoding, Feature, Format, Item, OpenError, Role, Span};
use extensions::Extensions;

/// The first four bytes.
const MAGIC: [u8; 4] = *b"QFI\xfb";

/// Length of a version 2 header, and of the least version 3 header, bytes.
const V2_LEN: u32 = 72;
pub(super) const V3_LEN: u32 = 104;

/// Length of a header with a compression type, bytes: a multiple of 8.
const COMPRESSION_TYPE_LEN: u32 = 112;

/// Compression type: Zstandard.
const ZSTD: u8 = 1;

/// Cluster sizes: the specification's least, and QEMU's largest.
pub(super) const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;

/// Bytes of an entry of the L1 and refcount tables, and of an L2 table without subclusters.
pub(super) const ENTRY: u64 = 8;

/// Bytes of an L2 entry with subclusters.
const EXTENDED_ENTRY: u64 = 16;

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

/// Bit of `autoclear_features`: the data file is a raw disk by itself.
const RAW_DATA_FILE: u64 = 1 << 1;

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

/// A header that was checked, and what was found behind it.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    pub header: Header,
    /// Number of bitmaps, by the bitmaps extension.
    pub bitmaps: u32,
    /// The layer beneath.
    pub backing: Option<Backing>,
    /// The name of the file that holds the guest clusters, if another one does.
    pub data_file: Option<String>,
}

/// What a header says of the layer beneath.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backing {
    /// The name, as it is written.
    pub name: String,
    /// The format, by its header extension.
    pub format: Option<Format>,
}

/// An L1 table that maps a disk: the active one or that of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Root {
    /// What error messages call the table.
    pub name: &'static str,
    /// The whole table.
    pub l1: Span,
    /// Guest bytes.
    pub guest_len: u64,
}

impl Header {
    /// Reads the header from the first bytes of a file: as many as the file has, up to [`MAX_HEADER_LEN`].
    pub(super) fn read(head: &[u8], file_len: u64) -> Result<Checked, OpenError> {
        let header = Self::decode(head, file_len)?;
        header.check_features()?;
        header.check_values()?;
        header.check_geometry(file_len)?;
        let Extensions { bitmaps, backing_format, data_file } = Extensions::read(&header, head)?;
        let backing = match header.backing_name(head)? {
            Some(name) => Some(Backing { name, format: backing_format.transpose()? }),
            None => None,
        };
        let data_file = data_file.filter(|_| header.has_data_file());
        if header.has_data_file() && data_file.is_none() {
            return Err(OpenError::Unnamed(Role::DataFile));
        }
        Ok(Checked { header, bitmaps, backing, data_file })
    }

    /// The header as it stands at the start of a version 3 file, `header_length` bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = [
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
        .concat();
        if self.header_length > V3_LEN {
            bytes.push(self.compression_type);
        }
        // Behind that there is only padding.
        bytes.resize(self.header_length as usize, 0);
        bytes
    }

    /// Says that compressed clusters hold Zstandard frames.
    pub(super) fn set_zstd(&mut self) {
        self.header_length = COMPRESSION_TYPE_LEN;
        self.compression_type = ZSTD;
        self.incompatible_features |= incompatible::COMPRESSION_TYPE;
    }

    /// Bytes in a cluster.
    pub(super) fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes of an L2 entry.
    pub(super) fn l2_entry_len(&self) -> u64 {
        if self.has_subclusters() { EXTENDED_ENTRY } else { ENTRY }
    }

    /// Entries of an L2 table.
    pub(super) fn l2_entries(&self) -> u64 {
        // 8 or 16.
        self.cluster_size().checked_div(self.l2_entry_len()).unwrap_or(0)
    }

    /// Guest bytes that an L2 table maps. At most 2^39.
    pub(super) fn l2_reach(&self) -> u64 {
        self.cluster_size().saturating_mul(self.l2_entries())
    }

    /// Entries of an L1 table that map a disk of this length; those behind them map saved VM state.
    pub(super) fn l1_needed(&self, guest_len: u64) -> u64 {
        guest_len.div_ceil(self.l2_reach())
    }

    /// The active state.
    pub(super) fn root(&self) -> Root {
        let len = u64::from(self.l1_size).saturating_mul(ENTRY);
        Root { name: "L1 table", l1: Span::new(self.l1_table_offset, len), guest_len: self.size }
    }

    /// The refcount table.
    pub(super) fn refcount_table(&self) -> Span {
        let len = u64::from(self.refcount_table_clusters).saturating_mul(self.cluster_size());
        Span::new(self.refcount_table_offset, len)
    }

    /// A table with the rest of its last cluster, which holds nothing else.
    pub(super) fn whole_clusters(&self, table: Span) -> Span {
        let end = table.end().checked_next_multiple_of(self.cluster_size());
        Span::between(table.start, end.unwrap_or(u64::MAX))
    }

    /// How compressed clusters are encoded.
    pub(super) fn compression(&self) -> Encoding {
        if self.compression_type == 0 { Encoding::Deflate } else { Encoding::Zstd }
    }

    /// True if L2 entries tell the state of each of 32 subclusters.
    pub(super) fn has_subclusters(&self) -> bool {
        self.incompatible_features & incompatible::EXTENDED_L2 != 0
    }

    /// True if guest clusters lie in another file.
    pub(super) fn has_data_file(&self) -> bool {
        self.incompatible_features & incompatible::DATA_FILE != 0
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
        let version = whole.be32(4);
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
        let header_length = if version == 2 { V2_LEN } else { whole.be32(100) };
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
            backing_file_offset: fields.be64(8),
            backing_file_size: fields.be32(16),
            cluster_bits: fields.be32(20),
            size: fields.be64(24),
            crypt_method: fields.be32(32),
            l1_size: fields.be32(36),
            l1_table_offset: fields.be64(40),
            refcount_table_offset: fields.be64(48),
            refcount_table_clusters: fields.be32(56),
            nb_snapshots: fields.be32(60),
            snapshots_offset: fields.be64(64),
            incompatible_features: fields.be64(72),
            compatible_features: fields.be64(80),
            autoclear_features: fields.be64(88),
            refcount_order: if version == 2 { 4 } else { fields.be32(96) },
            header_length,
            compression_type: u8::from_be_bytes(fields.bytes(104)),
        })
    }
}

impl Checked {
    /// What of the image is public.
    pub(super) fn details(&self, snapshots: Vec<Snapshot>) -> Details {
        let Self { header, bitmaps, .. } = self;
        Details {
            version: header.version,
            cluster_size: header.cluster_size(),
            refcount_bits: 1 << header.refcount_order,
            compression: header.compression(),
            lazy_refcounts: header.compatible_features & LAZY_REFCOUNTS != 0,
            subclusters: header.has_subclusters(),
            data_file: header.has_data_file(),
            snapshots,
            bitmaps: *bitmaps,
        }
    }
}

fn field(name: &'static str, found: impl Into<u64>, expected: &'static str) -> OpenError {
    OpenError::Field { what: Item::The(name), found: found.into(), expected }
}

fn limit(name: &'static str, found: impl Into<u64>, limit: u64) -> OpenError {
    OpenError::Limit { what: Item::The(name), found: found.into(), limit }
}
