//! What was typed: the command line as clap reads it, and nothing of what it means.
//!
//! Help texts are doc comments: the first line is what `-h` shows, all of it is what `--help` shows. Sizes and durations are
//! parsed here ([`values`]), so that a wrong one is a usage error.

mod cleanup;
mod create;
mod resume;
pub(crate) mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use disk_image::Format;
use image_api::Transport;

pub(crate) use cleanup::CleanupArgs;
pub(crate) use create::{CreateArgs, HardwareGeneration, ImageFields, OsType};
use object_io::{ObjectUri, StoreProfile};
pub(crate) use resume::{IfExists, ResumeArgs};
use values::{Lifetime, Size};

/// Commands by task. Written by hand, because clap lists subcommands in one block; a test holds it against the real list.
const TEMPLATE: &str = "\
{before-help}{about}

{usage-heading} {usage}

Look at an image:
  info         Format, sizes, layout and warnings
  map          Which guest bytes are data, zero, compressed
  compare      Whether two images hold the same disk

Make another file:
  convert      Convert to raw, qcow2 or vmdk

Move it into a cloud:
  create       Upload an image and create a cloud Image from it
  upload       Upload an image and print a pre-signed URL
  operation    Show, wait for, or cancel an operation
  cleanup      Remove what uploads that broke off left in a store

Set up the shell:
  completions  Print a completion script
  man          Write man pages

Options:
{options}{after-help}";

const EXAMPLES: &str = "\
Examples:
  image-prep info testdata/disk.qcow2
  image-prep convert testdata/disk.qcow2 /tmp/disk.raw
  image-prep create testdata/disk.qcow2 --name demo --local

'image-prep COMMAND --help' says more; so does 'image-prep --help'.";

/// Paragraphs are one line each: clap wraps them.
const EXPLANATIONS: &str = "\
IMAGE is a path, a block device, or an https URL whose server serves byte ranges. Its format is found from its \
content, never from its name; --format overrides. Files that it names are opened only with --allow-references.

Sizes:
  Bytes, or a number with K, M, G, T (also KiB, MiB, GiB, TiB): powers of 1024
  A number with KB, MB, GB, TB: powers of 1000
  JSON has bytes, text for people has powers of 1024

Exit codes:
  0    done (compare: the disks are the same)
  1    failed (compare: the disks differ; what fails there is 2)
  2    wrong usage
  3    the image was refused: damaged, unsafe, or not supported
  4    the operation failed in the cloud
  130  interrupted

Results go to standard output, everything else to standard error.

Examples:
  image-prep info testdata/disk.qcow2
  image-prep convert testdata/disk.qcow2 /tmp/disk.raw
  image-prep create testdata/disk.qcow2 --name demo --local";

/// Moves disk images into a cloud: inspect, convert, upload, create.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 100,
    help_template = TEMPLATE,
    after_help = EXAMPLES,
    after_long_help = EXPLANATIONS,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct CommonArgs {
    /// Memory for image data in flight [default: 192MiB]
    ///
    /// Bounds what is held of images at a time, whatever their size. The program itself and the table of where things lie in
    /// an image come on top (below 64 MiB for nearly all).
    #[arg(
        short,
        long,
        global = true,
        value_name = "SIZE",
        default_value = "192MiB",
        hide_default_value = true
    )]
    pub(crate) memory: Size,

    /// Threads that decode, hash and copy [default: as many as this process has CPUs]
    ///
    /// The default is what the process may use: its affinity (taskset) and the CPU quota of its cgroup (containers) count, not
    /// how many CPUs the machine has. With -vv it is said.
    #[arg(short, long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) jobs: Option<u16>,

    /// Print results as JSON
    ///
    /// One object per line, `map` excepted, whose result is one array.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// No progress, no warnings
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    /// Say what is done, and how much work it was; twice for more
    ///
    /// Each pass over a disk ends with a line of counts: bytes read, decoded, copied and put. They depend on the image and the
    /// options, not on time. JSON results have them as `counters`.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Info(InfoArgs),
    Map(MapArgs),
    Convert(ConvertArgs),
    Compare(CompareArgs),
    Upload(UploadArgs),
    Create(Box<CreateArgs>),
    Operation(OperationArgs),
    Cleanup(CleanupArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// How an image is opened.
#[derive(Debug, Args)]
pub(crate) struct OpenArgs {
    /// Take the image to be of this format instead of looking at its content
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<FormatName>,

    /// Read this internal snapshot, by its id or name, instead of the current state
    #[arg(long, value_name = "ID|NAME")]
    pub(crate) snapshot: Option<String>,

    /// Read the disk of this name in an OVA that holds several
    #[arg(long, value_name = "NAME")]
    pub(crate) member: Option<String>,

    #[command(flatten)]
    pub(crate) references: ReferenceArgs,

    /// Allow http:// besides https:// for hosts other than this one
    #[arg(long)]
    pub(crate) allow_http: bool,
}

/// What happens to the files that an image names.
#[derive(Debug, Args)]
pub(crate) struct ReferenceArgs {
    /// Read the files that the image names, if they lie in DIR [default: the image's folder]
    ///
    /// Backing files, data files and extent files are part of the disk, and an image from a stranger may name any file of this
    /// machine: without this option none is opened. With it, only regular files beneath DIR are, whatever links lead there.
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true)]
    #[allow(clippy::option_option, reason = "absent, without a folder, with one: clap's own shape for it")]
    pub(crate) allow_references: Option<Option<PathBuf>>,

    /// Format of backing files whose format no image declares; it is never guessed
    #[arg(long, value_name = "FORMAT")]
    pub(crate) backing_format: Option<FormatName>,
}

/// A disk image format, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatName {
    Raw,
    Qcow2,
    Vmdk,
    #[value(alias = "vpc")]
    Vhd,
    Vhdx,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Raw => Self::Raw,
            FormatName::Qcow2 => Self::Qcow2,
            FormatName::Vmdk => Self::Vmdk,
            FormatName::Vhd => Self::Vhd,
            FormatName::Vhdx => Self::Vhdx,
        }
    }
}

/// Show what an image is: format, sizes, layout, warnings.
///
/// Without --digest only metadata is read, and "storage" is an upper bound: the bytes of all 4 MiB blocks of the disk in which
/// anything is stored. With --digest everything is read and decoded, and it is exact: the bytes of the 4 MiB blocks that are
/// not zero throughout, which is what the cloud stores.
///
/// Files that the image names are listed, not opened, and the sizes then cover the image's own file only; with
/// --allow-references they cover the whole disk. --digest and --check need the whole disk.
///
/// JSON: format, virtualSize, fileSize (of the image's own file), allocatedSize (guest bytes that are stored, compressed or
/// not), storageSize, storageSizeExact, minDiskSize (the virtual size rounded up to 4 MiB), references (of each: role, name, format
/// unless it is not declared, and file, the one that names it), partial (true if sizes do not cover what references hold),
/// guestDigest (with --digest), check (with --check), warnings. Sizes are in bytes.
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Path, block device, or https URL
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Read everything; print the digest of the guest's content
    ///
    /// SHA-256 over the virtual size and the SHA-256 of each 4 MiB block of the disk. It does not depend on the format: images
    /// with the same digest hold the same disk.
    #[arg(long)]
    pub(crate) digest: bool,
    /// Check everything that guest bytes can be reached through; exit with 3 if anything is wrong
    ///
    /// Reads every table of the image, and of the files beneath it where references are allowed, and proves that all of them
    /// lie inside their files and apart from each other. It is the check that every other command makes before it reads data.
    #[arg(long)]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) open: OpenArgs,
}

/// Show which guest bytes are data, zero, or compressed.
///
/// JSON is what `qemu-img map --output=json` prints; so is the table, except that compressed runs, which qemu-img refuses to
/// list, are listed as "compressed". Runs that lie in another file than the image itself have its path as "filename"; "depth" is
/// always 0, as the layers are one map here.
#[derive(Debug, Args)]
pub(crate) struct MapArgs {
    /// Path, block device, or https URL
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    #[command(flatten)]
    pub(crate) open: OpenArgs,
}

/// Convert an image to raw, qcow2 or vmdk.
///
/// OUT appears under its name when it is whole and durable, replacing a file that was there. A block device is written in
/// place, after its size was checked; what it held is lost from the first byte on.
#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// Path, block device, https URL, or image:ID for an Image of an image-server
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// File or block device to write
    #[arg(value_name = "OUT")]
    pub(crate) out: PathBuf,
    /// Format of OUT; its suffix is not looked at
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    pub(crate) to: ConvertTo,
    #[command(flatten)]
    pub(crate) layout: LayoutArgs,
    #[command(flatten)]
    pub(crate) open: OpenArgs,
    #[command(flatten)]
    pub(crate) stored: StoredArgs,
}

/// What `convert` makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConvertTo {
    /// The disk itself
    Raw,
    /// Sparse qcow2, its metadata first; or compressed
    Qcow2,
    /// Stream-optimised, which is compressed; what VMware imports
    Vmdk,
}

/// How an output is laid out.
#[derive(Debug, Args)]
pub(crate) struct LayoutArgs {
    /// Compress a qcow2 output: with zlib, which every reader knows, or with zstd, which is faster [default: zlib]
    ///
    /// Clusters that do not shrink are stored as they are. All CPUs compress; the bytes do not depend on how many there are.
    #[arg(short, long, value_name = "TYPE", num_args = 0..=1, require_equals = true, default_missing_value = "zlib")]
    pub(crate) compress: Option<Compression>,

    /// Cluster size of a qcow2 output: a power of two from 512 to 2MiB [default: 2MiB; 64KiB if compressed]
    #[arg(long, value_name = "SIZE")]
    pub(crate) cluster_size: Option<Size>,

    /// Do not look for zeroes in a raw image that becomes a qcow2
    ///
    /// Saves one pass over what the file system says is stored, and stores zeroes that were written as data. With --compress they are
    /// left out without such a pass.
    #[arg(long)]
    pub(crate) no_scan: bool,
}

/// How a qcow2 output is compressed; the names of qemu-img's compression_type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    Zlib,
    Zstd,
}

impl Compression {
    /// As typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }
}

/// Compare the guest content of two images, wherever they are.
///
/// Exits with 0 if the disks are the same and with 1 if they differ; the offset of the first difference is printed. Disks of
/// different sizes differ at the latest where the shorter one ends. Failures exit with 2, refused images with 3.
///
/// An object that `upload` or `create` made has the guest digest of its disk as metadata. It is taken for the disk, and the object is
/// not read beyond its own tables, if form and size of the object fit; the other disk is read for its digest unless it has one
/// too. The result says so, and does not say where disks differ. Who may write an object may write a wrong digest:
/// --content believes none.
///
/// JSON: same, by (content, digest or size), virtualSizes, and firstDifference if content was read and differs.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Path, block device, https URL, s3://BUCKET/KEY, or image:ID for an Image of an image-server
    #[arg(value_name = "A")]
    pub(crate) first: String,
    /// Path, block device, https URL, s3://BUCKET/KEY, or image:ID for an Image of an image-server
    #[arg(value_name = "B")]
    pub(crate) second: String,
    /// Read both disks, whatever digest is recorded with an object
    #[arg(long)]
    pub(crate) content: bool,
    /// Take A to be of this format instead of looking at its content
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<FormatName>,
    /// Take B to be of this format instead of looking at its content
    #[arg(long, value_name = "FORMAT")]
    pub(crate) second_format: Option<FormatName>,
    /// Read this internal snapshot of A, by its id or name, instead of the current state
    #[arg(long, value_name = "ID|NAME")]
    pub(crate) snapshot: Option<String>,
    /// Read this internal snapshot of B, by its id or name, instead of the current state
    #[arg(long, value_name = "ID|NAME")]
    pub(crate) second_snapshot: Option<String>,
    #[command(flatten)]
    pub(crate) references: ReferenceArgs,
    /// Allow http:// besides https:// for hosts other than this one
    #[arg(long)]
    pub(crate) allow_http: bool,
    #[command(flatten)]
    pub(crate) stored: StoredArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// Upload an image to an S3-compatible store; print a pre-signed URL of it.
///
/// The image is read twice: first to prove that all of it can be decoded and to compute its guest digest, which is recorded as
/// the object's metadata, then to make the object, part by part as it is sent; with --no-digest, once. The URL gives anyone who holds it access to the
/// object until it expires.
///
/// An upload that broke off, killed or cut off from the store, is continued by the same command: parts that the store has, and
/// that are made with the same bytes again, are not sent again. Ctrl-C takes it back. What is never continued, `image-prep cleanup`
/// removes.
#[derive(Debug, Args)]
pub(crate) struct UploadArgs {
    /// Path, block device, or https URL
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Where to put it
    #[arg(value_name = "s3://BUCKET/KEY")]
    pub(crate) to_url: ObjectUri,
    #[command(flatten)]
    pub(crate) upload: UploadOptions,
    /// What to do if the object exists already [default: replace]
    ///
    /// An object is reused if it says of itself that it holds a disk of the same guest digest in the same form; else `reuse` fails.
    #[arg(long, value_name = "WHAT")]
    pub(crate) if_exists: Option<IfExists>,
    /// Record no guest digest, and read the image only once
    ///
    /// Takes half the time where the image is quick to send. That a part of it cannot be decoded is found out while the object is made, and
    /// takes the upload back. `compare` then reads the object, and no later upload can tell that it holds the same disk.
    #[arg(long)]
    pub(crate) no_digest: bool,
    #[command(flatten)]
    pub(crate) resume: ResumeArgs,
    #[command(flatten)]
    pub(crate) layout: LayoutArgs,
    #[command(flatten)]
    pub(crate) open: OpenArgs,
    #[command(flatten)]
    pub(crate) local: LocalArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// What is uploaded, and for how long its URL lives.
#[derive(Debug, Args)]
pub(crate) struct UploadOptions {
    /// Form of the object
    #[arg(long, value_name = "FORM", default_value = "qcow2")]
    pub(crate) to: Form,
    /// How long the URL is valid: a number with s, m, h or d, at most 30d (7d on AWS)
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub(crate) expires: Lifetime,
}

/// The form of an uploaded object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Sparse qcow2, its metadata first; or compressed
    Qcow2,
    /// The raw disk
    Raw,
    /// Stream-optimised vmdk, which is compressed; what VMware imports
    Vmdk,
    /// The file, unchanged
    Source,
}

impl Form {
    /// As typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
            Self::Vmdk => "vmdk",
            Self::Source => "source",
        }
    }
}

/// Which object store.
#[derive(Debug, Args)]
#[command(next_help_heading = "Object store")]
pub(crate) struct StoreArgs {
    /// S3 endpoint [env: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, YC_STORAGE_ENDPOINT_URL]
    ///
    /// Credentials come from the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or YC_STORAGE_ACCESS_KEY and
    /// YC_STORAGE_SECRET_KEY) or from a profile of the AWS configuration files; never from the command line.
    #[arg(long, value_name = "URL", conflicts_with = "local")]
    pub(crate) endpoint_url: Option<String>,
    /// Region of the store [env: AWS_REGION, AWS_DEFAULT_REGION]
    #[arg(long, value_name = "REGION", conflicts_with = "local")]
    pub(crate) region: Option<String>,
    /// Profile of the AWS configuration files [env: AWS_PROFILE]
    #[arg(long, value_name = "NAME", conflicts_with = "local")]
    pub(crate) aws_profile: Option<String>,
    /// What the store can do, instead of finding out [example: ceph,checksum=md5]
    ///
    /// A store (aws, yandex, gcs, r2, ceph, garage, minio, generic), switches, or both, separated by commas: checksum=crc32|md5|none,
    /// payload=unsigned|signed, etag=md5|opaque, part-copy=yes|no, conditional-put=yes|no, conditional-complete=yes|no,
    /// address=path|host. Whatever is not said is found out by use, and remembered for the endpoint for a week.
    #[arg(long, value_name = "PROFILE", conflicts_with = "local")]
    pub(crate) store_profile: Option<StoreProfile>,
    /// Send at most so many bytes a second
    #[arg(long, value_name = "SIZE", conflicts_with = "local")]
    pub(crate) limit_rate: Option<Size>,
}

/// A cloud on this machine.
#[derive(Debug, Args)]
pub(crate) struct LocalArgs {
    /// Use a cloud inside this process, with its state in DIR [default: $XDG_DATA_HOME/image-prep/local]
    ///
    /// Starts an S3 store and an image server on loopback addresses and talks to them as it would to a cloud. Images,
    /// operations and objects are kept in DIR; the servers end with the command.
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true)]
    #[allow(clippy::option_option, reason = "absent, without a folder, with one: clap's own shape for it")]
    pub(crate) local: Option<Option<PathBuf>>,
}

/// Which image service.
#[derive(Debug, Args)]
#[command(next_help_heading = "Image service")]
pub(crate) struct ApiArgs {
    /// Endpoint of the image service
    #[arg(
        long,
        env = "YC_ENDPOINT",
        hide_env_values = true,
        value_name = "URL",
        default_value = "https://compute.api.cloud.yandex.net"
    )]
    pub(crate) endpoint: String,
    /// What to speak to the image service
    ///
    /// Both give the same results and the same errors. gRPC goes to the endpoint directly, not by a proxy of the environment.
    #[arg(long, value_name = "TRANSPORT", default_value = "rest")]
    pub(crate) transport: TransportArg,
    /// Read the bearer token from this file [default: from YC_TOKEN or YC_IAM_TOKEN]
    #[arg(long, value_name = "FILE", conflicts_with = "local")]
    pub(crate) token_file: Option<PathBuf>,
}

/// What the image service is spoken to by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TransportArg {
    /// JSON over HTTP
    Rest,
    /// gRPC
    Grpc,
}

impl From<TransportArg> for Transport {
    fn from(transport: TransportArg) -> Self {
        match transport {
            TransportArg::Rest => Self::Rest,
            TransportArg::Grpc => Self::Grpc,
        }
    }
}

/// Where `image:ID` is read from, and with `--local` objects too.
#[derive(Debug, Args)]
pub(crate) struct StoredArgs {
    #[command(flatten)]
    pub(crate) local: LocalArgs,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

/// Show, wait for, or cancel an operation.
#[derive(Debug, Args)]
pub(crate) struct OperationArgs {
    #[command(subcommand)]
    pub(crate) verb: OperationVerb,
}

/// What to do with an operation.
#[derive(Debug, Subcommand)]
pub(crate) enum OperationVerb {
    /// Show an operation
    Get(OperationTarget),
    /// Wait until an operation is done; exit with 4 if it failed
    Wait(OperationTarget),
    /// Ask an operation to stop
    Cancel(OperationTarget),
}

/// Which operation.
#[derive(Debug, Args)]
pub(crate) struct OperationTarget {
    /// Identifier of the operation
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Allow http:// besides https:// for hosts other than this one
    #[arg(long)]
    pub(crate) allow_http: bool,
    #[command(flatten)]
    pub(crate) local: LocalArgs,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

/// Print a completion script.
///
/// For bash: `image-prep completions bash > ~/.local/share/bash-completion/completions/image-prep`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// Write man pages: into DIR, one for each command, or the first one to standard output.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Folder for the pages; made where it is missing
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_lists_every_command_once() {
        let mut listed: Vec<&str> = TEMPLATE
            .lines()
            .filter_map(|line| line.strip_prefix("  ").and_then(|line| line.split_whitespace().next()))
            .collect();
        let command = Cli::command();
        let mut real: Vec<&str> = command.get_subcommands().map(|command| command.get_name()).collect();
        listed.sort_unstable();
        real.sort_unstable();
        assert_eq!(listed, real);
    }

    #[test]
    fn local_takes_a_folder_only_with_an_equals_sign() {
        let parse = |args: &[&str]| Cli::try_parse_from([&["image-prep", "operation", "get"], args].concat());
        let folder = |cli: Cli| match cli.command {
            Command::Operation(OperationArgs { verb: OperationVerb::Get(target) }) => target.local.local,
            _ => None,
        };
        assert_eq!(folder(parse(&["id", "--local"]).unwrap()), Some(None));
        assert_eq!(folder(parse(&["--local", "id"]).unwrap()), Some(None));
        assert_eq!(folder(parse(&["--local=/d", "id"]).unwrap()), Some(Some(PathBuf::from("/d"))));
        assert_eq!(folder(parse(&["id"]).unwrap()), None);
    }
}
