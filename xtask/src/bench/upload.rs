//! `cargo xtask bench --upload`: uploads beside those of others, to a store that keeps nothing.
//!
//! Client and store are on the same cores, but not in the same process: processor time and memory are the client's. The state of
//! image-prep (journals, what it knows of stores) is on disk, as a user's is. What came into the store is checked: one object with the
//! bytes of the input, where that is what a command sends.
//!
//! An upload of ours reads the disk once more, before, for the guest digest. No peer does; where the target is about sending, the time
//! of `info --digest` in the same round is left out, and the whole time is told below.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::flows::{Flow, Input, RESUMED, Rival, Target, UPLOADS, UploadFlow};
use super::inputs::Inputs;
use super::judge::Judge;
use super::measure::{Pair, Side, Spread, Stage};
use super::place::{self, Place};
use super::report::{Report, Subject, UPLOAD_TABLE};
use super::tools::{Paths, Tools};
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
    // A temporary file, and an input in the page cache.
    let need = inputs.stored()? + MARGIN;
    place::ensure_memory(2 * need)?;
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
    // What is left out runs in the same rounds.
    let less = upload.less.map(|job| Rival { job, target: Target::None });
    let rivals: Vec<Rival> = flow.rivals.iter().copied().chain(less).collect();
    let subject = |rival| Subject { flow, rival, place };
    let (whole, mut theirs) = match stage.compare(place, flow, &rivals) {
        Ok(sides) => sides,
        Err(absent) => return report.row(&subject(flow.rivals.first()), &Err(&absent)),
    };
    let less = match less.and_then(|_| theirs.pop()) {
        Some(Err(absent)) => return report.row(&subject(flow.rivals.first()), &Err(&absent)),
        Some(Ok(side)) => Some(side),
        None => None,
    };
    let ours = less.as_ref().map_or_else(|| whole.clone(), |less| whole.less(less));
    for (rival, peer) in flow.rivals.iter().zip(&theirs) {
        let pair = peer.as_ref().map(|peer| Pair { ours: &ours, peer: Some(peer) });
        report.row(&subject(Some(rival)), &pair);
    }
    if let Some(less) = less {
        tell_whole(flow, &whole, &less, report);
    }
    if let Some(most) = upload.wire {
        tell_wire(stage, flow, &whole, most, report);
    }
}

/// What an upload takes with its digest, and what the digest takes alone.
fn tell_whole(flow: &Flow, whole: &Side, less: &Side, report: &mut Report) {
    let median = |numbers: &[f64]| Spread::of(numbers).median;
    let [with, alone, cpu, cpu_alone] = [&whole.wall, &less.wall, &whole.cpu, &less.cpu].map(|n| median(n));
    let text = format!(
        "with its digest {with:.2} s ({cpu:.2} s of processors), of which the digest alone takes {alone:.2} s ({cpu_alone:.2} s)"
    );
    let numbers = json!({ "wallSeconds": whole.wall, "digestWallSeconds": less.wall,
        "cpuSeconds": whole.cpu, "digestCpuSeconds": less.cpu });
    report.fact(flow.name, None, &text, numbers);
}

/// What was sent, beside what there is.
fn tell_wire(stage: &Stage<'_>, flow: &Flow, ours: &Side, most: f64, report: &mut Report) {
    let stored = stage.inputs.path(flow.input).and_then(|path| Ok(fs::metadata(path)?.blocks() * 512));
    let stored = match stored {
        Ok(stored) => stored,
        Err(error) => return report.failed(flow.name, error),
    };
    let ratio = ours.sent as f64 / stored as f64;
    let (sent, data) = (ours.sent >> 20, stored >> 20);
    let text = format!("{sent} MiB are sent of {data} MiB of data, {ratio:.3} x; at most {most} is aimed at");
    let numbers = json!({ "sentBytes": ours.sent, "dataBytes": stored, "most": most });
    report.fact(flow.name, Some(ratio <= most), &text, numbers);
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
