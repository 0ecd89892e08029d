//! What a sparse extent file looks like, whichever of the three kinds it is: where its tables are and what their entries mean.
//!
//! Sources: *Virtual Disk Format 5.0*, "Grain Directory" and "Grain Table" for hosted files, "ESXi Host Sparse Extents" for COWD;
//! QEMU's `block/vmdk.c` for seSparse, of which no specification is public. In all three a directory entry leads to a table of a fixed number of entries, and
//! a table entry to a grain.

use super::SECTOR;
use crate::{Item, OpenError, Span};

/// A sparse extent file, its header checked, in bytes.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) kind: Kind,
    /// Guest bytes: a multiple of the sector, not always of the grain.
    pub(super) guest_len: u64,
    /// Guest bytes in a grain: a power of two.
    pub(super) grain_len: u64,
    /// Each grain is a marker and a zlib stream.
    pub(super) compressed: bool,
    /// Where the grain directory starts. Not checked against the file's length.
    pub(super) directory_start: u64,
    /// Where its redundant copy starts, if there is one.
    pub(super) redundant_start: Option<u64>,
    /// No grain starts before this.
    pub(super) first_grain: u64,
    /// Headers and what else lies at a known place; they lie inside the file.
    pub(super) fixed: Vec<(Span, Item)>,
}

/// What the entries of the tables mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The sparse files of hosted products and of streams. Entries are sectors.
    Hosted {
        /// A table entry of 1 is a grain of zeroes.
        zero_grains: bool,
    },
    /// The copy-on-write disks of ESX. Entries are sectors.
    Cowd,
    /// The space-efficient disks of ESX. Entries are a type and an index.
    SeSparse {
        /// Where table 0 starts.
        tables: u64,
        /// Where grain 0 starts.
        grains: u64,
    },
}

/// What a table entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grain {
    /// This file is silent.
    Hole,
    /// Zeroes.
    Zero,
    /// Stored from this byte on.
    At(u64),
}

impl Kind {
    /// Bytes of an entry, in directory and table.
    pub(super) fn entry_len(self) -> usize {
        match self {
            Self::Hosted { .. } | Self::Cowd => 4,
            Self::SeSparse { .. } => 8,
        }
    }

    /// Entries in a table.
    pub(super) fn entries_per_table(self) -> u64 {
        match self {
            Self::Hosted { .. } => 512,
            Self::Cowd | Self::SeSparse { .. } => 4096,
        }
    }

    /// Bytes of a table.
    pub(super) fn table_len(self) -> u64 {
        self.entries_per_table().saturating_mul(self.entry_len() as u64)
    }

    /// Where the table starts that a directory entry other than 0 stands for.
    pub(super) fn table(self, entry: u64, what: Item) -> Result<u64, OpenError> {
        match self {
            Self::Hosted { .. } | Self::Cowd => Ok(entry.saturating_mul(SECTOR)),
            // The top half is 0x10000000, the lower one a number: 64 TiB need no more than 22 bits of it.
            Self::SeSparse { tables, .. } if entry >> 32 == 0x1000_0000 => {
                Ok(tables.saturating_add((entry & 0xffff_ffff).saturating_mul(self.table_len())))
            }
            Self::SeSparse { .. } => Err(OpenError::Field {
                what,
                found: entry,
                expected: "0 or 0x10000000 and the number of a table",
            }),
        }
    }

    /// What a table entry says.
    pub(super) fn grain(self, entry: u64, grain_len: u64, what: Item) -> Result<Grain, OpenError> {
        match self {
            Self::Hosted { zero_grains: true } if entry == 1 => Ok(Grain::Zero),
            Self::Hosted { .. } | Self::Cowd if entry == 0 => Ok(Grain::Hole),
            Self::Hosted { .. } | Self::Cowd => Ok(Grain::At(entry.saturating_mul(SECTOR))),
            Self::SeSparse { grains, .. } => match entry >> 60 {
                0 if entry == 0 => Ok(Grain::Hole),
                // Type 1 is what the guest discarded after the snapshot was made: the parent's bytes are older than that, so
                // they must not show through. QEMU reads zeroes, too.
                1 | 2 => Ok(Grain::Zero),
                3 => {
                    // Bits 48 to 59 are the low bits of the index, bits 0 to 47 the high ones.
                    let index = entry >> 48 & 0xfff | (entry & 0xffff_ffff_ffff) << 12;
                    Ok(Grain::At(grains.saturating_add(index.saturating_mul(grain_len))))
                }
                _ => {
                    let expected = "0, or of type 1, 2 or 3 in the upper four bits";
                    Err(OpenError::Field { what, found: entry, expected })
                }
            },
        }
    }
}

impl Shape {
    /// Guest bytes that a table covers.
    pub(super) fn table_covers(&self) -> u64 {
        self.grain_len.saturating_mul(self.kind.entries_per_table()).max(1)
    }

    /// The directory, as far as the disk needs it.
    pub(super) fn directory(&self) -> Span {
        let entries = self.guest_len.div_ceil(self.table_covers());
        Span::new(self.directory_start, entries.saturating_mul(self.kind.entry_len() as u64))
    }
}

/// A run that a header counts in sectors, in bytes; saturated, so that a hostile number cannot wrap into the file.
pub(super) fn sectors(start: u64, len: u64) -> Span {
    Span::new(start.saturating_mul(SECTOR), len.saturating_mul(SECTOR))
}

/// The next `N` bytes.
pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (field, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*field)
}
