//! `create --cloud gcp`, and names in Google Cloud Storage, against image-server's own `/compute/v1` and its store.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "support/cloud.rs"]
mod cloud;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "google/replace.rs"]
mod replace;
#[path = "google/secrets.rs"]
mod secrets;
mod support;
use std::ffi::OsStr;
use std::fs;
use std::time::Duration;

use cloud::{BUCKET, Cloud, FOLDER, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::http::{Behaviour, Server};
use support::schema::conforms;
use support::{Bench, MIB, Run, finish};

/// A machine, and a cloud that is Google's as far as the command can tell.
struct Google {
    bench: Bench,
    cloud: Cloud,
    _dir: Bench,
}

impl Google {
    fn new() -> Self {
        Self::with_token(None)
    }

    fn with_token(token: Option<&str>) -> Self {
        Self::with(token, None)
    }

    fn with(token: Option<&str>, max_virtual_size: Option<u64>) -> Self {
        let (bench, dir) = (Bench::new(), Bench::new());
        let cloud = Cloud::start_for_google(&dir.path("cloud"), token, max_virtual_size);
        bench.sample();
        Self { bench, cloud, _dir: dir }
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = self.bench.command(args);
        self.cloud.tell_google(&mut command);
        command
    }

    /// A command that needs no image service.
    fn store(&self, args: &[&str]) -> Run {
        let run = finish(self.command(args).spawn().unwrap());
        conforms(&args.iter().map(OsStr::new).collect::<Vec<_>>(), &run);
        run
    }

    fn args<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        [args, &["--cloud", "gcp", "--endpoint", self.cloud.endpoint()]].concat()
    }

    fn run(&self, args: &[&str]) -> Run {
        self.store(&self.args(args))
    }

    fn create(&self, image: &str, name: &str, more: &[&str]) -> Run {
        self.run(&[&["create", image, "--name", name, "--bucket", BUCKET, "--json"], more].concat())
    }

    /// The Image that a command has made.
    fn made(&self, run: &Run) -> Value {
        assert_eq!(run.code, 0, "{run:?}");
        let operation = run.json();
        assert_eq!((&operation["done"], operation.get("error")), (&json!(true), None), "{operation}");
        let image = operation["response"].clone();
        assert_eq!(image["@type"], "type.googleapis.com/google.cloud.compute.v1.Image", "{operation}");
        assert_eq!(image["status"], "READY");
        image
    }

    fn notes(&self) -> Vec<String> {
        let folder = self.bench.path("data/state/image-prep/operations");
        let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
        entries.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
    }

    /// Nothing but Images is left of it.
    fn is_clean(&self) -> bool {
        self.cloud.objects(BUCKET).is_empty()
            && self.cloud.uploads(BUCKET).is_empty()
            && self.bench.journals().is_empty()
            && self.notes().is_empty()
    }
}

#[test]
fn an_image_with_all_fields() {
    let google = Google::new();
    let place = google.cloud.store_settings().1;
    let run = google.create(
        "sample.raw",
        "web",
        &[
            "--description=née",
            "--family=web-2",
            "--label=a=1",
            "--label=b=",
            "--min-disk-size=3GiB",
            "--license=https://l/1",
            "--license=projects/p/global/licenses/l",
            "--guest-os-feature=GVNIC",
            "--guest-os-feature=UEFI_COMPATIBLE",
            "--architecture=ARM64",
            "--storage-location",
            place,
        ],
    );
    let image = google.made(&run);
    for (field, expected) in [
        ("name", json!("web")),
        ("description", json!("née")),
        ("family", json!("web-2")),
        ("labels", json!({"a": "1", "b": ""})),
        ("diskSizeGb", json!("3")),
        ("licenses", json!(["https://l/1", "projects/p/global/licenses/l"])),
        ("guestOsFeatures", json!([{"type": "GVNIC"}, {"type": "UEFI_COMPATIBLE"}])),
        ("architecture", json!("ARM64")),
        ("storageLocations", json!([place])),
    ] {
        assert_eq!(image[field], expected, "{field}: {image}");
    }
    let operation = run.json();
    let about = &operation["metadata"];
    assert_eq!(about["@type"], "type.googleapis.com/google.cloud.compute.v1.Operation");
    assert_eq!((&about["status"], &about["progress"]), (&json!("DONE"), &json!(100)));
    assert_eq!((&about["targetLink"], &about["targetId"]), (&image["selfLink"], &image["id"]));
    // The disk is in it: as long as the archive, which has whole GiB.
    let own = google.cloud.images(FOLDER);
    assert_eq!((own.len(), own[0].storage_size), (1, i64::try_from(12 * MIB).unwrap()));
    assert!(google.is_clean());
    let text =
        google.run(&["create", "sample.raw", "--name", "other", "--bucket", &format!("gs://{BUCKET}")]);
    assert_eq!(text.code, 0, "{text:?}");
    for line in ["name          other\n", "status        READY\n", "minimum disk  1 GiB (1073741824 bytes)\n"]
    {
        assert!(text.stdout.contains(line), "{text:?}");
    }
}

#[test]
fn the_same_command_again_finds_the_same_image() {
    let google = Google::new();
    let first = google.create("sample.raw", "web", &["--family=web"]);
    let again = google.create("sample.raw", "web", &["--family=web", "-v"]);
    assert_eq!(google.made(&first)["id"], google.made(&again)["id"]);
    assert_eq!(first.json()["id"], again.json()["id"], "by the requestId");
    assert!(!again.stderr.contains("uploading"), "nothing is sent again: {again:?}");
    // An Image that has gone since is made anew.
    google.cloud.delete_image(FOLDER, "web");
    let anew = google.create("sample.raw", "web", &["--family=web"]);
    assert_ne!(google.made(&anew)["id"], google.made(&first)["id"]);
    assert!(google.is_clean());
}

#[test]
fn a_name_that_is_taken() {
    let google = Google::new();
    google.bench.raw("other", 9 * MIB, &[]);
    let first = google.made(&google.create("sample.raw", "web", &["--if-exists", "reuse"]));
    // Compute Engine refuses it.
    let refused = google.create("other", "web", &[]);
    assert!(refused.code == 1 && refused.stderr.contains("ALREADY_EXISTS"), "{refused:?}");
    assert!(refused.stderr.contains("choose another --name"), "{refused:?}");
    // It is looked for before.
    for (image, what, part) in [
        ("other", "fail", "exists already"),
        ("sample.raw", "fail", "exists already"),
        ("other", "reuse", "it holds another disk"),
    ] {
        let refused = google.create(image, "web", &["--if-exists", what]);
        assert!(refused.code == 1 && refused.stderr.contains(part), "{image} {what}: {refused:?}");
    }
    let reused = google.create("sample.raw", "web", &["--if-exists", "reuse", "--description=other"]);
    assert_eq!(google.made(&reused)["id"], first["id"]);
    let replaced = google.create("other", "web", &["--if-exists", "replace"]);
    assert_ne!(google.made(&replaced)["id"], first["id"]);
    assert!(replaced.stderr.contains("is deleted"), "{replaced:?}");
    let images = google.cloud.images(FOLDER);
    assert_eq!((images.len(), images[0].name.as_str()), (1, "web"));
    assert!(google.is_clean());
}

#[test]
fn errors_are_those_of_the_other_cloud() {
    let google = Google::new();
    // What the service would refuse, and what has no meaning to it, is told before anything is read.
    for (args, part) in [
        (&["--guest-os-feature=TELEPORT"][..], "guest_os_features[0].type"),
        (&["--architecture=RISCV"], "architecture"),
        (&["--pooled"], "--pooled is not for Compute Engine"),
        (&["--to=qcow2"], "not for Compute Engine"),
        (&["--transport=grpc"], "--transport grpc is not for Compute Engine"),
        (&["--bucket=s3://bucket"], "not for Compute Engine"),
    ] {
        let run = google.run(&[&["create", "missing", "--name", "n"], args].concat());
        assert!(run.code == 2 && run.stderr.contains(part), "{args:?}: {run:?}");
    }
    let run = google.store(&["create", "sample.raw", "--name", "n", "--bucket", BUCKET, "--license=l"]);
    assert!(run.code == 2, "{run:?}");
    let project = |args: &[&str]| {
        let mut command = google.command(&google.args(args));
        command.env_remove("GOOGLE_CLOUD_PROJECT");
        finish(command.spawn().unwrap())
    };
    let none = project(&["create", "sample.raw", "--name", "n", "--bucket", BUCKET]);
    assert!(none.code == 2 && none.stderr.contains("GOOGLE_CLOUD_PROJECT"), "{none:?}");
    // Without keys it is said what they are.
    let mut command =
        google.command(&google.args(&["create", "sample.raw", "--name", "n", "--bucket", BUCKET]));
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    let none = finish(command.spawn().unwrap());
    assert!(
        none.code == 1 && none.stderr.contains("HMAC") && none.stderr.contains("hmac create"),
        "{none:?}"
    );
    // An operation that fails.
    let lost = format!("gs://{BUCKET}/nothing.tar.gz");
    let failed = google.run(&["create", "--uri", &lost, "--name", "lost", "--json"]);
    assert_eq!(failed.code, 4, "{failed:?}");
    let operation = failed.json();
    assert_eq!((&operation["done"], &operation["error"]["code"]), (&json!(true), &json!(9)), "{operation}");
    assert_eq!(operation["metadata"]["httpErrorStatusCode"], 400);
    // What is not there.
    let missing = google.run(&["operation", "get", "operation-1"]);
    assert!(missing.code == 1 && missing.stderr.contains("NOT_FOUND"), "{missing:?}");
    assert!(google.is_clean() && google.cloud.images(FOLDER).is_empty());
}

#[test]
fn a_token_is_shown_to_whom_it_is_for() {
    let google = Google::with_token(Some("ya29.SECRET"));
    let with = |name: &str, value: &str, args: &[&str]| {
        let mut command = google.command(args);
        command.env(name, value);
        finish(command.spawn().unwrap())
    };
    let create = ["create", "sample.raw", "--name", "n", "--bucket", BUCKET, "--json"];
    let create = google.args(&create);
    let nobody = google.store(&create);
    assert!(nobody.code == 1 && nobody.stderr.contains("UNAUTHENTICATED"), "{nobody:?}");
    let stranger = with("GOOGLE_OAUTH_ACCESS_TOKEN", "ya29.other", &create);
    assert!(stranger.code == 1 && stranger.stderr.contains("UNAUTHENTICATED"), "{stranger:?}");
    assert!(stranger.stderr.contains("gcloud auth print-access-token"), "{stranger:?}");
    // Those of the other cloud go to that cloud.
    let yandex = with("YC_TOKEN", "ya29.SECRET", &create);
    assert!(yandex.code == 1 && yandex.stderr.contains("UNAUTHENTICATED"), "{yandex:?}");
    for name in ["GOOGLE_OAUTH_ACCESS_TOKEN", "CLOUDSDK_AUTH_ACCESS_TOKEN"] {
        let made = with(name, "ya29.SECRET", &[&create[..], &["-vv"]].concat());
        assert!(made.code == 0 && !made.stderr.contains("SECRET"), "{made:?}");
    }
    fs::write(google.bench.path("token"), "ya29.SECRET\n").unwrap();
    let made = google.store(&[&create[..], &["--token-file", "token"]].concat());
    assert_eq!(google.made(&made)["name"], "n");
    assert_eq!(google.cloud.images(FOLDER).len(), 1);
}

#[test]
fn an_operation_is_waited_for_another_day() {
    let google = Google::new();
    let begun = google.create("sample.raw", "web", &["--detach"]);
    assert_eq!(begun.code, 0, "{begun:?}");
    let id = begun.json()["id"].as_str().unwrap().to_owned();
    assert_eq!((google.cloud.objects(BUCKET).len(), google.notes().len()), (1, 1));
    assert!(
        google.notes()[0].contains(&format!("/compute/v1/projects/{FOLDER}/global")),
        "{:?}",
        google.notes()
    );
    // Another project has none of it.
    let other = google.run(&["operation", "wait", "--project", "other"]);
    assert!(other.code == 0 && other.stderr.contains("no operation of this service"), "{other:?}");
    let done = google.run(&["operation", "wait", "--json"]);
    assert_eq!(google.made(&done)["name"], "web");
    assert!(google.is_clean(), "{:?}", google.notes());
    let shown = google.run(&["operation", "get", &id]);
    assert!(shown.stdout.contains("state         done\n"), "{shown:?}");
    let cancelled = google.run(&["operation", "cancel", &id]);
    assert!(cancelled.code == 2 && cancelled.stderr.contains("cannot be cancelled"), "{cancelled:?}");
}

#[test]
fn after_ctrl_c_it_is_said_what_goes_on_and_cleanup_ends_it() {
    let google = Google::new();
    // The server does one thing at a time, and this one stalls.
    let source = Server::start(vec![0; 4096], Behaviour::WaitsAfter(0, Duration::from_secs(3600)));
    let stalled = google.run(&["create", "--uri", source.url(), "--name", "stalled", "--detach", "--json"]);
    assert_eq!(stalled.code, 0, "{stalled:?}");
    let stalled = stalled.json()["id"].as_str().unwrap().to_owned();

    let args = ["create", "sample.raw", "--name", "web", "--bucket", BUCKET];
    let child = google.command(&google.args(&args)).spawn().unwrap();
    until("both operations are noted", || google.notes().len() == 2);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let run = finish(child);
    assert_eq!(run.code, 130, "{run:?}");
    assert!(run.stderr.contains("may still be running, as Compute Engine cancels nothing"), "{run:?}");
    assert!(run.stderr.contains("is kept: an operation may still read it"), "{run:?}");
    assert_eq!(google.cloud.objects(BUCKET).len(), 1);

    // Not before its time; and not by who means another project.
    let all = ["cleanup", "--older-than", "0s", "--yes"];
    let other = google.run(&[&all[..], &["--project", "other"]].concat());
    assert!(other.code == 1 && other.stderr.contains("--cloud gcp and --project"), "{other:?}");
    assert_eq!(google.cloud.objects(BUCKET).len(), 1);
    google.cloud.cancel_operation(&stalled);
    let done = google.run(&all);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stderr.contains("there is an Image `web`"), "{done:?}");
    assert!(google.cloud.objects(BUCKET).is_empty() && google.bench.journals().is_empty());
    assert_eq!(google.notes().len(), 1, "the one that was left to be waited for");
}

#[test]
fn several_images_by_one_command() {
    let google = Google::new();
    google.bench.raw("other.raw", 9 * MIB, &[]);
    let run = google.run(&["create", "sample.raw", "other.raw", "--bucket", BUCKET]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stdout.contains("READY") && run.stdout.ends_with("2 of 2 done\n"), "{run:?}");
    assert!(google.is_clean() && google.cloud.images(FOLDER).len() == 2);
    let manifest = "[[images]]\npath = \"sample.raw\"\nname = \"listed\"\narchitecture = \"ARM64\"\nguest-os-features = [\"GVNIC\"]\n";
    fs::write(google.bench.path("images.toml"), manifest).unwrap();
    let run = google.run(&["create", "--manifest", "images.toml", "--bucket", BUCKET, "--json"]);
    let image = &run.json()["operation"]["response"];
    assert_eq!(
        (&image["architecture"], &image["guestOsFeatures"][0]["type"]),
        (&json!("ARM64"), &json!("GVNIC"))
    );
}

#[test]
fn what_would_be_asked_for() {
    let google = Google::new();
    let run = google.create("sample.raw", "web", &["--dry-run", "--family=fam"]);
    assert_eq!(run.code, 0, "{run:?}");
    let forecast = run.json();
    let object = forecast["object"].as_str().unwrap();
    assert!(
        object.starts_with(&format!("gs://{BUCKET}/image-prep/")) && object.ends_with(".tar.gz"),
        "{object}"
    );
    assert_eq!(forecast["form"], "gce");
    let request = &forecast["request"];
    assert_eq!((&request["project"], &request["imageResource"]["family"]), (&json!(FOLDER), &json!("fam")));
    let source = request["imageResource"]["rawDisk"]["source"].as_str().unwrap();
    assert_eq!(source, object.replace("gs://", "https://storage.googleapis.com/"));
    assert!(google.cloud.images(FOLDER).is_empty() && google.is_clean());
}

#[test]
fn names_in_googles_store_are_taken_wherever_others_are() {
    let google = Google::new();
    let to = format!("gs://{BUCKET}/k.tar.gz");
    let uploaded = google.store(&["upload", "sample.raw", &to, "--to", "gce", "--json"]);
    assert_eq!(uploaded.code, 0, "{uploaded:?}");
    assert_eq!(google.cloud.objects(BUCKET), ["k.tar.gz"]);
    let refused = google.store(&["upload", "sample.raw", &to, "--to", "gce", "--if-exists", "fail"]);
    assert!(refused.code == 1 && refused.stderr.contains(&format!("`{to}` exists already")), "{refused:?}");
    // The archive is longer, and holds the same beyond that.
    google.store(&["convert", "sample.raw", "sample.tar.gz", "--to", "gce"]);
    for how in [&[][..], &["--content"]] {
        let same = google.store(&[&["compare", "sample.tar.gz", &to][..], how].concat());
        assert_eq!(same.code, 0, "{same:?}");
    }
    let missing = google.store(&["compare", "sample.raw", &format!("gs://{BUCKET}/missing")]);
    assert_eq!(missing.code, 2, "{missing:?}");
    let gone = google.store(&["upload", "sample.raw", "gs://no-such-bucket/k"]);
    assert!(gone.code == 1 && gone.stderr.contains("gs://no-such-bucket"), "{gone:?}");
    // What is set for other stores is not for this one.
    let mut command = google.command(&["compare", "sample.tar.gz", &to]);
    command.env("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    assert_eq!(finish(command.spawn().unwrap()).code, 0);
    let none = google.store(&["cleanup", &format!("gs://{BUCKET}"), "--older-than", "0s", "--yes"]);
    assert!(none.code == 0 && none.stdout.is_empty(), "{none:?}");
    let made = google.run(&["create", "--uri", &to, "--name", "named", "--json"]);
    assert_eq!(google.made(&made)["diskSizeGb"], "1");
    fs::write(google.bench.path("uri"), format!("{to}\n")).unwrap();
    let made = google.run(&["create", "--uri", "@uri", "--name", "named-too", "--json"]);
    assert_eq!(google.made(&made)["name"], "named-too");
}

#[test]
fn doctor_looks_at_both() {
    let google = Google::with_token(Some("ya29.SECRET"));
    let args = google.args(&["doctor", "--bucket", BUCKET, "--json"]);
    let doctor = |token: &str| {
        let mut command = google.command(&args);
        command.env("GOOGLE_OAUTH_ACCESS_TOKEN", token);
        let run = finish(command.spawn().unwrap());
        conforms(&args.iter().map(OsStr::new).collect::<Vec<_>>(), &run);
        let steps: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let result = move |step: &str| {
            let found = steps.iter().find(|found| found["step"] == step);
            found.unwrap_or_else(|| panic!("no {step}: {steps:?}"))["result"].as_str().unwrap().to_owned()
        };
        (run, result)
    };
    let (run, result) = doctor("ya29.SECRET");
    assert_eq!(run.code, 0, "{run:?}");
    for step in
        ["project", "credentials", "endpoint", "clock", "service", "bucket", "put", "signed URL", "delete"]
    {
        assert_eq!(result(step), "ok", "{step}");
    }
    let (run, result) = doctor("ya29.other");
    assert_eq!((run.code, result("service").as_str()), (1, "fail"), "{run:?}");
    assert!(google.cloud.objects(BUCKET).is_empty());
}
