//! How the disk starts: by firmware of which kind, and from what.

use schemars::JsonSchema;
use serde::Serialize;

use crate::fat::Fat;
use crate::filesystem::Kind;
use crate::partition::{BIOS_BOOT, ESP, Partition, Table, TableKind, boot_loader};
use crate::source::View;

/// How the disk starts.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Boot {
    /// Firmware of the old kind finds code to start.
    pub bios: bool,
    /// Firmware of the new kind finds a loader to start.
    pub uefi: bool,
    /// Number of the EFI system partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub efi_system: Option<u32>,
    /// Number of the BIOS boot partition of a GPT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bios_boot: Option<u32>,
    /// What lies in the EFI system partition to be started.
    pub loaders: Vec<Loader>,
    /// The first sector of an active NTFS volume starts Windows.
    #[serde(skip)]
    pub(crate) boot_volume_of_windows: bool,
}

/// A program that firmware starts.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Loader {
    /// Its path in the EFI system partition.
    pub path: &'static str,
    /// The processor that it is for, where its name tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<&'static str>,
    /// True if it is the one of Windows.
    #[serde(skip)]
    pub(crate) windows: bool,
}

/// What firmware looks for without being told (UEFI Specification 2.10, section 3.5.1.1), and what Windows has. `MICROS~1` is the
/// short name of `Microsoft`.
const LOADERS: [(&str, Option<&str>, bool); 4] = [
    ("EFI/BOOT/BOOTX64.EFI", Some("x86_64"), false),
    ("EFI/BOOT/BOOTAA64.EFI", Some("aarch64"), false),
    ("EFI/BOOT/BOOTIA32.EFI", Some("i386"), false),
    ("EFI/MICROS~1/BOOT/BOOTMGFW.EFI", None, true),
];

/// Finds out, from the table and what the partitions hold.
pub(crate) fn find(view: &View, table: &Table, partitions: &[Partition], notes: &mut Vec<String>) -> Boot {
    let mut boot = Boot::default();
    let of_type = |name| partitions.iter().find(|partition| partition.type_name == Some(name));
    boot.bios_boot = of_type(BIOS_BOOT).map(|partition| partition.number);
    let is_fat = |p: &&Partition| p.file_system.as_ref().is_some_and(|found| found.kind.is_fat());
    if let Some(partition) = of_type(ESP) {
        boot.efi_system = Some(partition.number);
        if is_fat(&partition) {
            let fat = Fat::open(view.volume(partition.start, partition.size));
            for (path, architecture, windows) in LOADERS {
                match fat.as_ref().map_err(|why| *why).and_then(|fat| fat.exists(path)) {
                    Ok(true) => boot.loaders.push(Loader { path, architecture, windows }),
                    Ok(false) => {}
                    Err(why) => {
                        notes.push(format!("the EFI system partition is not known: {why}"));
                        break;
                    }
                }
            }
        } else {
            notes.push("the EFI system partition holds no FAT".to_owned());
        }
    }
    boot.uefi = !boot.loaders.is_empty();
    for partition in partitions.iter().filter(|partition| partition.active || table.kind == TableKind::None) {
        let first = view.volume(partition.start, partition.size).head(8192).unwrap_or_default();
        let is_ntfs = partition.file_system.as_ref().is_some_and(|found| found.kind == Kind::Ntfs);
        if is_ntfs && boot_loader(&first) == Some("Windows") {
            boot.boot_volume_of_windows = true;
        }
    }
    // A GPT's protective record, a hybrid one too, may have nothing but zeroes for code.
    boot.bios = match table.kind {
        TableKind::Gpt => table.boot_code && (boot.bios_boot.is_some() || table.boot_loader.is_some()),
        TableKind::Mbr => table.boot_code,
        TableKind::None => false,
    };
    boot
}
