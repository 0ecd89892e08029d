//! Which format a file has, by content alone; names and suffixes are not looked at.
//!
//! A raw disk carries no signature of its own, so it must look like one: a partition table or a known file system. What looks like
//! two formats, or like none, is refused until the user names the format: guessing raw is how a disk whose guest wrote a
//! QCOW2 header into its first sector reads files of the host (CVE-2026-27211 and its ancestors).

use crate::{Feature, Format, OpenError};

/// Bytes from the start of the file that a probe wants: reaches the ISO 9660 and Btrfs signatures.
pub(crate) const PROBE_LEN: u64 = 68 << 10;

/// A signature: where it lies and what it is.
type Signature = (usize, &'static [u8]);

const QCOW2: Signature = (0, b"QFI\xfb");

const VMDK_SPARSE: Signature = (0, b"KDMV");
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
    ((0, b"vhdxfile"), "VHDX"),
    ((0, b"conectix"), "VHD"),
    ((0x40, b"\x7f\x10\xda\xbe"), "VDI"),
    ((0, b"QED\0"), "QED"),
    ((0, b"WithoutFreeSpace"), "Parallels"),
    ((0, b"WithouFreSpacExt"), "Parallels"),
    ((0, b"\x1f\x8b"), "gzip"),
    ((0, b"\xfd7zXZ\0"), "xz"),
    ((0, b"\x28\xb5\x2f\xfd"), "Zstandard"),
    ((0, b"BZh"), "bzip2"),
    ((0, b"PK\x03\x04"), "ZIP"),
    ((257, b"ustar"), "tar"),
];

/// The format of a file that begins with `head`.
pub(crate) fn probe(head: &[u8]) -> Result<Format, OpenError> {
    let container = if has(head, QCOW2) {
        Some(Format::Qcow2)
    } else if [VMDK_SPARSE, VMDK_COWD, VMDK_SESPARSE].iter().any(|&signature| has(head, signature))
        || is_descriptor(head)
    {
        Some(Format::Vmdk)
    } else {
        None
    };
    let raw = RAW.iter().any(|&signature| has(head, signature));
    match (container, raw) {
        (Some(format), true) => Err(OpenError::Ambiguous(format, Format::Raw)),
        (Some(format), false) => Ok(format),
        (None, raw) => match OTHERS.iter().find(|(signature, _)| has(head, *signature)) {
            Some((_, name)) => Err(OpenError::Unsupported(Feature::OtherFormat(name))),
            None if raw => Ok(Format::Raw),
            None => Err(OpenError::UnknownFormat),
        },
    }
}

/// True if this is the text of a VMDK descriptor.
pub(crate) fn is_descriptor(head: &[u8]) -> bool {
    head.get(..VMDK_DESCRIPTOR.len()).is_some_and(|start| start.eq_ignore_ascii_case(VMDK_DESCRIPTOR))
}

fn has(head: &[u8], (at, bytes): Signature) -> bool {
    head.get(at..).is_some_and(|rest| rest.starts_with(bytes))
}

#[cfg(test)]
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
        assert_eq!(probe(&head(&[QCOW2])), Ok(Format::Qcow2));
        for signature in [VMDK_SPARSE, VMDK_COWD, VMDK_SESPARSE] {
            assert_eq!(probe(&head(&[signature])), Ok(Format::Vmdk));
        }
        assert_eq!(probe(b"# Disk DescriptorFile\nversion=1\n"), Ok(Format::Vmdk));
        for &signature in RAW {
            assert_eq!(probe(&head(&[signature])), Ok(Format::Raw), "{signature:?}");
        }
        for (signature, name) in OTHERS {
            let expected = OpenError::Unsupported(Feature::OtherFormat(name));
            assert_eq!(probe(&head(&[*signature])), Err(expected));
        }
    }

    #[test]
    fn nothing_and_two_things_are_refused() {
        assert_eq!(probe(b"Dear reader,\n"), Err(OpenError::UnknownFormat));
        assert_eq!(probe(&head(&[])), Err(OpenError::UnknownFormat));
        assert_eq!(probe(&head(&[QCOW2, RAW[0]])), Err(OpenError::Ambiguous(Format::Qcow2, Format::Raw)));
    }
}
