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
use crate::unread::{Unread, keep};

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
    /// The newest kernel of Linux that has modules, by its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Number of the partition that holds it.
    pub partition: u32,
}

impl System {
    fn new(family: Family) -> Self {
        Self { family, id: None, version: None, name: None, architecture: None, kernel: None, partition: 0 }
    }

    /// Whether it is Linux with a kernel from this version on.
    pub fn is_linux_from(&self, major: u64, minor: u64) -> bool {
        self.kernel.as_deref().is_some_and(|kernel| version_key(kernel) >= vec![major, minor])
    }
}

/// Where os-release(5) looks.
pub(crate) const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// Programs of which every system has one.
const PROGRAMS: [&str; 5] =
    ["/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/bin/sh", "/bin/busybox", "/bin/bash"];

/// Where modules lie: the second where /lib has not become a link.
const MODULES: [&str; 2] = ["/usr/lib/modules", "/lib/modules"];

/// Its version, and the folder of its modules.
pub(crate) fn newest_kernel(tree: &Tree<'_>) -> Result<Option<(String, String)>, Trouble> {
    for folder in MODULES {
        let names = tree.names(folder)?;
        let newest = names.into_iter().filter(|name| name.starts_with(|c: char| c.is_ascii_digit()));
        if let Some(version) = newest.max_by_key(|name| version_key(name)) {
            let folder = format!("{folder}/{version}");
            return Ok(Some((version, folder)));
        }
    }
    Ok(None)
}

/// Versions compare by their numbers.
fn version_key(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// The system whose files can be read.
pub(crate) fn linux(tree: &Tree<'_>, partition: u32, unread: &mut Unread) -> System {
    // What goes wrong with it goes wrong with its drivers, and is told there.
    let kernel = newest_kernel(tree).ok().flatten().map(|(version, _)| printable(&version));
    let mut system = System { kernel, partition, ..System::new(Family::Linux) };
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
        Err(why) => keep(&mut unread.system, "os-release is not read", &why),
    }
    match architecture(tree) {
        Ok(found) => system.architecture = found,
        Err(why) => keep(&mut unread.system, "the processor is not known", &why),
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
///
/// It lies in the largest volume that could hold it: what Windows and Linux start from lies in small ones beside it.
pub(crate) fn by_looks(partitions: &[Partition], boot: &Boot) -> Option<System> {
    let largest = |kinds: &[Kind]| {
        let is_one = |p: &&Partition| p.file_system.as_ref().is_some_and(|found| kinds.contains(&found.kind));
        // The first of several that are as large.
        partitions.iter().filter(is_one).rev().max_by_key(|partition| partition.size)
    };
    let ntfs = largest(&[Kind::Ntfs, Kind::Bitlocker]);
    let reserved = partitions.iter().any(|partition| partition.type_name == Some(MSR));
    let starts = boot.loaders.iter().any(|loader| loader.windows) || boot.boot_volume_of_windows;
    let (family, partition) = match ntfs {
        Some(volume) if reserved || starts => (Family::Windows, volume),
        _ => (Family::Linux, largest(&OF_LINUX).or_else(|| largest(&OF_EXT))?),
    };
    let architecture = boot.loaders.iter().find_map(|loader| loader.architecture);
    Some(System { architecture, partition: partition.number, ..System::new(family) })
}

/// What Linux may be installed on and is not read here.
const OF_LINUX: [Kind; 5] = [Kind::Xfs, Kind::Btrfs, Kind::LvmPv, Kind::Luks2, Kind::Luks1];

/// What is read, and has no system if this is asked for; or it is damaged.
const OF_EXT: [Kind; 2] = [Kind::Ext4, Kind::Ext3];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_compare_by_their_numbers() {
        for (kernel, is_new) in
            [("6.1.0-18-amd64", true), ("3.17.0", true), ("3.16.0-4-amd64", false), ("4", true)]
        {
            let system = System { kernel: Some(kernel.to_owned()), ..System::new(Family::Linux) };
            assert_eq!(system.is_linux_from(3, 17), is_new, "{kernel}");
        }
        assert!(!System::new(Family::Linux).is_linux_from(0, 0));
    }
}
