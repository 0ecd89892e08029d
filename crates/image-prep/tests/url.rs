//! IMAGE as a URL: read by ranges, and never printed with its query.

mod support;
use std::fs;

use support::http::{Behaviour, Server};
use support::{Bench, MIB, noise};

#[test]
fn an_image_behind_a_url_is_an_image() {
    let bench = Bench::new();
    bench.raw("disk", 16 * MIB, &[(MIB, &noise(9 * MIB, 2))]);
    let server = Server::start(fs::read(bench.path("disk")).unwrap(), Behaviour::Serves);
    let run = bench.ok(["info", "--json", server.url()]);
    assert_eq!(run.json()["virtualSize"], 16 * MIB);
    assert!(!run.stdout.contains("SECRET"), "{run:?}");
    bench.ok(["convert", server.url(), "out"]);
    assert!(fs::read(bench.path("out")).unwrap() == fs::read(bench.path("disk")).unwrap());
    bench.ok(["compare", "disk", server.url()]);
}

#[test]
fn what_a_server_refuses_is_one_error() {
    let bench = Bench::new();
    for (status, text) in [(403, "denied"), (404, "not found"), (500, "unavailable")] {
        let server = Server::start(vec![1; 100_000], Behaviour::Status(status));
        let run = bench.fails(1, ["convert", server.url(), "out"]);
        assert!(run.stderr.contains(text), "{status}: {run:?}");
        assert!(!run.stderr.contains("SECRET"), "{run:?}");
    }
    assert!(bench.names().is_empty());
}

#[test]
fn an_object_that_changes_is_an_error() {
    let bench = Bench::new();
    bench.raw("disk", 64 * MIB, &[(MIB, &noise(60 * MIB, 2))]);
    let server = Server::start(fs::read(bench.path("disk")).unwrap(), Behaviour::ChangesAfter(3));
    let run = bench.fails(1, ["convert", server.url(), "out"]);
    assert!(run.stderr.contains("changed while it was read"), "{run:?}");
    assert!(!run.stderr.contains("SECRET"), "{run:?}");
    assert_eq!(bench.names(), ["disk"]);
}

#[test]
fn plain_http_stays_on_this_machine() {
    let bench = Bench::new();
    let run = bench.fails(2, ["info", "http://192.0.2.1/disk?X-Amz-Signature=SECRET"]);
    assert!(run.stderr.contains("--allow-http") && !run.stderr.contains("SECRET"), "{run:?}");
    let run = bench.fails(2, ["info", "s3://bucket/key"]);
    assert!(run.stderr.contains("hint: "), "{run:?}");
}
