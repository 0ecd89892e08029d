//! `--if-exists` and `--dry-run`: what becomes of what has the name already, and what would become of the disk.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "support/cloud.rs"]
mod cloud;
#[path = "support/proxy.rs"]
mod proxy;
mod support;
use std::time::Duration;

use cloud::{BUCKET, Cloud, FOLDER, run};
use image_api::compute::image::Status;
use proxy::Proxy;
use support::http::{Behaviour, Server};
use support::{Bench, MIB, finish, noise};

#[test]
fn an_object_that_exists_is_refused_reused_or_replaced() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    bench.sample();
    bench.raw("other", MIB, &[]);
    let to = format!("s3://{BUCKET}/k");
    let upload = |image: &str, more: &[&str]| {
        run(&bench, &cloud, &[&["upload", image, &to, "--json", "-v"], more].concat())
    };
    let first = upload("sample.raw", &["--if-exists", "reuse"]);
    assert_eq!(first.code, 0, "{first:?}");
    let failed = upload("sample.raw", &["--if-exists", "fail"]);
    assert!(failed.code == 1 && failed.stderr.contains("`s3://test-uploads/k` exists already"), "{failed:?}");
    let reused = upload("sample.raw", &["--if-exists", "reuse"]);
    assert!(reused.code == 0 && reused.stderr.contains("holds this disk already"), "{reused:?}");
    assert_eq!(reused.json()["etag"], first.json()["etag"]);
    // Another form, another disk.
    for (image, form) in [("sample.raw", "raw"), ("other", "qcow2")] {
        let other = upload(image, &["--if-exists", "reuse", "--to", form]);
        assert!(other.code == 1 && other.stderr.contains("does not say that it holds"), "{other:?}");
    }
    // The same disk in another format, each as it is.
    assert_eq!(upload("sample.raw", &["--to", "source"]).code, 0);
    assert_eq!(upload("sample.raw", &["--to", "source", "--if-exists", "reuse"]).code, 0);
    bench.ok(["convert", "sample.raw", "sample.qcow2", "--to", "qcow2"]);
    let other = upload("sample.qcow2", &["--to", "source", "--if-exists", "reuse"]);
    assert!(other.code == 1 && other.stderr.contains("does not say that it holds"), "{other:?}");
    // An archive is not the file in it.
    bench.ok(["convert", "sample.raw", "sample.tar.gz", "--to", "gce"]);
    assert_eq!(upload("sample.tar.gz", &["--to", "source"]).code, 0);
    assert_eq!(upload("sample.tar.gz", &["--to", "source", "--if-exists", "reuse"]).code, 0);
    bench.ok(["convert", "sample.tar.gz", "whole.raw", "--to", "raw"]);
    let other = upload("whole.raw", &["--to", "source", "--if-exists", "reuse"]);
    assert!(other.code == 1 && other.stderr.contains("does not say that it holds"), "{other:?}");
    let compared = run(&bench, &cloud, &["compare", "sample.tar.gz", &to, "--json"]);
    assert_eq!(compared.json()["by"], "digest", "{compared:?}");
    let replaced = upload("other", &["--if-exists", "replace"]);
    assert_ne!(replaced.json()["etag"], first.json()["etag"]);
    assert_eq!(upload("sample.raw", &[]).json()["etag"], first.json()["etag"], "replaced by default");
    assert!(bench.journals().is_empty() && cloud.uploads(BUCKET).is_empty());
}

#[test]
fn create_does_not_delete_what_was_there_before() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    bench.sample();
    assert_eq!(run(&bench, &cloud, &["upload", "sample.raw", &format!("s3://{BUCKET}/k")]).code, 0);
    let create = |name: &str, more: &[&str]| {
        let args = ["create", "sample.raw", "--name", name, "--bucket", BUCKET, "--key", "k"];
        run(&bench, &cloud, &[&args[..], more].concat())
    };
    assert_eq!(create("one", &[]).code, 0);
    assert_eq!(cloud.objects(BUCKET), ["k"], "it was there before");
    let failed = create("two", &["--if-exists", "fail"]);
    assert!(failed.code == 1 && failed.stderr.contains("exists already"), "{failed:?}");
    assert_eq!(cloud.images(FOLDER).len(), 1);
    // What it makes itself it deletes.
    assert_eq!(create("three", &["--if-exists", "replace"]).code, 0);
    assert!(cloud.objects(BUCKET).is_empty() && bench.journals().is_empty());
}

#[test]
fn an_image_that_exists_is_refused_or_reused() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    bench.sample();
    bench.raw("other", MIB, &[]);
    let create = |image: &str, name: &str, more: &[&str]| {
        let args = ["create", image, "--name", name, "--bucket", BUCKET, "--json"];
        run(&bench, &cloud, &[&args[..], more].concat())
    };
    let first = create("sample.raw", "n", &["--if-exists", "reuse"]);
    assert_eq!(first.code, 0, "{first:?}");
    let again = create("sample.raw", "n", &["--if-exists", "reuse", "--description", "another request"]);
    assert_eq!(again.code, 0, "{again:?}");
    let (first, again) = (first.json(), again.json());
    assert_eq!((&again["done"], &again["response"]["id"]), (&true.into(), &first["response"]["id"]));
    assert_eq!(again["metadata"]["imageId"], first["response"]["id"]);

    let other = create("other", "n", &["--if-exists", "reuse"]);
    assert!(other.code == 1 && other.stderr.contains("it holds another disk"), "{other:?}");
    let failed = create("sample.raw", "n", &["--if-exists", "fail"]);
    assert!(failed.code == 1 && failed.stderr.contains("the Image `n` exists already"), "{failed:?}");
    assert_eq!(create("sample.raw", "bare", &[]).code, 0);
    let bare = create("sample.raw", "bare", &["--if-exists", "reuse"]);
    assert!(bare.code == 1 && bare.stderr.contains("no label"), "{bare:?}");
    assert_eq!(cloud.images(FOLDER).len(), 2);
    assert!(cloud.objects(BUCKET).is_empty() && bench.journals().is_empty());
}

#[test]
fn an_image_that_is_replaced_goes_when_the_other_is_there() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start_for_any_host(&dir.path("cloud"));
    bench.sample();
    bench.raw("other", MIB, &[]);
    std::fs::write(bench.path("text"), "no disk ".repeat(1000)).unwrap();
    let create = |image: &str| {
        let args = ["create", image, "--name", "n", "--bucket", BUCKET, "--if-exists", "replace", "--json"];
        run(&bench, &cloud, &args)
    };
    let images = || cloud.images(FOLDER).into_iter().map(|image| (image.name, image.id)).collect::<Vec<_>>();
    let first = create("sample.raw");
    assert_eq!(first.code, 0, "{first:?}");
    let old = images();
    let same = create("sample.raw");
    assert!(same.code == 0 && same.stderr.contains("holds this disk already"), "{same:?}");
    assert_eq!(images(), old);
    let replaced = create("other");
    assert_eq!(replaced.code, 0, "{replaced:?}");
    let new = images();
    assert_eq!((new.len(), new[0].0.as_str()), (1, "n"));
    assert_ne!(new[0].1, old[0].1);

    // What a URL holds is not known: the same command again is the same Image, which does not replace itself.
    let disk = std::fs::read(bench.path("sample.raw")).unwrap();
    let server = Server::start(disk, Behaviour::Serves);
    let of_url = |url: &str| {
        run(&bench, &cloud, &["create", "--uri", url, "--name", "n", "--if-exists", "replace", "--json"])
    };
    let first = of_url(server.url());
    assert_eq!(first.code, 0, "{first:?}");
    let of_first = images();
    assert_ne!(of_first, new);
    let again = of_url(server.url());
    assert_eq!((again.code, images()), (0, of_first.clone()), "{again:?}");
    // One that fails gives the name back.
    let bad = Server::start(std::fs::read(bench.path("text")).unwrap(), Behaviour::Serves);
    let failed = of_url(bad.url());
    assert_eq!((failed.code, images()), (4, of_first), "{failed:?}");
}

#[test]
fn a_dry_run_tells_and_sends_nothing() {
    let bench = Bench::new();
    // Two parts of five hold data.
    bench.raw("disk", 70 * MIB, &[(50 * MIB, b"data")]);
    // Neither credentials nor a token are there.
    let raw = bench.ok(["upload", "disk", "s3://bucket/k", "--to", "raw", "--dry-run", "--json"]).json();
    assert_eq!((&raw["object"], &raw["form"]), (&"s3://bucket/k".into(), &"raw".into()));
    assert_eq!(raw["objectSize"], 70 * MIB);
    assert_eq!((&raw["parts"], &raw["partSize"]), (&5.into(), &(16 * MIB).into()));
    assert_eq!((&raw["dataParts"], &raw["dataSize"]), (&2.into(), &(32 * MIB).into()));
    assert_eq!((&raw["zeroParts"], &raw["zeroSize"]), (&3.into(), &(38 * MIB).into()));
    let digest = bench.ok(["info", "disk", "--digest", "--json"]).json()["guestDigest"].clone();
    assert_eq!(raw["guestDigest"], digest);
    let text = bench.ok(["upload", "disk", "s3://bucket/k", "--dry-run"]).stdout;
    assert!(
        text.contains("form          qcow2-2097152\n") && text.contains("parts         1 of 16 MiB\n"),
        "{text}"
    );

    let create =
        ["create", "disk", "--name", "n", "--folder-id", "f", "--bucket", "bucket", "--dry-run", "--json"];
    let json = bench.ok(create).json();
    let object = json["object"].as_str().unwrap();
    assert!(object.starts_with("s3://bucket/image-prep/") && object.ends_with(".qcow2"), "{json}");
    let request = &json["request"];
    assert_eq!(
        (&request["name"], &request["folderId"], &request["uri"]),
        (&"n".into(), &"f".into(), &object.into())
    );
    // An operation may read the one while the other is made.
    let packed = bench.ok([&create[..], &["--compress"]].concat()).json();
    assert_ne!(packed["object"], json["object"]);
    let of_url = bench.ok([
        "create",
        "--uri",
        "https://h/k?X-Amz-Signature=SECRET",
        "--name",
        "n",
        "--folder-id",
        "f",
        "--dry-run",
    ]);
    assert!(of_url.stdout.contains("https://h/k") && !of_url.stdout.contains("SECRET"), "{of_url:?}");
    assert_eq!(bench.names(), ["disk"]);
}

#[test]
fn the_forecast_is_what_is_sent() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    bench.sample();
    let to = format!("s3://{BUCKET}/k");
    let args = ["upload", "sample.raw", &to, "--json"];
    let forecast = bench.ok([&args[..], &["--dry-run"]].concat()).json();
    let sent = run(&bench, &cloud, &args).json();
    assert_eq!((&forecast["objectSize"], &forecast["guestDigest"]), (&sent["size"], &sent["guestDigest"]));
}

#[test]
fn a_budget_that_holds_no_two_parts_is_refused_before_anything_is_read() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    bench.sample();
    let found = run(
        &bench,
        &cloud,
        &["upload", "sample.raw", &format!("s3://{BUCKET}/k"), "--memory", "31MiB", "-vv"],
    );
    assert_eq!(found.code, 2, "{found:?}");
    assert!(found.stderr.contains("cannot hold two parts") && found.stderr.contains("33554432"), "{found:?}");
    // What is compressed has more parts open at a time, and a forecast says so too.
    let to = format!("s3://{BUCKET}/k");
    for how in ["--compress", "--to=vmdk", "--to=gce"] {
        let packed = ["upload", "sample.raw", &to, how, "--memory", "48MiB", "--dry-run"];
        let found = run(&bench, &cloud, &packed);
        assert_eq!(found.code, 2, "{found:?}");
    }
    assert!(cloud.uploads(BUCKET).is_empty() && bench.journals().is_empty());
}

/// Whoever made the Image in the way, and however long ago: what was asked for has the name in the end.
#[test]
fn the_first_disk_again_after_another_took_its_place() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    bench.sample();
    bench.raw("other", MIB, &[]);
    let create = |image: &str, more: &[&str]| {
        let args = ["create", image, "--name", "n", "--bucket", BUCKET, "--if-exists", "replace", "--json"];
        run(&bench, &cloud, &[&args[..], more].concat())
    };
    let first = create("sample.raw", &[]);
    assert_eq!(first.code, 0, "{first:?}");
    let begun = create("other", &["--detach"]);
    assert_eq!(begun.code, 0, "{begun:?}");
    assert_eq!(run(&bench, &cloud, &["operation", "wait"]).code, 0);
    let again = create("sample.raw", &[]);
    assert_eq!((again.code, &again.json()["response"]["name"]), (0, &"n".into()), "{again:?}");
    let images = cloud.images(FOLDER);
    let named: Vec<_> = images.iter().filter(|image| image.name == "n").collect();
    assert_eq!(named.len(), 1, "{images:?}");
    assert_eq!(again.json()["response"]["id"], named[0].id.as_str());
    let digest = bench.ok(["info", "sample.raw", "--digest", "--json"]).json()["guestDigest"].clone();
    assert!(digest.as_str().unwrap().starts_with(&named[0].labels["image-prep-digest"]), "{images:?}");
}

/// An Image that is being made by an earlier run is waited for, and the object that it is made from stays until then.
#[test]
fn what_an_earlier_run_is_making_is_waited_for() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start_for_any_host(&dir.path("cloud"));
    bench.sample();
    let disk = std::fs::read(bench.path("sample.raw")).unwrap();
    let server = Server::start(disk, Behaviour::WaitsAfter(1, Duration::from_secs(3)));
    let create = |what: &str, more: &[&str]| {
        let args = ["create", "--uri", server.url(), "--name", "n", "--if-exists", what, "--json"];
        run(&bench, &cloud, &[&args[..], more].concat())
    };
    let begun = create("replace", &["--detach"]);
    assert_eq!(begun.code, 0, "{begun:?}");
    assert_eq!(cloud.images(FOLDER)[0].status(), Status::Creating);
    for what in ["reuse", "replace"] {
        let again = create(what, &["--detach"]);
        assert_eq!(again.code, 0, "{again:?}");
        assert_eq!(again.json()["id"], begun.json()["id"]);
    }
    let done = create("replace", &[]);
    assert_eq!((done.code, &done.json()["id"]), (0, &begun.json()["id"]), "{done:?}");
    assert_eq!(cloud.images(FOLDER).len(), 1);
}

#[test]
fn an_operation_that_failed_often_is_begun_anew() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start_for_any_host(&dir.path("cloud"));
    let server = Server::start(b"no disk ".repeat(1000), Behaviour::Serves);
    let mut ids: Vec<String> = (0..10)
        .map(|_| {
            let failed = run(&bench, &cloud, &["create", "--uri", server.url(), "--name", "n", "--json"]);
            assert_eq!(failed.code, 4, "{failed:?}");
            failed.json()["id"].as_str().unwrap().to_owned()
        })
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 10, "each run has an operation of its own");
}

/// Starts a command whose store is behind a proxy.
fn start(bench: &Bench, cloud: &Cloud, proxy: &Proxy, args: &[&str]) -> std::process::Child {
    let mut command = bench.command(args);
    cloud.tell(&mut command);
    cloud.tell_store_behind(&proxy.url(), &mut command);
    command.spawn().unwrap()
}

/// One Image, one upload: the second time nothing is sent, on another machine too, which has no journals of the first.
#[test]
fn the_same_command_twice_uploads_once() {
    let (bench, other, dir) = (Bench::new(), Bench::new(), Bench::new());
    let cloud = Cloud::start_for_any_host(&dir.path("cloud"));
    let proxy = Proxy::start(cloud.store_address());
    bench.sample();
    other.sample();
    let create = |bench: &Bench, more: &[&str]| {
        let args = ["create", "sample.raw", "--name", "n", "--bucket", BUCKET, "--json"];
        finish(start(bench, &cloud, &proxy, &[&args[..], more].concat()))
    };
    let first = create(&bench, &[]);
    assert_eq!(first.code, 0, "{first:?}");
    assert!(!proxy.parts().is_empty());
    for again in [&bench, &other] {
        proxy.reset();
        let again = create(again, &[]);
        assert_eq!((again.code, again.json()), (0, first.json()), "{again:?}");
        assert_eq!((proxy.requests("POST"), proxy.requests("PUT")), (0, 0), "nothing is sent");
    }
    // Another request for the same name is refused before it is sent.
    proxy.reset();
    let refused = create(&bench, &["--description", "another"]);
    assert!(refused.code == 1 && refused.stderr.contains("ALREADY_EXISTS"), "{refused:?}");
    assert_eq!((proxy.requests("POST"), proxy.requests("PUT")), (0, 0), "{refused:?}");
    assert_eq!(cloud.images(FOLDER).len(), 1);
    assert!(cloud.objects(BUCKET).is_empty() && bench.journals().is_empty() && other.journals().is_empty());
}

/// Whichever of the two comes second waits for the other, and finds what it has made.
#[test]
fn the_same_command_twice_at_once_uploads_once() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start_for_any_host(&dir.path("cloud"));
    let proxy = Proxy::start(cloud.store_address());
    let bytes = noise(48 * MIB, 9);
    bench.raw("disk", 64 * MIB, &[(MIB, &bytes)]);
    let args = ["create", "disk", "--name", "n", "--bucket", BUCKET, "--json"];
    let both = [0, 1].map(|_| start(&bench, &cloud, &proxy, &args));
    let [one, two] = both.map(finish);
    assert_eq!((one.code, two.code), (0, 0), "{one:?} {two:?}");
    assert_eq!(one.json()["response"]["id"], two.json()["response"]["id"]);
    let parts = proxy.parts();
    let mut once = parts.clone();
    once.dedup();
    assert_eq!(parts, once, "each part is sent once");
    assert!(parts.len() > 2, "{parts:?}");
    assert_eq!(cloud.images(FOLDER).len(), 1);
    assert!(cloud.objects(BUCKET).is_empty() && cloud.uploads(BUCKET).is_empty());
    assert!(bench.journals().is_empty());
}
