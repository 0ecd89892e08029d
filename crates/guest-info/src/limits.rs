//! Named limits on what looking into a disk may take, each with its reason.

/// Guest bytes that are read of a disk, in pages. Debian 13 takes 3 MiB, and 9 MiB of an archive whose units have 256 KiB; a disk that
/// wants more than this is a strange one, and what is not known then is called unknown. They are held until the end, and so are the
/// files that are read of a folder of settings beside them.
pub const MAX_READ: u64 = 48 << 20;

/// Bytes of a page: few requests of a remote source, little waste where files lie apart.
pub const PAGE: u64 = 64 << 10;

/// Largest page. Where the disk is stored in units that only decode as a whole, a page is as long as a unit.
pub const MAX_PAGE: u64 = 2 << 20;

/// Bytes that a parser asks for at a time.
pub const MAX_AT_ONCE: usize = 1 << 20;

/// Questions that parsers ask, answered from memory or not, each with one more for each [`QUESTION`] bytes: every loop over what a disk
/// says asks some, so this bounds time. Debian 13 takes 1,300.
pub const MAX_QUESTIONS: u64 = 200_000;

/// Bytes of an answer that count as a question more.
pub const QUESTION: u64 = 4096;

/// Most entries of a GUID partition table. 128 is what every writer makes room for.
pub const MAX_GPT_ENTRIES: u32 = 1024;

/// Largest entry of a GUID partition table, bytes; the specification wants 128 times a power of two.
pub const MAX_GPT_ENTRY: u32 = 4096;

/// Most logical partitions: Linux gives names to 60 of them.
pub const MAX_LOGICAL: u32 = 60;

/// Most partitions that are looked into: as many as a GUID partition table usually has room for.
pub const MAX_PARTITIONS: usize = 128;

/// Longest text in which LVM describes a group of volumes, bytes. A volume takes some 500 of them.
pub const MAX_LVM_TEXT: u64 = 128 << 10;

/// Most logical volumes of a physical one: as many as there may be partitions.
pub const MAX_LVM_VOLUMES: usize = MAX_PARTITIONS;

/// Deepest section of such a text. LVM's own have four.
pub const MAX_LVM_DEPTH: usize = 8;

/// Largest directory, bytes: 100,000 names of 32 characters. What is looked for lies in small ones.
pub const MAX_DIRECTORY: u64 = 4 << 20;

/// Most names of a directory that are held at a time. One with more is not known.
pub const MAX_NAMES: usize = 10_000;

/// Largest file that is read whole, bytes. The longest that is wanted is `modules.dep`: 110 KiB for Debian 13's cloud kernel, which has
/// the drivers of virtual machines only.
pub const MAX_FILE: u64 = 2 << 20;

/// Most files that are read of a folder of settings. With more it is not known what they come to.
pub const MAX_SETTINGS: usize = 64;

/// Most symbolic links on the way to a file. Linux follows 40.
pub const MAX_LINKS: u32 = 40;

/// Longest path with all its links, bytes, as in Linux.
pub const MAX_PATH: u64 = 4096;

/// Largest file that is read of a folder of settings, bytes. Real ones have a few hundred.
pub const MAX_SETTING: u64 = 256 << 10;

/// Longest chain of clusters of a directory on FAT: 4 MiB in clusters of 512 bytes.
pub const MAX_FAT_CHAIN: u32 = 8192;

/// Characters of a line, a label or a name that are shown.
pub const MAX_SHOWN: usize = 160;
