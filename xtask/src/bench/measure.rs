//! Runs a flow and its peers, one after the other and again, and what comes of it in numbers.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::flows::{
    Flow, Growth, Input, Job, Leaves, MAX_ARCHIVE_LEN_RATIO, MAX_CPU_RATIO, MAX_LEN_RATIO,
    MAX_UPLOAD_CPU_RATIO, Rival, Target,
};
use super::inputs::Inputs;
use super::judge::Judge;
use super::place::Place;
use super::tools::{Paths, Tool, Tools};
use crate::child::{self, Limits, Used};
use crate::null_store::NullStore;
use crate::origin::{Fetched, Origin};

/// What all runs share.
#[derive(Debug, Clone)]
pub(super) struct Stage<'a> {
    pub(super) tools: &'a Tools,
    pub(super) inputs: &'a Inputs,
    /// Where objects go.
    pub(super) store: Option<&'a NullStore>,
    /// Where inputs have URLs.
    pub(super) origins: &'a [Origin],
    pub(super) printed: Printed,
    /// Counted runs; one more goes before them.
    pub(super) runs: usize,
    /// Time limit of one child.
    pub(super) limit: Duration,
}

/// Where commands write what they print: files on tmpfs.
#[derive(Debug, Clone)]
pub(super) struct Printed {
    /// Results.
    pub(super) stdout: PathBuf,
    /// Complaints.
    pub(super) stderr: PathBuf,
}

/// What the counted runs of one command used, in order.
#[derive(Debug, Default, Clone)]
pub(super) struct Side {
    /// Seconds until the output was there; on disk, until it was durable.
    pub(super) wall: Vec<f64>,
    /// Seconds until the command had ended.
    pub(super) exit: Vec<f64>,
    /// Seconds of user and system time.
    pub(super) cpu: Vec<f64>,
    /// Seconds of system time.
    pub(super) system: Vec<f64>,
    /// Peak resident memory, bytes.
    pub(super) peak: Vec<u64>,
    /// Length of the output, bytes; 0 where there is none.
    pub(super) len: u64,
    /// Bytes that it takes in its file system.
    pub(super) stored: u64,
    /// Bytes that were sent to a store.
    pub(super) sent: u64,
    /// Bytes that were fetched from URLs, and in how many requests.
    pub(super) fetched: Fetched,
    /// Parts that the store copied.
    pub(super) copied: u64,
}

/// One run of one command.
#[derive(Debug, Clone, Copy)]
struct Ran {
    used: Used,
    /// Until the output was there, or durable.
    wall: Duration,
    /// Length of the output, bytes.
    len: u64,
    /// What it takes.
    stored: u64,
    /// What was sent.
    sent: u64,
    /// What was fetched.
    fetched: Fetched,
    /// What was copied.
    copied: u64,
}

/// A flow beside a peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) ours: &'a Side,
    /// None where the flow has no peer.
    pub(super) peer: Option<&'a Side>,
}

/// Why there are no numbers.
#[derive(Debug)]
pub(super) enum Absent {
    /// The peer's program is not on this machine.
    NoTool(String),
    /// A command failed, or left something wrong.
    Failed(anyhow::Error),
}

/// A command in a round: where it stands, as long as nothing has gone wrong.
struct Contender<'a> {
    job: Job,
    input: Input,
    state: Result<(Judge<'a>, Side), Absent>,
}

impl Stage<'_> {
    /// Runs ours and each peer's in turns. A peer that fails is left out from there on; without ours there are no numbers.
    pub(super) fn compare(
        &self,
        place: &Place,
        flow: &Flow,
        rivals: &[Rival],
    ) -> Result<(Side, Vec<Result<Side, Absent>>), Absent> {
        let jobs = std::iter::once(flow.ours).chain(rivals.iter().map(|rival| rival.job));
        let mut sides = self.rounds(place, &jobs.map(|job| (job, flow.input)).collect::<Vec<_>>());
        let ours = sides.remove(0)?;
        Ok((ours, sides))
    }

    /// Runs ours on each step in turns.
    pub(super) fn grow(&self, place: &Place, growth: &Growth) -> Result<Vec<Side>, Absent> {
        let steps: Vec<_> = growth.steps.iter().map(|(input, ..)| (growth.ours, *input)).collect();
        self.rounds(place, &steps).into_iter().collect()
    }

    /// Runs each command once and again; the first round is not counted.
    fn rounds(&self, place: &Place, commands: &[(Job, Input)]) -> Vec<Result<Side, Absent>> {
        let contender = |(job, input): &(Job, Input)| {
            let found = self.tools.require(job.tool).map_err(Absent::NoTool);
            let judge = || Judge::new(self.inputs, *input, job.leaves).map_err(Absent::Failed);
            let state = found.and_then(|_| Ok((judge()?, Side::default())));
            Contender { job: *job, input: *input, state }
        };
        let mut contenders: Vec<Contender<'_>> = commands.iter().map(contender).collect();
        for run in 0..=self.runs {
            for contender in &mut contenders {
                let Contender { job, input, state } = contender;
                let Ok((judge, side)) = state else { continue };
                match self.run(place, job, *input, judge) {
                    Ok(ran) if run > 0 => side.add(&ran),
                    Ok(_) => {}
                    Err(absent) => *state = Err(absent),
                }
            }
            // Without the first, which is ours, the others are compared with nothing.
            if contenders.first().is_some_and(|first| first.state.is_err()) {
                break;
            }
        }
        contenders.into_iter().map(|contender| contender.state.map(|(_, side)| side)).collect()
    }

    /// Runs one command once, and checks what it left.
    fn run(&self, place: &Place, job: &Job, input: Input, judge: &Judge<'_>) -> Result<Ran, Absent> {
        // A folder of its own: a command that is stopped leaves more than its output.
        let folder = place.folder.join("run");
        let out = folder.join("out");
        let done = || -> Result<Ran> {
            let paths = Paths { input: self.inputs.path(input)?, output: &out, raw: &self.inputs.raw };
            let mut command = self.tools.command(job, &paths).map_err(anyhow::Error::msg)?;
            if let Some(store) = self.store {
                store.reset()?;
                store.environment(&mut command);
            }
            self.origins.iter().try_for_each(Origin::reset)?;
            fs::create_dir_all(&folder)?;
            self.inputs.warm(input)?;
            if job.words.split(' ').any(|word| word == "RAW") {
                self.inputs.warm(Input::Form("raw"))?;
            }
            if job.leaves.is_file() {
                self.inputs.make_room(input)?;
            }
            let child = child::Job::new(&command, &self.printed.stderr, Limits::wall(self.limit));
            let used = child.printing_to(&self.printed.stdout).succeed()?;
            let (mut wall, mut len, mut stored, mut sent, mut copied) = (used.wall, 0, 0, 0, 0);
            if job.leaves.is_file() {
                if place.durable {
                    let started = Instant::now();
                    File::open(&out)?.sync_all()?;
                    wall += started.elapsed();
                }
                let metadata = fs::metadata(&out)?;
                (len, stored) = (metadata.len(), metadata.blocks() * 512);
            }
            if job.leaves.is_object() {
                let counts = self.store.context("no store")?.counts()?;
                judge.check_object(&counts)?;
                (len, sent, copied) = (counts.len, counts.sent, counts.copied);
            }
            judge.check(job.leaves, &out, &self.printed)?;
            let mut fetched = Fetched::default();
            for origin in self.origins {
                let from = origin.fetched()?;
                fetched.bytes += from.bytes;
                fetched.requests += from.requests;
            }
            Ok(Ran { used, wall, len, stored, sent, fetched, copied })
        };
        let done = done().with_context(|| job.tool.name());
        let _ = fs::remove_dir_all(&folder);
        done.map_err(Absent::Failed)
    }
}

/// The middle of some numbers, and their ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    /// Of at least one number.
    pub(super) fn of(numbers: &[f64]) -> Self {
        let mut sorted = numbers.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = sorted.get(middle).copied().unwrap_or(f64::NAN);
        let median = if sorted.len().is_multiple_of(2) && middle > 0 {
            f64::midpoint(sorted[middle - 1], upper)
        } else {
            upper
        };
        let end = |number: Option<&f64>| number.copied().unwrap_or(f64::NAN);
        Self { median, min: end(sorted.first()), max: end(sorted.last()) }
    }
}

impl Side {
    fn add(&mut self, ran: &Ran) {
        self.wall.push(ran.wall.as_secs_f64());
        self.exit.push(ran.used.wall.as_secs_f64());
        self.cpu.push(ran.used.cpu().as_secs_f64());
        self.system.push(ran.used.system.as_secs_f64());
        self.peak.push(ran.used.peak);
        self.len = ran.len;
        self.stored = ran.stored;
        self.sent = ran.sent;
        self.fetched = ran.fetched;
        self.copied = ran.copied;
    }

    /// What is left of it without another, round by round.
    pub(super) fn less(&self, other: &Self) -> Self {
        let minus = |from: &[f64], what: &[f64]| from.iter().zip(what).map(|(a, b)| a - b).collect();
        Self {
            wall: minus(&self.wall, &other.wall),
            exit: minus(&self.exit, &other.exit),
            cpu: minus(&self.cpu, &other.cpu),
            system: minus(&self.system, &other.system),
            ..self.clone()
        }
    }

    /// The most memory of any run, bytes.
    pub(super) fn peak(&self) -> u64 {
        self.peak.iter().copied().max().unwrap_or(0)
    }
}

impl Pair<'_> {
    /// The peer's wall time as a multiple of ours: of runs of the same round, whatever else the machine did meanwhile.
    pub(super) fn ratio(&self) -> Option<Spread> {
        Some(quotients(&self.peer?.wall, &self.ours.wall))
    }

    /// The peer's processor time as a multiple of ours.
    pub(super) fn cpu_ratio(&self) -> Option<f64> {
        Some(Spread::of(&self.ours.cpu).median / Spread::of(&self.peer?.cpu).median)
    }

    /// The length of our output as a multiple of the peer's.
    pub(super) fn len_ratio(&self) -> Option<f64> {
        Some(self.ours.len as f64 / self.peer?.len as f64)
    }

    /// What does not hold.
    pub(super) fn misses(&self, flow: &Flow, rival: Option<&Rival>, place: &Place) -> Vec<Miss> {
        let leaves = flow.ours.leaves;
        let goal = rival.and_then(|rival| target(rival, place));
        // Ours beside ours says how it scales, and costs what it costs.
        let is_other = rival.is_some_and(|rival| rival.job.tool != Tool::ImagePrep) && goal.is_some();
        let above = |ratio: Option<f64>, most: f64| is_other && ratio.is_some_and(|ratio| ratio > most);
        let slow = self.ratio().zip(goal).is_some_and(|(ratio, goal)| ratio.median < goal);
        let found = [
            (slow, Miss::Wall),
            (max_cpu_ratio(leaves).is_some_and(|most| above(self.cpu_ratio(), most)), Miss::Cpu),
            (max_len_ratio(leaves).is_some_and(|most| above(self.len_ratio(), most)), Miss::Length),
            (self.ours.peak() > flow.memory(), Miss::Memory),
        ];
        found.into_iter().filter_map(|(misses, what)| misses.then_some(what)).collect()
    }
}

/// A target that is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Miss {
    /// The ratio of wall times.
    Wall,
    /// Processor time.
    Cpu,
    /// Length of the output.
    Length,
    /// Peak memory.
    Memory,
}

impl Miss {
    /// What to call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Wall => "wall",
            Self::Cpu => "cpu",
            Self::Length => "length",
            Self::Memory => "memory",
        }
    }
}

/// The longest that our output may be, as a multiple of the peer's, where that is aimed at.
pub(super) fn max_len_ratio(leaves: Leaves) -> Option<f64> {
    match leaves {
        Leaves::Qcow2 => Some(MAX_LEN_RATIO),
        Leaves::TarGz => Some(MAX_ARCHIVE_LEN_RATIO),
        _ => None,
    }
}

/// The most processor time that ours may take, as a multiple of the peer's, where that is aimed at.
pub(super) fn max_cpu_ratio(leaves: Leaves) -> Option<f64> {
    match leaves {
        // Every block is hashed, which no peer does.
        Leaves::Ingested => None,
        _ if leaves.is_file() => Some(MAX_CPU_RATIO),
        _ if leaves.is_object() => Some(MAX_UPLOAD_CPU_RATIO),
        _ => None,
    }
}

/// How much longer the last step takes than the first, each for what it is divided by.
pub(super) fn growth(growth: &Growth, sides: &[Side]) -> Option<Spread> {
    let per_unit = |side: &Side, unit: f64| side.wall.iter().map(|wall| wall / unit).collect::<Vec<_>>();
    let ((_, _, least), (_, _, most)) = (growth.steps.first()?, growth.steps.last()?);
    Some(quotients(&per_unit(sides.last()?, *most), &per_unit(sides.first()?, *least)))
}

/// One by one.
fn quotients(upper: &[f64], lower: &[f64]) -> Spread {
    Spread::of(&upper.iter().zip(lower).map(|(upper, lower)| upper / lower).collect::<Vec<_>>())
}

/// The ratio that is aimed at.
pub(super) fn target(rival: &Rival, place: &Place) -> Option<f64> {
    match rival.target {
        Target::None => None,
        Target::AtLeast(ratio) => Some(ratio),
        Target::ByPlace { tmpfs, disk } => Some(if place.durable { disk } else { tmpfs }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::flows::{FLOWS, GROWTHS, MAX_PEAK};

    #[test]
    fn a_spread_is_the_middle_and_the_ends() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of(&[4.0, 1.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of(&[7.0]).median, 7.0);
    }

    #[test]
    fn what_does_not_hold_is_named() {
        let place = |durable| Place { name: "test", folder: "/nowhere".into(), durable };
        let side = |wall, cpu, peak, len| Side {
            wall: vec![wall],
            cpu: vec![cpu],
            peak: vec![peak],
            len,
            ..Side::default()
        };
        let flow = |name: &str| FLOWS.iter().find(|flow| flow.name == name).unwrap();
        let (raw, qcow2) = (flow("raw -> raw"), flow("raw -> qcow2"));
        let theirs = side(1.2, 1.0, 1, 100);
        let misses = |flow: &Flow, ours: &Side, place: &Place| {
            Pair { ours, peer: Some(&theirs) }.misses(flow, flow.rivals.first(), place)
        };
        let good = side(1.0, 1.0, 1, 100);
        assert!(misses(raw, &good, &place(false)).is_empty());
        assert_eq!(misses(raw, &good, &place(true)), [Miss::Wall]);
        let bad = side(1.5, 1.1, MAX_PEAK + 1, 103);
        assert_eq!(misses(qcow2, &bad, &place(false)), [Miss::Wall, Miss::Cpu, Miss::Length, Miss::Memory]);
        let heavy = side(1.0, 1.0, MAX_PEAK / 2, 0);
        assert_eq!(misses(flow("map 8 TiB"), &heavy, &place(false)), [Miss::Wall, Miss::Memory]);
    }

    #[test]
    fn growth_is_of_the_last_step_beside_the_first() {
        let side = |wall| Side { wall: vec![wall], ..Side::default() };
        let steps = &[(Input::Repeated(1), "1", 1.0), (Input::Repeated(8), "8", 8.0)];
        let linear = Growth { steps, ..GROWTHS[0] };
        assert_eq!(growth(&linear, &[side(1.0), side(8.8)]).unwrap().median, 1.1);
    }
}
