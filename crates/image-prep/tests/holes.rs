//! Holes of a raw object: copied in the store instead of sent, and nothing is left of what they were copied from.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "support/cloud.rs"]
mod cloud;
#[path = "support/proxy.rs"]
mod proxy;
mod support;
use std::fs;
use std::process::{Child, Command};

use cloud::{BUCKET, Cloud, until};
use proxy::Proxy;
use support::{Bench, MIB, Run, finish, noise};

const PART: u64 = 16 * MIB;
/// Two parts with data, one of them the last, which is short; all others are holes.
const LEN: u64 = 24 * PART + 512;
const HOLES: u64 = 23;

struct Line {
    bench: Bench,
    cloud: Cloud,
    proxy: Proxy,
    _dir: Bench,
}

impl Line {
    fn new() -> Self {
        let (bench, dir) = (Bench::new(), Bench::new());
        let cloud = Cloud::start_for_any_host(&dir.path("cloud"));
        let proxy = Proxy::start(cloud.store_address());
        bench.raw("disk", LEN, &[(4096, &noise(PART - 4096, 5)), (24 * PART, &[7; 512])]);
        Self { bench, cloud, proxy, _dir: dir }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.bench.command(args);
        self.cloud.tell_store_behind(&self.proxy.url(), &mut command);
        command
    }

    fn upload(&self, more: &[&str]) -> Child {
        let to = format!("s3://{BUCKET}/k");
        let args = ["upload", "disk", &to, "--to", "raw", "--memory", "64MiB", "--json"];
        self.command(&[&args[..], more].concat()).spawn().unwrap()
    }

    fn cleanup(&self, more: &[&str]) -> Run {
        let args = ["cleanup", "--older-than", "0s", "--yes", "--json"];
        let run = finish(self.command(&[&args[..], more].concat()).spawn().unwrap());
        assert_eq!(run.code, 0, "{run:?}");
        run
    }

    /// Kills an upload when the zeroes are there, but not all that is copied from them.
    fn kill(&self) {
        self.proxy.reset();
        let mut child = self.upload(&["--limit-rate", "16MiB"]);
        until("parts are copied", || self.journalled() > 2);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((self.zeroes(), self.cloud.uploads(BUCKET).len()), (1, 1));
    }

    /// Lines of the journal.
    fn journalled(&self) -> usize {
        let text = self.bench.journals().first().and_then(|path| fs::read_to_string(path).ok());
        text.map_or(0, |text| text.lines().count())
    }

    fn zeroes(&self) -> usize {
        self.cloud.objects(BUCKET).iter().filter(|key| key.starts_with("image-prep/zeroes/")).count()
    }

    /// The object is the disk, and nothing is left beside it.
    fn is_done(&self, run: &Run) {
        assert_eq!(run.code, 0, "{run:?}");
        assert_eq!(self.cloud.objects(BUCKET), ["k"]);
        assert!(self.cloud.object(BUCKET, "k") == fs::read(self.bench.path("disk")).unwrap(), "{run:?}");
        assert!(self.cloud.uploads(BUCKET).is_empty() && self.bench.journals().is_empty(), "{run:?}");
    }
}

#[test]
fn holes_are_not_sent() {
    let line = Line::new();
    let run = finish(line.upload(&[]));
    line.is_done(&run);
    // Each part once; of bytes the data, one part of zeroes, and the heads of requests.
    assert_eq!(line.proxy.parts(), (1..=25).collect::<Vec<_>>());
    let data = PART + 512;
    assert!(line.proxy.bytes() <= data + PART + 256 * 1024, "{} bytes went to the store", line.proxy.bytes());

    // As they were before, where the store cannot copy.
    line.proxy.reset();
    let run = finish(line.upload(&["--store-profile", "part-copy=no"]));
    line.is_done(&run);
    assert!(line.proxy.bytes() > data + HOLES * PART, "{} bytes went to the store", line.proxy.bytes());
}

#[test]
fn an_upload_that_is_killed_goes_on_and_leaves_no_zeroes() {
    let line = Line::new();
    line.kill();
    let first = line.proxy.parts();
    line.proxy.reset();
    let run = finish(line.upload(&[]));
    assert!(run.stderr.starts_with("{\"note\":\"continuing the upload"), "{run:?}");
    let again = line.proxy.parts().iter().filter(|part| first.contains(part)).count();
    assert!(again < first.len(), "{first:?} {:?}", line.proxy.parts());
    line.is_done(&run);

    // One that starts over, too: what it had was for another disk.
    line.kill();
    line.bench.raw("disk", LEN, &[(4096, &noise(PART - 4096, 6))]);
    let run = finish(line.upload(&[]));
    assert!(run.stderr.contains("has changed since"), "{run:?}");
    line.is_done(&run);
}

#[test]
fn cleanup_removes_zeroes_with_their_upload_and_those_without() {
    let line = Line::new();
    line.kill();
    line.cleanup(&[]);
    assert!(line.cloud.objects(BUCKET).is_empty() && line.cloud.uploads(BUCKET).is_empty());

    // Without a journal, and where only the zeroes are left.
    for uploads_too in [false, true] {
        line.kill();
        fs::remove_dir_all(line.bench.path("data/state")).unwrap();
        if uploads_too {
            line.cloud.abort_uploads(BUCKET);
        }
        let place = format!("s3://{BUCKET}/other/");
        line.cleanup(&[&place]);
        // Those of an upload that is there may be in use: beneath `k` is nothing that is ours to abort.
        line.cleanup(&["--bucket", BUCKET]);
        assert_eq!(line.zeroes(), usize::from(!uploads_too));
        let place = format!("s3://{BUCKET}/k");
        line.cleanup(&[&place]);
        assert!(line.cloud.objects(BUCKET).is_empty() && line.cloud.uploads(BUCKET).is_empty());
    }
}

#[test]
fn what_is_taken_back_leaves_no_zeroes() {
    let line = Line::new();
    let child = line.upload(&["--limit-rate", "16MiB"]);
    until("the zeroes are there", || line.zeroes() == 1);
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .unwrap();
    let run = finish(child);
    assert_eq!(run.code, 130, "{run:?}");
    assert!(line.cloud.objects(BUCKET).is_empty() && line.cloud.uploads(BUCKET).is_empty(), "{run:?}");
}
