//! Why a disk image was refused.

use crate::{Compression, FileId, Format, Guid, Role, Span};

/// Why a disk image was refused. Nothing was read beyond its metadata.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,

    /// The content matches no known format.
    #[error("no known disk image format: found no signature of one")]
    UnknownFormat,

    /// The content matches more than one format.
    #[error("the content matches both {0} and {1}")]
    Ambiguous(Format, Format),

    /// What a compressed file unpacks to matches no format, or several.
    #[error("{error}, in what the {compression} file unpacks to")]
    Inside {
        /// How the file is compressed.
        compression: Compression,
        /// What is wrong there.
        error: Box<OpenError>,
    },

    /// The format was named, and the content is something else.
    #[error("not a {expected} image: its first bytes are {found:02x?}, expected {signature:02x?}")]
    Signature {
        /// The format that was named.
        expected: Format,
        /// The first bytes.
        found: [u8; 4],
        /// What the format begins with.
        signature: [u8; 4],
    },

    /// A structure lies past the end of the file.
    #[error("{what} {verb} {len} bytes at {start:#x}, past the end of the file ({file_len:#x})", verb = what.verb(), len = span.len, start = span.start)]
    Truncated {
        /// The structure, with its index where it has one.
        what: Item,
        /// Where it should be.
        span: Span,
        /// How long the file is.
        file_len: u64,
    },

    /// A field has a value that the format does not allow.
    #[error("{what} is {found:#x}, expected {expected}")]
    Field {
        /// The field.
        what: Item,
        /// Its value.
        found: u64,
        /// What the specification allows.
        expected: &'static str,
    },

    /// A checksum is not that of the bytes it stands for.
    #[error("the checksum in {what} is {found:#010x}, that of its bytes is {expected:#010x}")]
    Checksum {
        /// What the checksum stands for.
        what: Item,
        /// What the image says.
        found: u32,
        /// What it should say.
        expected: u32,
    },

    /// A compressed stream breaks the rules of its format.
    #[error("{what} is damaged behind the first {content} bytes of its content")]
    Damaged {
        /// The stream.
        what: Item,
        /// Bytes that it decodes to.
        content: u64,
    },

    /// The file beneath an image is not the one that it was made on.
    #[error("the backing file has the id {found}, the image was made on {expected}")]
    BackingId {
        /// The id of the file.
        found: Guid,
        /// The id that the image names.
        expected: Guid,
    },

    /// A size or a count is above a limit of ours.
    #[error("{what} is {found}, the limit is {limit}")]
    Limit {
        /// What is too large.
        what: Item,
        /// How large it is.
        found: u64,
        /// What is accepted; see [`crate::limits`].
        limit: u64,
    },

    /// A structure that the format wants is not there.
    #[error("{what} was not found between {start:#x} and {end:#x}", start = span.start, end = span.end())]
    Missing {
        /// The structure.
        what: Item,
        /// Where it was looked for.
        span: Span,
    },

    /// What something points to is in use for something else.
    #[error("{what} points to the bytes at {at:#x}, which something else in the image uses")]
    Claimed {
        /// What points there.
        what: Item,
        /// The first byte of it that is used already.
        at: u64,
    },

    /// Two structures lie on each other.
    #[error("{what} and {other} share the bytes at {at:#x}")]
    Overlap {
        /// The one.
        what: Item,
        /// The other.
        other: Item,
        /// The first byte that both have.
        at: u64,
    },

    /// The parent of a VMDK delta is another disk, or was written to since the delta was made.
    #[error("the parent has the CID {found:08x}, and the image was made on {expected:08x}")]
    ParentCid {
        /// The parent's.
        found: u32,
        /// What the delta says.
        expected: u32,
    },

    /// A line of a VMDK descriptor breaks the grammar.
    #[error("line {line} of the VMDK descriptor is not {expected}")]
    Descriptor {
        /// The line, from 1.
        line: u64,
        /// What it should be.
        expected: &'static str,
    },

    /// A valid image that needs something not read here.
    #[error("the image needs {0}, which is not supported")]
    Unsupported(Feature),

    /// The format of a file that the image names is not declared, and it is never guessed.
    #[error("the image does not say which format its {role} `{}` has", name.escape_debug())]
    Undeclared {
        /// What it is for.
        role: Role,
        /// As it is written: hostile.
        name: String,
    },

    /// A file that the image needs has no name in it.
    #[error("the image does not name its {0}")]
    Unnamed(Role),

    /// More than one internal snapshot has this name or id.
    #[error("the image has several internal snapshots with this name or id")]
    SeveralSnapshots,

    /// An archive holds several disks, and none was chosen.
    #[error("the archive holds several disks: {}", .0.join(", "))]
    SeveralDisks(Vec<String>),

    /// The disk that was chosen is not in the archive.
    #[error("the archive holds no disk of this name, but {}", .0.join(", "))]
    NoMember(Vec<String>),

    /// A disk of an archive was chosen, and the file is none.
    #[error("the file is no archive that a member could be chosen from")]
    NoArchive,

    /// There is no such internal snapshot.
    #[error("the image has no internal snapshot with this name or id")]
    NoSnapshot,

    /// Something is wrong in a file that the image names.
    #[error("{error}")]
    In {
        /// The file.
        file: FileId,
        /// What is wrong there.
        error: Box<OpenError>,
    },

    /// The caller broke the contract of [`crate::Need::resume`].
    #[error("the answers do not match the runs that were asked for")]
    Answer,
}

impl OpenError {
    /// True if the image may be good, and only lacks support here.
    pub fn is_unsupported(&self) -> bool {
        match self {
            Self::Unsupported(_) => true,
            Self::In { error, .. } | Self::Inside { error, .. } => error.is_unsupported(),
            _ => false,
        }
    }

    /// The file in which something is wrong, and what.
    pub fn located(self) -> (FileId, Self) {
        match self {
            Self::In { file, error } => (file, *error),
            error => (FileId::IMAGE, error),
        }
    }

    pub(crate) fn in_file(self, file: FileId) -> Self {
        match self {
            located @ Self::In { .. } => located,
            error => Self::In { file, error: Box::new(error) },
        }
    }

    /// What would help, where something would.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::UnknownFormat => Some("if this is a raw disk, say so with --format raw"),
            Self::Ambiguous(..) => Some("name the format with --format"),
            Self::Inside { .. } => Some("unpack it first, and name the format with --format"),
            Self::Truncated { .. } | Self::Missing { .. } | Self::Checksum { .. } | Self::Damaged { .. } => {
                Some("the file may be truncated; compare its size and checksum with the original")
            }
            Self::Unsupported(feature) => feature.hint(),
            Self::Undeclared { .. } => Some("name it with --backing-format"),
            Self::SeveralDisks(_) | Self::NoMember(_) => Some("choose one with --member"),
            Self::NoSnapshot => Some("`image-prep info` lists them"),
            Self::SeveralSnapshots => Some("name it by its id; `image-prep info` lists them"),
            Self::In { error, .. } => error.hint(),
            _ => None,
        }
    }
}

/// A structure or a field of a format, by the specification's name, with its index where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// Something that exists once.
    The(&'static str),
    /// One of several: its name and its number, from 0.
    Numbered(&'static str, u64),
    /// An entry of a table: the table's name and the entry's index.
    Entry(&'static str, u64),
    /// An entry of one of several tables: the table's name, its index, the entry's index.
    EntryOf(&'static str, u64, u64),
}

impl std::fmt::Display for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::The(name) => write!(f, "the {name}"),
            Self::Numbered(name, number) => write!(f, "{name} {number}"),
            Self::Entry(table, index) => write!(f, "{table} entry {index}"),
            Self::EntryOf(table, number, index) => write!(f, "{table} {number} entry {index}"),
        }
    }
}

impl Item {
    /// What an item does with a run of the file: an entry points to it, all else is it.
    fn verb(self) -> &'static str {
        match self {
            Self::The(_) => "is",
            Self::Numbered(..) | Self::Entry(..) | Self::EntryOf(..) => "points to",
        }
    }
}

/// What a valid image may need that is not read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Feature {
    /// QCOW2 on a backing file of a format that is not read here.
    #[error("a backing file of another format")]
    BackingFormat,
    /// QCOW2 with crypt method 1.
    #[error("AES encryption")]
    Aes,
    /// QCOW2 with crypt method 2.
    #[error("LUKS encryption")]
    Luks,
    /// QCOW2 with an incompatible feature bit above those of the specification.
    #[error("the unknown incompatible feature bit {0}")]
    IncompatibleBit(u8),
    /// QCOW2 with a compression type above those of the specification.
    #[error("the unknown compression type {0}")]
    CompressionType(u8),
    /// QCOW or QCOW2 of another version.
    #[error("QCOW version {0}")]
    QcowVersion(u32),
    /// VMDK of another version.
    #[error("VMDK version {0}")]
    VmdkVersion(u32),
    /// VMDK with a descriptor inside of a sparse file that is not all of the disk.
    #[error("VMDK extent files beside the one that holds the descriptor")]
    VmdkExtentFiles,
    /// VMDK with a createType that is known, and not read.
    #[error("the VMDK createType {0}")]
    VmdkCreateType(&'static str),
    /// VMDK with a createType that is not in any specification read here.
    #[error("a VMDK createType that is not known")]
    VmdkUnknownCreateType,
    /// VMDK extent file without a descriptor: one of several files.
    #[error("the VMDK descriptor that this extent file belongs to")]
    VmdkExtentAlone,
    /// VMDK extent of a type that is known, and not read.
    #[error("a VMDK extent of the type {0}")]
    VmdkExtentType(&'static str),
    /// VMDK extent in a file that its descriptor forbids to read.
    #[error("a VMDK extent that may not be accessed (NOACCESS)")]
    VmdkNoAccess,
    /// VMDK descriptor that names a file in other characters than those of the encodings read here.
    #[error("a file name in a character encoding that is neither UTF-8 nor windows-1252")]
    VmdkEncoding,
    /// VMDK seSparse file that was not closed.
    #[error("the journal of a VMDK seSparse file, which must be replayed first")]
    VmdkJournal,
    /// VMDK with keys of an encryption in its descriptor.
    #[error("VMDK encryption")]
    VmdkEncryption,
    /// VMDK header flags that a reader must know.
    #[error("the unknown VMDK header flags {0:#x}")]
    VmdkFlags(u32),
    /// VMDK whose compressed grains have no markers, so that nothing says how long they are.
    #[error("VMDK compressed grains without markers")]
    VmdkWithoutMarkers,
    /// VMDK compressed by something else than deflate.
    #[error("the VMDK compression algorithm {0}")]
    VmdkCompression(u16),
    /// VHD of another version.
    #[error("VHD version {0:#x}")]
    VhdVersion(u32),
    /// VHDX of another version.
    #[error("VHDX version {0}")]
    VhdxVersion(u16),
    /// VHDX that was not closed cleanly.
    #[error("the replay of its VHDX log, as it was not closed cleanly")]
    VhdxLog,
    /// VHDX with a region that a reader must know.
    #[error("the unknown VHDX region {0}")]
    VhdxRegion(Guid),
    /// VHDX with a metadata item that a reader must know.
    #[error("the unknown VHDX metadata item {0}")]
    VhdxMetadata(Guid),
    /// VHDX on something else than a VHDX.
    #[error("a VHDX parent of the unknown kind {0}")]
    VhdxParent(Guid),
    /// OVA with a disk that is compressed as a file.
    #[error("a compressed disk in an archive")]
    OvaCompressed,
    /// OVA with a disk that is cut into several members.
    #[error("a disk in an archive that is cut into several members")]
    OvaChunks,
    /// OVA with a disk that names other files.
    #[error("files beside a disk in an archive")]
    OvaReference,
    /// OVA with a disk that leaves out its holes.
    #[error("a sparse disk in an OVA")]
    OvaSparse,
    /// Archive with a hard or symbolic link.
    #[error("a link in an archive")]
    ArchiveLink,
    /// Archive with a sparse member in a format that is not read here.
    #[error("version {0} of the pax format for sparse members")]
    ArchiveSparse(u64),
    /// Archive with a member that is not a file.
    #[error("an archive member of the type {0:?}")]
    ArchiveMember(char),
    /// A file that is compressed as a whole: [`unpack`](crate::unpack) makes it readable, [`open_unpacked`](crate::open_unpacked)
    /// opens what is in it.
    #[error("its file unpacked, as it is compressed with {0}")]
    Compressed(Compression),
    /// A Zstandard file with a frame above [`MAX_FRAME`](crate::limits::MAX_FRAME).
    #[error("a Zstandard frame of more than 64 MiB read at random")]
    ZstdFrame,
    /// A Zstandard file with a window above [`MAX_WINDOW_LOG`](crate::limits::MAX_WINDOW_LOG).
    #[error("a Zstandard window of more than 8 MiB")]
    ZstdWindow,
    /// A file that is compressed as a whole, and unpacks to another one.
    #[error("its file unpacked twice, as it is compressed with {0} and then again")]
    CompressedTwice(Compression),
    /// Another disk image format, recognised by its signature.
    #[error("the {0} format")]
    OtherFormat(&'static str),
}

impl Feature {
    fn hint(self) -> Option<&'static str> {
        match self {
            Self::VmdkExtentFiles | Self::VmdkCreateType(_) => {
                Some("make one self-contained file first, for example with `qemu-img convert`")
            }
            Self::OvaCompressed | Self::OvaChunks | Self::OvaReference | Self::OvaSparse => {
                Some("unpack the archive first, for example with `tar -xf`")
            }
            Self::OtherFormat("tar") => Some(
                "the disk in an archive is called disk.raw or, in an OVA, NAME.vmdk; unpack others first",
            ),
            Self::Compressed(_) | Self::CompressedTwice(_) | Self::OtherFormat("bzip2" | "ZIP") => {
                Some("unpack it first")
            }
            Self::OtherFormat("xz") => Some("unpack it first, with `xz -d`"),
            Self::ZstdFrame | Self::ZstdWindow => {
                Some("unpack it first, with `zstd -d`; what `pzstd` makes has frames")
            }
            Self::VmdkExtentAlone => Some(
                "name the descriptor, which lies beside it: NAME.vmdk for NAME-s001.vmdk, NAME-delta.vmdk or NAME-sesparse.vmdk",
            ),
            Self::VhdxLog => {
                Some("attach it once where it was made, for example with Hyper-V, which replays its log")
            }
            Self::VmdkJournal => Some("let ESXi open and close the disk first"),
            Self::VmdkEncoding => Some("rename the files and the lines that name them to plain ASCII"),
            Self::Aes | Self::Luks => Some("decrypt it first, for example with `qemu-img convert`"),
            _ => None,
        }
    }
}
