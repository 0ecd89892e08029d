//! Makes the parts of an output within a memory budget, from any byte source to any sink.
//!
//! [`open_image`] opens what a [`ByteSource`] holds; [`convert()`] makes the output that an object map describes and gives it to a
//! [`Sink`], [`pack()`] one whose offsets follow from the lengths of what was encoded. [`digest`], [`scan`] and [`compare`] are the same loop with other ends. Sources never see formats, sinks neither.
//!
//! Cancellation is the last argument of everything that takes long; when a function returns, nothing that it began is still
//! running.

mod admission;
mod assemble;
mod buffer;
mod compare;
mod convert;
mod digest;
mod digesting;
mod disk;
mod error;
mod file;
mod memory;
mod options;
mod pack;
mod references;
mod rendered;
mod scan;
mod share;
mod sink;
mod source;
mod sources;
mod unpacked;
mod workers;
mod zero;

pub use compare::{Comparison, compare};
pub use convert::{convert, least_memory};
pub use digest::{BLOCK_SIZE, BlockId, GuestDigest, Summary, block_id, digest, storage_bound};
pub use digesting::{Digested, Digesting, Summed};
pub use disk::{Disk, open_image};
pub use error::{ConvertError, SinkError, SinkFault, SourceError, SourceFault};
pub use file::{DeviceSink, FileSink, FileSource};
pub use memory::{MemorySink, MemorySource};
pub use options::{Counters, DEFAULT_MEMORY, Options};
pub use pack::{Packed, least_memory_to_pack, pack};
pub use references::{ReferenceFault, ReferenceFolder, References};
pub use rendered::Rendered;
pub use scan::{SCAN_GRANULARITY, scan};
pub use sink::{FilledPart, Part, PartRules, PartSize, Payload, PutNow, Sink, Zeroes};
pub use source::{ByteSource, ReadAt, SourceShape};
pub use sources::Sources;
pub use unpacked::Unpacked;
pub use workers::Workers;
pub use zero::is_zero;
