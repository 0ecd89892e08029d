//! Which format a file has, by content alone; names and suffixes are not looked at.
//!
//! A raw disk carries no signature of its own, so it must look like one: a partition table or a known file system. What looks like
//! two formats, or like none, is refused until the user names the format: guessing raw is how a disk whose guest wrote a
//! QCOW2 header into its first sector reads files of the host (CVE-2026-27211 and its ancestors).
//!
//! A fixed VHD is a raw disk with a footer. So the end of a file whose start is a raw disk or nothing is looked at too, and
//! a footer behind a disk is two things: guests can write to the last sector as well as to the first.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::vhd::is_footer;
use crate::{Compression, Feature, Format, OpenError, Span};

/// Bytes from the start of the file that a probe wants: reaches the ISO 9660 and Btrfs signatures.
pub(crate) const PROBE_LEN: u64 = 68 << 10;

/// Bytes from the end of the file that it wants: a VHD footer.
const TAIL_LEN: u64 = 512;

/// A signature: where it lies and what it is.
type Signature = (usize, &'static [u8]);

const QCOW2: Signature = (0, b"QFI\xfb");

const VMDK_SPARSE: Signature = (0, b"KDMV");
const VHD: Signature = (0, b"conectix");
const VHDX: Signature = (0, b"vhdxfile");
const GZIP: Signature = (0, b"\x1f\x8b");
const ZSTD: Signature = (0, b"\x28\xb5\x2f\xfd");
/// Skippable Zstandard frames, with which pzstd and others begin, have this in common, and four bits before it.
const ZSTD_SKIPPABLE: Signature = (1, b"\x2a\x4d\x18");
const TAR: Signature = (257, b"ustar");
/// Extent files of ESX: nothing without their descriptor, as the parser says.
const VMDK_COWD: Signature = (0, b"COWD");
const VMDK_SESPARSE: Signature = (0, b"\xbe\xba\xfe\xca\0\0\0\0");
const VMDK_DESCRIPTOR: &[u8] = b"# disk descriptorfile";

/// What a raw disk's first sectors may hold. Sources: UEFI 2.10 section 5, each file system's on-disk format.
const RAW: &[Signature] = &[
    (510, b"\x55\xaa"),     // MBR, FAT, NTFS
    (512, b"EFI PART"),     // GPT, 512-byte sectors
    (4096, b"EFI PART"),    // GPT, 4096-byte sectors
    (1080, b"\x53\xef"),    // ext2, ext3, ext4
    (0, b"XFSB"),           // XFS
    (0x10040, b"_BHRfS_M"), // Btrfs
    (0, b"LUKS\xba\xbe"),   // LUKS
    (512, b"LABELONE"),     // LVM2 physical volume
    (4086, b"SWAPSPACE2"),  // swap
    (32769, b"CD001"),      // ISO 9660
    (0x218, b"LVM2 001"),   // LVM2 label type
];

/// Formats that are recognised to be refused by name.
const OTHERS: &[(Signature, &str)] = &[
    ((0x40, b"\x7f\x10\xda\xbe"), "VDI"),
    ((0, b"QED\0"), "QED"),
    ((0, b"WithoutFreeSpace"), "Parallels"),
    ((0, b"WithouFreSpacExt"), "Parallels"),
    ((0, b"\xfd7zXZ\0"), "xz"),
    ((0, b"BZh"), "bzip2"),
    ((0, b"PK\x03\x04"), "ZIP"),
];

/// What the start of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    /// All there is to know.
    Container(Format),
    /// A tar archive, which may hold a disk.
    Archive,
    /// A file that is compressed as a whole, and may hold anything.
    Compressed(Compression),
    /// Too little: the end of the file is wanted.
    Tail(Start),
}

/// What the start of a file may be that is no container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// That of a raw disk.
    Raw,
    /// Anything.
    Unknown,
}

/// The format of a file that begins with `head`, as far as that tells.
pub(crate) fn probe(head: &[u8]) -> Result<Head, OpenError> {
    let container = if has(head, QCOW2) {
        Some(Format::Qcow2)
    } else if [VMDK_SPARSE, VMDK_COWD, VMDK_SESPARSE].iter().any(|&signature| has(head, signature))
        || is_descriptor(head)
    {
        Some(Format::Vmdk)
    } else if has(head, VHD) {
        Some(Format::Vhd)
    } else if has(head, VHDX) {
        Some(Format::Vhdx)
    } else {
        None
    };
    let raw = RAW.iter().any(|&signature| has(head, signature));
    match (container, raw) {
        (Some(format), true) => Err(OpenError::Ambiguous(format, Format::Raw)),
        (Some(format), false) => Ok(Head::Container(format)),
        (None, false) if has(head, TAR) => Ok(Head::Archive),
        (None, true) if has(head, TAR) => Err(OpenError::Unsupported(Feature::OtherFormat("tar"))),
        // Compressed bytes may look like anything.
        (None, _) if has(head, GZIP) => Ok(Head::Compressed(Compression::Gzip)),
        (None, _) if is_zstd(head) => Ok(Head::Compressed(Compression::Zstandard)),
        (None, raw) => match OTHERS.iter().find(|(signature, _)| has(head, *signature)) {
            Some((_, name)) => Err(OpenError::Unsupported(Feature::OtherFormat(name))),
            None if raw => Ok(Head::Tail(Start::Raw)),
            None => Ok(Head::Tail(Start::Unknown)),
        },
    }
}

impl Start {
    /// The format of the file, which ends with `tail`.
    pub(crate) fn with_tail(self, tail: &[u8]) -> Result<Format, OpenError> {
        match (self, is_footer(tail)) {
            (Self::Raw, true) => Err(OpenError::Ambiguous(Format::Vhd, Format::Raw)),
            (Self::Raw, false) => Ok(Format::Raw),
            (Self::Unknown, true) => Ok(Format::Vhd),
            (Self::Unknown, false) => Err(OpenError::UnknownFormat),
        }
    }
}

/// The end of a file, as far as a probe looks at it.
pub(crate) fn tail(file_len: u64) -> Span {
    Span::between(file_len.saturating_sub(TAIL_LEN), file_len)
}

/// True if this is the text of a VMDK descriptor.
pub(crate) fn is_descriptor(head: &[u8]) -> bool {
    head.get(..VMDK_DESCRIPTOR.len()).is_some_and(|start| start.eq_ignore_ascii_case(VMDK_DESCRIPTOR))
}

/// True if a frame begins here.
fn is_zstd(head: &[u8]) -> bool {
    let is_skippable = head.first().is_some_and(|byte| byte & 0xf0 == 0x50);
    has(head, ZSTD) || (is_skippable && has(head, ZSTD_SKIPPABLE))
}

fn has(head: &[u8], (at, bytes): Signature) -> bool {
    head.get(at..).is_some_and(|rest| rest.starts_with(bytes))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn head(signatures: &[Signature]) -> Vec<u8> {
        let mut head = vec![0; PROBE_LEN as usize];
        for (at, bytes) in signatures {
            head[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        head
    }

    #[test]
    fn each_format_is_known_by_its_signature() {
        assert_eq!(probe(&head(&[QCOW2])), Ok(Head::Container(Format::Qcow2)));
        for signature in [VMDK_SPARSE, VMDK_COWD, VMDK_SESPARSE] {
            assert_eq!(probe(&head(&[signature])), Ok(Head::Container(Format::Vmdk)));
        }
        let descriptor = b"# Disk DescriptorFile\nversion=1\n";
        assert_eq!(probe(descriptor), Ok(Head::Container(Format::Vmdk)));
        assert_eq!(probe(&head(&[VHD])), Ok(Head::Container(Format::Vhd)));
        assert_eq!(probe(&head(&[VHDX])), Ok(Head::Container(Format::Vhdx)));
        for &signature in RAW {
            assert_eq!(probe(&head(&[signature])), Ok(Head::Tail(Start::Raw)), "{signature:?}");
        }
        assert_eq!(probe(&head(&[TAR])), Ok(Head::Archive));
        let gzip = Ok(Head::Compressed(Compression::Gzip));
        assert_eq!(probe(&head(&[GZIP])), gzip);
        assert_eq!(probe(&head(&[GZIP, RAW[0]])), gzip);
        let zstd = Ok(Head::Compressed(Compression::Zstandard));
        assert_eq!(probe(&head(&[ZSTD])), zstd);
        assert_eq!(probe(&head(&[(0, b"\x50"), ZSTD_SKIPPABLE])), zstd);
        assert_eq!(probe(&head(&[(0, b"\x5f"), ZSTD_SKIPPABLE])), zstd);
        assert_eq!(probe(&head(&[(0, b"\x60"), ZSTD_SKIPPABLE])), Ok(Head::Tail(Start::Unknown)));
        for (signature, name) in OTHERS {
            let expected = OpenError::Unsupported(Feature::OtherFormat(name));
            assert_eq!(probe(&head(&[*signature])), Err(expected));
        }
    }

    #[test]
    fn nothing_and_two_things_are_refused() {
        assert_eq!(probe(b"Dear reader,\n"), Ok(Head::Tail(Start::Unknown)));
        assert_eq!(probe(&head(&[])), Ok(Head::Tail(Start::Unknown)));
        assert_eq!(Start::Unknown.with_tail(&[0; 512]), Err(OpenError::UnknownFormat));
        let tar = Err(OpenError::Unsupported(Feature::OtherFormat("tar")));
        assert_eq!(probe(&head(&[TAR, RAW[0]])), tar);
        assert_eq!(probe(&head(&[TAR, QCOW2])), Ok(Head::Container(Format::Qcow2)));
        assert_eq!(probe(&head(&[QCOW2, RAW[0]])), Err(OpenError::Ambiguous(Format::Qcow2, Format::Raw)));
    }
    #[test]
    fn a_footer_behind_a_disk_is_two_things() {
        let ends = |cookie: &[u8], at: usize| {
            let mut tail = vec![0; 512];
            tail[at..at + cookie.len()].copy_from_slice(cookie);
            tail
        };
        let ambiguous = Err(OpenError::Ambiguous(Format::Vhd, Format::Raw));
        for at in [0, 1] {
            let footer = ends(b"conectix", at);
            assert_eq!(Start::Raw.with_tail(&footer), ambiguous);
            assert_eq!(Start::Unknown.with_tail(&footer), Ok(Format::Vhd));
        }
        assert_eq!(Start::Raw.with_tail(&ends(b"conectix", 2)), Ok(Format::Raw));
        // In a file that is shorter than a footer there is none.
        assert_eq!(Start::Raw.with_tail(b"conectix"), Ok(Format::Raw));
    }
}
