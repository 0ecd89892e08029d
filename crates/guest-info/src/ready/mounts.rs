//! What file systems are mounted by: names of devices are others in the cloud.

use std::collections::BTreeSet;

use super::kernel::commands;
use super::{Finding, Parts, Point};
use crate::filesystem::Kind;
use crate::partition::{Partition, held};
use crate::source::Trouble;
use crate::tree::{Evidence, Tree};

/// Devices that are called by where they are plugged in.
const BY_PLACE: [&str; 6] = ["/dev/sd", "/dev/hd", "/dev/vd", "/dev/xvd", "/dev/nvme", "/dev/mmcblk"];

const MEND: &str = "name file systems by UUID= or LABEL=, as blkid shows them";

pub(super) fn check(parts: &Parts<'_>, tree: &Tree<'_>) -> Result<Finding, Trouble> {
    let is_root = |word: &str| word.strip_prefix("root=").is_some_and(is_by_place);
    let told = commands(tree)?;
    if let Some(command) = told.iter().find(|command| command.words().any(is_root)) {
        let found = "the kernel is told a device's name for its root";
        return Ok(Finding::warn(Point::Mounts, found, [command.place()], MEND));
    }
    let Some(table) = tree.text("/etc/fstab")? else {
        return Ok(Finding::unknown(Point::Mounts, "there is no /etc/fstab"));
    };
    if let Some(line) = table.find(|line| line.split_whitespace().next().is_some_and(is_by_place)) {
        return Ok(Finding::warn(
            Point::Mounts,
            "a file system is mounted by its device's name",
            [line],
            MEND,
        ));
    }
    let seen = Seen::of(parts.partitions);
    if let Some(line) = table.find(|line| seen.lacks(line)) {
        if let Some(why) = &parts.unread.partitions {
            let found = format!("whether a file system is on this disk is not known: {why}");
            return Ok(Finding { evidence: vec![line], ..Finding::unknown(Point::Mounts, found) });
        }
        let found =
            "a file system is to be mounted that is not on this disk, and the system will wait for it";
        return Ok(Finding::warn(
            Point::Mounts,
            found,
            [line],
            "remove the line, or add nofail to its options",
        ));
    }
    let first = |prefix: &str| table.find(|line| line.starts_with(prefix));
    let named: Vec<Evidence> =
        ["UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=", "/dev/disk/by-", "/dev/mapper/"]
            .iter()
            .filter_map(|p| first(p))
            .collect();
    Ok(match named.is_empty() {
        true => Finding::pass(Point::Mounts, "/etc/fstab names no device", None),
        false => Finding::pass(Point::Mounts, "file systems are mounted by what they are called", named),
    })
}

fn is_by_place(device: &str) -> bool {
    BY_PLACE.iter().any(|prefix| device.starts_with(prefix))
}

/// The file systems of the disk, gone through once: of them there may be as many as LVM has volumes, and of lines that name them more.
struct Seen {
    /// Of all file systems, in lower case.
    ids: BTreeSet<String>,
    /// What lies in a volume of LVM or behind a key is not seen here.
    hides: bool,
}

impl Seen {
    fn of(partitions: &[Partition]) -> Self {
        let found = || held(partitions).map(|held| held.found);
        let hides = |kind: Kind| kind.is_encrypted() || kind.is_container();
        Self {
            ids: found().filter_map(|found| found.uuid.as_deref()).map(str::to_ascii_lowercase).collect(),
            hides: found().any(|found| hides(found.kind)),
        }
    }

    /// A line that wants a file system by an id that no partition of the disk has.
    fn lacks(&self, line: &str) -> bool {
        let mut fields = line.split_whitespace();
        let wanted =
            fields.next().and_then(|device| device.strip_prefix("UUID=")).map(|id| id.trim_matches('"'));
        let options = fields.nth(2).unwrap_or_default();
        wanted.is_some_and(|wanted| !self.ids.contains(&wanted.to_ascii_lowercase()))
            && !self.hides
            && !options.split(',').any(|option| matches!(option, "nofail" | "noauto"))
    }
}
