//! Operations that are not waited for, and URLs that no operation should be begun with.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "support/cloud.rs"]
mod cloud;
mod support;
use std::fs;

use cloud::{BUCKET, Cloud, FOLDER, until};
use support::http::{Behaviour, Server};
use support::{Bench, MIB, Run, finish, noise};

fn run(bench: &Bench, cloud: &Cloud, args: &[&str]) -> Run {
    let mut command = bench.command(args);
    cloud.tell(&mut command);
    finish(command.spawn().unwrap())
}

/// Operations that are noted.
fn notes(bench: &Bench) -> Vec<String> {
    let Ok(entries) = fs::read_dir(bench.path("data/state/image-prep/operations")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn what_was_begun_is_found_another_day() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    bench.sample();
    bench.raw("other", MIB, &[]);
    for (image, name) in [("sample.raw", "one"), ("other", "two")] {
        let args = ["create", image, "--name", name, "--bucket", BUCKET, "--detach"];
        let begun = run(&bench, &cloud, &args);
        assert_eq!(begun.code, 0, "{begun:?}");
    }
    assert_eq!((cloud.objects(BUCKET).len(), bench.journals().len()), (2, 2));
    assert_eq!(notes(&bench).len(), 2);
    let note = fs::read_to_string(bench.path("data/state/image-prep/operations").join(&notes(&bench)[0]));
    assert!(!note.unwrap().contains("X-Amz"), "no signature is kept");
    // Another service has none of them.
    let elsewhere = ["operation", "wait", "--endpoint", "http://127.0.0.1:1"];
    let none = run(&bench, &cloud, &elsewhere);
    assert!(none.code == 0 && none.stderr.contains("no operation of this service"), "{none:?}");
    let done = run(&bench, &cloud, &["operation", "wait", "--json"]);
    assert_eq!((done.code, done.stdout.matches("\"status\":\"READY\"").count()), (0, 2), "{done:?}");
    assert!(cloud.objects(BUCKET).is_empty() && bench.journals().is_empty() && notes(&bench).is_empty());
    assert_eq!(cloud.images(FOLDER).len(), 2);
    let local = bench.fails(2, ["operation", "wait", "--local"]);
    assert!(local.stderr.contains("has to be named"), "{local:?}");
}

#[test]
fn what_was_put_in_the_place_of_an_object_stays() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    bench.sample();
    let args =
        ["create", "sample.raw", "--name", "n", "--bucket", BUCKET, "--key", "k", "--detach", "--json"];
    let begun = run(&bench, &cloud, &args);
    let id = begun.json()["id"].as_str().unwrap().to_owned();
    let ready = || run(&bench, &cloud, &["operation", "get", &id, "--json"]).json()["done"] == true;
    until("the operation is done", ready);
    cloud.put(BUCKET, "k", b"somebody else's");
    assert_eq!(run(&bench, &cloud, &["operation", "wait", &id]).code, 0);
    assert_eq!(cloud.object(BUCKET, "k"), b"somebody else's");
    assert!(notes(&bench).is_empty());
}

#[test]
fn a_kill_leaves_a_note() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    let part = noise(64 * MIB, 5);
    let fills: Vec<(u64, &[u8])> = (0..4).map(|i| (i * 65 * MIB + i * 4096 + 4096, &part[..])).collect();
    bench.raw("disk", 300 * MIB, &fills);
    let mut command = bench.command(["create", "disk", "--name", "n", "--bucket", BUCKET]);
    cloud.tell(&mut command);
    let mut child = command.spawn().unwrap();
    until("the operation is noted", || notes(&bench).iter().any(|name| name.ends_with(".json")));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(run(&bench, &cloud, &["operation", "wait"]).code, 0);
    assert!(cloud.objects(BUCKET).is_empty() && bench.journals().is_empty() && notes(&bench).is_empty());
}

#[test]
fn a_url_that_is_of_no_use_begins_nothing() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start_for_any_host(&dir.path("cloud"));
    let create = |url: &str| run(&bench, &cloud, &["create", "--uri", url, "--name", "n"]);
    let gone = create(Server::start(vec![0; 512], Behaviour::Status(404)).url());
    assert_eq!(gone.code, 1, "{gone:?}");
    assert!(gone.stderr.contains("not found") && gone.stderr.contains("hint: there is nothing"), "{gone:?}");
    let server = Server::start(vec![0; 512], Behaviour::Serves);
    let (base, _) = server.url().split_once('?').unwrap();
    let old = "X-Amz-Date=20200101T000000Z&X-Amz-Expires=60&X-Amz-Signature=SECRET";
    let expired = create(&format!("{base}?{old}"));
    assert_eq!(expired.code, 1, "{expired:?}");
    assert!(expired.stderr.contains("expired") && expired.stderr.contains("hint: sign"), "{expired:?}");
    assert!(cloud.images(FOLDER).is_empty());
    // Its host may let the service in: that is for the service to say.
    let denied = create(Server::start(vec![0; 512], Behaviour::Status(403)).url());
    assert_eq!(denied.code, 4, "{denied:?}");
    assert!(denied.stderr.starts_with("warning: the image service may not be able"), "{denied:?}");
    for run in [gone, expired, denied] {
        assert!(!run.stderr.contains("SECRET"), "{run:?}");
    }
}
