//! The archive that Compute Engine imports: a raw disk of whole GiB, `disk.raw`, in a tar of the old GNU format, in gzip.
//!
//! Sources: Compute Engine documentation, "Manually import boot disks" and `images.insert` (`rawDisk`); the manual of GNU tar 1.35,
//! "Basic Tar Format" and "Sparse Formats"; RFC 1952.
//!
//! Written ([`Archive`]) as independent gzip members, which any gzip reads as one stream: the tar header with its sparse map, one
//! member for each unit of the disk that holds anything, the end of the tar. Behind every 16,000 members, and
//! at the end, stands one that is empty, and whose extra field has the lengths of those before it. By these a reader finds every
//! member from the end of the file, without reading what lies between: so such an archive is an image like others, read at random
//! and decoded in parallel.
//!
//! Refused on reading: members that are not as the header and the index say. A gzip file without that index is read through first
//! ([`unpack`](crate::unpack)), and the tar in it, as a plain one, by the module `archive`.

mod header;
mod index;
mod layout;
mod reader;

pub use layout::{Archive, ArchiveError};

pub(crate) use reader::open;

/// The disk of an archive is a multiple of so many bytes long: Compute Engine takes no other.
pub const GIB: u64 = 1 << 30;

/// Tar archives are made of records of so many bytes, unless somebody says otherwise to tar.
const RECORD: u64 = 10240;
