//! Named limits on what an image may ask for, each with its reason.

/// Largest virtual size, bytes: 64 TiB. Above every cloud's largest disk, and small enough that no offset arithmetic nears 2^63.
pub const MAX_VIRTUAL_SIZE: u64 = 64 << 40;

/// Largest source file, bytes. File offsets are signed in every operating system's interface.
pub const MAX_FILE_LEN: u64 = i64::MAX as u64;

/// Most layers beneath an image. Chains that are made by hand or by daily backups are shorter.
pub const MAX_BACKING_DEPTH: u32 = 64;

/// Memory that an extent map may take, with what proves while opening that nothing is in it twice, bytes. Holds 4 TiB mapped in
/// 64 KiB compressed clusters.
pub const MAX_MAP_MEMORY: usize = 256 << 20;

/// Metadata that a parser asks for in one step, bytes: enough to stream tables at full speed, too little to matter for memory.
pub const METADATA_STEP: u64 = 4 << 20;

/// Largest VMDK descriptor, bytes. Real ones take a few hundred, and a few KiB where an extent is listed for each 2 GiB.
pub const MAX_VMDK_DESCRIPTOR: u64 = 1 << 20;

/// Most extents of a VMDK. One for each 2 GiB makes 8 TiB of them, and no writer of split disks goes above that.
pub const MAX_VMDK_EXTENTS: usize = 4096;

/// Largest VMDK grain, bytes: 2048 sectors. Writers use 64 KiB; a reader holds a decoded grain for each worker.
pub const MAX_VMDK_GRAIN: u64 = 1 << 20;

/// How far from the end of the file a VMDK footer is looked for, bytes: more than tar and stores that count blocks append.
pub const VMDK_FOOTER_SEARCH: u64 = 1 << 20;

/// How far a QCOW2 header and its extensions may reach, bytes. QEMU writes under 1 KiB; all 192 feature names take 9 KiB.
pub const MAX_HEADER_LEN: u64 = 64 << 10;

/// Longest name of a QCOW2 backing file, bytes, as in the specification.
pub const MAX_BACKING_NAME: u32 = 1023;

/// Largest QCOW2 L1 table, bytes, as in QEMU: enough for 64 TiB from clusters of 16 KiB on.
pub const MAX_L1_LEN: u64 = 32 << 20;

/// Largest QCOW2 refcount table, bytes, as in QEMU.
pub const MAX_REFCOUNT_TABLE_LEN: u64 = 8 << 20;

/// Most QCOW2 internal snapshots, as in QEMU.
pub const MAX_QCOW2_SNAPSHOTS: u32 = 65536;

/// Memory that a QCOW2 layout may take for its clusters, bytes: 16 million runs, the worst that 64 TiB in 2 MiB clusters can be.
pub const MAX_LAYOUT_MEMORY: usize = 128 << 20;

/// Memory that the lengths of compressed QCOW2 clusters may take while a file is written, bytes: as much as a map of the same disk.
/// Holds 4 TiB of data in clusters of 64 KiB, and 64 TiB in clusters of 1 MiB.
pub const MAX_PACKED_MEMORY: u64 = 256 << 20;

/// Largest QCOW2 snapshot table, bytes, as in QEMU.
pub const MAX_QCOW2_SNAPSHOT_TABLE: u64 = 64 << 20;

/// Most extra data of a QCOW2 snapshot, bytes, as in QEMU.
pub const MAX_QCOW2_SNAPSHOT_EXTRA: u32 = 1024;

/// Bytes of the L1 tables of all QCOW2 snapshots: every one is checked to lie on nothing else, in time that goes with its length.
/// Enough for 500 snapshots of 64 TiB in clusters of 64 KiB.
pub const MAX_QCOW2_SNAPSHOT_L1: u64 = 4 << 30;

/// Guest bytes that compressed clusters may decode to, if [`MAX_EXPANSION_RATIO`] does not allow more: what a few minutes of
/// decoding make.
pub const MAX_EXPANSION: u64 = 4 << 30;

/// Guest bytes that compressed clusters may decode to for each byte of the file. Deflate cannot exceed 1032; Zstandard can, and what
/// does was made for it.
pub const MAX_EXPANSION_RATIO: u64 = 1024;

/// Largest VHD block allocation table that is read, bytes: 2 TiB, the most that the format can address, in blocks of 128 KiB. Writers
/// take 2 MiB, some 512 KiB.
pub const MAX_VHD_TABLE_LEN: u64 = 64 << 20;

/// Longest name of a VHD or VHDX parent, bytes: 32,767 UTF-16 units, the longest path of Windows.
pub const MAX_PARENT_NAME: u64 = 64 << 10;

/// Most members of an archive. Real OVAs hold a descriptor, a manifest, a certificate and a file for each disk, archives for Compute
/// Engine the disk.
pub const MAX_ARCHIVE_MEMBERS: u64 = 1024;

/// Longest extended header of an archive member, bytes: a name of 4096 bytes, the longest path of Linux, and a sparse map of some
/// 40,000 runs, which GNU tar puts there by choice (`--sparse-version=0.1`).
pub const MAX_ARCHIVE_EXTENSION: u64 = 1 << 20;

/// Longest name of an archive member, bytes: 4096, the longest path of Linux, each byte of which may have been replaced by three.
pub const MAX_ARCHIVE_NAME: usize = 12 << 10;

/// Most runs in the map of a sparse archive member, read or written: 16 MiB in memory, 24 MiB of headers. A disk with a file tree has
/// some 10,000 for 100 GiB.
pub const MAX_ARCHIVE_RUNS: usize = 1 << 20;

/// Largest unit of an archive for Compute Engine, bytes: what 64 TiB take in [`MAX_ARCHIVE_RUNS`] runs, were every other one a hole.
pub const MAX_GCE_UNIT: u64 = 32 << 20;

/// Content from one checkpoint of a compressed file to the next, bytes, as long as they fit [`MAX_CHECKPOINT_MEMORY`]. Half of it is
/// decoded in vain for each read; a window takes a twentieth of the time that this takes to decode.
pub const CHECKPOINT_SPACING: u64 = 1 << 20;

/// Memory that the checkpoints of a compressed file may take, bytes: one for each MiB of 1 GiB that does not compress, or of 3 GiB of
/// what disks mostly hold. Of more content they are further apart.
pub const MAX_CHECKPOINT_MEMORY: usize = 32 << 20;

/// What is known to be zero of compressed content is counted in so many bytes: as a pass over a raw disk counts zeroes.
pub const FILLED_GRANULE: u64 = 64 << 10;

/// Most runs of compressed content that are known not to be zero: 1 MiB of them.
pub const MAX_FILLED_RUNS: usize = 1 << 16;

/// Most zeroes behind the last member of a compressed file, bytes: more than tapes, tar and stores that count blocks append.
pub const MAX_PADDING: u64 = 1 << 20;

/// Most content of a Zstandard frame in a compressed file, bytes: only at its start can decoding begin. `pzstd` makes frames of 8 MiB at
/// its default level, and of 512 MiB at its highest, `zstd` one of any file.
pub const MAX_FRAME: u64 = 64 << 20;

/// Largest window of a Zstandard frame in a compressed file, a power of two bytes: the 8 MiB that RFC 8878 asks of every decoder. Each
/// read in flight holds one.
pub const MAX_WINDOW_LOG: u32 = 23;

/// What a compressed file may unpack to, bytes, unless the caller wants less: a raw disk of the largest size, in an archive. A deflate
/// stream makes 1032 bytes of one at most, so time stays proportional to the file.
pub const MAX_UNPACKED: u64 = MAX_VIRTUAL_SIZE + (1 << 30);
