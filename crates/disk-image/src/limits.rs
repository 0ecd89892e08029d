//! Named limits on what an image may ask for, each with its reason.

/// Largest virtual size, bytes: 64 TiB. Above every cloud's largest disk, and small enough that no offset arithmetic nears 2^63.
pub const MAX_VIRTUAL_SIZE: u64 = 64 << 40;

/// Largest source file, bytes. File offsets are signed in every operating system's interface.
pub const MAX_FILE_LEN: u64 = i64::MAX as u64;

/// Memory that an extent map may take, bytes. Holds 4 TiB mapped in 64 KiB compressed clusters.
pub const MAX_MAP_MEMORY: usize = 256 << 20;

/// Metadata that a parser asks for in one step, bytes: enough to stream tables at full speed, too little to matter for memory.
pub const METADATA_STEP: u64 = 4 << 20;
