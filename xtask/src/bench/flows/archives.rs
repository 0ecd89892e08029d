//! What is measured of archives for Compute Engine, against what.
//!
//! Peers as people use them: GNU tar with gzip, and with pigz on all cores, both at their level 6, which is ours too. Archives are
//! read as they come: those that were written here have an index, those of tar have to be read through first.

use super::{Flow, Input, Job, Leaves, Rival, Target, Writer, ours, rival};
use crate::bench::tools::Tool;

/// What is measured beside peers.
pub(in crate::bench) const ARCHIVES: &[Flow] = &[
    Flow {
        name: "raw -> tar.gz",
        input: Input::Form("raw"),
        ours: ours("convert --quiet --format raw --to gce IN OUT", Leaves::TarGz),
        rivals: &[
            rival(
                Job {
                    tool: Tool::Tar,
                    words: "--format=oldgnu -S --transform=s,.*,disk.raw, -czf OUT IN",
                    leaves: Leaves::TarGz,
                },
                Target::AtLeast(4.0),
            ),
            rival(
                Job {
                    tool: Tool::TarPigz,
                    words: "--format=oldgnu -S --transform=s,.*,disk.raw, -I pigz -cf OUT IN",
                    leaves: Leaves::TarGz,
                },
                Target::AtLeast(1.8),
            ),
        ],
    },
    Flow {
        name: "tar.gz -> raw",
        input: Input::Archive(Writer::Ours),
        ours: ours("convert --quiet IN OUT", Leaves::Raw),
        rivals: &[untar(Target::None)],
    },
    Flow {
        name: "tar's tar.gz -> raw",
        input: Input::Archive(Writer::Tar),
        ours: ours("convert --quiet IN OUT", Leaves::Raw),
        rivals: &[untar(Target::None)],
    },
];

/// Unpacks an archive to a disk.
pub(super) const fn untar(target: Target) -> Rival {
    rival(Job { tool: Tool::Untar, words: "IN OUT", leaves: Leaves::Raw }, target)
}
