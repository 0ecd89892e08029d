//! `cargo xtask bench`: image-prep beside its peers on the same images.
//!
//! Each flow runs in turns with each peer (ours, theirs, ours, theirs, ...): one pair to warm up, then the counted ones. Sources
//! are in the page cache, outputs go to tmpfs and, with `--disk`, to disk too; what each run leaves is checked. A ratio is the
//! median over pairs of the peer's wall time divided by ours. Only a quiet machine gives numbers worth keeping.

mod child;
mod flows;
mod inputs;
mod judge;
mod measure;
mod place;
mod report;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use crate::images::Size;
use crate::repo::Repo;
use flows::{FLOWS, Flow, NOT_BUILT};
use measure::{Absent, Stage};
use place::Place;
use report::{Report, Subject};

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// How large the disks are; the small one is for trying this out
    #[arg(long, value_enum, default_value_t = Size::Full)]
    size: Size,
    /// Only the flows whose names contain this; may be repeated
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Counted runs of each command in each pair; targets are for 5 and more
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// Write outputs to disk too, under target/bench/; an output counts when it is durable
    #[arg(long)]
    disk: bool,
    /// A folder on tmpfs for outputs
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    tmpfs: PathBuf,
    /// Stop a command that runs for longer
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    limit: u64,
    /// Where the JSON goes [default: target/bench/SIZE.json]
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

/// Room beside the outputs: what commands print.
const MARGIN: u64 = 64 << 20;

/// Makes what is missing, then measures every flow.
pub(crate) fn run(repo: &Repo, args: &BenchArgs) -> Result<ExitCode> {
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|text| name.contains(text));
    let flows: Vec<Flow> = FLOWS.iter().filter(|flow| wanted(flow.name)).copied().collect();
    ensure!(!flows.is_empty() || NOT_BUILT.iter().any(|(name, _)| wanted(name)), "no flow has such a name");
    let inputs = inputs::Inputs::prepare(repo, args.size, &flows)?;
    let folder = repo.target().join("bench");
    let mut places = vec![Place::tmpfs(&args.tmpfs)?];
    if args.disk {
        places.push(Place::disk(&folder)?);
    }
    // An output, and the raw disk that a QCOW2 is turned back into; `compare` reads two sources.
    let stored = inputs.stored()?;
    let need = 2 * stored + MARGIN;
    place::ensure_memory(need + 2 * stored)?;
    for place in &places {
        place::ensure_space(&place.folder, need)?;
    }
    let tools = tools::Tools::find(repo, &flows)?;
    let printed =
        child::Printed { stdout: places[0].folder.join("stdout"), stderr: places[0].folder.join("stderr") };
    let runs = usize::from(args.runs);
    let stage =
        Stage { tools: &tools, inputs: &inputs, printed, runs, limit: Duration::from_secs(args.limit) };

    let mut head = report::head(&tools)?;
    let size = if args.size == Size::Full { "full" } else { "small" };
    head["size"] = size.into();
    head["runs"] = runs.into();
    let mut report = Report::new();
    for place in &places {
        // What leaves no file does not depend on the place: it is measured once.
        for flow in flows.iter().filter(|flow| !place.durable || flow.ours.leaves.is_file()) {
            measure(&stage, place, flow, &mut report);
        }
    }
    report.not_built(wanted);
    let json = args.json.clone().unwrap_or_else(|| folder.join(format!("{size}.json")));
    let good = report.finish(&json, head)?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(stage: &Stage<'_>, place: &Place, flow: &Flow, report: &mut Report) {
    let mut row = |rival| {
        let result: Result<_, Absent> = stage.pair(place, flow, rival);
        report.row(&Subject { flow, rival, place }, &result);
    };
    if flow.rivals.is_empty() {
        row(None);
    }
    flow.rivals.iter().for_each(|rival| row(Some(rival)));
}
