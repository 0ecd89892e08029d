//! Whether firmware finds something to start, and nobody has to type a passphrase for it.

use super::{Finding, Parts, Point};
use crate::partition::{TableKind, held};

/// An encrypted file system asks for its key where there is no keyboard.
pub(super) fn encryption(parts: &Parts<'_>) -> Finding {
    let kinds = held(parts.partitions).map(|held| (held.partition, held.found.kind));
    // Volumes of LVM that are read hide nothing.
    let hides = |number: u32| {
        let volumes = parts.partitions.iter().filter(|p| p.number == number).flat_map(|p| &p.volumes);
        volumes.clone().count() == 0 || volumes.into_iter().any(|volume| volume.start.is_none())
    };
    match kinds.clone().find(|(_, kind)| kind.is_encrypted()) {
        Some((number, kind)) => Finding::warn(
            Point::Encryption,
            format!("partition {number} is encrypted ({kind})"),
            None,
            "install without encryption; the cloud encrypts disks by itself",
        ),
        None if parts.unread.partitions.is_some() => {
            let why = parts.unread.partitions.clone().unwrap_or_default();
            Finding::unknown(Point::Encryption, format!("nothing encrypted was found, but {why}"))
        }
        None if kinds.clone().count() == 0 => {
            Finding::unknown(Point::Encryption, "no file system was recognised")
        }
        None => match kinds.clone().find(|(number, kind)| kind.is_container() && hides(*number)) {
            Some((number, kind)) => Finding::unknown(
                Point::Encryption,
                format!(
                    "nothing encrypted was found, but what lies in partition {number} is not read ({kind})"
                ),
            ),
            None => Finding::pass(Point::Encryption, "no partition is encrypted", None),
        },
    }
}

/// By BIOS from an MBR, by BIOS from a GPT with a place for GRUB, or by UEFI.
pub(super) fn check(parts: &Parts<'_>) -> Finding {
    const NO_BIOS: &str = "for BIOS, partition by MBR and install a boot loader there (grub-install); for UEFI, install one that \
        needs no entry in firmware: grub-install --removable, which makes EFI/BOOT/BOOTX64.EFI";
    let (table, boot) = (parts.table, parts.boot);
    let loader = table.boot_loader.map(|name| format!(" ({name})")).unwrap_or_default();
    let bios = match (boot.bios, table.kind) {
        (true, TableKind::Gpt) if boot.bios_boot.is_some() => {
            Some(format!("BIOS, from a GPT with a BIOS boot partition{loader}"))
        }
        (true, TableKind::Mbr) => Some(format!("BIOS, from an MBR{loader}")),
        _ => None,
    };
    let uefi = boot.loaders.first().map(|loader| format!("UEFI, by {}", loader.path));
    match (bios, uefi) {
        (Some(bios), Some(uefi)) => Finding::pass(Point::Boot, format!("{bios}; {uefi}"), None),
        (Some(way), None) | (None, Some(way)) => Finding::pass(Point::Boot, way, None),
        (None, None) if parts.unread.loader().is_some() => {
            let why = parts.unread.loader().unwrap_or_default();
            Finding::unknown(Point::Boot, format!("nothing to start was found, but {why}"))
        }
        (None, None) if table.kind == TableKind::None => {
            Finding::warn(Point::Boot, "the disk has no partition table", None, NO_BIOS)
        }
        (None, None) if boot.efi_system.is_some() => {
            let found = "the EFI system partition has no loader that is started without an entry in firmware";
            Finding::warn(Point::Boot, found, None, NO_BIOS)
        }
        (None, None) if boot.bios => {
            let found = format!(
                "boot code{loader} on a GPT, and no BIOS boot partition where the rest of it could lie"
            );
            Finding::warn(Point::Boot, found, None, NO_BIOS)
        }
        (None, None) => {
            Finding::warn(Point::Boot, "neither boot code nor an EFI loader was found", None, NO_BIOS)
        }
    }
}
