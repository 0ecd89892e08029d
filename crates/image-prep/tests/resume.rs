//! Uploads that are killed, cut off, or find another world when they go on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "support/cloud.rs"]
mod cloud;
#[path = "support/proxy.rs"]
mod proxy;
mod support;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use cloud::{BUCKET, Cloud, until};
use proxy::Proxy;
use rustix::process::{Pid, Signal, kill_process};
use support::{Bench, MIB, Run, finish, noise};

/// Six parts, the last one short; `--memory` lets two be in flight.
const LEN: u64 = 90 * MIB;
const PARTS: u32 = 6;
const IN_FLIGHT: usize = 2;
/// How it is told that an upload goes on.
const CONTINUING: &str = "{\"note\":\"continuing the upload";

/// A disk, a store, and a wire between them.
struct Line {
    bench: Bench,
    cloud: Cloud,
    proxy: Proxy,
    _dir: Bench,
}

impl Line {
    fn new() -> Self {
        let dir = Bench::new();
        let cloud = Cloud::start_for_any_host(&dir.path("cloud"));
        Self::to(cloud, dir)
    }

    fn to(cloud: Cloud, dir: Bench) -> Self {
        let bench = Bench::new();
        let proxy = Proxy::start(cloud.store_address());
        let data = noise(LEN - 8192, 21);
        bench.raw("disk", LEN, &[(4096, &data)]);
        Self { bench, cloud, proxy, _dir: dir }
    }

    fn command(&self, key: &str, more: &[&str]) -> Command {
        let to = format!("s3://{BUCKET}/{key}");
        let args = ["upload", "disk", &to, "--to", "raw", "--memory", "32MiB", "--json"];
        let mut command = self.bench.command([&args[..], more].concat());
        self.cloud.tell_store_behind(&self.proxy.url(), &mut command);
        command
    }

    fn run(&self, key: &str, more: &[&str]) -> Run {
        finish(self.command(key, more).spawn().unwrap())
    }

    /// Starts an upload and waits until `bytes` have gone to the store, or it has ended.
    fn start_until(&self, key: &str, bytes: u64) -> Child {
        self.proxy.reset();
        let mut child = self.command(key, &[]).spawn().unwrap();
        until("bytes are sent", || self.proxy.bytes() >= bytes || child.try_wait().unwrap().is_some());
        child
    }

    /// Kills an upload when `bytes` have gone to the store. Gives the parts that were sent.
    fn kill_at(&self, key: &str, bytes: u64) -> Vec<u32> {
        let mut child = self.start_until(key, bytes);
        child.kill().unwrap();
        child.wait().unwrap();
        self.proxy.parts()
    }

    /// The object is the disk, and nothing is left beside it.
    fn is_done(&self, key: &str, run: &Run) {
        assert_eq!(run.code, 0, "{run:?}");
        assert!(self.cloud.object(BUCKET, key) == fs::read(self.bench.path("disk")).unwrap(), "{run:?}");
        assert!(self.cloud.uploads(BUCKET).is_empty(), "{run:?}");
        assert!(self.bench.journals().is_empty(), "{run:?}");
    }
}

/// Parts that were sent more than once.
fn repeated(first: &[u32], second: &[u32]) -> usize {
    (first.len() + second.len()).checked_sub(PARTS as usize).unwrap()
}

/// `KILLS` in the environment says how many; each is at a place of its own. `KILLS_STORE` names another store, that has the
/// bucket already: JSON as in the `store.json` of the embedded one.
#[test]
fn an_upload_that_is_killed_anywhere_goes_on() {
    let kills: u64 = std::env::var("KILLS").map_or(12, |kills| kills.parse().unwrap());
    let line = match std::env::var("KILLS_STORE") {
        Ok(keys) => Line::to(Cloud::of_store(serde_json::from_str(&keys).unwrap()), Bench::new()),
        Err(_) => Line::new(),
    };
    line.proxy.reset();
    line.is_done("whole", &line.run("whole", &[]));
    let all = line.proxy.bytes();
    let (mut sent_twice, mut retried, mut continued, mut done, mut cleaned) = (0, 0, 0, 0, 0);
    let (mut unread, mut seen) = (0, 0);
    for kill in 0..kills {
        let key = format!("k{kill}");
        // SplitMix64, the seed is the number.
        let mut at = (kill + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        at = (at ^ (at >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mut child = line.start_until(&key, (at >> 8) % all);
        // Also where no byte is on its way: while the store answers, and makes the object.
        std::thread::sleep(Duration::from_millis(at % 32));
        child.kill().unwrap();
        child.wait().unwrap();
        if line.bench.journals().is_empty() && line.cloud.objects(BUCKET).contains(&key) {
            done += 1;
            line.cloud.delete(BUCKET, &key);
            continue;
        }
        let (first, answered) = (line.proxy.parts(), line.proxy.answered_parts());
        assert_eq!(
            line.proxy.sent_again(),
            [0; 0],
            "{first:?} were sent and {answered:?} answered before kill {kill}"
        );
        line.proxy.reset();
        let run = line.run(&key, &[]);
        let second = line.proxy.parts();
        assert_eq!(line.proxy.sent_again(), [0; 0], "{second:?} were sent after kill {kill}: {run:?}");
        // Who was killed may not have read the last answers, as many as were in flight. It has read those before them.
        let read = &answered[..answered.len().saturating_sub(IN_FLIGHT)];
        assert!(
            !read.iter().any(|part| second.contains(part)),
            "{answered:?}, {second:?}, kill {kill}: {run:?}"
        );
        // On a machine that is slow enough an attempt times out and is made anew: that is a part in flight, and is counted apart.
        let distinct = |parts: &[u32]| BTreeSet::from_iter(parts.iter().copied());
        let twice = distinct(&first).intersection(&distinct(&second)).count();
        assert!(twice <= IN_FLIGHT, "{first:?} and {second:?} were sent, kill {kill} between: {run:?}");
        sent_twice += twice;
        unread += answered.iter().filter(|part| second.contains(part)).count();
        seen += answered.len() + line.proxy.answered_parts().len();
        retried += repeated(&first, &second) - twice;
        continued += usize::from(run.stderr.contains("continuing") || run.stderr.contains("whole already"));
        // Between the store's answer and the first line of the journal nobody knows of an upload but the store.
        if !line.cloud.uploads(BUCKET).is_empty() {
            let place = format!("s3://{BUCKET}/{key}");
            let mut cleanup = line.bench.command(["cleanup", &place, "--older-than", "0s", "--yes"]);
            line.cloud.tell_store_behind(&line.proxy.url(), &mut cleanup);
            assert_eq!(finish(cleanup.spawn().unwrap()).code, 0);
            cleaned += 1;
        }
        line.is_done(&key, &run);
        line.cloud.delete(BUCKET, &key);
    }
    assert_eq!((line.cloud.objects(BUCKET), line.cloud.uploads(BUCKET)), (vec!["whole".to_owned()], vec![]));
    println!(
        "{kills} kills, {done} too late, {continued} continued; every object the same bytes; {sent_twice} parts sent twice, at most \
         {IN_FLIGHT} each time; of {seen} parts that were answered {unread} were sent again, their answers unread at the kill; {retried} \
         attempts made anew; {cleaned} uploads for cleanup to find, none left"
    );
    // What is not seen to be answered is not seen to be sent again; those in flight may be answered when nobody is there any more.
    let least = (PARTS as usize - IN_FLIGHT) * (usize::try_from(kills).unwrap() - done);
    assert!(seen >= least, "{seen} answers are seen, expected {least}");
    assert!(continued * 4 > usize::try_from(kills).unwrap(), "kills in the middle are continued");
}

#[test]
fn a_network_that_went_away_is_told_and_continued() {
    let line = Line::new();
    let child = line.start_until("k", LEN / 2);
    line.proxy.set_broken(true);
    let run = finish(child);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("broke off"), "{run:?}");
    assert!(run.stderr.contains("\"hint\":\"run the same command again to continue"), "{run:?}");
    assert!(!run.stderr.contains("SECRET") && run.stdout.is_empty(), "{run:?}");
    assert_eq!((line.cloud.uploads(BUCKET), line.bench.journals().len()), (vec!["k".to_owned()], 1));
    let text = fs::read_to_string(&line.bench.journals()[0]).unwrap();
    assert!(text.contains("uploadId") && !text.contains("Signature"), "{text}");

    line.proxy.set_broken(false);
    let first = line.proxy.parts();
    line.proxy.reset();
    let run = line.run("k", &[]);
    // Each of those in flight was tried again and again.
    let again: Vec<_> = line.proxy.parts().into_iter().filter(|part| first.contains(part)).collect();
    assert!(again.len() <= IN_FLIGHT && run.stderr.starts_with(CONTINUING), "{again:?} {run:?}");
    line.is_done("k", &run);
}

#[test]
fn a_torn_journal_is_used_as_far_as_it_is_whole() {
    let line = Line::new();
    let first = line.kill_at("k", LEN * 3 / 4);
    let [journal] = &line.bench.journals()[..] else { panic!("one journal") };
    support::truncate(journal, fs::metadata(journal).unwrap().len() - 3);
    line.proxy.reset();
    let run = line.run("k", &[]);
    assert!(run.stderr.starts_with(CONTINUING), "{run:?}");
    assert!(repeated(&first, &line.proxy.parts()) <= IN_FLIGHT + 1, "one part is torn off");
    line.is_done("k", &run);

    // Without a whole line there is nothing to go on from.
    line.kill_at("other", LEN / 2);
    let [journal] = &line.bench.journals()[..] else { panic!("one journal") };
    support::truncate(journal, 100);
    let run = line.run("other", &[]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    line.cloud.abort_uploads(BUCKET);
    line.is_done("other", &run);
}

#[test]
fn a_changed_source_starts_over() {
    let line = Line::new();
    line.kill_at("k", LEN / 2);
    let disk = fs::File::options().write(true).open(line.bench.path("disk")).unwrap();
    disk.write_all_at(b"changed", 70 * MIB).unwrap();
    drop(disk);
    line.proxy.reset();
    let run = line.run("k", &[]);
    assert!(
        run.stderr.starts_with("{\"warning\":") && run.stderr.contains("`disk` has changed since"),
        "{run:?}"
    );
    assert_eq!(line.proxy.parts().len(), PARTS as usize);
    line.is_done("k", &run);

    // Another time is not another content.
    line.kill_at("k2", LEN / 2);
    let now = fs::FileTimes::new().set_modified(std::time::SystemTime::now());
    fs::File::options().write(true).open(line.bench.path("disk")).unwrap().set_times(now).unwrap();
    let run = line.run("k2", &[]);
    assert!(run.stderr.starts_with(CONTINUING), "{run:?}");
    line.is_done("k2", &run);
}

#[test]
fn an_upload_that_the_store_forgot_starts_over() {
    let line = Line::new();
    line.kill_at("k", LEN / 2);
    line.cloud.abort_uploads(BUCKET);
    let run = line.run("k", &[]);
    assert!(run.stderr.contains("starts over: the store does not know it any more"), "{run:?}");
    line.is_done("k", &run);
}

#[test]
fn another_form_starts_over() {
    let line = Line::new();
    line.kill_at("k", LEN / 2);
    let run = line.run("k", &["--no-resume"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert_eq!(line.cloud.uploads(BUCKET), ["k"], "--no-resume leaves alone what is to be resumed");
    let mut command = line.bench.command(["upload", "disk", &format!("s3://{BUCKET}/k"), "--to", "qcow2"]);
    line.cloud.tell_store_behind(&line.proxy.url(), &mut command);
    let run = finish(command.spawn().unwrap());
    assert!(run.code == 0 && run.stderr.contains("in another way"), "{run:?}");
    assert!(line.cloud.uploads(BUCKET).is_empty() && line.bench.journals().is_empty());
}

#[test]
fn one_process_at_a_time_uploads_to_a_key() {
    let line = Line::new();
    let child = line.start_until("k", LEN / 4);
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::STOP).unwrap();
    let run = line.run("k", &[]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("another process is uploading to `s3://test-uploads/k`"), "{run:?}");
    kill_process(pid, Signal::CONT).unwrap();
    line.is_done("k", &finish(child));
}

#[test]
fn without_a_journal_it_goes_on_all_the_same() {
    let line = Line::new();
    // Where a folder should be is a file.
    let mut command = line.command("k", &[]);
    let run = finish(command.env("XDG_STATE_HOME", line.bench.path("disk")).spawn().unwrap());
    assert!(
        run.stderr.contains("{\"warning\":\"if this upload breaks off, it cannot be continued"),
        "{run:?}"
    );
    line.is_done("k", &run);
    let mut command = line.command("k", &[]);
    let run = finish(command.env_remove("XDG_STATE_HOME").env_remove("HOME").spawn().unwrap());
    assert!(run.stderr.contains("neither XDG_STATE_HOME nor HOME is set"), "{run:?}");
    line.is_done("k", &run);

    // A full disk.
    line.kill_at("k", LEN / 2);
    let [journal] = &line.bench.journals()[..] else { panic!("one journal") };
    fs::remove_file(journal).unwrap();
    std::os::unix::fs::symlink("/dev/full", journal).unwrap();
    line.cloud.abort_uploads(BUCKET);
    let run = line.run("k", &[]);
    assert!(run.stderr.contains("its journal cannot be written"), "{run:?}");
    assert_eq!(run.stderr.matches("{\"warning\":").count(), 1, "{run:?}");
    line.is_done("k", &run);
}

#[test]
fn no_resume_makes_no_journal() {
    let line = Line::new();
    line.proxy.reset();
    let mut child = line.command("k", &["--no-resume"]).spawn().unwrap();
    until("bytes are sent", || line.proxy.bytes() > LEN / 2);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.bench.journals().is_empty());
    line.proxy.reset();
    let run = line.run("k", &[]);
    assert_eq!((run.stderr.as_str(), line.proxy.parts().len()), ("", PARTS as usize));
    line.cloud.abort_uploads(BUCKET);
    line.is_done("k", &run);
}

/// Its length is not known beforehand, and neither is what any part holds.
#[test]
fn a_compressed_upload_goes_on() {
    let line = Line::new();
    for (key, how) in [("q", "--compress"), ("v", "--to=vmdk"), ("g", "--to=gce")] {
        let upload = || {
            let to = format!("s3://{BUCKET}/{key}");
            let mut command = line.bench.command(["upload", "disk", &to, how, "--memory", "96MiB"]);
            line.cloud.tell_store_behind(&line.proxy.url(), &mut command);
            command.spawn().unwrap()
        };
        line.proxy.reset();
        let mut child = upload();
        // Of what is in flight nothing is kept: on a busy machine that may be all of it for long.
        let is_kept = |path: &PathBuf| {
            fs::read(path).is_ok_and(|text| String::from_utf8_lossy(&text).contains("\"record\":\"part\""))
        };
        until("a part is kept", || {
            line.proxy.bytes() >= LEN / 2 && line.bench.journals().iter().any(is_kept)
        });
        child.kill().unwrap();
        child.wait().unwrap();
        let first = line.proxy.parts();
        line.proxy.reset();
        let run = finish(upload());
        let again = line.proxy.parts().iter().filter(|part| first.contains(part)).count();
        assert!(again < first.len(), "{first:?} {:?}", line.proxy.parts());
        assert!(run.code == 0 && run.stderr.starts_with("continuing the upload"), "{run:?}");
        let to = if how == "--compress" { "--to=qcow2" } else { "--quiet" };
        line.bench.ok(["convert", "disk", "packed", to, how]);
        assert!(line.cloud.object(BUCKET, key) == fs::read(line.bench.path("packed")).unwrap(), "{run:?}");
        assert!(line.cloud.uploads(BUCKET).is_empty() && line.bench.journals().is_empty());
    }
}

/// `cleanup` removes what `create` made for itself, and not what `upload` made of what `create` had begun.
#[test]
fn an_upload_of_what_create_began_is_not_temporary() {
    let line = Line::new();
    let args = ["create", "disk", "--name", "n", "--bucket", BUCKET, "--key", "k", "--to", "raw"];
    let mut create = line.bench.command([&args[..], &["--memory", "32MiB"]].concat());
    line.cloud.tell(&mut create);
    line.cloud.tell_store_behind(&line.proxy.url(), &mut create);
    line.proxy.reset();
    let mut create = create.spawn().unwrap();
    until("bytes are sent", || line.proxy.bytes() >= LEN / 2);
    create.kill().unwrap();
    create.wait().unwrap();
    let journal = || fs::read_to_string(&line.bench.journals()[0]).unwrap();
    assert!(journal().contains("\"temporary\":true"));
    let mut upload = line.command("k", &[]).spawn().unwrap();
    until("it is noted", || journal().contains("\"kept\""));
    upload.kill().unwrap();
    upload.wait().unwrap();
    let run = line.run("k", &[]);
    assert!(run.stderr.starts_with(CONTINUING), "{run:?}");
    line.is_done("k", &run);
}

#[test]
fn create_goes_on_too_and_leaves_nothing() {
    let line = Line::new();
    let create = |name: &str| {
        let args = ["create", "disk", "--name", name, "--bucket", BUCKET, "--to", "raw", "--memory", "32MiB"];
        let mut command = line.bench.command(args);
        line.cloud.tell(&mut command);
        line.cloud.tell_store_behind(&line.proxy.url(), &mut command);
        command.spawn().unwrap()
    };
    let kill_at = |name: &str, bytes| {
        line.proxy.reset();
        let mut child = create(name);
        until("bytes are sent", || line.proxy.bytes() >= bytes);
        child.kill().unwrap();
        child.wait().unwrap();
        line.proxy.parts()
    };
    let first = kill_at("n", LEN / 2);
    line.proxy.reset();
    let run = finish(create("n"));
    assert!(run.code == 0 && run.stderr.starts_with("continuing the upload"), "{run:?}");
    assert!(repeated(&first, &line.proxy.parts()) <= IN_FLIGHT);
    assert!(line.cloud.objects(BUCKET).is_empty() && line.cloud.uploads(BUCKET).is_empty());
    assert!(line.bench.journals().is_empty());

    // Ctrl-C takes back what an earlier run began, too.
    kill_at("m", LEN / 2);
    line.proxy.reset();
    let child = create("m");
    until("it goes on", || !line.proxy.parts().is_empty());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let run = finish(child);
    assert_eq!(run.code, 130, "{run:?}");
    assert!(line.cloud.uploads(BUCKET).is_empty() && line.cloud.objects(BUCKET).is_empty());
    assert!(line.bench.journals().is_empty());
}
