//! `doctor`: each step as it is, and nothing left behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "support/cloud.rs"]
mod cloud;
mod support;

use std::ffi::OsStr;

use cloud::{BUCKET, Cloud, FOLDER};
use serde_json::Value;
use support::schema::conforms;
use support::{Bench, Run, finish};

fn doctor(bench: &Bench, cloud: &Cloud, args: &[&str], variables: &[(&str, &str)]) -> Run {
    let args = [&["doctor"], args].concat();
    let mut command = bench.command(&args);
    cloud.tell(&mut command);
    for (name, value) in variables {
        command.env(name, value);
    }
    let run = finish(command.spawn().unwrap());
    conforms(&args.iter().map(OsStr::new).collect::<Vec<_>>(), &run);
    run
}

/// Steps and results, in order.
fn steps(run: &Run) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let line = |line: &str| {
        let step: Value = serde_json::from_str(line).unwrap();
        (text(&step["step"]), text(&step["result"]))
    };
    run.stdout.lines().map(line).collect()
}

fn result<'a>(steps: &'a [(String, String)], step: &str) -> &'a str {
    &steps.iter().find(|(name, _)| name == step).unwrap_or_else(|| panic!("no {step}: {steps:?}")).1
}

#[test]
fn where_all_is_well() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start_with_account(&dir.path("cloud"), "editor");
    cloud.write_key(&bench.path("key.json"));
    let args = ["--bucket", BUCKET, "--service-account-key-file", "key.json", "--json"];
    let run = doctor(&bench, &cloud, &args, &[]);
    assert_eq!(run.code, 0, "{run:?}");
    let steps = steps(&run);
    let names: Vec<_> = steps.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "profile",
            "folder",
            "credentials",
            "endpoint",
            "clock",
            "discovery",
            "token",
            "service",
            "create right",
            "store",
            "bucket",
            "put",
            "signed URL",
            "multipart",
            "delete"
        ]
    );
    assert!(steps.iter().all(|(name, result)| result == "ok" || name == "discovery"), "{steps:?}");
    assert!(cloud.objects(BUCKET).is_empty() && cloud.uploads(BUCKET).is_empty());
    assert!(cloud.images(FOLDER).is_empty());
}

#[test]
fn who_may_only_look() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start_with_account(&dir.path("cloud"), "viewer");
    cloud.write_key(&bench.path("key.json"));
    let args = ["--bucket", BUCKET, "--service-account-key-file", "key.json"];
    let run = doctor(&bench, &cloud, &args, &[]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stdout.contains("\nFAIL  create right  PERMISSION_DENIED"), "{run:?}");
    assert!(run.stdout.contains("-> give the account the role compute.editor"), "{run:?}");
    assert!(run.stdout.contains("\nok    delete"), "the store is looked at all the same: {run:?}");
}

#[test]
fn what_is_wrong_is_told_apart() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start_with_token(&dir.path("cloud"), "t1.right");
    let all = ["--bucket", BUCKET, "--json"];
    let wrong = doctor(&bench, &cloud, &all, &[("YC_TOKEN", "t1.SECRET")]);
    assert_eq!((wrong.code, result(&steps(&wrong), "service")), (1, "fail"), "{wrong:?}");
    assert!(!wrong.stdout.contains("SECRET"), "{wrong:?}");

    let right = [("YC_TOKEN", "t1.right")];
    let away = doctor(&bench, &cloud, &[&all[..], &["--endpoint", "http://127.0.0.1:1"]].concat(), &right);
    assert_eq!((away.code, result(&steps(&away), "endpoint")), (1, "fail"), "{away:?}");
    assert_eq!(result(&steps(&away), "delete"), "ok", "{away:?}");

    let missing = doctor(&bench, &cloud, &["--bucket", "no-such-bucket", "--json"], &right);
    assert_eq!((missing.code, result(&steps(&missing), "bucket")), (1, "fail"), "{missing:?}");
    assert_eq!(result(&steps(&missing), "create right"), "ok", "{missing:?}");

    let keys = [right[0], ("AWS_SECRET_ACCESS_KEY", "wrong")];
    let denied = doctor(&bench, &cloud, &all, &keys);
    assert_eq!((denied.code, result(&steps(&denied), "put")), (1, "fail"), "{denied:?}");

    std::fs::write(bench.path("bad.json"), "{}").unwrap();
    let key = doctor(&bench, &cloud, &["--service-account-key-file", "bad.json", "--json"], &[]);
    let found = steps(&key);
    assert_eq!((key.code, result(&found, "credentials")), (1, "fail"), "{key:?}");
    assert_eq!((result(&found, "endpoint"), result(&found, "create right")), ("ok", "skip"), "{key:?}");

    let nothing = doctor(&bench, &cloud, &["--json"], &right);
    assert_eq!((nothing.code, result(&steps(&nothing), "bucket")), (0, "skip"), "{nothing:?}");
    assert!(cloud.objects(BUCKET).is_empty() && cloud.uploads(BUCKET).is_empty());
}

#[test]
fn the_local_cloud_is_well() {
    let bench = Bench::new();
    let run = bench.ok(["doctor", "--local"]);
    assert!(run.stdout.contains("ok    create right") && run.stdout.contains("ok    delete"), "{run:?}");
}
