//! `compare` across worlds: files, objects and URLs, by digests that are recorded and by content.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "support/cloud.rs"]
mod cloud;
#[path = "support/proxy.rs"]
mod proxy;
mod support;
use std::fs;

use cloud::{BUCKET, Cloud};
use proxy::Proxy;
use support::{Bench, MIB, Run, finish};

/// Where `other` differs from the sample.
const AT: u64 = 9 * MIB + 512;

/// What opening an image may read of it: headers and tables, and with clusters of 2 MiB two tables of one cluster each. The data of the
/// sample are 4 MiB, and the counts say besides that none of them was asked for.
const METADATA: u64 = 256 << 10;
const METADATA_2M: u64 = METADATA + 4 * MIB;

/// Two disks that differ in one byte, a store, and a wire that counts.
struct Line {
    bench: Bench,
    cloud: Cloud,
    proxy: Proxy,
    _dir: Bench,
}

impl Line {
    fn new() -> Self {
        let (bench, dir) = (Bench::new(), Bench::new());
        let cloud = Cloud::start(&dir.path("cloud"));
        let proxy = Proxy::start(cloud.store_address());
        bench.sample();
        let mut bytes = fs::read(bench.path("sample.raw")).unwrap();
        bytes[usize::try_from(AT).unwrap()] ^= 1;
        fs::write(bench.path("other.raw"), bytes).unwrap();
        Self { bench, cloud, proxy, _dir: dir }
    }

    fn run(&self, args: &[&str]) -> Run {
        self.proxy.reset();
        let mut command = self.bench.command(args);
        self.cloud.tell_store_behind(&self.proxy.url(), &mut command);
        finish(command.spawn().unwrap())
    }

    fn upload(&self, image: &str, key: &str, more: &[&str]) -> String {
        let to = place(key);
        let run = self.run(&[&["upload", image, &to, "--json"], more].concat());
        assert_eq!(run.code, 0, "{run:?}");
        run.json()["url"].as_str().unwrap().to_owned()
    }

    /// Compares, and expects this exit code, this way of finding out, and this first difference.
    fn compare(&self, code: i32, by: &str, at: Option<u64>, args: &[&str]) -> Run {
        let run = self.run(&[&["compare", "--json"], args].concat());
        assert_eq!(run.code, code, "{args:?} {run:?}");
        let json = run.json();
        assert_eq!((json["same"].as_bool(), json["by"].as_str()), (Some(code == 0), Some(by)), "{run:?}");
        assert_eq!(json.get("firstDifference").and_then(serde_json::Value::as_u64), at, "{run:?}");
        run
    }
}

fn place(key: &str) -> String {
    format!("s3://{BUCKET}/{key}")
}

const FORMS: [(u64, &[&str]); 5] = [
    (METADATA_2M, &["--to", "qcow2"]),
    (METADATA, &["--to", "qcow2", "--cluster-size", "64KiB", "--no-scan"]),
    (METADATA, &["--to", "qcow2", "--compress=zstd"]),
    (METADATA, &["--to", "raw"]),
    (METADATA, &["--to", "source"]),
];

#[test]
fn a_file_and_an_object_of_any_form() {
    let line = Line::new();
    for (number, (metadata, form)) in FORMS.into_iter().enumerate() {
        let (key, to) = (format!("k{number}"), place(&format!("k{number}")));
        line.upload("sample.raw", &key, form);
        let run = line.compare(0, "digest", None, &["sample.raw", &to]);
        // The file was read for its digest; of the object nothing but its tables, in a few requests.
        assert_eq!(run.json()["counters"].as_object().unwrap().keys().collect::<Vec<_>>(), ["reading"]);
        assert!(line.proxy.answered() < metadata, "{form:?}: {}", line.proxy.answered());
        assert!(line.proxy.requests("GET") < 10 && line.proxy.requests("HEAD") == 0, "{form:?}");
        line.compare(1, "digest", None, &[&to, "other.raw"]);
        assert!(line.proxy.answered() < metadata, "{form:?}: {}", line.proxy.answered());

        line.compare(0, "content", None, &[&to, "sample.raw", "--content"]);
        assert!(line.proxy.answered() > 3 * MIB || form.contains(&"--compress=zstd"), "{form:?}");
        line.compare(1, "content", Some(AT), &["other.raw", &to, "--content"]);
    }
    let to = place("k0");
    let by = format!("by the guest digest recorded with `{to}`");
    let text = |file: &str| line.run(&["compare", file, &to]).stdout;
    assert_eq!(text("sample.raw"), format!("the disks are the same, {by}\n"));
    assert_eq!(text("other.raw"), format!("the disks differ, {by}; --content finds where\n"));
}

#[test]
fn two_objects() {
    let line = Line::new();
    line.upload("sample.raw", "a", &["--to", "qcow2", "--compress"]);
    line.upload("sample.raw", "b", &["--to", "raw"]);
    line.upload("other.raw", "c", &["--to", "qcow2", "--compress"]);
    let [a, b, c] = ["a", "b", "c"].map(place);
    let run = line.compare(0, "digest", None, &[&a, &b]);
    assert!(run.json()["counters"].as_object().unwrap().is_empty(), "nothing was read: {run:?}");
    assert!(line.proxy.answered() < 2 * METADATA, "{}", line.proxy.answered());
    line.compare(1, "digest", None, &[&b, &c]);
    line.compare(0, "content", None, &[&a, &b, "--content"]);
    line.compare(1, "content", Some(AT), &[&a, &c, "--content"]);
    let text = line.run(&["compare", &a, &b]).stdout;
    assert_eq!(text, "the disks are the same, by the guest digests recorded with them\n");

    // One that says nothing of itself is read for its digest, and the other is not.
    let plain = line.cloud.object(BUCKET, "b");
    line.cloud.put_told(BUCKET, "plain", plain, &[]);
    let plain = place("plain");
    let run = line.compare(0, "digest", None, &[&plain, &a]);
    assert_eq!(run.json()["counters"].as_object().unwrap().keys().collect::<Vec<_>>(), ["reading"]);
    // Where nobody says anything, both are.
    line.compare(0, "content", None, &["sample.raw", &plain]);
    line.compare(1, "content", Some(AT), &["other.raw", &plain]);
}

#[test]
fn a_url_is_an_object_too() {
    let line = Line::new();
    let url = line.upload("sample.raw", "k", &[]);
    line.compare(0, "digest", None, &["sample.raw", &url]);
    line.compare(1, "content", Some(AT), &["other.raw", &url, "--content"]);
    let to = place("k");
    line.compare(0, "digest", None, &[&url, &to]);
    let run = line.run(&["compare", "other.raw", &url]);
    assert!(run.code == 1 && run.stdout.contains("/k`") && !run.stdout.contains("Signature"), "{run:?}");
}

#[test]
fn sizes_that_differ_need_no_digest() {
    let line = Line::new();
    line.upload("sample.raw", "k", &[]);
    line.bench.raw("short", 23 * MIB, &[]);
    let run = line.compare(1, "size", None, &["short", &place("k")]);
    assert!(run.json()["counters"].as_object().unwrap().is_empty(), "nothing was read: {run:?}");
    let text = line.run(&["compare", "short", &place("k")]).stdout;
    let expected = format!(
        "the disks differ; their sizes are {} and {} bytes; --content finds where\n",
        23 * MIB,
        24 * MIB
    );
    assert_eq!(text, expected);
    // The sample begins with a MiB of nothing but the signature that both have.
    line.compare(1, "content", Some(MIB), &["short", &place("k"), "--content"]);
}

#[test]
fn what_is_recorded_is_believed_only_where_it_fits() {
    let line = Line::new();
    for (key, form) in [("qcow2", "qcow2"), ("raw", "raw")] {
        line.upload("sample.raw", key, &["--to", form]);
    }
    let told = line.cloud.metadata(BUCKET, "qcow2");
    let (digest, form) = (told["guest-digest"].as_str(), told["form"].as_str());
    assert_eq!(form, "qcow2-2097152");
    let other = line.bench.ok(["info", "other.raw", "--digest", "--json"]).json()["guestDigest"].clone();
    let other = other.as_str().unwrap();
    let (qcow2, raw) = (line.cloud.object(BUCKET, "qcow2"), line.cloud.object(BUCKET, "raw"));
    let longer = [&qcow2[..], &[0; 512]].concat();
    let upper = digest.to_uppercase();
    for (name, bytes, metadata) in [
        ("no form", &qcow2, &[("guest-digest", other)][..]),
        ("another form", &qcow2, &[("guest-digest", other), ("form", "raw")]),
        ("another format", &raw, &[("guest-digest", other), ("form", form)]),
        ("other clusters", &qcow2, &[("guest-digest", other), ("form", "qcow2-65536")]),
        ("no clusters", &qcow2, &[("guest-digest", other), ("form", "qcow2-0")]),
        ("another length", &longer, &[("guest-digest", other), ("form", form)]),
        ("half a digest", &qcow2, &[("guest-digest", &other[..32]), ("form", form)]),
        ("another spelling", &qcow2, &[("guest-digest", &upper), ("form", form)]),
    ] {
        line.cloud.put_told(BUCKET, "k", bytes.clone(), metadata);
        let run = line.compare(0, "content", None, &["sample.raw", &place("k")]);
        assert!(run.stderr.contains("recorded with `s3://test-uploads/k` does not fit"), "{name}: {run:?}");
        line.compare(1, "content", Some(AT), &["other.raw", &place("k")]);
    }
    // Without a digest, a form is nothing.
    line.cloud.put_told(BUCKET, "k", qcow2.clone(), &[("form", form)]);
    assert_eq!(line.compare(0, "content", None, &["sample.raw", &place("k")]).stderr, "");
    // A lie that fits is believed, which the result says; who does not want that, has it read.
    line.cloud.put_told(BUCKET, "k", qcow2, &[("guest-digest", other), ("form", form)]);
    line.compare(0, "digest", None, &["other.raw", &place("k")]);
    line.compare(1, "content", Some(AT), &["other.raw", &place("k"), "--content"]);
    line.compare(0, "content", None, &["sample.raw", &place("k"), "--content"]);
    // What is read as something else than it is has none.
    line.compare(1, "content", Some(0), &["sample.raw", &place("k"), "--second-format", "raw"]);
}

#[test]
fn what_a_file_names_is_read_beside_an_object() {
    let line = Line::new();
    if line.bench.qemu_img(&["create", "-f", "qcow2", "-b", "sample.raw", "-F", "raw", "top.qcow2"]).is_none()
    {
        return;
    }
    line.upload("sample.raw", "k", &[]);
    let to = place("k");
    line.compare(0, "digest", None, &["top.qcow2", &to, "--allow-references"]);
    line.compare(0, "content", None, &[&to, "top.qcow2", "--allow-references", "--content"]);
    assert_eq!(line.run(&["compare", "top.qcow2", &to]).code, 3);
    // Between two objects there is no folder to look in.
    assert_eq!(line.run(&["compare", &to, &to, "--allow-references"]).code, 2);
}

#[test]
fn failures_are_above_1() {
    let line = Line::new();
    let run = line.run(&["compare", "sample.raw", &place("missing")]);
    assert!(run.code == 2 && run.stderr.contains("not found"), "{run:?}");
    let run = line.run(&["compare", "sample.raw", "s3://b"]);
    assert!(run.code == 2 && run.stderr.contains("error: "), "{run:?}");
    let run = line.bench.run(["compare", "sample.raw", &place("k")]);
    assert!(run.code == 2 && run.stderr.contains("no credentials"), "{run:?}");
    line.cloud.put(BUCKET, "text", b"not a disk\n");
    assert_eq!(line.run(&["compare", "sample.raw", &place("text")]).code, 3);
}

#[test]
fn a_local_cloud_has_objects_too() {
    let bench = Bench::new();
    bench.sample();
    bench.ok(["upload", "sample.raw", "s3://images/k", "--local=state"]);
    let run = bench.ok(["compare", "sample.raw", "s3://images/k", "--local=state"]);
    assert!(run.stdout.contains("by the guest digest"), "{run:?}");
    bench.ok(["compare", "s3://images/k", "sample.raw", "--local=state", "--content"]);
}
