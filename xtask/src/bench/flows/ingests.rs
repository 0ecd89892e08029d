//! What is measured of ingests, against what.
//!
//! Ours is the library with a file for a sink, which is what the peers write; beside it stands the same ingest into blocks of a store.
//! The peers as they are quickest: qemu-img with 16 requests in any order; nbdkit's curl plugin behind nbdcopy, which is a
//! pipeline by itself, with qemu-nbd between them where there is something to decode, as nbdkit has no such formats.

use super::archives::untar;
use super::{Flow, Input, Job, Leaves, Rival, Target, Writer, rival};
use crate::bench::tools::Tool;

/// An ingest, and what else is asked of it.
#[derive(Debug, Clone, Copy)]
pub(in crate::bench) struct IngestFlow {
    /// Commands and peers.
    pub(in crate::bench) flow: Flow,
    /// The most that our command may fetch, as a multiple of the object.
    pub(in crate::bench) fetched: Option<f64>,
}

/// Where nothing but bytes is moved.
const PLAIN: Target = Target::AtLeast(1.5);
/// Where decoding is most of the work.
const DECODED: Target = Target::AtLeast(2.0);
/// Where each answer is late.
const LATE: Target = Target::AtLeast(20.0);

/// Beyond the object: its metadata, read a second time.
const FETCHED: Option<f64> = Some(1.01);

/// An archive of tar is read through before its content is read.
const FETCHED_TWICE: Option<f64> = Some(2.5);

/// Each form from near, where blocks are made of it too, and from where each answer is late.
macro_rules! ingests {
    ($(($form:literal, $format:literal, $target:ident)),* $(,)?) => {
        &[
            $(near(
                concat!($form, " URL -> raw"),
                $form,
                &[
                    rival(qemu(concat!("convert -m 16 -W -f ", $format, " -O raw NEAR OUT")), $target),
                    rival(nbdkit(concat!($format, " NEAR OUT")), $target),
                    BLOCKS,
                ],
            ),)*
            $(far(
                concat!($form, ", 50 ms"),
                $form,
                &[
                    rival(qemu(concat!("convert -m 16 -W -f ", $format, " -O raw FAR OUT")), LATE),
                    rival(nbdkit(concat!($format, " FAR OUT")), LATE),
                ],
            ),)*
            into_blocks("tar.gz URL -> blocks", Writer::Ours, FETCHED),
            into_blocks("tar's tar.gz -> blocks", Writer::Tar, FETCHED_TWICE),
        ]
    };
}

/// What is measured beside peers: forms, and what qemu-img and nbdkit call them.
pub(in crate::bench) const INGESTS: &[IngestFlow] = ingests![
    ("raw", "raw", PLAIN),
    ("qcow2", "qcow2", PLAIN),
    ("qcow2 zlib", "qcow2", DECODED),
    ("vmdk stream", "vmdk", DECODED),
];

/// What `tar xzf` makes.
const UNPACKED: &[Rival] = &[untar(Target::AtLeast(1.5))];

/// The same ingest into blocks of a store that keeps nothing.
const BLOCKS: Rival = rival(
    Job { tool: Tool::IngestBlocks, words: "NEAR blocks BUCKET", leaves: Leaves::DiskDigest },
    Target::None,
);

/// An archive into blocks, beside unpacking it from the page cache to a file.
const fn into_blocks(name: &'static str, writer: Writer, fetched: Option<f64>) -> IngestFlow {
    let flow = Flow { name, input: Input::Archive(writer), ours: BLOCKS.job, rivals: UNPACKED };
    IngestFlow { flow, fetched }
}

const fn near(name: &'static str, form: &'static str, rivals: &'static [Rival]) -> IngestFlow {
    IngestFlow { flow: flow(name, form, "NEAR raw OUT", rivals), fetched: FETCHED }
}

const fn far(name: &'static str, form: &'static str, rivals: &'static [Rival]) -> IngestFlow {
    IngestFlow { flow: flow(name, form, "FAR raw OUT", rivals), fetched: None }
}

const fn flow(name: &'static str, form: &'static str, words: &'static str, rivals: &'static [Rival]) -> Flow {
    let ours = Job { tool: Tool::Ingest, words, leaves: Leaves::Ingested };
    Flow { name, input: Input::Form(form), ours, rivals }
}

const fn qemu(words: &'static str) -> Job {
    Job { tool: Tool::QemuCurl, words, leaves: Leaves::Raw }
}

const fn nbdkit(words: &'static str) -> Job {
    Job { tool: Tool::Nbdkit, words, leaves: Leaves::Raw }
}
