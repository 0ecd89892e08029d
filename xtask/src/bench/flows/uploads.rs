//! What is measured of uploads, against what.
//!
//! Peers as they are quickest here: s5cmd and the transfer manager with parts of 8 and 16 MiB, eight at a time; aws-cli has no such
//! options on its command line, and parts of 8 MiB, ten at a time.

use super::{Flow, Input, Job, Leaves, Target, ours, rival};
use crate::bench::tools::Tool;

/// An upload, and what else is asked of it.
#[derive(Debug, Clone, Copy)]
pub(in crate::bench) struct UploadFlow {
    /// Commands and peers.
    pub(in crate::bench) flow: Flow,
    /// The same upload with a guest digest, which no peer makes.
    pub(in crate::bench) digest: Option<Digest>,
    /// The bytes that our command sends.
    pub(in crate::bench) wire: Option<Wire>,
}

/// What a guest digest costs.
#[derive(Debug, Clone, Copy)]
pub(in crate::bench) struct Digest {
    /// Upload and digest.
    pub(in crate::bench) with: Job,
    /// The digest alone: the most processor time that it may add.
    pub(in crate::bench) alone: Job,
}

/// How many bytes may be sent.
#[derive(Debug, Clone, Copy)]
pub(in crate::bench) enum Wire {
    /// So many times what the input stores, at most.
    AtMost(f64),
    /// Shown for comparison only.
    Shown,
}

/// What is measured beside peers.
pub(in crate::bench) const UPLOADS: &[UploadFlow] = &[
    UploadFlow {
        flow: Flow {
            // A QCOW2 read as if it were a raw disk: a file without holes, which all have to send whole.
            name: "raw -> S3",
            input: PLAIN,
            ours: WHOLE,
            rivals: &[
                rival(TRANSFER_MANAGER, Target::AtLeast(1.0)),
                rival(S5CMD, Target::AtLeast(3.0)),
                rival(AWS_CLI, Target::AtLeast(6.0)),
            ],
        },
        digest: Some(Digest {
            with: WHOLE_WITH_DIGEST,
            alone: ours("info --digest --json --quiet --format raw IN", Leaves::FileDigest),
        }),
        wire: None,
    },
    UploadFlow {
        flow: Flow {
            name: "vmdk stream -> S3",
            input: Input::Form("vmdk stream"),
            ours: ours("upload --quiet --no-digest IN URL", Leaves::DiskObject),
            rivals: &[rival(QEMU_THEN_S5CMD, Target::AtLeast(4.0))],
        },
        digest: Some(Digest {
            with: ours("upload --quiet IN URL", Leaves::DiskObject),
            alone: ours("info --digest --json --quiet IN", Leaves::DiskDigest),
        }),
        wire: None,
    },
    UploadFlow {
        flow: Flow {
            name: "vmdk stream -> tar.gz S3",
            input: Input::Form("vmdk stream"),
            ours: ours("upload --quiet --no-digest --to gce IN URL", Leaves::DiskObject),
            rivals: &[rival(QEMU_TAR_S5CMD, Target::AtLeast(4.5))],
        },
        digest: None,
        wire: None,
    },
    UploadFlow {
        flow: Flow {
            name: "sparse raw -> S3",
            input: Input::Form("raw"),
            ours: ours("upload --quiet --format raw IN URL", Leaves::DiskObject),
            rivals: &[rival(AWS_CLI, Target::None)],
        },
        digest: None,
        wire: Some(Wire::AtMost(1.01)),
    },
    UploadFlow {
        flow: Flow {
            // A part is sent whole for any byte in it, so it is the disk that says how many are.
            name: "sparse raw -> S3, raw",
            input: Input::Form("raw"),
            ours: ours("upload --quiet --format raw --to raw IN URL", Leaves::Object),
            rivals: &[],
        },
        digest: None,
        wire: Some(Wire::Shown),
    },
];

/// The upload that is killed and continued.
pub(in crate::bench) const RESUMED: Job = WHOLE_WITH_DIGEST;

const PLAIN: Input = Input::Form("qcow2");
const WHOLE: Job = ours("upload --quiet --no-digest --format raw --to raw IN URL", Leaves::Object);
const WHOLE_WITH_DIGEST: Job = ours("upload --quiet --format raw --to raw IN URL", Leaves::Object);

const TRANSFER_MANAGER: Job =
    Job { tool: Tool::TransferManager, words: "IN BUCKET KEY", leaves: Leaves::Object };
const S5CMD: Job = Job { tool: Tool::S5cmd, words: "cp -c 8 -p 16 IN URL", leaves: Leaves::Object };
const AWS_CLI: Job =
    Job { tool: Tool::AwsCli, words: "s3 cp --only-show-errors IN URL", leaves: Leaves::Object };

/// Through a temporary file, in the form that ours has: sparse, and nothing compressed again.
const QEMU_THEN_S5CMD: Job =
    Job { tool: Tool::QemuThenS5cmd, words: "IN OUT URL", leaves: Leaves::DiskObject };

/// As Compute Engine wants it: a raw disk in a file, a tar of it in another one, and that is sent.
const QEMU_TAR_S5CMD: Job = Job { tool: Tool::QemuTarS5cmd, words: "IN OUT URL", leaves: Leaves::DiskObject };
