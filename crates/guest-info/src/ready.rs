//! Whether a disk will do in the cloud, as far as its files tell: what the cloud's documentation asks of an image, point by point.
//!
//! A point passes or warns on evidence that is shown; what rests on nothing is unknown. Nothing here is a reason to refuse.

mod boot;
mod cloud_init;
mod console;
mod kernel;
mod mounts;
mod network;
mod ssh;
mod virtio;

use std::fmt;

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use crate::boot::Boot;
use crate::partition::{Partition, Table, held};
use crate::source::Trouble;
use crate::system::{Family, System};
use crate::tree::{Evidence, Tree};
use crate::unread::Unread;

/// What is asked of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub enum Point {
    /// The kernel finds the cloud's disk and network.
    Virtio,
    /// The kernel talks to the serial port, which is all the console there is.
    Console,
    /// cloud-init is there, and looks where this cloud's metadata is.
    CloudInit,
    /// File systems are mounted by what they are, not by where they once were.
    Mounts,
    /// The network is asked for an address.
    Dhcp,
    /// Somebody can log in.
    Ssh,
    /// Nobody has to type a passphrase.
    Encryption,
    /// Firmware finds something to start.
    Boot,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Virtio => "virtio",
            Self::Console => "console",
            Self::CloudInit => "cloud-init",
            Self::Mounts => "mounts",
            Self::Dhcp => "dhcp",
            Self::Ssh => "ssh",
            Self::Encryption => "encryption",
            Self::Boot => "boot",
        })
    }
}

impl Serialize for Point {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// How it stands with a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As the cloud wants it.
    Pass,
    /// Not as the cloud wants it.
    Warn,
    /// The disk does not tell, or it is not read here.
    Unknown,
}

/// What was found about a point.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Finding {
    /// Which.
    pub point: Point,
    /// How it stands.
    pub verdict: Verdict,
    /// Why, in words.
    pub found: String,
    /// What that rests on.
    pub evidence: Vec<Evidence>,
    /// What would help, where it does not pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<&'static str>,
}

impl Finding {
    fn pass(point: Point, found: impl Into<String>, evidence: impl IntoIterator<Item = Evidence>) -> Self {
        let evidence = evidence.into_iter().collect();
        Self { point, verdict: Verdict::Pass, found: found.into(), evidence, mend: None }
    }

    fn warn(
        point: Point,
        found: impl Into<String>,
        evidence: impl IntoIterator<Item = Evidence>,
        mend: &'static str,
    ) -> Self {
        let evidence = evidence.into_iter().collect();
        Self { point, verdict: Verdict::Warn, found: found.into(), evidence, mend: Some(mend) }
    }

    fn unknown(point: Point, found: impl Into<String>) -> Self {
        Self { point, verdict: Verdict::Unknown, found: found.into(), evidence: Vec::new(), mend: None }
    }
}

/// What is known of a disk before it is judged.
pub(crate) struct Parts<'a> {
    pub(crate) table: &'a Table,
    pub(crate) partitions: &'a [Partition],
    pub(crate) boot: &'a Boot,
    pub(crate) system: Option<&'a System>,
    pub(crate) tree: &'a Tree<'a>,
    pub(crate) unread: &'a Unread,
}

type Check = fn(&Parts<'_>, &Tree<'_>) -> Result<Finding, Trouble>;

/// The points that an installed system's files tell of.
const OF_FILES: [(Point, Check); 6] = [
    (Point::Virtio, virtio::check),
    (Point::Console, console::check),
    (Point::CloudInit, cloud_init::check),
    (Point::Mounts, mounts::check),
    (Point::Dhcp, network::check),
    (Point::Ssh, ssh::check),
];

/// Judges every point.
pub(crate) fn check(parts: &Parts<'_>) -> Vec<Finding> {
    let of_files = OF_FILES.iter().map(|(point, check)| {
        let found = match parts.tree.root {
            Some(_) => of_tree(parts, parts.tree, *point, *check),
            None => of_boot(parts, parts.tree, *point, *check),
        };
        found.unwrap_or_else(|why| Finding::unknown(*point, why.to_string()))
    });
    of_files.chain([boot::encryption(parts), boot::check(parts)]).collect()
}

/// A point that files tell of, as far as they are seen: what rests on a file not being there is unknown where it may lie in a file
/// system that is not read.
fn of_tree(parts: &Parts<'_>, tree: &Tree<'_>, point: Point, check: Check) -> Result<Finding, Trouble> {
    // Which console it has, and whose metadata it takes, depends on the system.
    if let (Point::Console | Point::CloudInit, Some(why)) = (point, &parts.unread.system) {
        return Ok(Finding::unknown(point, why.clone()));
    }
    let found = check(parts, tree)?;
    // The kernel, its initramfs and what its loader says lie in /boot; for mounts a line there would be what is wrong.
    let rests_on_boot = match point {
        Point::Virtio | Point::Console => found.verdict == Verdict::Warn,
        Point::Mounts => found.verdict == Verdict::Pass,
        _ => false,
    };
    let is_elsewhere = |folder| Ok(tree.mounts(folder)?.unwrap_or(parts.unread.file().is_some()));
    let missing = if found.verdict == Verdict::Warn && is_elsewhere("/usr")? {
        Some("/usr")
    } else if rests_on_boot && tree.boot.is_none() && is_elsewhere("/boot")? {
        Some("/boot")
    } else {
        None
    };
    let Some(folder) = missing else { return Ok(found) };
    let why = parts.unread.file().map(|why| format!(": {why}")).unwrap_or_default();
    Ok(Finding::unknown(point, format!("what may lie in {folder} is not read{why}")))
}

/// A point of a system of which at most `/boot` is read: what its loader says is what counts, the rest is unknown.
fn of_boot(parts: &Parts<'_>, tree: &Tree<'_>, point: Point, check: Check) -> Result<Finding, Trouble> {
    let is_all = tree.boot.is_some() && parts.unread.file().is_none();
    if is_all && matches!(point, Point::Console | Point::Mounts) {
        let found = check(parts, tree)?;
        // That no mount was found wrong rests on a table that is not read.
        if found.verdict == Verdict::Warn || point == Point::Console && found.verdict == Verdict::Pass {
            return Ok(found);
        }
    }
    Ok(Finding::unknown(point, unseen(parts)))
}

/// Why no file of a system was read.
fn unseen(parts: &Parts<'_>) -> String {
    let Some(system) = parts.system else {
        let why = parts.unread.file().map(|why| format!(", but {why}")).unwrap_or_default();
        return format!("no operating system was found{why}");
    };
    if system.family == Family::Windows {
        return "settings of Windows are not read here".to_owned();
    }
    // The largest of what lies in LVM, if that is known.
    let of_system = held(parts.partitions).filter(|held| held.partition == system.partition);
    let inside = of_system.clone().skip(1).max_by_key(|held| held.size);
    match inside.or(of_system.clone().next()).map(|held| held.found) {
        Some(found) if found.kind.is_encrypted() => "the file system is encrypted".to_owned(),
        Some(found) => match &parts.unread.files {
            Some(why) => why.clone(),
            None => format!("no installed system was found on {}, or it is not read here", found.kind),
        },
        None => "no operating system was found".to_owned(),
    }
}
