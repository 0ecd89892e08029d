//! `upload`: an object in a store, and a URL to read it by.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "support/cloud.rs"]
mod cloud;
mod support;
use std::fs;

use cloud::{BUCKET, Cloud};
use support::{Bench, MIB, Run, finish};

fn upload(bench: &Bench, cloud: &Cloud, args: &[&str]) -> Run {
    let mut command = bench.command([&["upload"], args].concat());
    cloud.tell_store(&mut command);
    finish(command.spawn().unwrap())
}

#[test]
fn the_object_is_the_disk_in_every_form() {
    let (bench, cloud) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&cloud.path("cloud"));
    bench.sample();
    for (key, form, more) in [
        ("qcow2", "qcow2", "--no-scan"),
        ("qcow2-zlib", "qcow2", "--compress"),
        ("qcow2-zstd", "qcow2", "--compress=zstd"),
        ("raw", "raw", "--quiet"),
        ("source", "source", "--quiet"),
        ("vmdk", "vmdk", "--quiet"),
    ] {
        let to = format!("s3://{BUCKET}/{key}");
        let run = upload(&bench, &cloud, &["sample.raw", &to, "--to", form, "--json", more]);
        assert_eq!(run.code, 0, "{run:?}");
        let json = run.json();
        assert_eq!((&json["bucket"], &json["key"]), (&BUCKET.into(), &key.into()));
        assert!(json["expiresAt"].as_str().unwrap().ends_with('Z'), "{json}");
        let url = json["url"].as_str().unwrap();
        bench.ok(["compare", "sample.raw", url]);
        let info = bench.ok(["info", "--json", "--digest", url]).json();
        assert_eq!(info["guestDigest"], json["guestDigest"]);
        assert_eq!(info["fileSize"], json["size"]);
        assert_eq!(json["counters"]["uploading"]["bytesPut"], json["size"], "every byte is sent once");
        assert!(json["counters"]["reading"]["bytesRead"].as_u64().unwrap() > 3 * MIB);
        assert_eq!(info["format"], if form == "source" { "raw" } else { form });
        assert!(!json["etag"].as_str().unwrap().is_empty());
    }
    assert_eq!(cloud.objects(BUCKET), ["qcow2", "qcow2-zlib", "qcow2-zstd", "raw", "source", "vmdk"]);
    assert!(cloud.uploads(BUCKET).is_empty());
}

/// The disk in it is another one, as long as whole GiB: so it is compared by its content, which is read by ranges.
#[test]
fn an_archive_for_compute_engine() {
    let (bench, cloud) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&cloud.path("cloud"));
    bench.sample();
    let to = format!("s3://{BUCKET}/disk.tar.gz");
    let args = ["sample.raw", &to, "--to", "gce", "--json"];
    let forecast = upload(&bench, &cloud, &[&args[..], &["--dry-run"]].concat()).json();
    assert_eq!((&forecast["form"], &forecast["compressed"]), (&"gce".into(), &true.into()));
    assert!(cloud.objects(BUCKET).is_empty());
    let run = upload(&bench, &cloud, &args);
    assert_eq!(run.code, 0, "{run:?}");
    let json = run.json();
    assert!(json["size"].as_u64() <= forecast["objectSize"].as_u64(), "{json} {forecast}");
    assert_eq!(json["counters"]["uploading"]["bytesPut"], json["size"], "every byte is sent once");
    bench.ok(["convert", "sample.raw", "local", "--to", "gce"]);
    assert!(cloud.object(BUCKET, "disk.tar.gz") == fs::read(bench.path("local")).unwrap());
    let url = json["url"].as_str().unwrap();
    let info = bench.ok(["info", "--json", url]).json();
    assert_eq!((&info["member"], &info["virtualSize"]), (&"disk.raw".into(), &(1024 * MIB).into()));
    let padded = fs::File::options().write(true).open(bench.path("sample.raw")).unwrap();
    padded.set_len(1024 * MIB).unwrap();
    bench.ok(["compare", "sample.raw", url]);
    let mut command = bench.command(["compare", "sample.raw", &to, "--json"]);
    cloud.tell_store(&mut command);
    let run = finish(command.spawn().unwrap());
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{run:?}");
}

#[test]
fn the_source_form_is_the_file_byte_for_byte() {
    let (bench, cloud) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&cloud.path("cloud"));
    let Some(image) = bench.sample_as("z.qcow2", &["-O", "qcow2", "-c"]) else { return };
    let run = upload(&bench, &cloud, &["z.qcow2", &format!("s3://{BUCKET}/z"), "--to", "source"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert_eq!(run.stdout.lines().count(), 1);
    bench.ok(["convert", "--format", "raw", run.stdout.trim(), "copy"]);
    let (mut expected, found) = (fs::read(image).unwrap(), fs::read(bench.path("copy")).unwrap());
    expected.resize(expected.len().next_multiple_of(512), 0);
    assert!(found == expected);
}

#[test]
fn without_a_digest_the_disk_is_read_once() {
    let (bench, cloud) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&cloud.path("cloud"));
    bench.sample();
    let to = format!("s3://{BUCKET}/k");
    let args = ["sample.raw", &to, "--to", "raw", "--json", "--no-digest"];
    let run = upload(&bench, &cloud, &args);
    assert_eq!(run.code, 0, "{run:?}");
    let json = run.json();
    assert!(json["guestDigest"].is_null(), "{json}");
    assert_eq!(json["counters"].as_object().unwrap().keys().collect::<Vec<_>>(), ["uploading"]);
    assert_eq!(cloud.metadata(BUCKET, "k"), [("form".to_owned(), "raw".to_owned())].into());
    assert!(cloud.object(BUCKET, "k") == fs::read(bench.path("sample.raw")).unwrap());

    // Nothing says which disk it is, so none is taken for it.
    let run = upload(&bench, &cloud, &[&args[..5], &["--if-exists", "reuse"]].concat());
    assert!(run.code == 1 && run.stderr.contains("does not say that it holds this disk"), "{run:?}");
    let run = upload(&bench, &cloud, &[&args[..], &["--if-exists", "reuse"]].concat());
    assert!(run.code == 2 && run.stderr.contains("--no-digest"), "{run:?}");
    let forecast = upload(&bench, &cloud, &[&args[..], &["--dry-run"]].concat()).json();
    assert!(forecast["guestDigest"].is_null() && forecast.get("counters").is_none(), "{forecast}");

    // Found out while it is sent.
    if let Some(image) = bench.sample_as("z.qcow2", &["-O", "qcow2", "-c"]) {
        let mut bytes = fs::read(&image).unwrap();
        bytes[5 << 16..].fill(0xff);
        fs::write(&image, bytes).unwrap();
        let to = format!("s3://{BUCKET}/bad");
        assert_eq!(upload(&bench, &cloud, &["z.qcow2", &to, "--no-digest"]).code, 3);
        assert_eq!((cloud.objects(BUCKET), cloud.uploads(BUCKET)), (vec!["k".to_owned()], vec![]));
        assert!(bench.journals().is_empty());
    }
}

#[test]
fn a_bad_image_leaves_nothing() {
    let (bench, cloud) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&cloud.path("cloud"));
    fs::write(bench.path("text"), "no disk\n").unwrap();
    assert_eq!(upload(&bench, &cloud, &["text", &format!("s3://{BUCKET}/k")]).code, 3);
    assert_eq!(upload(&bench, &cloud, &["missing", &format!("s3://{BUCKET}/k")]).code, 1);
    if let Some(image) = bench.sample_as("z.qcow2", &["-O", "qcow2", "-c"]) {
        support::truncate(&image, fs::metadata(&image).unwrap().len() - 70_000);
        assert!(matches!(upload(&bench, &cloud, &["z.qcow2", &format!("s3://{BUCKET}/k")]).code, 1 | 3));
    }
    assert!(cloud.objects(BUCKET).is_empty() && cloud.uploads(BUCKET).is_empty());
}

#[test]
fn missing_buckets_and_credentials_are_told_before_the_disk_is_read() {
    let (bench, cloud) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&cloud.path("cloud"));
    // Reading it would fail: its clusters do not decode.
    let Some(image) = bench.sample_as("bad", &["-O", "qcow2", "-c"]) else { return };
    let mut bytes = fs::read(&image).unwrap();
    // Behind five clusters of tables.
    bytes[5 << 16..].fill(0xff);
    fs::write(&image, bytes).unwrap();
    assert_eq!(upload(&bench, &cloud, &["bad", &format!("s3://{BUCKET}/k")]).code, 3);

    let run = upload(&bench, &cloud, &["bad", "s3://no-such-bucket/k"]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("bucket of `s3://no-such-bucket"), "{run:?}");
    assert!(run.stderr.contains("hint: "), "{run:?}");

    let run = bench.fails(1, ["upload", "bad", "s3://bucket/k"]);
    assert!(run.stderr.contains("no credentials") && run.stderr.contains("AWS_ACCESS_KEY_ID"), "{run:?}");

    let mut command = bench.command(["upload", "bad", &format!("s3://{BUCKET}/k")]);
    cloud.tell_store(&mut command);
    let run = finish(command.env("AWS_SECRET_ACCESS_KEY", "SECRETwrong").spawn().unwrap());
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("access denied") && !run.stderr.contains("SECRET"), "{run:?}");
}

#[test]
fn a_store_that_is_not_there_is_an_error() {
    let bench = Bench::new();
    bench.raw("disk", MIB, &[]);
    // Port 1 of this machine: nobody listens.
    let mut command =
        bench.command(["upload", "disk", "s3://bucket/k", "--endpoint-url", "http://127.0.0.1:1"]);
    command.env("AWS_ACCESS_KEY_ID", "a").env("AWS_SECRET_ACCESS_KEY", "SECRET");
    let run = finish(command.spawn().unwrap());
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("cannot reach") && !run.stderr.contains("SECRET"), "{run:?}");
}

#[test]
fn a_lifetime_that_no_store_signs_is_wrong_usage() {
    let (bench, cloud) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&cloud.path("cloud"));
    bench.raw("disk", MIB, &[]);
    let run = upload(&bench, &cloud, &["disk", &format!("s3://{BUCKET}/k"), "--expires", "8d"]);
    assert_eq!(run.code, 2, "{run:?}");
    assert!(cloud.objects(BUCKET).is_empty());
}

#[test]
fn local_makes_its_bucket() {
    let bench = Bench::new();
    bench.raw("disk", MIB, &[]);
    let json = bench.ok(["upload", "disk", "s3://my-bucket/k", "--local=state", "--json"]).json();
    assert!(json["url"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{json}");
    assert_eq!(Cloud::start(&bench.path("state")).objects("my-bucket"), ["k"]);
}
