//! `cargo xtask bench`: image-prep beside its peers on the same images; with `--upload`, uploads beside those of others ([`upload`]);
//! with `--ingest`, ingests from URLs, and the server around them ([`ingest`]).
//!
//! Each flow runs in turns with its peers (ours, theirs, another's, ours, ...): one round to warm up, then the counted ones. Sources
//! are in the page cache, outputs go to tmpfs and, with `--disk`, to disk too; what each run leaves is checked. A ratio is the
//! median over rounds of the peer's wall time divided by ours. Only a quiet machine gives numbers worth keeping.

mod flows;
mod ingest;
mod inputs;
mod judge;
mod measure;
mod place;
mod report;
mod tools;
mod upload;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use serde_json::Value;

use crate::images::Size;
use crate::null_store::NullStore;
use crate::repo::Repo;
use flows::{ARCHIVES, FLOWS, Flow, GROWTHS, Growth, Input, Rival};
use inputs::Inputs;
use measure::{Absent, Pair, Printed, Stage, target};
use place::Place;
use report::{Report, Subject};
use tools::{Tool, Tools};

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// How large the disks are; the small one is for trying this out
    #[arg(long, value_enum, default_value_t = Size::Full)]
    size: Size,
    /// Measure uploads to a store that keeps nothing, instead of conversions
    #[arg(long, conflicts_with = "disk")]
    upload: bool,
    /// Measure ingests from URLs and the image server, instead of conversions
    #[arg(long, conflicts_with_all = ["disk", "upload"])]
    ingest: bool,
    /// Only the flows whose names contain this; may be repeated
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Leave out the flows whose names contain this; may be repeated
    #[arg(long, value_name = "TEXT")]
    skip: Vec<String>,
    /// Counted runs of each command; targets are for 5 and more
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
    /// Write the table into benches/README.md, with machine and date
    #[arg(long, conflicts_with_all = ["only", "skip"])]
    write_readme: bool,
}

/// Room beside the outputs: what commands print.
const MARGIN: u64 = 64 << 20;

impl BenchArgs {
    /// Whether a flow of this name was asked for.
    fn wants(&self, name: &str) -> bool {
        let holds = |texts: &[String]| texts.iter().any(|text| name.contains(text));
        (self.only.is_empty() || holds(&self.only)) && !holds(&self.skip)
    }

    fn size_name(&self) -> &'static str {
        if self.size == Size::Full { "full" } else { "small" }
    }

    /// What all runs share; what they print goes to `place`.
    fn stage<'a>(
        &self,
        tools: &'a Tools,
        inputs: &'a Inputs,
        store: Option<&'a NullStore>,
        place: &Place,
    ) -> Stage<'a> {
        let printed = Printed { stdout: place.folder.join("stdout"), stderr: place.folder.join("stderr") };
        let (runs, limit) = (usize::from(self.runs), Duration::from_secs(self.limit));
        Stage { tools, inputs, store, origins: &[], printed, runs, limit }
    }

    /// Where and with what this is measured, and how often.
    fn head(&self, tools: &Tools) -> Result<Value> {
        let mut head = report::head(tools)?;
        head["size"] = self.size_name().into();
        head["runs"] = self.runs.into();
        Ok(head)
    }
}

/// Makes what is missing, then measures every flow.
pub(crate) fn run(repo: &Repo, args: &BenchArgs) -> Result<ExitCode> {
    ensure!(!args.write_readme || args.size == Size::Full, "only full sizes are worth a table in README");
    if args.upload {
        return upload::run(repo, args);
    }
    if args.ingest {
        return ingest::run(repo, args);
    }
    let flows = FLOWS.iter().chain(ARCHIVES);
    let flows: Vec<Flow> = flows.filter(|flow| args.wants(flow.name)).copied().collect();
    let growths: Vec<Growth> = GROWTHS.iter().filter(|growth| args.wants(growth.name)).copied().collect();
    ensure!(!(flows.is_empty() && growths.is_empty()), "no flow has such a name");
    let steps = growths.iter().flat_map(|growth| growth.steps.iter().map(|(input, ..)| *input));
    let wanted_inputs: Vec<Input> = flows.iter().map(|flow| flow.input).chain(steps).collect();
    let inputs = Inputs::prepare(repo, args.size, &wanted_inputs)?;
    let folder = repo.target().join("bench");
    let mut places = vec![Place::tmpfs(&args.tmpfs)?];
    if args.disk {
        places.push(Place::disk(&folder)?);
    }
    // An output, and the raw disk that a QCOW2 is turned back into; `compare` reads two sources. What grows needs more, on tmpfs.
    let need = 2 * inputs.stored()? + MARGIN;
    let grown = inputs.largest_disk(&wanted_inputs) + MARGIN;
    place::ensure_memory((2 * need).max(2 * grown))?;
    for place in &places {
        place::ensure_space(&place.folder, if place.durable { need } else { need.max(grown) })?;
    }
    let tools = Tools::find(repo, &flows.iter().collect::<Vec<_>>())?;
    let stage = args.stage(&tools, &inputs, None, &places[0]);
    let head = args.head(&tools)?;
    let mut report = Report::new();
    for place in &places {
        // What leaves no file does not depend on the place: it is measured once.
        for flow in flows.iter().filter(|flow| !place.durable || flow.ours.leaves.is_file()) {
            compare(&stage, place, flow, &mut report);
        }
        for growth in growths.iter().filter(|_| !place.durable) {
            report.growth(growth, place, &stage.grow(place, growth));
        }
    }
    let json = args.json.clone().unwrap_or_else(|| folder.join(format!("{}.json", args.size_name())));
    let good = report.finish(&json, head.clone())?;
    if args.write_readme {
        report.write_readme(repo, report::TABLE, &head)?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Measures a flow beside its peers. On disk only those with a target are repeated, and the floor beneath all.
fn compare(stage: &Stage<'_>, place: &Place, flow: &Flow, report: &mut Report) {
    let is_wanted = |rival: &&Rival| {
        let has_target = target(rival, place).is_some() && rival.job.tool != Tool::ImagePrep;
        !place.durable || has_target || rival.job.tool == Tool::Floor
    };
    let rivals: Vec<Rival> = flow.rivals.iter().filter(is_wanted).copied().collect();
    if rivals.is_empty() && !flow.rivals.is_empty() {
        return;
    }
    let result = stage.compare(place, flow, &rivals);
    let mut row = |rival: Option<&Rival>, pair: Result<Pair<'_>, &Absent>| {
        report.row(&Subject { flow, rival, place }, &pair);
    };
    match &result {
        Ok((ours, _)) if rivals.is_empty() => row(None, Ok(Pair { ours, peer: None })),
        Ok((ours, theirs)) => {
            for (rival, peer) in rivals.iter().zip(theirs) {
                row(Some(rival), peer.as_ref().map(|peer| Pair { ours, peer: Some(peer) }));
            }
        }
        Err(absent) => row(rivals.first(), Err(absent)),
    }
}
