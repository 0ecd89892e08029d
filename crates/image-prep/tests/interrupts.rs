//! `create`, interrupted at seeded random times: nothing is left of it, or it has said what is, and `cleanup` removes that.
//!
//! Store and service answer late, so that what waits for them is found waiting; of some runs the line is cut together with the signal,
//! so that nothing can be taken back. `cargo xtask kills --interrupt` has this done more often than a test run has patience for.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "support/cloud.rs"]
mod cloud;
#[path = "support/proxy.rs"]
mod proxy;
mod support;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use cloud::{BUCKET, Cloud, FOLDER, until};
use image_api::compute::image::Status;
use proxy::Proxy;
use rustix::process::{Pid, Signal, kill_process};
use support::{Bench, MIB, finish, noise};

/// Eight parts of 16 MiB.
const LEN: u64 = 128 * MIB;

/// What the Image is called that is there already, and is replaced by some runs.
const STANDING: &str = "standing";

/// Ways to create, each with times of its own.
const WAYS: [&[&str]; 5] = [
    &[],
    &["--to", "raw", "--transport", "grpc"],
    &["--compress"],
    &["--if-exists", "replace"],
    &["--key", "typed", "--to", "raw"],
];

/// How late store and service answer, by turns.
const LATE: [Duration; 3] = [Duration::ZERO, Duration::from_millis(20), Duration::from_millis(60)];

/// What there was when the signal was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    BeforeUpload,
    DuringUpload,
    BeforeCreate,
    WhileCreating,
    After,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BeforeUpload => "before the upload",
            Self::DuringUpload => "during it",
            Self::BeforeCreate => "between it and Create",
            Self::WhileCreating => "while creating",
            Self::After => "after that",
        })
    }
}

/// What is left in the cloud and on the machine.
#[derive(Debug, Default, PartialEq, Eq)]
struct Left {
    objects: Vec<String>,
    uploads: Vec<String>,
    /// Names of Images, whatever their status.
    images: BTreeSet<String>,
    files: BTreeSet<PathBuf>,
}

/// A disk, a cloud, and wires between them.
struct Line {
    bench: Bench,
    cloud: Cloud,
    store: Proxy,
    service: Proxy,
    _dir: Bench,
}

impl Line {
    fn new() -> Self {
        let (bench, dir) = (Bench::new(), Bench::new());
        let cloud = Cloud::start_for_any_host(&dir.path("cloud"));
        let data = noise(LEN / 2, 21);
        bench.raw("disk", LEN, &[(MIB + 4096, &data)]);
        bench.raw("small", MIB, &[]);
        fs::create_dir(bench.path("tmp")).unwrap();
        let (store, service) = (Proxy::start(cloud.store_address()), Proxy::start(cloud.server_address()));
        Self { bench, cloud, store, service, _dir: dir }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.bench.command(args);
        self.cloud.tell(&mut command);
        self.cloud.tell_store_behind(&self.store.url(), &mut command);
        command.env("YC_ENDPOINT", self.service.url()).env("TMPDIR", self.bench.path("tmp"));
        command
    }

    fn create(&self, image: &str, name: &str, way: &[&str]) -> Command {
        self.command(
            &[&["create", image, "--name", name, "--bucket", BUCKET, "--memory", "128MiB"], way].concat(),
        )
    }

    /// An Image to be replaced.
    fn stand(&self) {
        let run = finish(self.create("small", STANDING, &["--if-exists", "replace"]).spawn().unwrap());
        assert_eq!(run.code, 0, "{run:?}");
    }

    fn set_delay(&self, delay: Duration) {
        self.store.set_delay(delay);
        self.service.set_delay(delay);
    }

    fn set_broken(&self, broken: bool) {
        self.store.set_broken(broken);
        self.service.set_broken(broken);
    }

    /// Images are there or on their way while it is asked.
    fn stage(&self, child: &mut Child) -> Stage {
        let images = self.cloud.images(FOLDER);
        if child.try_wait().unwrap().is_some() {
            Stage::After
        } else if images.iter().any(|image| image.status() == Status::Creating) {
            Stage::WhileCreating
        } else if images.iter().any(|image| image.name != STANDING && !image.name.contains("-replaced-")) {
            Stage::After
        } else if !self.cloud.uploads(BUCKET).is_empty() {
            Stage::DuringUpload
        } else if !self.cloud.objects(BUCKET).is_empty() {
            Stage::BeforeCreate
        } else {
            Stage::BeforeUpload
        }
    }

    /// Waits until no operation runs.
    fn settle(&self) {
        let is_settled = |status| !matches!(status, Status::Creating | Status::Deleting);
        until("no operation runs", || {
            self.cloud.images(FOLDER).iter().all(|image| is_settled(image.status()))
        });
    }

    fn left(&self) -> Left {
        Left {
            objects: self.cloud.objects(BUCKET),
            uploads: self.cloud.uploads(BUCKET),
            images: self.cloud.images(FOLDER).into_iter().map(|image| image.name).collect(),
            files: self.files(),
        }
    }

    /// Files in the folder, but for what is known of stores.
    fn files(&self) -> BTreeSet<PathBuf> {
        let mut files = BTreeSet::new();
        list(&self.bench.path("."), &self.bench.path("cache"), &mut files);
        files
    }
}

fn list(folder: &Path, but: &Path, files: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true if path.components().eq(but.components()) => {}
            true => list(&path, but, files),
            false => drop(files.insert(path)),
        }
    }
}

/// SplitMix64: the same numbers each time.
struct Seed(u64);

impl Seed {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut at = self.0;
        at = (at ^ (at >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        at = (at ^ (at >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (at ^ (at >> 31)) % end
    }
}

/// `INTERRUPTS` in the environment says how many, `INTERRUPTS_SEED` at which times.
#[test]
fn a_create_that_is_interrupted_at_any_time_leaves_nothing() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (all, mut seed) = (number("INTERRUPTS", 4), Seed(number("INTERRUPTS_SEED", 1)));
    let line = Line::new();
    line.stand();
    let before = line.left();
    let (mut stages, mut longest) = (BTreeMap::<Stage, u32>::new(), Duration::ZERO);
    let (mut nothing_left, mut unheard, mut done, mut cut, mut told) = (0, 0, 0, 0, 0);
    let mut whole = BTreeMap::new();
    for number in 0..all {
        let (way, late) = (usize::try_from(number).unwrap() % WAYS.len(), seed.below(LATE.len() as u64));
        let name = if WAYS[way].contains(&"replace") { STANDING.to_owned() } else { format!("n{number}") };
        line.set_delay(LATE[usize::try_from(late).unwrap()]);
        // How long it takes when nobody interrupts it.
        let whole: Duration = *whole.entry((way, late)).or_insert_with(|| {
            let from = Instant::now();
            let run = finish(line.create("disk", &name, WAYS[way]).spawn().unwrap());
            assert_eq!(run.code, 0, "{run:?}");
            let took = from.elapsed();
            line.again(&name);
            assert_eq!(line.left(), before);
            took
        });
        let at = Duration::from_millis(seed.below(u64::try_from(whole.as_millis()).unwrap() * 21 / 20));
        let signal = [Signal::INT, Signal::TERM][usize::try_from(seed.below(2)).unwrap()];

        // Not of one that replaces: the name of the other would have to be given back by hand.
        let is_cut = !WAYS[way].contains(&"replace") && seed.below(3) == 0;

        let from = Instant::now();
        let mut create = line.create("disk", &name, WAYS[way]);
        if !is_cut {
            // As long as a busy machine may need. Where nothing answers it is the default that has to do.
            create.env("IMAGE_PREP_GRACE", "60s");
        }
        let mut child = create.spawn().unwrap();
        std::thread::sleep(at.saturating_sub(from.elapsed()));
        let stage = line.stage(&mut child);
        let sent = Instant::now();
        if child.try_wait().unwrap().is_none() {
            line.set_broken(is_cut);
            kill_process(Pid::from_child(&child), signal).unwrap();
        }
        let run = finish(child);
        let what = format!(
            "run {number}, {:?} at {at:?} of {whole:?}, {late}, {signal:?}, {stage}: {run:?}",
            WAYS[way]
        );
        line.set_delay(Duration::ZERO);
        line.set_broken(false);
        if run.code == 130 && is_cut {
            told += usize::from(line.is_told(&before, &run.stderr, &name, WAYS[way], &what));
            cut += 1;
            *stages.entry(stage).or_default() += 1;
            continue;
        }
        line.settle();
        match run.code {
            130 => {
                longest = longest.max(sent.elapsed());
                assert_eq!(run.stderr, "error: interrupted\n", "{what}");
                assert_eq!(line.left(), before, "{what}");
                nothing_left += 1;
            }
            // Before its handlers stand, the signal itself ends the process.
            -1 => {
                assert_eq!(line.left(), before, "{what}");
                unheard += 1;
            }
            // It was as good as done.
            0 => {
                line.again(&name);
                assert_eq!(line.left(), before, "{what}");
                done += 1;
            }
            _ => panic!("{what}"),
        }
        *stages.entry(stage).or_default() += 1;
    }
    let stages: Vec<String> = stages.iter().map(|(stage, count)| format!("{count} {stage}")).collect();
    println!(
        "{all} interrupts of `create`: {}; {nothing_left} ended with 130 and {unheard} by the signal, before the handlers stood, and nothing \
         was left; {done} were done; of {cut} the line was cut: {told} of these said what was left, and cleanup removed it; the \
         longest end of the others took {longest:?}",
        stages.join(", ")
    );
}

impl Line {
    /// After an interrupt without a line: what is left was said, and goes. False if nothing is left.
    fn is_told(&self, before: &Left, said: &str, name: &str, way: &[&str], what: &str) -> bool {
        let now = self.left();
        if now == *before && !said.contains("warning: ") {
            return false;
        }
        for key in now.objects.iter().chain(&now.uploads) {
            let is_told = match key.starts_with("image-prep/zeroes/") {
                true => said.contains(", with the zeroes that it copies"),
                false => said.contains(&format!("s3://{BUCKET}/{key} ")),
            };
            assert!(is_told, "{key} is not told of: {what}");
        }
        let is_made = now.images.contains(name);
        let may_be_made = said.contains(&format!("there may come to be an Image `{name}`"));
        assert!(
            !is_made || may_be_made || said.contains(" may still be running; `image-prep cleanup` ends it"),
            "{what}"
        );
        if may_be_made {
            // Nobody knows the operation but the service, and so who asks it for the same.
            let again = finish(self.create("disk", name, way).spawn().unwrap());
            assert_eq!(again.code, 0, "{again:?}, after {what}");
            self.again(name);
        }
        let mut cleanup = vec!["cleanup".to_owned(), "--older-than=0s".to_owned(), "--yes".to_owned()];
        let place = said.split('`').find_map(|quoted| quoted.strip_prefix("image-prep cleanup s3://"));
        cleanup.extend(place.map(|place| format!("s3://{place}")));
        let cleanup: Vec<&str> = cleanup.iter().map(String::as_str).collect();
        let cleaned = finish(self.command(&cleanup).spawn().unwrap());
        assert_eq!(cleaned.code, 0, "{cleaned:?}, after {what}");
        self.settle();
        if self.cloud.images(FOLDER).iter().any(|image| image.name == name) {
            assert!(
                cleaned.stderr.contains(&format!("there is an Image `{name}`")),
                "{cleaned:?}, after {what}"
            );
            self.again(name);
        }
        assert_eq!(self.left(), *before, "{cleaned:?}, after {what}");
        true
    }

    /// As before a create that has succeeded.
    fn again(&self, name: &str) {
        match name {
            STANDING => self.stand(),
            name => self.cloud.delete_image(FOLDER, name),
        }
        self.settle();
    }
}
