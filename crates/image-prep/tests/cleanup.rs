//! `cleanup`: what is left of uploads that broke off, and of `create`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "support/cloud.rs"]
mod cloud;
mod support;
use cloud::{BUCKET, Cloud, run, until};
use support::{Bench, MIB, noise};

const ALL: [&str; 4] = ["cleanup", "--older-than", "0s", "--yes"];

/// Leaves an upload and its journal.
fn killed(bench: &Bench, cloud: &Cloud, key: &str) {
    bench.raw("large", 200 * MIB, &[(4096, &noise(190 * MIB, 3))]);
    let noted = || bench.journals().iter().filter(|path| path.metadata().is_ok_and(|m| m.len() > 0)).count();
    let before = noted();
    let to = format!("s3://{BUCKET}/{key}");
    let mut command = bench.command(["upload", "large", &to, "--to", "raw", "--memory", "32MiB"]);
    cloud.tell(&mut command);
    let mut child = command.spawn().unwrap();
    until("an upload is journalled", || noted() > before);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn where_there_is_nothing_no_store_is_asked() {
    let bench = Bench::new();
    let run = bench.ok(["cleanup"]);
    assert!(run.stdout.is_empty() && run.stderr.is_empty() && bench.names().is_empty(), "{run:?}");
}

#[test]
fn uploads_are_shown_then_removed_and_not_before_their_time() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    killed(&bench, &cloud, "k");
    let young = run(&bench, &cloud, &["cleanup", "--yes"]);
    assert_eq!((young.code, young.stdout.as_str()), (0, ""), "{young:?}");

    let shown = run(&bench, &cloud, &["cleanup", "--older-than", "0s", "--dry-run"]);
    assert!(shown.stdout.ends_with(&format!(" at s3://{BUCKET}/k: would be removed\n")), "{shown:?}");
    let refused = run(&bench, &cloud, &["cleanup", "--older-than", "0s"]);
    assert!(refused.code == 2 && refused.stderr.contains("--yes was not given"), "{refused:?}");
    assert_eq!((cloud.uploads(BUCKET).len(), bench.journals().len()), (1, 1));

    let elsewhere = run(&bench, &cloud, &[&ALL[..], &["--endpoint-url", "http://127.0.0.1:1"]].concat());
    assert!(elsewhere.code == 0 && elsewhere.stderr.contains("of another store"), "{elsewhere:?}");
    assert_eq!(bench.journals().len(), 1);

    let done = run(&bench, &cloud, &[&ALL[..], &["--json"]].concat());
    let json = done.json();
    assert_eq!(
        (&json["kind"], &json["key"], &json["removed"]),
        (&"upload".into(), &"k".into(), &true.into())
    );
    assert!(cloud.uploads(BUCKET).is_empty() && bench.journals().is_empty());
}

#[test]
fn of_a_named_bucket_unknown_uploads_are_removed_beneath_the_prefix() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    for key in ["image-prep/a", "other/b"] {
        killed(&bench, &cloud, key);
    }
    // Journals of other places are left alone.
    for place in ["s3://test-uploads/image-prep/b", "s3://another-bucket"] {
        run(&bench, &cloud, &[&ALL[..], &[place]].concat());
        assert_eq!((cloud.uploads(BUCKET).len(), bench.journals().len()), (2, 2), "{place}");
    }
    std::fs::remove_dir_all(bench.path("data/state")).unwrap();
    let none = run(&bench, &cloud, &ALL);
    assert_eq!((none.code, cloud.uploads(BUCKET).len()), (0, 2), "{none:?}");
    assert_eq!(run(&bench, &cloud, &[&ALL[..], &["--bucket", BUCKET]].concat()).code, 0);
    assert_eq!(cloud.uploads(BUCKET), ["other/b"]);
    let place = format!("s3://{BUCKET}/other/");
    assert_eq!(run(&bench, &cloud, &[&ALL[..], &[&place]].concat()).code, 0);
    assert!(cloud.uploads(BUCKET).is_empty());
}

#[test]
fn objects_of_create_are_removed_and_others_are_not() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    bench.sample();
    let create =
        ["create", "sample.raw", "--name", "n", "--bucket", BUCKET, "--key", "k", "--no-wait", "--json"];
    let accepted = run(&bench, &cloud, &create);
    assert_eq!(accepted.code, 0, "{accepted:?}");
    let id = accepted.json()["id"].as_str().unwrap().to_owned();
    // `operation wait` would remove the object itself.
    let get = || run(&bench, &cloud, &["operation", "get", &id, "--json"]).json();
    until("the operation is done", || get()["done"] == true);
    assert_eq!((cloud.objects(BUCKET), bench.journals().len()), (vec!["k".to_owned()], 1));
    // By its note the operation may still read it, and a service that cannot be asked will not say that it is done.
    let kept = run(&bench, &cloud, &ALL);
    assert!(kept.code == 0 && kept.stderr.contains(&format!("operation {id} may still read it")), "{kept:?}");
    assert_eq!((cloud.objects(BUCKET), bench.journals().len()), (vec!["k".to_owned()], 1));
    let notes = bench.path("data/state/image-prep/operations");
    let forget = || std::fs::remove_dir_all(&notes).unwrap();
    forget();
    let done = run(&bench, &cloud, &ALL);
    assert!(done.stdout.starts_with("object of ") && done.stdout.ends_with("/k: removed\n"), "{done:?}");
    assert!(cloud.objects(BUCKET).is_empty() && bench.journals().is_empty());

    // Another object under the same key is not ours to remove.
    let again =
        run(&bench, &cloud, &[&create[..], &["--description", "other", "--if-exists", "replace"]].concat());
    assert_eq!(again.code, 0, "{again:?}");
    forget();
    cloud.put(BUCKET, "k", b"precious");
    run(&bench, &cloud, &ALL);
    assert_eq!(cloud.objects(BUCKET), ["k"]);
    assert!(bench.journals().is_empty());
}
