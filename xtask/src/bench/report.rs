//! The results: a table for people, printed as it grows, and JSON.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::flows::{Flow, NOT_BUILT, Rival};
use super::measure::{Absent, Pair, Side, Spread, target};
use super::place::Place;
use super::tools::Tools;
use crate::repo::output;

/// Width of the first column: the longest name of a flow.
const FIRST: usize = 24;

/// What was measured so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: Vec<Value>,
    failed: Vec<String>,
    missed: usize,
}

/// What a row is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) flow: &'a Flow,
    pub(super) rival: Option<&'a Rival>,
    pub(super) place: &'a Place,
}

impl Report {
    /// Prints the head.
    pub(super) fn new() -> Self {
        println!(
            "{:FIRST$} {:10} {:5} | {:>6} {:>6} | {:>5} {:>11} {:>6} | {:>6} {:>6} | {:>4} {:>4} |",
            "flow",
            "peer",
            "place",
            "wall s",
            "peer",
            "ratio",
            "min..max",
            "target",
            "cpu s",
            "peer",
            "MiB",
            "peer"
        );
        Self::default()
    }

    /// Prints a row, and keeps it.
    pub(super) fn row(&mut self, subject: &Subject<'_>, result: &Result<Pair, Absent>) {
        let Subject { flow, rival, place } = subject;
        // Where an output goes matters only where there is one.
        let place_name = if flow.ours.leaves.is_file() { place.name } else { "-" };
        let peer = rival.map_or("-", |rival| rival.job.tool.name());
        let head = format!("{:FIRST$} {peer:10} {place_name:5} |", flow.name);
        let goal = rival.and_then(|rival| target(rival, place));
        let mut row = json!({ "flow": flow.name, "peer": peer, "place": place_name, "target": goal });
        match result {
            Ok(pair) => {
                let misses = pair.misses(flow.ours.leaves, *rival, place);
                self.missed += usize::from(!misses.is_empty());
                println!("{head} {}", numbers(pair, goal, &misses));
                row["ours"] = side(&pair.ours);
                row["theirs"] = pair.peer.as_ref().map(side).into();
                row["ratio"] = pair.ratio().map(spread).into();
                row["misses"] = misses.into();
            }
            Err(Absent::NoTool(why)) => {
                println!("{head} not measured: {}", why.lines().next().unwrap_or_default());
                row["notMeasured"] = why.as_str().into();
            }
            Err(Absent::Failed(error)) => {
                println!("{head} FAILED, see below");
                row["failed"] = format!("{error:#}").into();
                self.failed.push(format!("{}, {peer}, {place_name}: {error:#}", flow.name));
            }
        }
        self.rows.push(row);
    }

    /// Lists the targets that have no flow.
    pub(super) fn not_built(&mut self, wanted: impl Fn(&str) -> bool) {
        for (name, target) in NOT_BUILT.iter().filter(|(name, _)| wanted(name)) {
            println!("{name:FIRST$} not built; target: {target}");
            self.rows.push(json!({ "flow": name, "notBuilt": true, "target": target }));
        }
    }

    /// Prints what failed and a closing line, writes the JSON; gives whether nothing failed.
    pub(super) fn finish(self, json: &Path, mut head: Value) -> Result<bool> {
        for failed in &self.failed {
            println!("\n{failed}");
        }
        head["rows"] = self.rows.into();
        if let Some(folder) = json.parent() {
            fs::create_dir_all(folder)?;
        }
        let text = serde_json::to_string_pretty(&head)? + "\n";
        fs::write(json, text).with_context(|| format!("cannot write {}", json.display()))?;
        println!("\n{} rows miss a target, {} failed; {}", self.missed, self.failed.len(), json.display());
        Ok(self.failed.is_empty())
    }
}

/// The numbers of a row. A dash is where there is nothing to say.
fn numbers(pair: &Pair, goal: Option<f64>, misses: &[&str]) -> String {
    let median = |numbers: &[f64]| seconds(Spread::of(numbers).median);
    let peer = |what: &dyn Fn(&Side) -> String| pair.peer.as_ref().map_or_else(|| "-".to_owned(), what);
    let mib = |side: &Side| (side.peak() >> 20).to_string();
    let (ratio, range) = match pair.ratio() {
        Some(Spread { median, min, max }) => (format!("{median:.2}"), format!("{min:.2}..{max:.2}")),
        None => ("-".to_owned(), "-".to_owned()),
    };
    let goal_text = goal.map_or_else(|| "-".to_owned(), |goal| format!("{goal:.2}"));
    let verdict = match (misses, goal) {
        ([], Some(_)) => "holds".to_owned(),
        ([], None) => String::new(),
        (misses, _) => format!("misses {}", misses.join(", ")),
    };
    format!(
        "{:>6} {:>6} | {ratio:>5} {range:>11} {goal_text:>6} | {:>6} {:>6} | {:>4} {:>4} | {verdict}",
        median(&pair.ours.wall),
        peer(&|side| median(&side.wall)),
        median(&pair.ours.cpu),
        peer(&|side| median(&side.cpu)),
        mib(&pair.ours),
        peer(&mib),
    )
}

/// Two digits behind the point; three where the time is short.
fn seconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{seconds:.3}") } else { format!("{seconds:.2}") }
}

fn side(side: &Side) -> Value {
    json!({
        "wallSeconds": side.wall,
        "wallSecondsMedian": Spread::of(&side.wall).median,
        "exitSeconds": side.exit,
        "cpuSeconds": side.cpu,
        "cpuSecondsMedian": Spread::of(&side.cpu).median,
        "peakBytes": side.peak,
        "outputBytes": side.len,
    })
}

fn spread(spread: Spread) -> Value {
    json!({ "median": spread.median, "min": spread.min, "max": spread.max })
}

/// Where and with what this is measured. A load before anything ran says how much the numbers are worth.
pub(super) fn head(tools: &Tools) -> Result<Value> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let load = read("/proc/loadavg")?;
    let head = json!({
        "date": output(Command::new("date").args(["--utc", "+%Y-%m-%dT%H:%M:%SZ"]))?.trim(),
        "cpu": field(&read("/proc/cpuinfo")?, "model name"),
        "cpus": std::thread::available_parallelism()?.get(),
        "memory": field(&read("/proc/meminfo")?, "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease")?.trim(),
        "load": load.split(' ').next(),
        "tools": tools.versions(),
    });
    for name in ["date", "cpu", "cpus", "memory", "kernel", "load"] {
        println!("{name:8} {}", head[name].to_string().trim_matches('"'));
    }
    for (name, version) in tools.versions() {
        println!("{name:10} {version}");
    }
    println!();
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_misses() {
        let side =
            |wall| Side { wall: vec![wall], exit: vec![wall], cpu: vec![1.0], peak: vec![32 << 20], len: 0 };
        let pair = Pair { ours: side(2.0), peer: Some(side(3.0)) };
        let row = numbers(&pair, Some(1.6), &["wall"]);
        assert_eq!(row, "  2.00   3.00 |  1.50  1.50..1.50   1.60 |   1.00   1.00 |   32   32 | misses wall");
        assert!(numbers(&pair, Some(1.5), &[]).ends_with("| holds"));
        let alone = Pair { ours: side(2.0), peer: None };
        assert!(numbers(&alone, None, &[]).contains("|     -           -      - |"));
        assert_eq!((seconds(0.0123), seconds(12.345)), ("0.012".to_owned(), "12.35".to_owned()));
    }
}
