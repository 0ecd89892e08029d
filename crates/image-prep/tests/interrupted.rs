//! Ctrl-C and SIGTERM: 130 within two seconds, and what was done is taken back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "support/cloud.rs"]
mod cloud;
mod support;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use cloud::{BUCKET, Cloud, FOLDER, until};
use rustix::process::{Pid, Signal, kill_process};
use support::{Bench, MIB, finish, noise};

/// The contract, and what a busy machine may add.
const SOON: Duration = Duration::from_millis(2500);

fn large(bench: &Bench) {
    let part = noise(64 * MIB, 11);
    // Shifted, so that no two blocks are the same.
    let fills: Vec<(u64, &[u8])> = (0..8).map(|i| (i * 65 * MIB + i * 4096 + 4096, &part[..])).collect();
    bench.raw("disk", 600 * MIB, &fills);
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn ends_soon(child: Child, from: Instant) {
    let run = finish(child);
    assert_eq!(run.code, 130, "{run:?}");
    assert_eq!(run.stderr, "error: interrupted\n");
    assert!(from.elapsed() < SOON, "it took {:?}", from.elapsed());
}

fn start(mut command: Command, cloud: &Cloud) -> Child {
    cloud.tell(&mut command);
    command.spawn().unwrap()
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
        let from = Instant::now();
        signal(&child, how);
        ends_soon(child, from);
        assert!(cloud.uploads(BUCKET).is_empty() && cloud.objects(BUCKET).is_empty());
        assert!(cloud.images(FOLDER).is_empty() && bench.journals().is_empty());
    }
}

#[test]
fn during_the_ingest() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    large(&bench);
    let child = start(bench.command(["create", "disk", "--name", "n", "--bucket", BUCKET, "-v"]), &cloud);
    until("the ingest has begun", || !cloud.images(FOLDER).is_empty());
    let from = Instant::now();
    signal(&child, Signal::INT);
    let run = finish(child);
    assert_eq!(run.code, 130, "{run:?}");
    assert!(from.elapsed() < SOON, "it took {:?}", from.elapsed());
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
    let from = Instant::now();
    signal(&child, Signal::INT);
    ends_soon(child, from);
    until("the operation is over", || images() == before);
}

#[test]
fn during_a_conversion() {
    let bench = Bench::new();
    large(&bench);
    let before = bench.names();
    let child = bench.command(["convert", "disk", "out"]).spawn().unwrap();
    until("the output has begun", || bench.names() != before);
    let from = Instant::now();
    signal(&child, Signal::INT);
    let run = finish(child);
    assert!(from.elapsed() < SOON);
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
        let child = bench.command(["create", "disk", "--name", "n", "--local=state"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        let from = Instant::now();
        signal(&child, Signal::INT);
        let run = finish(child);
        assert!(from.elapsed() < SOON, "{:?} after {delay} ms", from.elapsed());
        // Before the handlers stand, the signal itself ends the process.
        assert!(matches!(run.code, 0 | 130 | -1), "after {delay} ms: {run:?}");
    }
    bench.ok(["create", "disk", "--name", "n", "--local=state"]);
    let cloud = Cloud::start(&bench.path("state"));
    assert_eq!(cloud.images("local").len(), 1);
    assert!(cloud.objects("uploads").is_empty() && cloud.uploads("uploads").is_empty());
    assert!(bench.journals().is_empty());
}
