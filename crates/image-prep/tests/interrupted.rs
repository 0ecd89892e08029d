//! Ctrl-C and SIGTERM: 130, and what was done is taken back. The time for that is as long as a busy machine needs, but where it
//! must run out.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "support/cloud.rs"]
mod cloud;
#[path = "support/proxy.rs"]
mod proxy;
mod support;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use cloud::{BUCKET, Cloud, FOLDER, until};
use proxy::Proxy;
use rustix::process::{Pid, Signal, kill_process};
use support::{Bench, MIB, finish, noise};

fn large(bench: &Bench) {
    let part = noise(64 * MIB, 11);
    // Shifted, so that no two blocks are the same.
    let fills: Vec<(u64, &[u8])> = (0..8).map(|i| (i * 65 * MIB + i * 4096 + 4096, &part[..])).collect();
    bench.raw("disk", 600 * MIB, &fills);
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn ends(child: Child) {
    let run = finish(child);
    assert_eq!(run.code, 130, "{run:?}");
    assert_eq!(run.stderr, "error: interrupted\n");
}

fn start(mut command: Command, cloud: &Cloud) -> Child {
    cloud.tell(&mut command);
    patient(&mut command).spawn().unwrap()
}

fn patient(command: &mut Command) -> &mut Command {
    command.env("IMAGE_PREP_GRACE", "60s")
}

#[test]
fn during_the_upload() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    large(&bench);
    let to = format!("s3://{BUCKET}/k");
    let create = ["create", "disk", "--name", "n", "--bucket", BUCKET];
    let upload = ["upload", "disk", &to, "--to", "raw"];
    let cases = [
        (Signal::INT, &create[..]),
        (Signal::TERM, &create),
        (Signal::INT, &upload),
        (Signal::TERM, &upload),
    ];
    for (how, args) in cases {
        let child = start(bench.command(args), &cloud);
        until("the upload has begun", || !cloud.uploads(BUCKET).is_empty());
        signal(&child, how);
        ends(child);
        assert!(cloud.uploads(BUCKET).is_empty() && cloud.objects(BUCKET).is_empty());
        assert!(cloud.images(FOLDER).is_empty() && bench.journals().is_empty());
    }
}

/// The line is gone as well: nothing can be taken back, and nobody waits for it longer than the grace.
#[test]
fn without_the_store() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start_for_any_host(&dir.path("cloud"));
    let proxy = Proxy::start(cloud.store_address());
    large(&bench);
    let run = |args: &[&str]| {
        let mut command = bench.command(args);
        cloud.tell_store_behind(&proxy.url(), &mut command);
        command.spawn().unwrap()
    };
    let child = run(&["upload", "disk", &format!("s3://{BUCKET}/k"), "--to", "raw"]);
    until("parts are sent", || proxy.bytes() > 20 * MIB);
    proxy.set_broken(true);
    let from = Instant::now();
    signal(&child, Signal::INT);
    let interrupted = finish(child);
    assert_eq!(interrupted.code, 130, "{interrupted:?}");
    assert!(from.elapsed() < Duration::from_secs(30), "it took {:?}", from.elapsed());

    proxy.set_broken(false);
    assert_eq!(cloud.uploads(BUCKET).len(), 1);
    let cleaned = finish(run(&["cleanup", "--older-than", "0s", "--yes"]));
    assert_eq!(cleaned.code, 0, "{cleaned:?}");
    assert!(cloud.uploads(BUCKET).is_empty() && bench.journals().is_empty(), "{cleaned:?}");
}

#[test]
fn during_the_ingest() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    large(&bench);
    let child = start(bench.command(["create", "disk", "--name", "n", "--bucket", BUCKET, "-v"]), &cloud);
    until("the ingest has begun", || !cloud.images(FOLDER).is_empty());
    signal(&child, Signal::INT);
    let run = finish(child);
    assert_eq!(run.code, 130, "{run:?}");
    assert!(cloud.objects(BUCKET).is_empty() && bench.journals().is_empty());

    let (_, id) = run.stderr.split_once("operation ").unwrap();
    let id = id.split_whitespace().next().unwrap();
    let get = || finish(start(bench.command(["operation", "get", id, "--json"]), &cloud)).json();
    until("the operation is over", || get()["done"] == true);
    // 1 is CANCELLED.
    assert_eq!(get()["error"]["code"], 1, "{}", get());
    assert!(cloud.images(FOLDER).is_empty());
}

#[test]
fn what_was_to_be_replaced_has_its_name_back() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    bench.raw("small", MIB, &[]);
    large(&bench);
    let create = |image: &str| {
        bench.command(["create", image, "--name", "n", "--bucket", BUCKET, "--if-exists", "replace"])
    };
    assert_eq!(finish(start(create("small"), &cloud)).code, 0);
    let images = || cloud.images(FOLDER).into_iter().map(|image| (image.name, image.id)).collect::<Vec<_>>();
    let before = images();
    let child = start(create("disk"), &cloud);
    until("the ingest has begun", || images().len() == 2);
    signal(&child, Signal::INT);
    ends(child);
    until("the operation is over", || images() == before);
}

#[test]
fn during_a_conversion() {
    let bench = Bench::new();
    large(&bench);
    let before = bench.names();
    let child = patient(&mut bench.command(["convert", "disk", "out"])).spawn().unwrap();
    until("the output has begun", || bench.names() != before);
    signal(&child, Signal::INT);
    let run = finish(child);
    // A conversion that was all but done may have won.
    assert!(matches!(run.code, 0 | 130), "{run:?}");
    if run.code == 130 {
        assert_eq!(bench.names(), before);
    }
}

#[test]
fn local_at_any_moment_and_then_again() {
    let bench = Bench::new();
    large(&bench);
    for delay in [20, 300, 900, 1500, 2500] {
        let mut create = bench.command(["create", "disk", "--name", "n", "--local=state"]);
        let child = patient(&mut create).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        signal(&child, Signal::INT);
        let run = finish(child);
        // Before the handlers stand, the signal itself ends the process.
        assert!(matches!(run.code, 0 | 130 | -1), "after {delay} ms: {run:?}");
    }
    bench.ok(["create", "disk", "--name", "n", "--local=state"]);
    let cloud = Cloud::start(&bench.path("state"));
    assert_eq!(cloud.images("local").len(), 1);
    assert!(cloud.objects("uploads").is_empty() && cloud.uploads("uploads").is_empty());
    assert!(bench.journals().is_empty());
}
