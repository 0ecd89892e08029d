//! `create` and `operation`, end to end.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "support/cloud.rs"]
mod cloud;
mod support;
use std::fs;

use cloud::{BUCKET, Cloud, FOLDER, run};
use image_api::compute::image::Status;
use serde_json::Value;
use support::http::{Behaviour, Server};
use support::{Bench, MIB, finish};

/// The Image in a finished operation.
fn image(operation: &Value) -> &Value {
    assert_eq!(operation["done"], true, "{operation}");
    assert_eq!(operation["response"]["status"], "READY", "{operation}");
    &operation["response"]
}

#[test]
fn local_from_an_image_to_ready() {
    let bench = Bench::new();
    bench.sample();
    let info = bench.ok(["info", "sample.raw", "--digest", "--json"]).json();
    let args = ["create", "sample.raw", "--name", "demo", "--local"];
    let run = bench.ok(args);
    assert!(run.stdout.contains("status        READY\n"), "{run:?}");
    assert!(run.stdout.contains(&format!("minimum disk  24 MiB ({} bytes)\n", 24 * MIB)), "{run:?}");

    // The same command again is the same Image.
    let again = bench.ok([&args[..], &["--json"]].concat()).json();
    let image = image(&again);
    assert!(run.stdout.contains(image["id"].as_str().unwrap()), "{run:?} {again}");
    assert_eq!(image["minDiskSize"], (24 * MIB).to_string());
    assert_eq!(image["storageSize"], info["storageSize"].to_string());
    assert_eq!(bench.names(), ["data", "sample.raw"]);

    let cloud = Cloud::start(&bench.path("data/image-prep/local"));
    assert_eq!(cloud.images("local").len(), 1);
    assert!(cloud.objects("uploads").is_empty() && cloud.uploads("uploads").is_empty());
}

#[test]
fn every_format_becomes_the_same_image() {
    let bench = Bench::new();
    let forms = [
        ("a", &["-O", "qcow2", "-c"][..]),
        ("b", &["-O", "vmdk"]),
        ("c", &["-O", "vmdk", "-o", "subformat=streamOptimized"]),
    ];
    let mut sizes = Vec::new();
    for (name, options) in forms {
        let Some(_) = bench.sample_as(name, options) else { return };
        for form in ["qcow2", "raw", "source"] {
            let name_of_image = format!("{name}-{form}");
            let args = ["create", name, "--name", &name_of_image, "--to", form, "--local=state", "--json"];
            let operation = bench.ok(args).json();
            sizes.push((image(&operation)["storageSize"].clone(), image(&operation)["minDiskSize"].clone()));
        }
    }
    assert!(sizes.windows(2).all(|pair| pair[0] == pair[1]), "{sizes:?}");
}

#[test]
fn a_compressed_object_becomes_the_same_image() {
    let bench = Bench::new();
    bench.sample();
    let storage = bench.ok(["info", "sample.raw", "--digest", "--json"]).json()["storageSize"].to_string();
    for how in ["--compress", "-c=zstd", "--to=vmdk", "--to=gce"] {
        let name = how.trim_start_matches('-').replace('=', "-");
        let operation =
            bench.ok(["create", "sample.raw", "--name", &name, "--local=state", "--json", how]).json();
        assert_eq!(image(&operation)["storageSize"], storage);
        let len = if how == "--to=gce" { 1024 * MIB } else { 24 * MIB };
        assert_eq!(image(&operation)["minDiskSize"], len.to_string());
    }
    bench.fails(2, ["create", "sample.raw", "--name", "n", "--local=state", "--to", "raw", "--compress"]);
}

#[test]
fn in_a_cloud_with_all_fields() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    bench.sample();
    let args = [
        "create",
        "sample.raw",
        "--name",
        "web",
        "--bucket",
        BUCKET,
        "--description",
        "d",
        "--family",
        "fam",
        "--label",
        "a=1",
        "--label",
        "b=",
        "--min-disk-size",
        "1GiB",
        "--product-id",
        "p1",
        "--os",
        "linux",
        "--hardware-generation",
        "gen2",
        "--json",
    ];
    let found = run(&bench, &cloud, &args);
    assert_eq!(found.code, 0, "{found:?}");
    let operation = found.json();
    let image = image(&operation);
    assert_eq!(image["folderId"], FOLDER);
    assert_eq!(
        (&image["name"], &image["family"], &image["description"]),
        (&"web".into(), &"fam".into(), &"d".into())
    );
    assert_eq!(image["labels"], serde_json::json!({ "a": "1", "b": "" }));
    assert_eq!(image["minDiskSize"], (1_u64 << 30).to_string());
    assert_eq!(image["productIds"], serde_json::json!(["p1"]));
    assert_eq!(image["os"]["type"], "LINUX");
    assert!(image["hardwareGeneration"]["generation2Features"].is_object(), "{image}");
    assert!(cloud.objects(BUCKET).is_empty());
    assert_eq!(cloud.images(FOLDER)[0].status(), Status::Ready);
}

#[test]
fn keep_object_keeps_it() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    bench.sample();
    let args = ["create", "sample.raw", "--name", "n", "--bucket", BUCKET, "--keep-object"];
    assert_eq!(run(&bench, &cloud, &args).code, 0);
    let objects = cloud.objects(BUCKET);
    assert_eq!(objects.len(), 1);
    assert!(objects[0].starts_with("image-prep/") && objects[0].ends_with(".qcow2"), "{objects:?}");
}

/// Over either transport a command prints the same, but for identifiers and times.
#[test]
fn grpc_gives_what_rest_gives() {
    let bench = Bench::new();
    bench.sample();
    let cloud = Cloud::start_with_token(&bench.path("cloud"), "t0ken");
    let over = |transport: &str, args: &[&str]| {
        let mut command = bench.command([args, &["--transport", transport]].concat());
        cloud.tell(&mut command);
        command.env("YC_TOKEN", "t0ken").env("IMAGE_PREP_BUCKET", BUCKET);
        finish(command.spawn().unwrap())
    };
    for transport in ["rest", "grpc"] {
        let done = over(transport, &["create", "sample.raw", "--name", transport, "--json"]);
        assert_eq!(done.code, 0, "{done:?}");
        let operation = done.json();
        assert_eq!(image(&operation)["name"], transport);
        let id = operation["id"].as_str().unwrap();
        for other in ["rest", "grpc"] {
            let shown = over(other, &["operation", "get", id, "--json"]);
            assert_eq!(shown.json(), operation, "{transport} {other}");
        }
    }
    let refusals: [&[&str]; 3] = [
        &["create", "sample.raw", "--name", "rest", "--description", "another"],
        &["create", "--uri", "https://elsewhere.example/disk?signature", "--name", "new"],
        &["operation", "wait", "fd8nothing"],
    ];
    for args in refusals {
        let said = ["rest", "grpc"].map(|transport| {
            let refused = over(transport, args);
            assert_ne!(refused.code, 0, "{refused:?}");
            let lines =
                refused.stderr.lines().map(|line| line.split(" (request ").next().unwrap().to_owned());
            (refused.code, lines.collect::<Vec<_>>())
        });
        assert!(said[0].1.iter().any(|line| line.starts_with("error: ")), "{said:?}");
        assert_eq!(said[0], said[1], "{args:?}");
    }
}

#[test]
fn an_operation_can_be_waited_for_later() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    bench.sample();
    let args =
        ["create", "sample.raw", "--name", "n", "--bucket", BUCKET, "--key", "k", "--no-wait", "--json"];
    let accepted = run(&bench, &cloud, &args);
    assert_eq!(accepted.code, 0, "{accepted:?}");
    assert_eq!(cloud.objects(BUCKET), ["k"], "the operation still reads it");
    let id = accepted.json()["id"].as_str().unwrap().to_owned();
    let done = run(&bench, &cloud, &["operation", "wait", &id, "--json"]);
    assert_eq!(done.code, 0, "{done:?}");
    image(&done.json());
    let shown = run(&bench, &cloud, &["operation", "get", &id]);
    assert!(shown.stdout.contains("state         done\n"), "{shown:?}");
    // What is done stays done.
    let cancelled = run(&bench, &cloud, &["operation", "cancel", &id, "--json"]);
    assert!(matches!(cancelled.code, 0 | 1), "{cancelled:?}");
    assert_eq!(
        run(&bench, &cloud, &["operation", "get", &id, "--json"]).json()["response"]["status"],
        "READY"
    );
    assert_eq!(run(&bench, &cloud, &["operation", "get", "nothing"]).code, 1);
}

#[test]
fn local_operations_outlive_the_process() {
    let bench = Bench::new();
    bench.sample();
    let args = ["create", "sample.raw", "--name", "n", "--local", "--no-wait", "--json"];
    let id = bench.ok(args).json()["id"].as_str().unwrap().to_owned();
    let done = bench.ok(["operation", "wait", &id, "--local", "--json"]).json();
    image(&done);
}

#[test]
fn local_operations_on_urls_outlive_the_process() {
    let bench = Bench::new();
    bench.sample();
    let server = Server::start(fs::read(bench.path("sample.raw")).unwrap(), Behaviour::Serves);
    let args = ["create", "--uri", server.url(), "--name", "n", "--local", "--no-wait", "--json"];
    let id = bench.ok(args).json()["id"].as_str().unwrap().to_owned();
    // Nothing tells this command of the URL.
    let done = bench.ok(["operation", "wait", &id, "--local", "--json"]).json();
    image(&done);
}

#[test]
fn a_proxy_is_not_asked_for_this_machine() {
    let bench = Bench::new();
    bench.sample();
    // Port 1 of this machine: nobody listens.
    let mut command = bench.command(["create", "sample.raw", "--name", "n", "--local"]);
    command.env("http_proxy", "http://127.0.0.1:1").env_remove("no_proxy").env_remove("NO_PROXY");
    let run = finish(command.spawn().unwrap());
    assert_eq!(run.code, 0, "{run:?}");
}

#[test]
fn what_is_not_a_url_is_not_printed() {
    let bench = Bench::new();
    fs::write(bench.path("url"), "[default]\nkey = t0p-SECRET\n").unwrap();
    let at = ["create", "--uri", "@url", "--name", "n", "--local"];
    let typed = ["create", "--uri", "https://me:SECRET@storage.example:no/k", "--name", "n", "--local"];
    let endpoint = ["operation", "get", "x", "--endpoint", "ftp://me:SECRET@compute.example"];
    for args in [&at[..], &typed, &endpoint] {
        let run = bench.fails(2, args);
        assert!(!run.stderr.contains("SECRET"), "{run:?}");
    }
}

#[test]
fn a_failed_operation_is_4() {
    let bench = Bench::new();
    let server = Server::start(b"not a disk image ".repeat(10_000), Behaviour::Serves);
    let args = ["create", "--uri", server.url(), "--name", "n", "--local"];
    let run = bench.fails(4, args);
    assert!(run.stdout.is_empty() && !run.stderr.contains("SECRET"), "{run:?}");
    let json = bench.run([&args[..], &["--json"]].concat());
    assert_eq!((json.code, &json.json()["done"]), (4, &true.into()));
    assert!(json.json()["error"]["message"].is_string(), "{json:?}");
}

#[test]
fn from_a_url() {
    let bench = Bench::new();
    bench.sample();
    let server = Server::start(fs::read(bench.path("sample.raw")).unwrap(), Behaviour::Serves);
    fs::write(bench.path("url"), format!("{}\n", server.url())).unwrap();
    let operation = bench.ok(["create", "--uri", "@url", "--name", "n", "--local", "--json"]).json();
    assert_eq!(image(&operation)["minDiskSize"], (24 * MIB).to_string());
}

#[test]
fn another_query_is_another_object() {
    let bench = Bench::new();
    bench.sample();
    let server = Server::start(fs::read(bench.path("sample.raw")).unwrap(), Behaviour::Serves);
    let create = |query: &str| {
        let url = server.url().replace("X-Amz-Signature=SECRET", query);
        bench.run(["create", "--uri", &url, "--name", "n", "--local"])
    };
    assert_eq!(create("versionId=1&X-Amz-Signature=a").code, 0);
    assert_eq!(create("versionId=1&X-Amz-Signature=b").code, 0, "the same object, signed again");
    let other = create("versionId=2&X-Amz-Signature=c");
    assert!(other.code == 1 && other.stderr.contains("ALREADY_EXISTS"), "{other:?}");
}

#[test]
fn what_the_service_would_refuse_is_refused_before_anything_is_read() {
    let bench = Bench::new();
    for (args, field) in [
        (&["--name", "Bad Name"][..], "name"),
        (&["--name", "n", "--family", "x"], "family"),
        (&["--name", "n", "--label", "A=b"], "labels"),
        (&["--name", "n", "--min-disk-size", "1M"], "min_disk_size"),
    ] {
        let run = bench.fails(2, [&["create", "missing", "--local"], args].concat());
        assert!(run.stderr.contains(field), "{run:?}");
    }
    assert!(bench.names().is_empty());
}

#[test]
fn a_disk_that_is_too_small_is_refused_before_the_upload() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    bench.sample();
    let args = [
        "create",
        "sample.raw",
        "--name",
        "n",
        "--bucket",
        BUCKET,
        "--min-disk-size",
        "16MiB",
        "--keep-object",
    ];
    let found = run(&bench, &cloud, &args);
    assert_eq!(found.code, 2, "{found:?}");
    assert!(found.stderr.contains(&(24 * MIB).to_string()), "{found:?}");
    assert!(cloud.objects(BUCKET).is_empty() && cloud.images(FOLDER).is_empty());
}

#[test]
fn a_name_that_is_taken_is_an_error_and_leaves_nothing() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    bench.sample();
    bench.raw("other", MIB, &[]);
    let create = |image: &str| run(&bench, &cloud, &["create", image, "--name", "n", "--bucket", BUCKET]);
    assert_eq!(create("sample.raw").code, 0);
    let refused = create("other");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("hint: choose another --name"), "{refused:?}");
    assert!(cloud.objects(BUCKET).is_empty());
    assert_eq!(cloud.images(FOLDER).len(), 1);
}

#[test]
fn without_a_token_nothing_is_asked() {
    let bench = Bench::new();
    bench.raw("disk", MIB, &[]);
    let args = ["create", "disk", "--name", "n", "--folder-id", "f", "--bucket", "bucket"];
    let run = bench.fails(1, args);
    assert!(run.stderr.contains("no token") && run.stderr.contains("YC_TOKEN"), "{run:?}");
}

#[test]
fn a_service_that_is_not_there_is_told_before_the_upload() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    bench.sample();
    // Port 1 of this machine: nobody listens.
    let args =
        ["create", "sample.raw", "--name", "n", "--bucket", BUCKET, "--endpoint", "http://127.0.0.1:1"];
    let found = run(&bench, &cloud, &args);
    assert_eq!(found.code, 1, "{found:?}");
    assert!(found.stderr.contains("no answer from 127.0.0.1:1"), "{found:?}");
    assert!(cloud.objects(BUCKET).is_empty() && cloud.uploads(BUCKET).is_empty());
}

#[test]
fn a_token_is_sent_and_never_printed() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start_with_token(&dir.path("cloud"), "t0p-SECRET");
    bench.sample();
    let args = ["create", "sample.raw", "--name", "n", "--bucket", BUCKET, "-vv"];
    let refused = run(&bench, &cloud, &args);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("UNAUTHENTICATED") && refused.stderr.contains("hint: "), "{refused:?}");
    fs::write(bench.path("token"), "t0p-SECRET\n").unwrap();
    let done = run(&bench, &cloud, &[&args[..], &["--token-file", "token"]].concat());
    assert_eq!(done.code, 0, "{done:?}");
    let mut command = bench.command([&args[..], &["--json"]].concat());
    cloud.tell(&mut command);
    let again = finish(command.env("YC_TOKEN", "t0p-SECRET").spawn().unwrap());
    assert_eq!(again.code, 0, "{again:?}");
    for run in [done, again] {
        assert!(!run.stderr.contains("SECRET") && !run.stderr.contains("X-Amz-Signature"), "{run:?}");
    }
}

#[test]
fn a_bad_image_starts_no_cloud() {
    let bench = Bench::new();
    fs::write(bench.path("text"), "no disk\n").unwrap();
    bench.fails(3, ["create", "text", "--name", "n", "--local"]);
    bench.fails(1, ["create", "missing", "--name", "n", "--local"]);
    assert_eq!(bench.names(), ["text"]);
}

#[test]
fn one_command_at_a_time_in_a_folder() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let _cloud = Cloud::start(&dir.path("cloud"));
    let local = format!("--local={}", dir.path("cloud").display());
    let run = bench.fails(1, ["operation", "get", "x", &local]);
    assert!(run.stderr.contains("in use") && run.stderr.contains("hint: "), "{run:?}");
}
