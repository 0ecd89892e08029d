//! Which operating system is installed, and for which processor.
//!
//! Linux by os-release(5), its processor by the ELF header of what always runs. Windows by its boot volume. Where neither can be read,
//! the processor by what firmware would start.

use schemars::JsonSchema;
use serde::Serialize;

use crate::boot::Boot;
use crate::filesystem::Kind;
use crate::partition::{MSR, Partition};
use crate::source::{Trouble, byte, le16, printable, slice};
use crate::tree::Tree;

/// A family of operating systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Linux.
    Linux,
    /// Windows.
    Windows,
}

/// The system on a disk.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct System {
    /// What kind it is.
    #[serde(rename = "type")]
    pub family: Family,
    /// The distribution's own short name, such as `debian`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its version, such as `13`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The processor: `x86_64`, `aarch64`, and so on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<&'static str>,
    /// Number of the partition that holds it.
    pub partition: u32,
}

/// Where os-release(5) looks.
pub(crate) const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// Programs of which every system has one.
const PROGRAMS: [&str; 5] =
    ["/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/bin/sh", "/bin/busybox", "/bin/bash"];

/// The system whose files can be read.
pub(crate) fn linux(tree: &Tree<'_>, notes: &mut Vec<String>) -> System {
    let mut system = System {
        family: Family::Linux,
        id: None,
        version: None,
        name: None,
        architecture: None,
        partition: tree.root.partition,
    };
    match tree.texts(&OS_RELEASE) {
        Ok(found) => {
            let values = found.first().map(|text| text.settings().filter_map(|(_, line)| value(line)));
            for (key, value) in values.into_iter().flatten() {
                match key {
                    "ID" => system.id = Some(value),
                    "VERSION_ID" => system.version = Some(value),
                    "PRETTY_NAME" => system.name = Some(value),
                    _ => {}
                }
            }
        }
        Err(why) => notes.push(format!("os-release is not known: {why}")),
    }
    match architecture(tree) {
        Ok(found) => system.architecture = found,
        Err(why) => notes.push(format!("the processor is not known: {why}")),
    }
    system
}

/// `KEY="value"`.
fn value(line: &str) -> Option<(&str, String)> {
    let (key, value) = line.split_once('=')?;
    let value = value.trim();
    let quoted = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    let value = printable(quoted.unwrap_or(value));
    (!value.is_empty()).then_some((key.trim(), value))
}

fn architecture(tree: &Tree<'_>) -> Result<Option<&'static str>, Trouble> {
    for path in PROGRAMS {
        if let Some(head) = tree.head(path, 64)?
            && slice(&head, 0, 4) == b"\x7fELF"
        {
            // Only PowerPC and a few that no cloud has are big-endian.
            let machine = if byte(&head, 5) == 2 { crate::source::be16(&head, 18) } else { le16(&head, 18) };
            return Ok(match machine {
                3 => Some("i386"),
                21 => Some("ppc64"),
                22 => Some("s390x"),
                40 => Some("arm"),
                62 => Some("x86_64"),
                183 => Some("aarch64"),
                243 => Some("riscv64"),
                258 => Some("loongarch64"),
                _ => None,
            });
        }
    }
    Ok(None)
}

/// A system whose files are not read here, by its partitions and by what starts it.
pub(crate) fn by_looks(partitions: &[Partition], boot: &Boot) -> Option<System> {
    let holds = |kinds: &[Kind]| {
        partitions.iter().find(|p| p.file_system.as_ref().is_some_and(|found| kinds.contains(&found.kind)))
    };
    let ntfs = holds(&[Kind::Ntfs, Kind::Bitlocker]);
    let reserved = partitions.iter().any(|partition| partition.type_name == Some(MSR));
    let starts = boot.loaders.iter().any(|loader| loader.windows) || boot.boot_volume_of_windows;
    let (family, partition) = match ntfs {
        Some(volume) if reserved || starts => (Family::Windows, volume),
        _ => (
            Family::Linux,
            holds(&[Kind::Xfs, Kind::Btrfs, Kind::Ext4, Kind::LvmPv, Kind::Ext3, Kind::Luks2, Kind::Luks1])?,
        ),
    };
    let architecture = boot.loaders.iter().find_map(|loader| loader.architecture);
    Some(System { family, id: None, version: None, name: None, architecture, partition: partition.number })
}
