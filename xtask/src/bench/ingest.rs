//! `cargo xtask bench --ingest`: ingests from URLs beside those of others, and what the server around them takes.
//!
//! The URLs are of a process of its own ([`Origin`]) that serves the inputs from the page cache, once at once and once with 50 ms before each
//! answer, and counts what it sends: bytes that were fetched are what left there, whatever a client says. Reader and
//! origin are on the same cores; processor time and memory are the reader's. The library is measured as the peers are, into a file;
//! the server ([`service`]) by what it promises: how it answers with many images, what a full queue takes, and what it stores.

mod filled;
mod service;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::flows::{Flow, INGESTS, IngestFlow, Input, Leaves};
use super::inputs::Inputs;
use super::measure::{Pair, Side, Stage};
use super::place::{self, Place};
use super::report::{INGEST_TABLE, Report, Subject};
use super::tools::Tools;
use super::upload::State;
use super::{BenchArgs, MARGIN};
use crate::null_store::NullStore;
use crate::origin::Origin;
use crate::repo::{Profile, Repo};
use service::{FACTS, Fact, Scene};

/// How late each answer of a distant store is.
const LATE: Duration = Duration::from_millis(50);

/// Makes what is missing, then measures every ingest, and the server.
pub(super) fn run(repo: &Repo, args: &BenchArgs) -> Result<ExitCode> {
    let ingests: Vec<&IngestFlow> = INGESTS.iter().filter(|ingest| args.wants(ingest.flow.name)).collect();
    let facts: Vec<&Fact> = FACTS.iter().filter(|fact| args.wants(fact.name)).collect();
    ensure!(!(ingests.is_empty() && facts.is_empty()), "no ingest has such a name");
    let flows: Vec<&Flow> = ingests.iter().map(|ingest| &ingest.flow).collect();
    let forms = flows.iter().map(|flow| flow.input).chain(facts.iter().flat_map(|fact| fact.inputs()));
    let inputs = Inputs::prepare(repo, args.size, &forms.collect::<Vec<Input>>())?;
    let place = Place::tmpfs(&args.tmpfs)?;
    // An output, and an input in the page cache.
    let need = inputs.stored()? + MARGIN;
    place::ensure_memory(2 * need)?;
    place::ensure_space(&place.folder, need)?;
    let folder = repo.target().join("bench");
    let state = State::new(folder.join("ingest"))?;
    let mut tools = if flows.is_empty() { Tools::none() } else { Tools::find(repo, &flows)? };
    let server = (!facts.is_empty()).then(|| {
        println!("building image-server");
        repo.build("image-server", Profile::Release)
    });
    let server = server.transpose()?;
    let store = NullStore::start(&state.0)?;
    let served = inputs.raw.parent().unwrap_or(Path::new("."));
    let origins = [Origin::start(served, Duration::ZERO)?, Origin::start(served, LATE)?];
    tools.serve(origins[0].url(""), origins[1].url(""));
    let stage = Stage { origins: &origins, ..args.stage(&tools, &inputs, Some(&store), &place) };
    let head = args.head(&tools)?;
    let mut report = Report::new();
    for ingest in ingests {
        compare(&stage, &place, ingest, &mut report);
    }
    if let Some(program) = &server {
        let [near, far] = &origins;
        let scene = Scene { program, inputs: &inputs, near, far, folder: &state.0, tmpfs: &place.folder };
        for fact in facts {
            fact.tell(&scene, &mut report);
        }
    }
    let json = args.json.clone();
    let json = json.unwrap_or_else(|| folder.join(format!("ingest-{}.json", args.size_name())));
    let good = report.finish(&json, head.clone())?;
    if args.write_readme {
        report.write_readme(repo, INGEST_TABLE, &head)?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Measures an ingest beside its peers.
fn compare(stage: &Stage<'_>, place: &Place, ingest: &IngestFlow, report: &mut Report) {
    let flow = &ingest.flow;
    let subject = |rival| Subject { flow, rival, place };
    let (ours, theirs) = match stage.compare(place, flow, flow.rivals) {
        Ok(sides) => sides,
        Err(absent) => return report.row(&subject(flow.rivals.first()), &Err(&absent)),
    };
    for (rival, peer) in flow.rivals.iter().zip(&theirs) {
        let pair = peer.as_ref().map(|peer| Pair { ours: &ours, peer: Some(peer) });
        report.row(&subject(Some(rival)), &pair);
    }
    let others = flow.rivals.iter().zip(&theirs).filter(|(rival, _)| rival.job.leaves == Leaves::Raw);
    let others = others.filter_map(|(rival, side)| Some((rival.job.tool.name(), side.as_ref().ok()?)));
    tell_fetched(stage, ingest, &ours, &others.collect::<Vec<_>>(), report);
}

/// What was fetched, beside what there is and what the peers fetch.
fn tell_fetched(
    stage: &Stage<'_>,
    ingest: &IngestFlow,
    ours: &Side,
    others: &[(&str, &Side)],
    report: &mut Report,
) {
    let flow = &ingest.flow;
    let object = match stage.inputs.path(flow.input).and_then(|path| Ok(fs::metadata(path)?.len())) {
        Ok(object) => object,
        Err(error) => return report.failed(flow.name, error),
    };
    let ratio = |side: &Side| side.fetched.bytes as f64 / object as f64;
    let mut text =
        format!("{:.4} x the object is fetched, in {} requests", ratio(ours), ours.fetched.requests);
    for (name, side) in others {
        text += &format!("; {name} {:.3} x in {}", ratio(side), side.fetched.requests);
    }
    let numbers = json!({ "objectBytes": object, "fetched": ours.fetched, "most": ingest.fetched });
    report.fact(flow.name, ingest.fetched.map(|most| ratio(ours) <= most), &text, numbers);
}
