//! What is measured, against what, and how much quicker it should be.
//!
//! A flow is one line of data: the input, our command, and the commands of its peers with their targets. In the words of a
//! command, `IN` stands for the input, `OUT` for the output, `RAW` for the raw disk that the input was made from, `URL` for the
//! object that an upload makes, and `NEAR` and `FAR` for a URL of the input, whose answers come at once or late.

mod archives;
mod ingests;
mod uploads;

use super::tools::Tool;

pub(super) use archives::ARCHIVES;
pub(super) use ingests::{INGESTS, IngestFlow};
pub(super) use uploads::{Digest, RESUMED, UPLOADS, UploadFlow, Wire};

/// One thing that image-prep does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    /// What to call it.
    pub(super) name: &'static str,
    /// What it starts from.
    pub(super) input: Input,
    /// Our command.
    pub(super) ours: Job,
    /// The peers' commands.
    pub(super) rivals: &'static [Rival],
}

impl Flow {
    /// The most memory that our command may have, bytes.
    pub(super) fn memory(&self) -> u64 {
        if matches!(self.input, Input::Sparse(_)) { MAX_PEAK_SPARSE } else { MAX_PEAK }
    }
}

/// One command of ours on inputs that grow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Growth {
    /// What to call it.
    pub(super) name: &'static str,
    /// Our command.
    pub(super) ours: Job,
    /// Inputs, least first, each with what it is called and what its time is divided by.
    pub(super) steps: &'static [(Input, &'static str, f64)],
}

/// What a flow starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// A form of the disk, as `cargo xtask images` names it.
    Form(&'static str),
    /// The disk as a VMDK of several sparse extent files, each for 2 GiB.
    Split,
    /// A QCOW2 with a virtual size of so many TiB, of which 1 GiB lies scattered in single clusters.
    Sparse(u64),
    /// A QCOW2 with so many GiB of data in zlib clusters, the same 512 MiB again and again.
    Repeated(u64),
    /// A QCOW2 with a virtual size of so many GiB and the same 1 GiB of plain data in 16 runs, spread evenly.
    Spread(u64),
    /// A QCOW2 of so many TiB, all of it in zlib clusters of which only the metadata exists.
    Mapped(u64),
    /// The disk in a tar.gz.
    Archive(Writer),
}

/// Who wrote an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writer {
    /// image-prep.
    Ours,
    /// GNU tar, with gzip.
    Tar,
}

/// A command line, and what it leaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job {
    /// Whose it is.
    pub(super) tool: Tool,
    /// Its arguments, with spaces between.
    pub(super) words: &'static str,
    /// What is there when it has ended.
    pub(super) leaves: Leaves,
}

/// What a command leaves, and so how it is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaves {
    /// `OUT`, the raw disk.
    Raw,
    /// `OUT`, the raw disk, of which every block was hashed on the way.
    Ingested,
    /// `OUT`, a QCOW2 with the disk in it.
    Qcow2,
    /// `OUT`, a tar.gz with the disk in it.
    TarGz,
    /// An exit code that says that two disks are the same.
    Verdict,
    /// The map as JSON.
    Map,
    /// The virtual size in JSON.
    Info,
    /// The guest digest of the disk in JSON.
    DiskDigest,
    /// The guest digest, in JSON, of the input taken as a raw disk.
    FileDigest,
    /// The SHA-256 of the input.
    FileSha256,
    /// `URL`, an object with the bytes of the input.
    Object,
    /// `URL`, an object with the disk in it, in some form.
    DiskObject,
}

impl Leaves {
    /// Whether there is an output file.
    pub(super) fn is_file(self) -> bool {
        matches!(self, Self::Raw | Self::Ingested | Self::Qcow2 | Self::TarGz)
    }

    /// Whether there is an object in a store.
    pub(super) fn is_object(self) -> bool {
        matches!(self, Self::Object | Self::DiskObject)
    }
}

/// A peer's command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rival {
    /// The command.
    pub(super) job: Job,
    /// How many times our wall time its wall time should be, at least.
    pub(super) target: Target,
}

/// How many times as quick we should be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    /// Shown for comparison only.
    None,
    /// Wherever the output goes.
    AtLeast(f64),
    /// Not the same on disk.
    ByPlace { tmpfs: f64, disk: f64 },
}

/// Against each peer, because it is against the fastest of them. On tmpfs the kernel's copy is all there is to do; on disk more of
/// it can be spread over cores.
const AS_THE_FASTEST: Target = Target::ByPlace { tmpfs: 1.0, disk: 1.4 };

/// The longest that a QCOW2 of ours may be, as a multiple of the peer's.
pub(super) const MAX_LEN_RATIO: f64 = 1.02;

/// The same of an archive: independent members cost some.
pub(super) const MAX_ARCHIVE_LEN_RATIO: f64 = 1.03;

/// The most processor time that a conversion of ours may take, as a multiple of the peer's.
pub(super) const MAX_CPU_RATIO: f64 = 1.05;

/// The same of an upload beside AWS's own library.
pub(super) const MAX_UPLOAD_CPU_RATIO: f64 = 1.1;

/// The most memory that a command of ours may have, bytes.
pub(super) const MAX_PEAK: u64 = 256 << 20;

/// The same where only metadata of a sparse image is read.
const MAX_PEAK_SPARSE: u64 = 64 << 20;

/// The most that the time for a GiB of the largest input of a growth may be, as a multiple of the smallest one's; where the data
/// stays the same, the most that the time may be. What does not grow linearly is twice as slow or worse over these steps; what is
/// allowed beyond 1 is for caches that the smallest input fits better, for tables, and for a machine that is not quite still.
pub(super) const MAX_GROWTH: f64 = 1.15;

/// What is measured beside peers.
pub(super) const FLOWS: &[Flow] = &[
    Flow {
        name: "qcow2 zlib -> raw",
        input: Input::Form("qcow2 zlib"),
        ours: OURS_TO_RAW,
        rivals: &[
            rival(QEMU_QCOW2_TO_RAW, Target::AtLeast(2.6)),
            rival(IMAGO, Target::AtLeast(1.4)),
            rival(QCOW2_RS, Target::None),
            FLOOR,
        ],
    },
    Flow {
        name: "qcow2 zstd -> raw",
        input: Input::Form("qcow2 zstd"),
        ours: OURS_TO_RAW,
        rivals: &[rival(QEMU_QCOW2_TO_RAW, Target::AtLeast(1.8)), FLOOR],
    },
    Flow {
        name: "vmdk stream -> raw",
        input: Input::Form("vmdk stream"),
        ours: OURS_TO_RAW,
        rivals: &[
            rival(QEMU_VMDK_TO_RAW, Target::AtLeast(4.7)),
            rival(VMDK_CORE, Target::AtLeast(3.2)),
            FLOOR,
        ],
    },
    Flow {
        name: "vmdk sparse -> raw",
        input: Input::Form("vmdk sparse"),
        ours: OURS_TO_RAW,
        rivals: &[
            rival(QEMU_VMDK_TO_RAW, Target::AtLeast(2.2)),
            rival(VMDK_CORE, Target::AtLeast(1.8)),
            FLOOR,
        ],
    },
    Flow {
        name: "vmdk split -> raw",
        input: Input::Split,
        ours: ours("convert --quiet --allow-references IN OUT", Leaves::Raw),
        rivals: &[
            rival(QEMU_VMDK_TO_RAW, Target::AtLeast(2.2)),
            rival(VMDK_CORE, Target::AtLeast(1.8)),
            FLOOR,
        ],
    },
    Flow {
        name: "raw -> raw",
        input: Input::Form("raw"),
        ours: ours("convert --quiet --format raw IN OUT", Leaves::Raw),
        rivals: &[
            rival(qemu_img("convert -m 16 -W -f raw -O raw IN OUT", Leaves::Raw), AS_THE_FASTEST),
            rival(
                Job { tool: Tool::Cp, words: "--sparse=always IN OUT", leaves: Leaves::Raw },
                AS_THE_FASTEST,
            ),
            FLOOR,
        ],
    },
    Flow {
        name: "qcow2 -> raw",
        input: Input::Form("qcow2"),
        ours: OURS_TO_RAW,
        rivals: &[
            rival(QEMU_QCOW2_TO_RAW, AS_THE_FASTEST),
            rival(IMAGO, AS_THE_FASTEST),
            rival(QCOW2_RS, Target::None),
            FLOOR,
        ],
    },
    Flow {
        name: "qcow2 extended L2 -> raw",
        input: Input::Form("qcow2 extended"),
        ours: OURS_TO_RAW,
        // imago 0.2.6 and qcow2-rs 0.1.6 do not read subclusters.
        rivals: &[rival(QEMU_QCOW2_TO_RAW, AS_THE_FASTEST), FLOOR],
    },
    Flow {
        name: "raw -> qcow2",
        input: Input::Form("raw"),
        // Clusters as the peer has them: the lengths of the outputs are compared too.
        ours: ours("convert --quiet --format raw --to qcow2 --cluster-size 64KiB IN OUT", Leaves::Qcow2),
        rivals: &[rival(
            qemu_img("convert -m 16 -W -f raw -O qcow2 IN OUT", Leaves::Qcow2),
            Target::AtLeast(1.1),
        )],
    },
    Flow {
        name: "raw -> qcow2 zlib",
        input: Input::Form("raw"),
        ours: ours("convert --quiet --format raw --to qcow2 --compress=zlib IN OUT", Leaves::Qcow2),
        rivals: &[rival(
            qemu_img("convert -c -m 16 -W -f raw -O qcow2 IN OUT", Leaves::Qcow2),
            Target::AtLeast(2.0),
        )],
    },
    Flow {
        name: "raw -> qcow2 zstd",
        input: Input::Form("raw"),
        ours: ours("convert --quiet --format raw --to qcow2 --compress=zstd IN OUT", Leaves::Qcow2),
        rivals: &[rival(
            qemu_img("convert -c -m 16 -W -o compression_type=zstd -f raw -O qcow2 IN OUT", Leaves::Qcow2),
            Target::AtLeast(1.5),
        )],
    },
    Flow {
        name: "compare qcow2, raw",
        input: Input::Form("qcow2"),
        ours: ours("compare --quiet --second-format raw IN RAW", Leaves::Verdict),
        rivals: &[rival(
            qemu_img("compare -q -f qcow2 -F raw IN RAW", Leaves::Verdict),
            Target::AtLeast(2.0),
        )],
    },
    Flow {
        name: "compare qcow2 zlib, raw",
        input: Input::Form("qcow2 zlib"),
        ours: ours("compare --quiet --second-format raw IN RAW", Leaves::Verdict),
        rivals: &[rival(
            qemu_img("compare -q -f qcow2 -F raw IN RAW", Leaves::Verdict),
            Target::AtLeast(2.0),
        )],
    },
    Flow { name: "map 1 TiB", input: Input::Sparse(1), ours: OURS_MAP, rivals: &[QEMU_MAP] },
    Flow { name: "map 8 TiB", input: Input::Sparse(8), ours: OURS_MAP, rivals: &[QEMU_MAP] },
    Flow { name: "info 1 TiB", input: Input::Sparse(1), ours: OURS_INFO, rivals: &[QEMU_MAP] },
    Flow { name: "info 8 TiB", input: Input::Sparse(8), ours: OURS_INFO, rivals: &[QEMU_MAP] },
    Flow { name: "info 4 TiB compressed", input: Input::Mapped(4), ours: OURS_INFO, rivals: &[] },
    Flow {
        // A QCOW2 read as if it were a raw disk: a file without holes, which openssl would read and we would not.
        name: "digest raw",
        input: Input::Form("qcow2"),
        ours: ours("info --digest --json --quiet --format raw IN", Leaves::FileDigest),
        rivals: &[rival(
            Job { tool: Tool::Openssl, words: "dgst -sha256 IN", leaves: Leaves::FileSha256 },
            Target::AtLeast(1.9),
        )],
    },
    Flow {
        name: "digest qcow2 zlib",
        input: Input::Form("qcow2 zlib"),
        ours: ours("info --digest --json --quiet IN", Leaves::DiskDigest),
        rivals: &[],
    },
    Flow {
        name: "qcow2 zlib -> raw, -j 2",
        input: Input::Form("qcow2 zlib"),
        ours: ours("convert --quiet -j 2 IN OUT", Leaves::Raw),
        rivals: &[rival(ours("convert --quiet -j 1 IN OUT", Leaves::Raw), Target::AtLeast(1.85))],
    },
];

/// What is measured as it grows.
pub(super) const GROWTHS: &[Growth] = &[
    Growth {
        name: "growth with data",
        ours: OURS_TO_RAW,
        steps: &[
            (Input::Repeated(1), "1 GiB", 1.0),
            (Input::Repeated(2), "2 GiB", 2.0),
            (Input::Repeated(4), "4 GiB", 4.0),
            (Input::Repeated(8), "8 GiB", 8.0),
        ],
    },
    Growth {
        name: "growth with virtual size",
        ours: OURS_TO_RAW,
        steps: &[
            (Input::Spread(10), "10 GiB", 1.0),
            (Input::Spread(1 << 10), "1 TiB", 1.0),
            (Input::Spread(8 << 10), "8 TiB", 1.0),
        ],
    },
];

const OURS_TO_RAW: Job = ours("convert --quiet IN OUT", Leaves::Raw);
const OURS_MAP: Job = ours("map --json --quiet IN", Leaves::Map);
const OURS_INFO: Job = ours("info --json --quiet IN", Leaves::Info);

/// 16 requests in flight, in any order: the quickest that qemu-img knows.
const QEMU_QCOW2_TO_RAW: Job = qemu_img("convert -m 16 -W -f qcow2 -O raw IN OUT", Leaves::Raw);
const QEMU_VMDK_TO_RAW: Job = qemu_img("convert -m 16 -W -f vmdk -O raw IN OUT", Leaves::Raw);
const QEMU_MAP: Rival = rival(qemu_img("map --output=json -f qcow2 IN", Leaves::Map), Target::AtLeast(8.0));

const IMAGO: Job = Job { tool: Tool::Imago, words: "IN OUT", leaves: Leaves::Raw };
const QCOW2_RS: Job = Job { tool: Tool::Qcow2Rs, words: "IN OUT", leaves: Leaves::Raw };
/// What stands below every flow that ends in a raw disk: nobody can be quicker that reads and writes.
const FLOOR: Rival = rival(Job { tool: Tool::Floor, words: "RAW OUT", leaves: Leaves::Raw }, Target::None);
const VMDK_CORE: Job = Job { tool: Tool::VmdkCore, words: "IN OUT", leaves: Leaves::Raw };

const fn ours(words: &'static str, leaves: Leaves) -> Job {
    Job { tool: Tool::ImagePrep, words, leaves }
}

const fn qemu_img(words: &'static str, leaves: Leaves) -> Job {
    Job { tool: Tool::QemuImg, words, leaves }
}

const fn rival(job: Job, target: Target) -> Rival {
    Rival { job, target }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_names_what_it_reads_and_leaves() {
        let of_flow =
            |flow: &Flow| [&[flow.ours], &*flow.rivals.iter().map(|r| r.job).collect::<Vec<_>>()].concat();
        let growths = GROWTHS.iter().map(|growth| growth.ours);
        let uploads = UPLOADS.iter().map(|upload| &upload.flow);
        let ingests = INGESTS.iter().map(|ingest| &ingest.flow);
        let digests = UPLOADS.iter().filter_map(|upload| upload.digest);
        let digests = digests.flat_map(|Digest { with, alone }| [with, alone]);
        let flows = FLOWS.iter().chain(ARCHIVES).chain(uploads).chain(ingests);
        for job in flows.flat_map(of_flow).chain(growths).chain(digests).chain([RESUMED]) {
            let words: Vec<&str> = job.words.split(' ').collect();
            let inputs: &[&str] = if job.tool == Tool::Floor { &["RAW"] } else { &["IN", "NEAR", "FAR"] };
            assert!(inputs.iter().any(|input| words.contains(input)), "{job:?}");
            let makes_temporary = matches!(job.tool, Tool::QemuThenS5cmd | Tool::QemuTarS5cmd);
            assert_eq!(words.contains(&"OUT"), job.leaves.is_file() || makes_temporary, "{job:?}");
            let is_named = words.contains(&"URL") || words.windows(2).any(|two| two == ["BUCKET", "KEY"]);
            assert_eq!(is_named, job.leaves.is_object(), "{job:?}");
        }
    }

    #[test]
    fn names_are_not_used_twice() {
        let mut names: Vec<&str> = FLOWS.iter().chain(ARCHIVES).map(|flow| flow.name).collect();
        names.extend(UPLOADS.iter().map(|upload| upload.flow.name));
        names.extend(INGESTS.iter().map(|ingest| ingest.flow.name));
        names.extend(GROWTHS.iter().map(|growth| growth.name));
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
