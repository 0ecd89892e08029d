//! What is inside a disk: partitions, file systems, operating system, and whether it is ready for the cloud.
//!
//! [`inspect`] asks a [`GuestBytes`] for the few pages that it needs, [`inspect_disk`] is the same for a disk image in any format, from
//! wherever it is read: nothing is converted. Everything found is advice: what a disk says of itself may be wrong, and what is not
//! known is called unknown. Reads, memory and time are bounded by [`limits`], whatever the disk says; only a source that fails is an
//! error.
//!
//! All offsets and lengths are bytes of the guest.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
#![cfg_attr(
    test,
    allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::cast_possible_truncation)
)]

mod boot;
mod disk;
mod ext4;
mod fat;
mod filesystem;
pub mod limits;
mod partition;
mod ready;
mod source;
mod suggest;
mod system;
mod tree;

pub use boot::{Boot, Loader};
pub use disk::{InspectError, inspect_disk};
pub use filesystem::{FileSystem, Kind};
pub use partition::{Partition, Table, TableKind};
pub use ready::{Finding, Point, Verdict};
pub use source::{Cause, GuestBytes};
pub use suggest::{Generation, Suggestions, image_name};
pub use system::{Family, System};
pub use tree::Evidence;

use schemars::JsonSchema;
use serde::Serialize;

use crate::ext4::Ext4;
use crate::source::{Trouble, View};
use crate::tree::{Mounted, Tree};

/// What is inside a disk.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Guest {
    /// How it is divided.
    pub partition_table: Table,
    /// Into what.
    pub partitions: Vec<Partition>,
    /// How it starts.
    pub boot: Boot,
    /// What it starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<System>,
    /// Whether it will do in the cloud, point by point.
    pub readiness: Vec<Finding>,
    /// What to say of it when an Image is created.
    pub suggestions: Suggestions,
    /// What is odd about it.
    pub notes: Vec<String>,
    /// Guest bytes that were read to find all this out.
    pub bytes_read: u64,
}

/// Looks into a disk.
///
/// # Errors
///
/// What the source reports. Nothing that a disk says is an error.
pub fn inspect(source: Box<dyn GuestBytes>) -> Result<Guest, Cause> {
    let view = View::new(source);
    let guest = look(&view);
    match view.into_failure() {
        None => Ok(guest),
        Some(cause) => Err(cause),
    }
}

fn look(view: &View) -> Guest {
    let mut notes = Vec::new();
    let (table, mut partitions) = partition::read(view.disk(), &mut notes);
    for partition in &mut partitions {
        partition.file_system = filesystem::probe(view.volume(partition.start, partition.size));
    }
    if table.kind == TableKind::None
        && let Some(found) = filesystem::probe(view.disk())
    {
        partitions.push(Partition {
            number: 0,
            start: 0,
            size: view.len(),
            type_id: String::new(),
            type_name: None,
            name: None,
            active: false,
            file_system: Some(found),
        });
    }
    let boot = boot::find(view, &table, &partitions, &mut notes);
    let tree = installed(view, &partitions, &mut notes);
    let system = match &tree {
        Some(tree) => Some(system::linux(tree, &mut notes)),
        None => system::by_looks(&partitions, &boot),
    };
    if let Some(tree) = &tree {
        for partition in tree.unclean() {
            notes.push(format!(
                "the file system in partition {partition} was not unmounted: what only its journal holds is not seen"
            ));
        }
    }
    let parts = ready::Parts {
        table: &table,
        partitions: &partitions,
        boot: &boot,
        system: system.as_ref(),
        tree: tree.as_ref(),
    };
    let readiness = ready::check(&parts);
    let suggestions = suggest::suggest(&parts, view.len());
    Guest {
        readiness,
        suggestions,
        boot,
        system,
        partition_table: table,
        partitions,
        notes,
        bytes_read: view.bytes_read(),
    }
}

/// The root file system, and the one that is mounted at `/boot`, of those that are read here.
fn installed<'v>(view: &'v View, partitions: &[Partition], notes: &mut Vec<String>) -> Option<Tree<'v>> {
    let (mut root, mut boot) = (None, None);
    for partition in partitions {
        if !partition.file_system.as_ref().is_some_and(|found| found.kind.is_ext()) {
            continue;
        }
        let volume = view.volume(partition.start, partition.size);
        let role = Ext4::open(volume).and_then(|files| Ok((role(&files)?, files)));
        match role {
            Ok((Role::Root, files)) if root.is_none() => {
                root = Some(Mounted { partition: partition.number, files });
            }
            Ok((Role::Boot, files)) if boot.is_none() => {
                boot = Some(Mounted { partition: partition.number, files });
            }
            Ok(_) => {}
            Err(why) => {
                notes.push(format!("the file system in partition {} is not read: {why}", partition.number))
            }
        }
    }
    root.map(|root| Tree { root, boot })
}

/// What a file system is for.
enum Role {
    Root,
    Boot,
    Other,
}

fn role(files: &Ext4<'_>) -> Result<Role, Trouble> {
    for path in system::OS_RELEASE {
        // The usual link leads to the other one.
        if files.file_len(path)?.is_some() {
            return Ok(Role::Root);
        }
    }
    if files.exists("/etc/fstab")? {
        return Ok(Role::Root);
    }
    for path in ["/grub", "/grub2", "/loader", "/extlinux"] {
        if files.exists(path)? {
            return Ok(Role::Boot);
        }
    }
    let is_kernel = |name: &String| name.starts_with("vmlinuz") || name.starts_with("Image");
    Ok(if files.names("/")?.iter().any(is_kernel) { Role::Boot } else { Role::Other })
}
