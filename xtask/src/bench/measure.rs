//! Runs a flow against a peer, one after the other and again, and what comes of it in numbers.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::child::{self, Printed, Usage};
use super::flows::{Flow, Job, Leaves, MAX_CPU_RATIO, MAX_LEN_RATIO, MAX_PEAK, Rival, Target};
use super::inputs::Inputs;
use super::judge::Judge;
use super::place::Place;
use super::tools::{Paths, Tool, Tools};
use crate::sparse;

/// What all runs share.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    pub(super) tools: &'a Tools,
    pub(super) inputs: &'a Inputs,
    pub(super) printed: Printed,
    /// Counted runs; one more goes before them.
    pub(super) runs: usize,
    /// Time limit of one child.
    pub(super) limit: Duration,
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
    /// Peak resident memory, bytes.
    pub(super) peak: Vec<u64>,
    /// Length of the output, bytes; 0 where there is none.
    pub(super) len: u64,
}

/// One run of one command.
#[derive(Debug, Clone, Copy)]
struct Ran {
    usage: Usage,
    /// Until the output was there, or durable.
    wall: Duration,
    /// Length of the output, bytes.
    len: u64,
}

/// A flow beside a peer.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) ours: Side,
    /// None where the flow has no peer.
    pub(super) peer: Option<Side>,
}

/// Why there are no numbers.
#[derive(Debug)]
pub(super) enum Absent {
    /// The peer's program is not on this machine.
    NoTool(String),
    /// A command failed, or left something wrong.
    Failed(anyhow::Error),
}

impl Stage<'_> {
    /// Runs ours and the peer's in turns.
    pub(super) fn pair(&self, place: &Place, flow: &Flow, rival: Option<&Rival>) -> Result<Pair, Absent> {
        let jobs: Vec<&Job> = std::iter::once(&flow.ours).chain(rival.map(|rival| &rival.job)).collect();
        for job in &jobs {
            self.tools.require(job.tool).map_err(Absent::NoTool)?;
        }
        let mut sides = vec![Side::default(); jobs.len()];
        let judges = jobs.iter().map(|job| Judge::new(self.inputs, flow.input, job.leaves));
        let judges: Vec<Judge<'_>> = judges.collect::<Result<_>>().map_err(Absent::Failed)?;
        for run in 0..=self.runs {
            for ((job, judge), side) in jobs.iter().zip(&judges).zip(&mut sides) {
                let Ran { usage, wall, len } = self.run(place, flow, job, judge)?;
                if run > 0 {
                    side.wall.push(wall.as_secs_f64());
                    side.exit.push(usage.wall.as_secs_f64());
                    side.cpu.push(usage.cpu.as_secs_f64());
                    side.peak.push(usage.peak);
                    side.len = len;
                }
            }
        }
        let peer = if rival.is_some() { sides.pop() } else { None };
        Ok(Pair { ours: sides.remove(0), peer })
    }

    /// Runs one command once, and checks what it left.
    fn run(&self, place: &Place, flow: &Flow, job: &Job, judge: &Judge<'_>) -> Result<Ran, Absent> {
        let input = self.inputs.path(flow.input).map_err(Absent::Failed)?;
        // A folder of its own: a command that is stopped leaves more than its output.
        let folder = place.folder.join("run");
        let out = folder.join("out");
        let paths = Paths { input, output: &out, raw: &self.inputs.raw };
        let mut command = self.tools.command(job, &paths).map_err(Absent::NoTool)?;
        let mut done = || -> Result<Ran> {
            fs::create_dir_all(&folder)?;
            sparse::warm(input)?;
            if job.leaves == Leaves::Verdict {
                sparse::warm(&self.inputs.raw)?;
            }
            let usage = child::run(&mut command, &self.printed, self.limit)?;
            let (mut wall, mut len) = (usage.wall, 0);
            if job.leaves.is_file() {
                if place.durable {
                    let started = Instant::now();
                    File::open(&out)?.sync_all()?;
                    wall += started.elapsed();
                }
                len = fs::metadata(&out)?.len();
            }
            judge.check(job.leaves, &out, &self.printed)?;
            Ok(Ran { usage, wall, len })
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
    /// The most memory of any run, bytes.
    pub(super) fn peak(&self) -> u64 {
        self.peak.iter().copied().max().unwrap_or(0)
    }
}

impl Pair {
    /// The peer's wall time as a multiple of ours: of each pair of runs that followed each other, whatever else the machine did
    /// meanwhile.
    pub(super) fn ratio(&self) -> Option<Spread> {
        let peer = self.peer.as_ref()?;
        let ratios: Vec<f64> =
            peer.wall.iter().zip(&self.ours.wall).map(|(peer, ours)| peer / ours).collect();
        Some(Spread::of(&ratios))
    }

    /// What does not hold.
    pub(super) fn misses(&self, leaves: Leaves, rival: Option<&Rival>, place: &Place) -> Vec<&'static str> {
        let mut misses = Vec::new();
        let target = rival.and_then(|rival| target(rival, place));
        if let (Some(target), Some(ratio)) = (target, self.ratio())
            && ratio.median < target
        {
            misses.push("wall");
        }
        if let Some(peer) = &self.peer
            && rival.is_some_and(|rival| rival.job.tool != Tool::ImagePrep)
            && target.is_some()
        {
            let cpu = |side: &Side| Spread::of(&side.cpu).median;
            if leaves.is_file() && cpu(&self.ours) > MAX_CPU_RATIO * cpu(peer) {
                misses.push("cpu");
            }
            if leaves == Leaves::Qcow2 && self.ours.len as f64 > MAX_LEN_RATIO * peer.len as f64 {
                misses.push("length");
            }
        }
        if self.ours.peak() > MAX_PEAK {
            misses.push("memory");
        }
        misses
    }
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
    use crate::bench::flows::FLOWS;

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
            exit: vec![wall],
            cpu: vec![cpu],
            peak: vec![peak],
            len,
        };
        let rival = FLOWS.iter().find(|flow| flow.name == "raw -> raw").unwrap().rivals.first();
        let pair = |ours, peer| Pair { ours, peer: Some(peer) };
        let good = pair(side(1.0, 1.0, 1, 100), side(1.2, 1.0, 1, 100));
        assert!(good.misses(Leaves::Raw, rival, &place(false)).is_empty());
        assert_eq!(good.misses(Leaves::Raw, rival, &place(true)), ["wall"]);
        let bad = pair(side(1.0, 1.1, MAX_PEAK + 1, 103), side(0.9, 1.0, 1, 100));
        assert_eq!(bad.misses(Leaves::Qcow2, rival, &place(false)), ["wall", "cpu", "length", "memory"]);
    }
}
