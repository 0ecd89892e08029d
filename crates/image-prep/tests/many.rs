//! `create` of several images, from the command line and from a manifest.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "support/cloud.rs"]
mod cloud;
mod support;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::Stdio;

use cloud::{BUCKET, Cloud, FOLDER, run, until};
use image_api::compute::image::Status;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{Bench, MIB, Run, finish, noise};

/// Small disks `d1`, `d2` ..., of which each holds something else.
fn disks(bench: &Bench, count: usize) -> Vec<String> {
    let name = |number| {
        let name = format!("d{number}.raw");
        bench.raw(&name, 4 * MIB, &[(MIB, name.as_bytes())]);
        name
    };
    (1..=count).map(name).collect()
}

/// A manifest with an entry for each image, by its name.
fn manifest<S: AsRef<str>>(bench: &Bench, images: &[S]) {
    let entry = |image: &S| format!("[[images]]\npath = \"{}\"\n", image.as_ref());
    fs::write(bench.path("images.toml"), images.iter().map(entry).collect::<String>()).unwrap();
}

/// A qcow2 whose L1 table would be of 32 GiB, for a disk of 4 EiB.
fn hostile(bench: &Bench) {
    let mut header = b"QFI\xfb\0\0\0\x02".to_vec();
    header.extend([0; 12]);
    header.extend(16_u32.to_be_bytes());
    header.extend((1_u64 << 62).to_be_bytes());
    header.extend(0_u32.to_be_bytes());
    header.extend(u32::MAX.to_be_bytes());
    header.extend((3_u64 << 16).to_be_bytes());
    header.extend((1_u64 << 16).to_be_bytes());
    header.extend(1_u32.to_be_bytes());
    header.resize(1 << 18, 0);
    fs::write(bench.path("hostile.qcow2"), header).unwrap();
}

/// The lines of a run with `--json`, by the names of the Images.
fn lines(run: &Run) -> BTreeMap<String, Value> {
    let read =
        |line: &str| -> Value { serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {run:?}")) };
    let lines: Vec<Value> = run.stdout.lines().map(read).collect();
    let count = lines.len();
    let named = lines.into_iter().map(|line| (line["name"].as_str().unwrap().to_owned(), line));
    let named: BTreeMap<_, _> = named.collect();
    assert_eq!(named.len(), count, "one line for each: {run:?}");
    named
}

/// Nothing is left of uploads, here and in the store.
fn is_clean(bench: &Bench, cloud: &Cloud) -> bool {
    let notes = fs::read_dir(bench.path("data/state/image-prep/operations")).map_or(0, Iterator::count);
    notes == 0
        && bench.journals().is_empty()
        && cloud.objects(BUCKET).is_empty()
        && cloud.uploads(BUCKET).is_empty()
}

#[test]
fn one_hostile_and_one_too_large_stop_no_other() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start_with_limit(&dir.path("cloud"), 1024 * MIB);
    let mut images = disks(&bench, 18);
    hostile(&bench);
    bench.raw("large.raw", 2048 * MIB, &[]);
    images.insert(3, "hostile.qcow2".to_owned());
    images.insert(9, "large.raw".to_owned());
    manifest(&bench, &images);
    let done = run(&bench, &cloud, &["create", "--manifest", "images.toml", "--bucket", BUCKET, "--json"]);
    // The worst of 0, 3 and 4.
    assert_eq!(done.code, 4, "{done:?}");
    let mut lines = lines(&done);
    assert_eq!(lines.len(), 20, "{done:?}");
    let (hostile, large) = (lines.remove("hostile").unwrap(), lines.remove("large").unwrap());
    assert_eq!((&hostile["exitCode"], &hostile["image"]), (&3.into(), &"hostile.qcow2".into()));
    assert!(hostile["error"]["message"].as_str().unwrap().contains("cannot open"), "{hostile}");
    assert!(hostile.get("operation").is_none(), "{hostile}");
    assert_eq!((&large["exitCode"], &large["operation"]["done"]), (&4.into(), &true.into()));
    assert!(large["error"].to_string().contains("virtual size"), "{large}");
    for (name, line) in &lines {
        let response = &line["operation"]["response"];
        assert_eq!((&line["exitCode"], &line["image"]), (&0.into(), &format!("{name}.raw").into()));
        assert_eq!((&response["status"], &response["name"]), (&"READY".into(), &name.as_str().into()));
    }
    assert_eq!(done.stderr.lines().count(), 2, "{done:?}");
    for text in ["no Image `hostile` from `hostile.qcow2`", "no Image `large` from `large.raw`"] {
        assert!(done.stderr.contains(&format!("{{\"error\":{{\"message\":\"{text}\"")), "{done:?}");
    }
    let ready = || cloud.images(FOLDER).iter().filter(|image| image.status() == Status::Ready).count();
    assert_eq!(ready(), 18);
    until("what the failed operation made is gone", || cloud.images(FOLDER).len() == 18);
    assert!(is_clean(&bench, &cloud));
}

#[test]
fn images_are_named_after_their_files() {
    let bench = Bench::new();
    disks(&bench, 2);
    let done =
        bench.ok(["create", "d1.raw", "d2.raw", "--local=state", "--family", "fam", "--parallel", "1"]);
    let text: Vec<_> = done.stdout.lines().collect();
    assert!(text[0].starts_with("d1  READY  ") && text[1].starts_with("d2  READY  "), "{done:?}");
    assert!(text[1].ends_with("stored, minimum disk 4 MiB"), "{done:?}");
    assert_eq!((text[2], text.len(), done.stderr.as_str()), ("2 of 2 done", 3, ""));
    // One that is named directly is printed as ever.
    let one = bench.ok(["create", "d1.raw", "--name", "d1", "--family", "fam", "--local=state", "--json"]);
    assert!(text[0].contains(one.json()["response"]["id"].as_str().unwrap()), "{one:?}");
    let cloud = Cloud::start(&bench.path("state"));
    assert!(cloud.images("local").iter().all(|image| image.family == "fam"));
}

#[test]
fn a_manifest_says_more_than_the_command() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    disks(&bench, 2);
    fs::create_dir(bench.path("sub")).unwrap();
    fs::rename(bench.path("d2.raw"), bench.path("sub/d2.raw")).unwrap();
    let text = r#"{"images": [
        {"path": "d1.raw", "name": "web", "family": "mine", "labels": {"a": "2"}, "min-disk-size": "8MiB", "os": "windows"},
        {"path": "sub/d2.raw", "min-disk-size": 16777216}
    ]}"#;
    let how = ["--bucket", BUCKET, "--family", "all", "--label", "a=1", "--label", "b=1", "--json"];
    let mut command = bench.command([&["create", "--manifest", "-"], &how[..]].concat());
    cloud.tell(&mut command);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let done = finish(child);
    assert_eq!((done.code, lines(&done).len()), (0, 2), "{done:?}");
    let images: BTreeMap<_, _> =
        cloud.images(FOLDER).into_iter().map(|image| (image.name.clone(), image)).collect();
    let (web, d2) = (&images["web"], &images["d2"]);
    assert_eq!((web.family.as_str(), d2.family.as_str()), ("mine", "all"));
    assert_eq!(
        (web.labels["a"].as_str(), web.labels["b"].as_str(), d2.labels["a"].as_str()),
        ("2", "1", "1")
    );
    assert_eq!((web.min_disk_size, d2.min_disk_size), (8 << 20, 16 << 20));
    assert_eq!(web.os.as_ref().unwrap().r#type, 2, "WINDOWS");
}

#[test]
fn every_mistake_is_told_before_anything_is_begun() {
    let bench = Bench::new();
    disks(&bench, 2);
    let text = "[[images]]\npath = \"d1.raw\"\n[[images]]\npath = \"missing\"\nname = \"n\"\n[[images]]\npath = \"d2.raw\"\n\
                name = \"d1\"\n[[images]]\npath = \"d2.raw\"\nfamily = \"x\"\n[[images]]\npath = \"http://example.com/10.img\"\nname = \"u\"\n";
    fs::write(bench.path("images.toml"), text).unwrap();
    let wrong = bench.run(["create", "--manifest", "images.toml", "--local=state"]);
    assert_eq!(wrong.stderr.matches("error: nothing was begun").count(), 4, "{wrong:?}");
    for text in ["entry 2, `missing`", "is that of entry 1 too", "family", "plain http to example.com"] {
        assert!(wrong.stderr.contains(text), "{text}: {wrong:?}");
    }
    assert!(wrong.code == 2 && wrong.stdout.is_empty(), "{wrong:?}");
    fs::write(bench.path("images.toml"), "[[images]]\npath = \"d1.raw\"\nnmae = \"n\"\n").unwrap();
    let unknown = bench.fails(2, ["create", "--manifest", "images.toml", "--local=state"]);
    assert!(unknown.stderr.contains("`images.toml`") && unknown.stderr.contains("line 3: "), "{unknown:?}");
    bench.fails(1, ["create", "--manifest", "none.toml", "--local=state"]);
    for args in [&["--name", "n"][..], &["--key", "k"]] {
        bench.fails(2, [&["create", "d1.raw", "d2.raw", "--local=state"], args].concat());
    }
    assert_eq!(bench.names(), ["d1.raw", "d2.raw", "images.toml"]);
}

#[test]
fn an_image_that_wants_more_than_its_share_waits_for_it() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    let images = disks(&bench, 4);
    manifest(&bench, &images);
    let create = ["create", "--manifest", "images.toml", "--bucket", BUCKET, "--json", "--memory"];
    // Two parts of 16 MiB have to fit, and a share has 9 MiB.
    let done = run(&bench, &cloud, &[&create[..], &["36MiB"]].concat());
    assert_eq!((done.code, cloud.images(FOLDER).len()), (0, 4), "{done:?}");
    let refused = run(&bench, &cloud, &[&create[..], &["31MiB"]].concat());
    assert_eq!(refused.code, 2, "{refused:?}");
    for line in lines(&refused).values() {
        let message = line["error"]["message"].as_str().unwrap();
        assert!(message.contains(&(31 * MIB).to_string()), "of all there is: {message}");
    }
    assert!(is_clean(&bench, &cloud));
}

#[test]
fn a_dry_run_of_several_sends_nothing() {
    let bench = Bench::new();
    let images = disks(&bench, 2);
    manifest(&bench, &images);
    let create = ["create", "--manifest", "images.toml", "--folder-id", "f", "--bucket", BUCKET, "--dry-run"];
    let done = bench.ok([&create[..], &["--json"]].concat());
    let lines = lines(&done);
    for (name, line) in &lines {
        let forecast = &line["forecast"];
        assert_eq!(forecast["request"]["name"], name.as_str());
        assert_eq!(forecast["request"]["uri"], forecast["object"]);
    }
    assert_eq!(lines.len(), 2);
    assert!(bench.ok(create).stdout.contains("image         d1.raw\nname          d1\nobject "));
    assert_eq!(bench.names(), ["d1.raw", "d2.raw", "images.toml"]);
}

/// What has begun is taken back, what has not is not begun, and each image has its line.
#[test]
fn ctrl_c_ends_all_of_them() {
    let bench = Bench::new();
    let bytes = noise(64 * MIB, 3);
    let names: Vec<_> = (0..4_u64).map(|number| format!("d{number}.raw")).collect();
    for (number, name) in (0..4).zip(&names) {
        let fills: Vec<(u64, &[u8])> =
            (0..2).map(|i| (i * 65 * MIB + (number * 2 + i + 1) * 4096, &bytes[..])).collect();
        bench.raw(name, 140 * MIB, &fills);
    }
    manifest(&bench, &names);
    let uploads = |cloud: &Cloud| !cloud.uploads(BUCKET).is_empty();
    let ingests = |cloud: &Cloud| !cloud.images(FOLDER).is_empty();
    for (what, has_begun) in
        [("an upload has begun", uploads as fn(&Cloud) -> bool), ("an ingest has begun", ingests)]
    {
        let dir = Bench::new();
        let cloud = Cloud::start(&dir.path("cloud"));
        let args = ["create", "--manifest", "images.toml", "--bucket", BUCKET, "--json", "--parallel", "2"];
        let mut command = bench.command(args);
        cloud.tell(&mut command);
        let child = command.env("IMAGE_PREP_GRACE", "60s").spawn().unwrap();
        until(what, || has_begun(&cloud));
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let ended = finish(child);
        let said: Value = serde_json::from_str(&ended.stderr).unwrap();
        assert_eq!((ended.code, &said["error"]["message"]), (130, &"interrupted".into()), "{what}");
        let lines = lines(&ended);
        assert_eq!(lines.len(), 4, "{what}: {ended:?}");
        // One may have been READY by then.
        let made: Vec<_> =
            lines.iter().filter(|(_, line)| line["exitCode"] == 0).map(|(name, _)| name).collect();
        assert!(lines.values().filter(|line| line["exitCode"] == 130).count() == 4 - made.len(), "{ended:?}");
        let left = || cloud.images(FOLDER).into_iter().map(|image| image.name).collect::<Vec<_>>();
        until("what was begun is over", || left().len() == made.len());
        assert!(made.iter().all(|name| left().contains(name)), "{ended:?}");
        assert!(is_clean(&bench, &cloud), "{what}: {ended:?}");
    }
}
