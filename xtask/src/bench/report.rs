//! The results: a table for people, printed as it grows; JSON; and the same table for `benches/README.md`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::flows::{Flow, Growth, MAX_GROWTH, Rival};
use super::measure::{Absent, Miss, Pair, Side, Spread, growth, max_cpu_ratio, max_len_ratio, target};
use super::place::Place;
use super::tools::Tools;
use crate::repo::{Repo, output};

/// Names and widths of the columns; numbers stand to the right.
const COLUMNS: [(&str, usize); 13] = [
    ("flow", 24),
    ("peer", 9),
    ("place", 5),
    ("wall s", 6),
    ("peer", 6),
    ("ratio", 5),
    ("min..max", 10),
    ("target", 7),
    ("cpu s", 5),
    ("peer", 5),
    ("MiB", 4),
    ("peer", 4),
    ("verdict", 0),
];

/// Columns of names, at the left.
const NAMES: usize = 3;

/// A table in benches/README.md, by what stands around it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    begin: &'static str,
    end: &'static str,
}

/// Of conversions.
pub(super) const TABLE: Table = Table { begin: "<!-- cargo xtask bench -->\n", end: "<!-- end of bench -->" };
/// Of uploads.
pub(super) const UPLOAD_TABLE: Table =
    Table { begin: "<!-- cargo xtask bench --upload -->\n", end: "<!-- end of bench --upload -->" };

/// Of ingests.
pub(super) const INGEST_TABLE: Table =
    Table { begin: "<!-- cargo xtask bench --ingest -->\n", end: "<!-- end of bench --ingest -->" };

/// What was measured so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: Vec<Value>,
    /// What was printed.
    lines: Vec<Vec<String>>,
    /// A line for each target that is missed.
    missed: Vec<String>,
    failed: Vec<String>,
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
        println!("{}", terminal(&COLUMNS.map(|(name, _)| name.to_owned())));
        Self::default()
    }

    /// Prints a row, and keeps it.
    pub(super) fn row(&mut self, subject: &Subject<'_>, result: &Result<Pair<'_>, &Absent>) {
        let Subject { flow, rival, place } = *subject;
        // Where an output goes matters only where there is one.
        let place_name = if flow.ours.leaves.is_file() { place.name } else { "-" };
        let peer = rival.map_or("-", |rival| rival.job.tool.name());
        let names = [flow.name, peer, place_name];
        let goal = rival.and_then(|rival| target(rival, place));
        let mut row = json!({ "flow": flow.name, "peer": peer, "place": place_name, "target": goal });
        match result {
            Ok(pair) => {
                let misses = pair.misses(flow, rival, place);
                let verdict = verdict(goal.is_some(), misses.iter().map(|miss| miss.name()));
                let goal_text = goal.map_or_else(dash, |goal| format!("{goal:.2}"));
                self.line([&names.map(str::to_owned)[..], &numbers(pair, &goal_text), &[verdict]].concat());
                for miss in &misses {
                    let what = evidence(*miss, pair, goal, flow);
                    self.missed.push(format!("{}: {what}", names.join(", ")));
                }
                row["ours"] = side(pair.ours);
                row["theirs"] = pair.peer.map(side).into();
                row["ratio"] = pair.ratio().map(spread).into();
                row["misses"] = misses.iter().map(|miss| miss.name()).collect::<Vec<_>>().into();
            }
            Err(absent) => self.absent(names, &mut row, absent),
        }
        self.rows.push(row);
    }

    /// Prints a row for each step of a growth, and the verdict with the last.
    pub(super) fn growth(&mut self, of: &Growth, place: &Place, result: &Result<Vec<Side>, Absent>) {
        let mut row = json!({ "flow": of.name, "place": place.name, "target": MAX_GROWTH });
        match result {
            Ok(sides) => {
                let steps = of.steps.iter().zip(sides);
                for (number, ((_, name, _), side)) in steps.enumerate() {
                    let pair = Pair { ours: side, peer: None };
                    let is_last = number + 1 == sides.len();
                    let grown = growth(of, sides).filter(|_| is_last);
                    let goal = if is_last { format!("<={MAX_GROWTH}") } else { dash() };
                    let mut cells = numbers(&pair, &goal);
                    let mut misses = Vec::new();
                    if let Some(grown) = grown {
                        cells[2..4].clone_from_slice(&ratio(Some(grown)));
                        row["ratio"] = spread(grown);
                        if grown.median > MAX_GROWTH {
                            misses.push("growth");
                            let what = format!("{:.2} x the time of the first step", grown.median);
                            self.missed
                                .push(format!("{}: {what}, at most {MAX_GROWTH} is aimed at", of.name));
                        }
                    }
                    let head = [of.name, name, place.name].map(str::to_owned);
                    self.line([&head[..], &cells, &[verdict(is_last, misses.into_iter())]].concat());
                }
                row["steps"] = of
                    .steps
                    .iter()
                    .zip(sides)
                    .map(|((_, name, _), of)| json!({ "step": name, "ours": side(of) }))
                    .collect();
            }
            Err(absent) => self.absent([of.name, "-", place.name], &mut row, absent),
        }
        self.rows.push(row);
    }

    /// Prints what was found out beside the times, and whether it is as it should be.
    pub(super) fn fact(&mut self, name: &str, holds: Option<bool>, text: &str, numbers: Value) {
        let verdict = match holds {
            Some(true) => format!("holds: {text}"),
            Some(false) => format!("MISSES: {text}"),
            None => text.to_owned(),
        };
        if holds == Some(false) {
            self.missed.push(format!("{name}: {text}"));
        }
        let names = [name.to_owned(), dash(), dash()];
        self.line([&names[..], &vec![dash(); COLUMNS.len() - NAMES - 1], &[verdict]].concat());
        let mut row = json!({ "flow": name, "fact": text, "holds": holds });
        row["numbers"] = numbers;
        self.rows.push(row);
    }

    /// Keeps that a flow that is no pair of commands has failed.
    pub(super) fn failed(&mut self, name: &str, error: anyhow::Error) {
        let mut row = json!({ "flow": name });
        self.absent([name, "-", "-"], &mut row, &Absent::Failed(error));
        self.rows.push(row);
    }

    fn absent(&mut self, names: [&str; NAMES], row: &mut Value, absent: &Absent) {
        let verdict = match absent {
            Absent::NoTool(why) => {
                row["notMeasured"] = why.as_str().into();
                format!("not measured: {}", why.lines().next().unwrap_or_default())
            }
            Absent::Failed(error) => {
                row["failed"] = format!("{error:#}").into();
                self.failed.push(format!("{}: {error:#}", names.join(", ")));
                "FAILED".to_owned()
            }
        };
        let cells = COLUMNS.map(|_| dash());
        let (_, rest) = cells.split_at(NAMES + 1);
        self.line([&names.map(str::to_owned)[..], rest, &[verdict]].concat());
    }

    fn line(&mut self, cells: Vec<String>) {
        println!("{}", terminal(&cells));
        self.lines.push(cells);
    }

    /// Prints what was missed, what failed and a closing line, and writes the JSON; gives whether nothing failed.
    pub(super) fn finish(&mut self, json: &Path, mut head: Value) -> Result<bool> {
        if !self.missed.is_empty() {
            println!("\nmissed:");
        }
        for missed in &self.missed {
            println!("  {missed}");
        }
        for failed in &self.failed {
            println!("\n{failed}");
        }
        head["rows"] = std::mem::take(&mut self.rows).into();
        head["missed"] = self.missed.clone().into();
        if let Some(folder) = json.parent() {
            fs::create_dir_all(folder)?;
        }
        let text = serde_json::to_string_pretty(&head)? + "\n";
        fs::write(json, text).with_context(|| format!("cannot write {}", json.display()))?;
        let (missed, failed) = (self.missed.len(), self.failed.len());
        println!("\n{missed} targets are missed, {failed} commands failed; {}", json.display());
        Ok(self.failed.is_empty())
    }

    /// Writes the table into benches/README.md.
    pub(super) fn write_readme(&self, repo: &Repo, table: Table, head: &Value) -> Result<()> {
        let path = "benches/README.md";
        let readme = with_table(&repo.read(path)?, table, &self.markdown(head))?;
        fs::write(repo.path(path), readme).with_context(|| format!("cannot write {path}"))
    }

    fn markdown(&self, head: &Value) -> String {
        let text = |name: &str| head[name].to_string().trim_matches('"').to_owned();
        let tools = head["tools"].as_object().into_iter().flatten();
        let tools: Vec<_> =
            tools.map(|(name, version)| format!("{name} {}", version.as_str().unwrap_or_default())).collect();
        let mut lines = vec![
            format!(
                "{}: {} CPUs ({}), {} of memory, Linux {}, load {} before the first run, {} runs of each \
                     command.",
                text("date"),
                text("cpus"),
                text("cpu"),
                text("memory"),
                text("kernel"),
                text("load"),
                text("runs")
            ),
            format!("Versions: {}.", tools.join("; ")),
            String::new(),
            markdown_row(&COLUMNS.map(|(name, _)| name.to_owned())),
            markdown_row(&std::array::from_fn::<_, 13, _>(|column| {
                if column < NAMES || column + 1 == COLUMNS.len() { "---" } else { "--:" }.to_owned()
            })),
        ];
        lines.extend(self.lines.iter().map(|cells| markdown_row(cells)));
        if !self.missed.is_empty() {
            lines.extend([String::new(), "Missed:".to_owned(), String::new()]);
            lines.extend(self.missed.iter().map(|missed| format!("- {missed}")));
        }
        lines.join("\n") + "\n"
    }
}

/// README with the table in its place.
fn with_table(readme: &str, Table { begin, end }: Table, table: &str) -> Result<String> {
    let (before, rest) = readme.split_once(begin).context("benches/README.md has no place for the table")?;
    let (_, after) = rest.split_once(end).context("benches/README.md has no end of the table")?;
    Ok(format!("{before}{begin}{table}{end}{after}"))
}

/// A row as a terminal shows it: below 120 columns, short of a long verdict.
fn terminal(cells: &[String]) -> String {
    let cells = cells.iter().zip(COLUMNS).enumerate();
    let padded = cells.map(|(column, (cell, (_, width)))| match column < NAMES {
        true => format!("{cell:width$}"),
        false => format!("{cell:>width$}"),
    });
    padded.collect::<Vec<_>>().join(" ").trim_end().to_owned()
}

fn markdown_row(cells: &[String]) -> String {
    format!("| {} |", cells.join(" | "))
}

/// The numbers of a row. A dash is where there is nothing to say.
fn numbers(pair: &Pair<'_>, goal: &str) -> [String; 9] {
    let median = |numbers: &[f64]| seconds(Spread::of(numbers).median);
    let peer = |what: &dyn Fn(&Side) -> String| pair.peer.map_or_else(dash, what);
    let mib = |side: &Side| (side.peak() >> 20).to_string();
    let [ratio, range] = ratio(pair.ratio());
    [
        median(&pair.ours.wall),
        peer(&|side| median(&side.wall)),
        ratio,
        range,
        goal.to_owned(),
        median(&pair.ours.cpu),
        peer(&|side| median(&side.cpu)),
        mib(pair.ours),
        peer(&mib),
    ]
}

fn ratio(ratio: Option<Spread>) -> [String; 2] {
    match ratio {
        Some(Spread { median, min, max }) => [format!("{median:.2}"), format!("{min:.2}..{max:.2}")],
        None => [dash(), dash()],
    }
}

fn dash() -> String {
    "-".to_owned()
}

/// Whether the targets hold, or which are missed; nothing where there are none.
fn verdict<'a>(has_goal: bool, misses: impl Iterator<Item = &'a str>) -> String {
    let misses: Vec<&str> = misses.collect();
    match misses.as_slice() {
        [] if has_goal => "holds".to_owned(),
        [] => String::new(),
        misses => format!("misses {}", misses.join(", ")),
    }
}

/// What the numbers say of a target that is missed: where the time goes, and how much of the machine was used.
fn evidence(miss: Miss, pair: &Pair<'_>, goal: Option<f64>, flow: &Flow) -> String {
    let Pair { ours, peer } = *pair;
    let median = |numbers: &[f64]| Spread::of(numbers).median;
    let split = |side: &Side| {
        let (cpu, system) = (median(&side.cpu), median(&side.system));
        format!("{} s user + {} s system", seconds(cpu - system), seconds(system))
    };
    match miss {
        Miss::Wall => {
            let wall = median(&ours.wall);
            let ratio = pair.ratio().map_or(0.0, |ratio| ratio.median);
            let busy = median(&ours.cpu) / wall;
            let stored = match ours.stored {
                0 => String::new(),
                stored => format!(", {:.2} GiB stored a second", stored as f64 / wall / f64::from(1 << 30)),
            };
            let idle = median(&ours.wall) - median(&ours.exit);
            let sync = if idle > 0.001 { format!(", {} s to sync", seconds(idle)) } else { String::new() };
            format!(
                "wall {ratio:.2} of {:.2}; ours {} s: {}, {busy:.2} CPUs busy{stored}{sync}; peer {}",
                goal.unwrap_or_default(),
                seconds(wall),
                split(ours),
                peer.map_or_else(dash, |peer| format!("{} s: {}", seconds(median(&peer.wall)), split(peer))),
            )
        }
        Miss::Cpu => format!(
            "cpu {:.2} x the peer's, at most {} is aimed at; ours {}; peer {}",
            pair.cpu_ratio().unwrap_or_default(),
            max_cpu_ratio(flow.ours.leaves).unwrap_or_default(),
            split(ours),
            peer.map_or_else(dash, split),
        ),
        Miss::Length => format!(
            "output {:.3} x as long as the peer's, at most {} is aimed at",
            pair.len_ratio().unwrap_or_default(),
            max_len_ratio(flow.ours.leaves).unwrap_or_default()
        ),
        Miss::Memory => {
            let (found, most) = (ours.peak() >> 20, flow.memory() >> 20);
            format!("{found} MiB of memory, at most {most} are aimed at")
        }
    }
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
        "systemSeconds": side.system,
        "peakBytes": side.peak,
        "outputBytes": side.len,
        "storedBytes": side.stored,
        "sentBytes": side.sent,
        "fetched": side.fetched,
        "copiedParts": side.copied,
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
    use crate::bench::flows::FLOWS;

    fn side(wall: f64, system: f64) -> Side {
        Side {
            wall: vec![wall],
            exit: vec![wall],
            cpu: vec![1.0],
            system: vec![system],
            peak: vec![32 << 20],
            ..Side::default()
        }
    }

    #[test]
    fn a_row_fits_a_terminal_and_says_what_misses() {
        let (ours, theirs) = (side(2.0, 0.25), side(3.0, 0.5));
        let pair = Pair { ours: &ours, peer: Some(&theirs) };
        let place = Place { name: "tmpfs", folder: "/nowhere".into(), durable: false };
        let flow = FLOWS.iter().find(|flow| flow.name == "qcow2 zlib -> raw").unwrap();
        let mut report = Report::default();
        report.row(&Subject { flow, rival: flow.rivals.first(), place: &place }, &Ok(pair));
        assert_eq!(
            terminal(&report.lines[0]),
            "qcow2 zlib -> raw        qemu-img  tmpfs   2.00   3.00  1.50 1.50..1.50    2.60  1.00  1.00   32   32 \
             misses wall"
        );
        assert_eq!(
            report.missed,
            [
                "qcow2 zlib -> raw, qemu-img, tmpfs: wall 1.50 of 2.60; ours 2.00 s: 0.750 s user + 0.250 s system, \
              0.50 CPUs busy; peer 3.00 s: 0.500 s user + 0.500 s system"
            ]
        );
        for line in &report.lines {
            assert!(terminal(line).len() < 120);
        }
        let Table { begin, end } = TABLE;
        let readme = format!("a\n{begin}old\n{end}\nb");
        let readme = with_table(&readme, TABLE, &report.markdown(&json!({}))).unwrap();
        assert!(readme.starts_with(&format!("a\n{begin}")), "{readme}");
        assert!(readme.ends_with(&format!("{end}\nb")), "{readme}");
        assert!(readme.contains("| qcow2 zlib -> raw | qemu-img | tmpfs | 2.00 | 3.00 |"), "{readme}");
        assert!(!readme.contains("old"));
    }

    #[test]
    fn growth_has_a_verdict_with_its_last_step() {
        let growth = &crate::bench::flows::GROWTHS[1];
        let place = Place { name: "tmpfs", folder: "/nowhere".into(), durable: false };
        let mut report = Report::default();
        report.growth(growth, &place, &Ok(vec![side(1.0, 0.0), side(1.0, 0.0), side(1.1, 0.0)]));
        let verdicts: Vec<_> = report.lines.iter().map(|line| line.last().unwrap().as_str()).collect();
        assert_eq!(verdicts, ["", "", "holds"]);
        report.growth(growth, &place, &Ok(vec![side(1.0, 0.0), side(1.0, 0.0), side(1.2, 0.0)]));
        assert_eq!(report.lines.last().unwrap().last().unwrap(), "misses growth");
        assert_eq!(report.missed.len(), 1);
    }
}
