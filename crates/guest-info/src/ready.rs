//! Whether a disk will do in the cloud, as far as its files tell: what the cloud's documentation asks of an image, point by point.
//!
//! A point passes or warns on evidence that is shown; what rests on nothing is unknown. Nothing here is a reason to refuse.

mod boot;
mod cloud_init;
mod console;
mod mounts;
mod network;
mod ssh;
mod virtio;

use std::fmt;

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use crate::boot::Boot;
use crate::partition::{Partition, Table};
use crate::source::Trouble;
use crate::system::{Family, System};
use crate::tree::{Evidence, Tree};

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
    pub(crate) tree: Option<&'a Tree<'a>>,
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
    let of_files = OF_FILES.iter().map(|(point, check)| match parts.tree {
        Some(tree) => check(parts, tree).unwrap_or_else(|why| Finding::unknown(*point, why.to_string())),
        None => Finding::unknown(*point, unseen(parts)),
    });
    of_files.chain([boot::encryption(parts), boot::check(parts)]).collect()
}

/// Why no file of a system was read.
fn unseen(parts: &Parts<'_>) -> String {
    let Some(system) = parts.system else { return "no operating system was found".to_owned() };
    if system.family == Family::Windows {
        return "settings of Windows are not read here".to_owned();
    }
    let volume = parts.partitions.iter().find(|partition| partition.number == system.partition);
    match volume.and_then(|partition| partition.file_system.as_ref()) {
        Some(found) if found.kind.is_encrypted() => "the file system is encrypted".to_owned(),
        Some(found) => format!("no installed system was found on {}, or it is not read here", found.kind),
        None => "no operating system was found".to_owned(),
    }
}
