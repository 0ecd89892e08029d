//! What to say of a disk when an Image is created from it, where nobody said anything.

use schemars::JsonSchema;
use serde::Serialize;

use crate::ready::Parts;
use crate::system::Family;

/// Virtual hardware, by the names that `image-prep create --hardware-generation` has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub enum Generation {
    /// UEFI.
    #[serde(rename = "gen2")]
    Gen2,
    /// BIOS, first PCI topology.
    #[serde(rename = "legacy-v1")]
    LegacyV1,
    /// BIOS, second PCI topology: what a GPT with a BIOS boot partition is for.
    #[serde(rename = "legacy-v2")]
    LegacyV2,
}

impl Generation {
    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gen2 => "gen2",
            Self::LegacyV1 => "legacy-v1",
            Self::LegacyV2 => "legacy-v2",
        }
    }
}

/// Fields of an Image, as far as the disk tells them.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Suggestions {
    /// The operating system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<Family>,
    /// The virtual hardware that can start it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hardware_generation: Option<Generation>,
    /// The smallest disk that may be made from it: its size, rounded up to whole units of 4 MiB, bytes.
    pub min_disk_size: u64,
    /// A name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
}

/// The unit of disks in the cloud, and the smallest of them.
const DISK_UNIT: u64 = 4 << 20;

/// Longest name, and shortest family.
const NAME_LEN: usize = 63;
const FAMILY_LEN: usize = 3;

pub(crate) fn suggest(parts: &Parts<'_>, disk: u64) -> Suggestions {
    let boot = parts.boot;
    let hardware_generation = match (boot.uefi, boot.bios, boot.bios_boot) {
        (true, ..) => Some(Generation::Gen2),
        (false, true, Some(_)) => Some(Generation::LegacyV2),
        (false, true, None) => Some(Generation::LegacyV1),
        (false, false, _) => None,
    };
    let family = parts.system.and_then(|system| {
        let (id, version) = (system.id.as_deref()?, system.version.as_deref());
        image_name(&[id, version.unwrap_or_default()]).filter(|family| family.len() >= FAMILY_LEN)
    });
    let architecture = parts.system.and_then(|system| system.architecture);
    Suggestions {
        os: parts.system.map(|system| system.family),
        hardware_generation,
        min_disk_size: disk.max(1).checked_next_multiple_of(DISK_UNIT).unwrap_or(disk),
        name: family.as_deref().and_then(|family| image_name(&[family, architecture.unwrap_or_default()])),
        family,
    }
}

/// A name for an Image: the parts with dashes between them, as far as a name may have them. It begins with a letter, and holds small
/// letters, digits, dashes; where nothing of that kind is left there is none.
pub fn image_name(parts: &[&str]) -> Option<String> {
    let text = parts.join("-").to_ascii_lowercase();
    let clean: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(NAME_LEN).collect();
    let name = clean.trim_matches('-').to_owned();
    name.starts_with(|c: char| c.is_ascii_lowercase()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_such_as_the_service_takes() {
        assert_eq!(image_name(&["debian", "13"]).unwrap(), "debian-13");
        assert_eq!(image_name(&["ol", ""]).unwrap(), "ol");
        assert_eq!(image_name(&["Ubuntu", "24.04", "x86_64"]).unwrap(), "ubuntu-24-04-x86-64");
        assert_eq!(image_name(&["9front", ""]), None);
        assert!(image_name(&[&"a".repeat(100)]).unwrap().len() <= NAME_LEN);
    }
}
