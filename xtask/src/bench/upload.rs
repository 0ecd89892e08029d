//! `cargo xtask bench --upload`: uploads beside those of others, to a store that keeps nothing.
//!
//! Client and store are on the same cores, but not in the same process: processor time and memory are the client's. The state of
//! image-prep (journals, what it knows of stores) is on disk, as a user's is. What came into the store is checked: one object with the
//! bytes of the input, where that is what a command sends.
//!
//! A guest digest takes a pass over the disk of its own, which no peer makes: beside peers uploads are measured without it. With it they
//! run in the same rounds, and what it adds is held against what it takes alone.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::flows::{
    Digest, Flow, Input, MAX_CPU_RATIO, MAX_PEAK, RESUMED, Rival, Target, UPLOADS, UploadFlow, Wire,
};
use super::inputs::Inputs;
use super::judge::Judge;
use super::measure::{Absent, Pair, Side, Spread, Stage};
use super::place::{self, Place};
use super::report::{Report, Subject, UPLOAD_TABLE};
use super::tools::{Paths, Tool, Tools};
use super::{BenchArgs, MARGIN};
use crate::null_store::{Counts, NullStore};
use crate::repo::Repo;

/// What to call the upload that is killed.
const RESUME: &str = "resume, killed at 90 %";

/// Where it is killed: when so much of its data is in the store.
const KILL_AT: f64 = 0.9;

/// Makes what is missing, then measures every upload.
pub(super) fn run(repo: &Repo, args: &BenchArgs) -> Result<ExitCode> {
    let uploads: Vec<&UploadFlow> = UPLOADS.iter().filter(|upload| args.wants(upload.flow.name)).collect();
    let resumes = args.wants(RESUME);
    ensure!(resumes || !uploads.is_empty(), "no upload has such a name");
    let flows: Vec<&Flow> = uploads.iter().map(|upload| &upload.flow).collect();
    let mut wanted: Vec<Input> = flows.iter().map(|flow| flow.input).collect();
    wanted.extend(resumes.then_some(RESUMED_INPUT));
    let inputs = Inputs::prepare(repo, args.size, &wanted)?;
    let place = Place::tmpfs(&args.tmpfs)?;
    // Temporary files, of which a disk and its archive are the most, and an input in the page cache.
    let makes_archive = |rival: &Rival| rival.job.tool == Tool::QemuTarS5cmd;
    let files = 1 + u64::from(flows.iter().any(|flow| flow.rivals.iter().any(makes_archive)));
    let need = files * inputs.stored()? + MARGIN;
    place::ensure_memory(need + inputs.stored()? + MARGIN)?;
    place::ensure_space(&place.folder, need)?;
    let folder = repo.target().join("bench");
    let state = State::new(folder.join("state"))?;
    let tools = Tools::find(repo, &flows)?;
    let store = NullStore::start(&state.0)?;
    let stage = args.stage(&tools, &inputs, Some(&store), &place);
    let head = args.head(&tools)?;
    let mut report = Report::new();
    for upload in uploads {
        compare(&stage, &place, upload, &mut report);
    }
    if resumes {
        match resume(&stage, &store, &place) {
            Ok(resumed) => resumed.tell(&mut report),
            Err(error) => report.failed(RESUME, error),
        }
    }
    let json = args.json.clone();
    let json = json.unwrap_or_else(|| folder.join(format!("upload-{}.json", args.size_name())));
    let good = report.finish(&json, head.clone())?;
    if args.write_readme {
        report.write_readme(repo, UPLOAD_TABLE, &head)?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A folder for what clients remember, gone when this is.
pub(super) struct State(pub(super) PathBuf);

impl State {
    pub(super) fn new(folder: PathBuf) -> Result<Self> {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Measures an upload beside its peers.
fn compare(stage: &Stage<'_>, place: &Place, upload: &UploadFlow, report: &mut Report) {
    let flow = &upload.flow;
    // Bytes are the same each time.
    let stage = &Stage { runs: if upload.wire.is_some() { 1 } else { stage.runs }, ..stage.clone() };
    // What is not compared with anybody runs in the same rounds.
    let digest = upload.digest.map_or(vec![], |Digest { with, alone }| vec![with, alone]);
    let shown = digest.iter().map(|job| Rival { job: *job, target: Target::None });
    let rivals: Vec<Rival> = flow.rivals.iter().copied().chain(shown).collect();
    let subject = |rival| Subject { flow, rival, place };
    let (ours, mut theirs) = match stage.compare(place, flow, &rivals) {
        Ok(sides) => sides,
        Err(absent) => return report.row(&subject(flow.rivals.first()), &Err(&absent)),
    };
    let digest = theirs.split_off(flow.rivals.len());
    for (rival, peer) in flow.rivals.iter().zip(&theirs) {
        let pair = peer.as_ref().map(|peer| Pair { ours: &ours, peer: Some(peer) });
        report.row(&subject(Some(rival)), &pair);
    }
    if flow.rivals.is_empty() {
        report.row(&subject(None), &Ok(Pair { ours: &ours, peer: None }));
    }
    match &digest[..] {
        [Ok(with), Ok(alone)] => tell_digest(flow, &ours, with, alone, theirs.first(), report),
        [Err(absent), _] | [_, Err(absent)] => report.row(&subject(None), &Err(absent)),
        _ => {}
    }
    if let Some(most) = upload.wire {
        tell_wire(stage, flow, &ours, most, report);
    }
}

/// What an upload takes with its digest, and how much of that the digest takes alone.
fn tell_digest(
    flow: &Flow,
    without: &Side,
    with: &Side,
    alone: &Side,
    peer: Option<&Result<Side, Absent>>,
    report: &mut Report,
) {
    let median = |numbers: &[f64]| Spread::of(numbers).median;
    let added = Spread::of(&with.less(without).cpu).median;
    let (wall, cpu) = (median(&with.wall), median(&alone.cpu));
    let peer =
        peer.and_then(|peer| Some(Pair { ours: with, peer: Some(peer.as_ref().ok()?) }.ratio()?.median));
    let peer = peer.map_or_else(String::new, |ratio| format!(", {ratio:.2} x as quick as the first peer"));
    let text = format!(
        "with its digest {wall:.2} s{peer}; {added:.2} s of processors more, of the {cpu:.2} s that the digest takes alone"
    );
    let numbers = json!({ "wallSeconds": with.wall, "cpuSeconds": with.cpu, "peakBytes": with.peak,
        "digestWallSeconds": alone.wall, "digestCpuSeconds": alone.cpu });
    report.fact(flow.name, Some(added <= MAX_CPU_RATIO * cpu && with.peak() <= MAX_PEAK), &text, numbers);
}

/// What was sent, beside what there is.
fn tell_wire(stage: &Stage<'_>, flow: &Flow, ours: &Side, most: Wire, report: &mut Report) {
    let stored = stage.inputs.path(flow.input).and_then(|path| Ok(fs::metadata(path)?.blocks() * 512));
    let stored = match stored {
        Ok(stored) => stored,
        Err(error) => return report.failed(flow.name, error),
    };
    let ratio = ours.sent as f64 / stored as f64;
    let (len, sent, data, copied) = (ours.len >> 20, ours.sent >> 20, stored >> 20, ours.copied);
    let mut text = format!(
        "{sent} MiB are sent for an object of {len} MiB, {copied} of its parts copied; {data} MiB of data, {ratio:.3} x"
    );
    let mut numbers = json!({ "sentBytes": ours.sent, "dataBytes": stored, "copiedParts": copied });
    let holds = match most {
        Wire::AtMost(most) => {
            text += &format!("; at most {most} is aimed at");
            numbers["most"] = most.into();
            Some(ratio <= most)
        }
        Wire::Shown => None,
    };
    report.fact(flow.name, holds, &text, numbers);
}

const RESUMED_INPUT: Input = UPLOADS[0].flow.input;

/// An upload that was killed and continued.
struct Resumed {
    /// Bytes of the object.
    len: u64,
    /// What was there after the kill, and what in the end.
    killed: Counts,
    done: Counts,
    /// How long the second command took.
    wall: Duration,
}

/// Kills an upload, and has the same command go on.
fn resume(stage: &Stage<'_>, store: &NullStore, place: &Place) -> Result<Resumed> {
    let path = stage.inputs.path(RESUMED_INPUT)?;
    let judge = Judge::new(stage.inputs, RESUMED_INPUT, RESUMED.leaves)?;
    let nothing = place.folder.join("nothing");
    let command = || {
        let paths = Paths { input: path, output: &nothing, raw: &stage.inputs.raw };
        let mut command = stage.tools.command(&RESUMED, &paths).map_err(anyhow::Error::msg)?;
        store.environment(&mut command);
        Ok::<_, anyhow::Error>(command)
    };
    let len = fs::metadata(path)?.len();
    stage.inputs.warm(RESUMED_INPUT)?;
    store.reset()?;
    kill_at(store, &mut command()?, len, stage.limit)?;
    let killed = store.counts()?;
    let started = Instant::now();
    let second = child(&mut command()?, &stage.printed.stderr)?.wait()?;
    let wall = started.elapsed();
    ensure!(
        second.success(),
        "the second command failed: {second}\n{}",
        fs::read_to_string(&stage.printed.stderr).unwrap_or_default()
    );
    let done = store.counts()?;
    judge.check_object(&done)?;
    Ok(Resumed { len, killed, done, wall })
}

fn child(command: &mut Command, stderr: &Path) -> Result<Child> {
    let stderr = fs::File::create(stderr)?;
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn()?)
}

/// Runs a command until the store has so much of the object, and kills it.
fn kill_at(store: &NullStore, command: &mut Command, len: u64, limit: Duration) -> Result<()> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let started = Instant::now();
    let reached = || -> Result<()> {
        while (store.counts()?.sent as f64) < KILL_AT * len as f64 {
            ensure!(started.elapsed() < limit, "the upload did not come so far in time");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    };
    let reached = reached();
    // Whatever it was, the child goes first.
    let killed = child.kill().and_then(|()| child.wait());
    reached?;
    ensure!(killed?.code().is_none(), "the upload had ended before it was killed");
    Ok(())
}

impl Resumed {
    /// At most what was in flight is sent again.
    fn tell(&self, report: &mut Report) {
        let (again, in_flight) = (self.done.repeated, self.killed.in_flight);
        let (wall, gib) = (self.wall.as_secs_f64(), self.len as f64 / f64::from(1 << 30));
        let text = format!(
            "{again} of {} parts are sent again, {in_flight} were in flight; the second command takes {wall:.2} s for {gib:.2} GiB",
            self.killed.parts
        );
        let numbers = json!({ "objectBytes": self.len, "wallSeconds": wall,
            "killed": self.killed, "done": self.done });
        report.fact(RESUME, Some(again <= in_flight), &text, numbers);
    }
}
