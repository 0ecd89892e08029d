//! `cargo xtask hostile`: crafted images of every class of attack that is known, here and with qemu-img.
//!
//! Each image stands alone in a folder and goes through `image-prep convert` and `qemu-img convert`, each in a process of its own
//! with limits of processor time, address space and the wall clock, under the eyes of strace. It must be refused with a sentence
//! that says what and where, or become the one disk that it may become; nothing beyond its own files may be opened, and little
//! memory used. What qemu-img makes of it stands beside that. With `--url` an image server creates from each ([`url`]).

mod archives;
mod case;
mod others;
mod qcow2;
mod url;
mod vmdk;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::kinds::IMAGE;
use crate::repo::{Profile, Repo};
use crate::sparse;
use crate::watch::{self, Ended, Eyes, Limits, Watched, fresh, parallel};
use case::Case;

/// Arguments of `hostile`.
#[derive(Debug, Args)]
pub(crate) struct HostileArgs {
    /// Only the images whose class or name contains this; may be repeated
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Check the build for users: it is there later, and runs faster
    #[arg(long)]
    release: bool,
    /// Show every image, not only the wrong ones
    #[arg(long)]
    all: bool,
    /// Ask an image server to create from each, behind a URL, alone and then many at once
    #[arg(long, conflicts_with = "all")]
    url: bool,
    /// How many at once
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "url")]
    creates: usize,
}

/// What a hostile image may cost. Address space is not memory: stacks of threads and arenas take much of it and touch little.
const LIMITS: Limits =
    Limits { wall: Duration::from_secs(6), cpu_seconds: Some(2), address_space: Some(4 << 30) };

/// Resident memory that a hostile image may cost, bytes.
const MAX_PEAK: u64 = 128 << 20;

/// What became of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Became {
    Refused,
    /// The disk that it may become.
    Exact,
    /// Another disk, and exit 0.
    Wrong,
    /// A signal, a panic, an unknown code.
    Crashed,
    Hung,
}

/// One program and one image.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    became: Became,
    millis: u128,
    peak: u64,
    /// Beyond what the image is made of.
    opened: BTreeSet<String>,
    said: String,
}

/// A line of the report.
#[derive(Debug, Serialize)]
struct Judged {
    class: &'static str,
    name: String,
    ours: Run,
    theirs: Run,
    wrong: Vec<String>,
}

/// Makes every image and judges what becomes of it.
pub(crate) fn run(repo: &Repo, args: &HostileArgs) -> Result<ExitCode> {
    let profile = if args.release { Profile::Release } else { Profile::Dev };
    let home = repo.target().join("hostile");
    let work = fresh(home.join("work"))?;
    let cases = cases(&work)?;
    let wanted = |case: &&Case| {
        args.only.is_empty()
            || args.only.iter().any(|text| case.class.contains(text) || case.name.contains(text))
    };
    let cases: Vec<&Case> = cases.iter().filter(wanted).collect();
    ensure!(!cases.is_empty(), "no image has such a name");
    if args.url {
        let code = url::run(&repo.build("image-server", profile)?, &cases, &work, args.creates)?;
        fs::remove_dir_all(&work)?;
        return Ok(code);
    }
    let image_prep = repo.build("image-prep", profile)?;
    let bench = Bench::new(&work, &image_prep, watch::eyes(&work)?)?;
    let judged = parallel(&cases, |number, case| {
        bench.judge(case, number).with_context(|| format!("{}: {}", case.class, case.name))
    });
    let judged = judged.into_iter().collect::<Result<Vec<_>>>()?;
    fs::remove_dir_all(&work)?;
    fs::write(home.join("hostile.json"), serde_json::to_vec_pretty(&judged)?)?;
    Ok(report(&judged, args.all))
}

fn cases(work: &Path) -> Result<Vec<Case>> {
    let good = fresh(work.join("good"))?;
    let microsoft = others::microsoft(&good)?;
    Ok([qcow2::cases(), vmdk::cases(&good)?, others::confusion(), microsoft, archives::cases()].concat())
}

/// What every judgement needs.
struct Bench {
    work: PathBuf,
    image_prep: String,
    eyes: Eyes,
    /// What each program opens for a disk that is nothing but good: libraries, settings.
    usual: [BTreeSet<String>; 2],
}

impl Bench {
    fn new(work: &Path, image_prep: &Path, eyes: Eyes) -> Result<Self> {
        let image_prep = image_prep.to_string_lossy().into_owned();
        let mut bench =
            Self { work: work.to_owned(), image_prep, eyes, usual: <[BTreeSet<String>; 2]>::default() };
        let good =
            Case::new("good", "good", &qcow2::good(), &[]).or_disk(&qcow2::content(), 1 << 20).allowed();
        let folder = bench.folder(&good, "usual")?;
        let truth = good.truth(&folder)?;
        let runs = [bench.ours(&good, &folder)?, bench.theirs(&good, &folder)?];
        for (usual, watched) in bench.usual.iter_mut().zip(runs) {
            ensure!(watched.ended == Ended::Exit(0), "a good image is refused: {}", watched.said);
            usual.extend(watched.opened);
        }
        for name in ["ours.raw", "theirs.raw"] {
            ensure!(
                Some(sparse::digest(&folder.join("out").join(name))?) == truth,
                "a good image becomes another disk"
            );
        }
        Ok(bench)
    }

    /// A folder whose last name is the same for all, so that images can know the path to themselves.
    fn folder(&self, case: &Case, number: &str) -> Result<PathBuf> {
        let folder = fresh(self.work.join(number).join("case"))?;
        fs::create_dir(folder.join("out"))?;
        case.make(&folder)?;
        Ok(folder)
    }

    fn ours(&self, case: &Case, folder: &Path) -> Result<Watched> {
        let mut words = vec![self.image_prep.as_str(), "convert", "--quiet", "--jobs", "2"];
        words.extend(&case.ours);
        words.extend([IMAGE, "out/ours.raw"]);
        watch::watch(&words, folder, &folder.with_extension("ours"), LIMITS, self.eyes)
    }

    fn theirs(&self, case: &Case, folder: &Path) -> Result<Watched> {
        let mut words = vec!["qemu-img", "convert"];
        words.extend(case.format.iter().flat_map(|format| ["-f", format]));
        words.extend(["-O", "raw", IMAGE, "out/theirs.raw"]);
        watch::watch(&words, folder, &folder.with_extension("theirs"), LIMITS, self.eyes)
    }

    fn judge(&self, case: &Case, number: usize) -> Result<Judged> {
        let folder = self.folder(case, &number.to_string())?;
        let truth = case.truth(&folder)?;
        let run = |watched: Watched, usual: &BTreeSet<String>, name: &str, refusals: &[i32]| -> Result<Run> {
            let raw = folder.join("out").join(name);
            let became = match watched.ended {
                Ended::Exit(0) if truth.is_some() && Some(sparse::digest(&raw)?) == truth => Became::Exact,
                Ended::Exit(0) => Became::Wrong,
                Ended::Exit(code) if refusals.contains(&code) => Became::Refused,
                Ended::OutOfTime => Became::Hung,
                _ => Became::Crashed,
            };
            if raw.exists() {
                fs::remove_file(raw)?;
            }
            let opened =
                watched.opened.difference(usual).filter(|path| !is_own(path, case, &folder)).cloned();
            Ok(Run {
                became,
                millis: watched.time.as_millis(),
                peak: watched.peak,
                opened: opened.collect(),
                said: watched.said.trim_end().to_owned(),
            })
        };
        let ours = run(self.ours(case, &folder)?, &self.usual[0], "ours.raw", &[3])?;
        let theirs = run(self.theirs(case, &folder)?, &self.usual[1], "theirs.raw", &[1])?;
        fs::remove_dir_all(self.work.join(number.to_string()))?;
        let wrong = wrong(case, &ours);
        Ok(Judged { class: case.class, name: case.name.clone(), ours, theirs, wrong })
    }
}

/// Whether a path is of the image's own files, of the output, or of the system's settings, which a busy allocator asks for.
fn is_own(path: &str, case: &Case, folder: &Path) -> bool {
    let folder = folder.to_string_lossy();
    let inside = match path.strip_prefix(folder.as_ref()) {
        Some("") => return true,
        Some(inside) => inside.strip_prefix('/').unwrap_or("/"),
        None => path.strip_prefix("./").unwrap_or(path),
    };
    let is_named = inside == IMAGE || case.may_open.iter().any(|name| name == inside);
    let is_output = inside == "out" || (inside.starts_with("out/") && !inside.contains(".."));
    is_named || is_output || path.starts_with("/proc/sys/vm/") || path.starts_with("/sys/")
}

/// What is wrong with what we did.
fn wrong(case: &Case, ours: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    match ours.became {
        Became::Exact => {}
        Became::Refused if case.says.iter().any(|text| ours.said.contains(text)) => {}
        Became::Refused => wrong.push(format!("the refusal says none of {:?}: {}", case.says, ours.said)),
        other => wrong.push(format!("{other:?}: {}", ours.said)),
    }
    if !ours.opened.is_empty() {
        wrong.push(format!("opened {:?}", ours.opened));
    }
    if ours.peak > MAX_PEAK {
        wrong.push(format!("{} MiB of memory, the limit is {} MiB", ours.peak >> 20, MAX_PEAK >> 20));
    }
    wrong
}

/// Prints the table by class, what is wrong, and on demand every image.
fn report(judged: &[Judged], all: bool) -> ExitCode {
    let mut classes: BTreeMap<&str, [Row; 2]> = BTreeMap::new();
    for one in judged {
        for class in [one.class, "~"] {
            let rows = classes.entry(class).or_default();
            rows[0].add(&one.ours);
            rows[1].add(&one.theirs);
        }
    }
    let head = format!(
        "{:>8}{:>6}{:>6}{:>8}{:>6}{:>9}{:>8}{:>9}",
        "refused", "exact", "wrong", "crashed", "hung", "opened", "max ms", "max MiB"
    );
    println!("{:18}{:>7}  {:^60}  {:^60}", "", "", "image-prep", "qemu-img");
    println!("{:18}{:>7}  {head}  {head}", "class", "images");
    for (class, [ours, theirs]) in classes {
        let class = if class == "~" { "all" } else { class };
        println!("{class:18}{:>7}  {ours}  {theirs}", ours.images);
    }
    if all {
        for one in judged {
            println!(
                "\n{}: {}\n  {:?}: {}",
                one.class,
                one.name,
                one.ours.became,
                one.ours.said.replace('\n', "\n  ")
            );
            println!(
                "  qemu-img {:?}, opened {:?}: {}",
                one.theirs.became, one.theirs.opened, one.theirs.said
            );
        }
    }
    let mut code = ExitCode::SUCCESS;
    for one in judged {
        for wrong in &one.wrong {
            println!("\n{}: {}\n  {}", one.class, one.name, wrong.replace('\n', "\n  "));
            code = ExitCode::FAILURE;
        }
    }
    code
}

/// Counts of a class.
#[derive(Debug, Default)]
struct Row {
    images: usize,
    became: [usize; 5],
    opened: usize,
    millis: u128,
    peak: u64,
}

impl Row {
    fn add(&mut self, run: &Run) {
        self.images += 1;
        self.became[run.became as usize] += 1;
        self.opened += usize::from(!run.opened.is_empty());
        self.millis = self.millis.max(run.millis);
        self.peak = self.peak.max(run.peak);
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [refused, exact, wrong, crashed, hung] = self.became;
        write!(f, "{refused:>8}{exact:>6}{wrong:>6}{crashed:>8}{hung:>6}{:>9}", self.opened)?;
        write!(f, "{:>8}{:>9}", self.millis, self.peak >> 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(became: Became) -> Run {
        Run { became, millis: 1, peak: 1 << 20, opened: BTreeSet::new(), said: "error: table 7".to_owned() }
    }

    #[test]
    fn everything_that_can_be_wrong_is_seen() {
        let case = Case::new("class", "name", &[1], &["table 7"]);
        for good in [Became::Refused, Became::Exact] {
            assert!(wrong(&case, &run(good)).is_empty());
        }
        for bad in [Became::Wrong, Became::Crashed, Became::Hung] {
            assert_eq!(wrong(&case, &run(bad)).len(), 1);
        }
        let elsewhere = Case::new("class", "name", &[1], &["table 8"]);
        assert_eq!(wrong(&elsewhere, &run(Became::Refused)).len(), 1);
        let hungry = Run { peak: MAX_PEAK + 1, ..run(Became::Refused) };
        assert_eq!(wrong(&case, &hungry).len(), 1);
        let curious = Run { opened: BTreeSet::from(["/etc/passwd".to_owned()]), ..run(Became::Refused) };
        assert_eq!(wrong(&case, &curious).len(), 1);
    }

    #[test]
    fn own_files_are_those_that_the_case_has() {
        let case = Case::new("class", "name", &[1], &[]).with("base", case::Content::bytes(&[1]));
        let is = |path: &str| is_own(path, &case, Path::new("/lab/case"));
        for own in
            ["image", "./image", "/lab/case/base", "base", "out/a", "out", "/lab/case", "/lab/case/out/b"]
        {
            assert!(is(own), "{own}");
        }
        for other in
            ["/etc/passwd", "/lab/case2/base", "link", "/lab/other", "out/../x", "7, {sa_family=AF_INET}"]
        {
            assert!(!is(other), "{other}");
        }
    }

    #[test]
    fn every_class_has_at_least_two() {
        let folder = tempfile::tempdir().unwrap();
        if std::process::Command::new("qemu-img").arg("--version").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "qemu-img is needed under CI");
            eprintln!("SKIPPED: qemu-img makes the good images and cannot run");
            return;
        }
        let cases = cases(folder.path()).unwrap();
        let mut classes: BTreeMap<&str, usize> = BTreeMap::new();
        for case in &cases {
            *classes.entry(case.class).or_default() += 1;
        }
        assert!(classes.len() >= 7 && classes.values().all(|count| *count >= 2), "{classes:?}");
        let names: BTreeSet<_> = cases.iter().map(|case| (case.class, &case.name)).collect();
        assert_eq!(names.len(), cases.len());
    }
}
