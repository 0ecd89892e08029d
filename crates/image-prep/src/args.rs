//! What was typed: the command line as clap reads it, and nothing of what it means.
//!
//! Help texts are doc comments: the first line is what `-h` shows, all of it is what `--help` shows. Sizes and durations are
//! parsed here ([`values`]), so that a wrong one is a usage error.

mod cleanup;
mod cloud;
mod create;
mod doctor;
mod image;
mod look;
mod operation;
mod output;
mod resume;
mod shell;
mod store;
mod upload;
pub(crate) mod values;

use clap::{Args, Parser, Subcommand};

pub(crate) use cleanup::CleanupArgs;
pub(crate) use cloud::{ApiArgs, LocalArgs, StoredArgs, TransportArg};
pub(crate) use create::{CreateArgs, HardwareGeneration, ImageFields, OsType};
pub(crate) use doctor::DoctorArgs;
pub(crate) use image::{FormatName, OpenArgs, ReferenceArgs};
pub(crate) use look::{CompareArgs, InfoArgs, MapArgs};
pub(crate) use operation::{OperationArgs, OperationTarget, OperationVerb, WaitTarget};
pub(crate) use output::{Compression, ConvertArgs, ConvertTo, LayoutArgs};
pub(crate) use resume::{IfExists, ResumeArgs};
pub(crate) use shell::{CompletionsArgs, ManArgs, SchemaArgs, SchemaOf};
pub(crate) use store::StoreArgs;
pub(crate) use upload::{Form, UploadArgs, UploadOptions};
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
  convert      Convert to raw, qcow2, vmdk or gce

Move it into a cloud:
  create       Upload an image and create a cloud Image from it
  upload       Upload an image and print a pre-signed URL
  doctor       Check credentials, endpoint, clock and rights
  operation    Show, wait for, or cancel an operation
  cleanup      Remove what uploads that broke off left in a store

Set up the shell, and scripts:
  completions  Print a completion script
  man          Write man pages
  schema       Print the JSON Schema of what --json prints

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

    /// Profile of image-prep's configuration file [default: the one that the file says]
    ///
    /// The file is `image-prep/config.toml` in $XDG_CONFIG_HOME. A profile says cloud or endpoint, folder, where credentials are,
    /// bucket and store; what is typed or in the environment wins over it.
    #[arg(long, global = true, env = "IMAGE_PREP_PROFILE", hide_env_values = true, value_name = "NAME")]
    pub(crate) profile: Option<String>,

    /// Time to undo what was done when a command is interrupted [default: 2s]
    ///
    /// Ctrl-C and SIGTERM abort the upload, cancel the operation and delete what was made; a slow line may need longer for that. A
    /// second Ctrl-C ends the command at once.
    #[arg(
        long,
        global = true,
        env = "IMAGE_PREP_GRACE",
        hide_env_values = true,
        value_name = "TIME",
        default_value = "2s",
        hide_default_value = true,
        hide_short_help = true
    )]
    pub(crate) grace: Lifetime,

    /// Print results as JSON
    ///
    /// One object per line, `map` excepted, whose result is one array. Errors, warnings and notes are objects too, on standard
    /// error; what the command line itself gets wrong is told as text. `image-prep schema` describes all of it.
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
    Doctor(Box<DoctorArgs>),
    Cleanup(CleanupArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
    Schema(SchemaArgs),
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

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
