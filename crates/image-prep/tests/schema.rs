//! The schemas: one for each output, and each refuses what is none. That every test's JSON is as they say, `support/schema.rs` sees to.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod support;
use serde_json::{Value, json};
use support::schema::Described;
use support::{Bench, MIB, noise};

#[test]
fn each_output_has_one() {
    let bench = Bench::new();
    let described = Described::get();
    let names: Vec<_> = described.names().collect();
    let all = [
        "cleanup",
        "compare",
        "convert",
        "create",
        "doctor",
        "info",
        "map",
        "message",
        "operation",
        "upload",
    ];
    assert_eq!(names, all);
    for name in names {
        let schema = bench.ok(["schema", name]).json();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{name}");
        assert!(
            described.check(name, &json!({ "nothing": 1 })).is_err()
                && described.check(name, &json!("text")).is_err()
        );
    }
    // What another command prints is refused too.
    bench.sample();
    let info = bench.ok(["info", "sample.raw", "--json"]).json();
    assert!(described.check("compare", &info).is_err() && described.check("upload", &info).is_err());
}

#[test]
fn a_field_that_is_missing_or_of_another_type_is_found() {
    let bench = Bench::new();
    bench.sample();
    let described = Described::get();
    let info = bench.ok(["info", "sample.raw", "--digest", "--json"]).json();
    let with = |place: &str, value: Value| {
        let mut other = info.clone();
        *other.pointer_mut(place).unwrap() = value;
        other
    };
    for place in ["/virtualSize", "/guestDigest", "/counters/reading/bytesRead", "/guest/readiness/0/point"] {
        assert!(described.check("info", &with(place, json!([]))).is_err(), "{place}");
    }
    let mut other = info.clone();
    other.as_object_mut().unwrap().remove("minDiskSize").unwrap();
    assert!(described.check("info", &other).is_err());
}

/// What commands print that other tests ask nobody for.
#[test]
fn results_and_messages_of_one_machine() {
    let bench = Bench::new();
    bench.sample();
    bench.raw("odd", 3 * MIB + 100, &[(MIB, &noise(5000, 1))]);
    bench.ok(["convert", "sample.raw", "q", "--to", "qcow2", "--json"]);
    bench.ok(["convert", "sample.raw", "v", "--to", "vmdk", "--json"]);
    for image in ["sample.raw", "odd", "q", "v"] {
        bench.ok(["info", image, "--json", "--check", "--digest"]);
        bench.ok(["map", image, "--json"]);
    }
    bench.ok(["compare", "q", "v", "--json"]);
    assert_eq!(bench.run(["compare", "q", "odd", "--json"]).code, 1);
    assert_eq!(bench.run(["compare", "q", "missing", "--json"]).code, 2);
    let failed = bench.run(["info", "missing", "--json"]);
    let message: Value = serde_json::from_str(&failed.stderr).unwrap();
    assert_eq!((failed.code, &message["error"]["exitCode"]), (1, &json!(1)));
    bench.ok(["upload", "q", "s3://bucket/key", "--dry-run", "--json"]);
    let created = bench.ok(["create", "q", "--name", "n", "--local=state", "--json"]).json();
    bench.ok(["operation", "get", created["id"].as_str().unwrap(), "--local=state", "--json"]);
    bench.ok(["create", "q", "--name", "n", "--local=state", "--dry-run", "--json"]);
    bench.ok(["upload", "q", "s3://bucket/key", "--local=state", "--json"]);
    bench.ok(["doctor", "--local=state", "--json"]);
    bench.ok(["cleanup", "--local=state", "--older-than", "0s", "--yes", "--json"]);
}
