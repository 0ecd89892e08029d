//! Compute Engine's images API with real content: the archives that Google imports, by ranges, into the same blocks as by the other API.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use disk_convert::{
    ByteSource as _, MemorySink, MemorySource, Options, References, Workers, open_image, pack, scan,
};
use disk_image::{Format, OpenOptions, Span, gce};
use image_server::VolumeFolder;
use serde_json::{Value, json};
use support::{Fixture, disk};
use tokio_util::sync::CancellationToken;

const MIB: usize = 1 << 20;
const GIB: u64 = 1 << 30;

/// The disk in an archive as `image-prep upload --to gce` makes it: of one GiB, sparse.
async fn gce_archive(content: &[u8]) -> Vec<u8> {
    let source = Arc::new(MemorySource::new("disk", Bytes::copy_from_slice(content)));
    let (options, cancel) = (Options::default(), CancellationToken::new());
    let raw = OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() };
    let disk = open_image(source, &raw, &References::Deny, &options, &cancel).await.unwrap();
    let disk = scan(&disk, &options, &cancel).await.unwrap();
    let layout = gce::Archive::new(disk.image().map()).unwrap();
    pack(&disk, layout, MemorySink::default(), &options, &cancel).await.unwrap().output
}

/// The disk in a plain tar of POSIX.1, without gzip around it.
fn tar(content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..8].copy_from_slice(b"disk.raw");
    header[100..108].copy_from_slice(b"0000644\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let padding = content.len().next_multiple_of(512) - content.len();
    [&header, content, &vec![0; padding + 1024]].concat()
}

/// A caller of the project `p`.
struct Google {
    base: String,
    http: reqwest::Client,
}

impl Google {
    fn of(fixture: &Fixture) -> Self {
        let base = format!("{}/compute/v1/projects/p/global", fixture.endpoint());
        Self { base, http: reqwest::Client::new() }
    }

    async fn call(&self, verb: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.http.request(verb.parse().unwrap(), format!("{}/{path}", self.base));
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
    }

    /// An operation that is DONE, well or not.
    async fn done(&self, verb: &str, path: &str, body: Option<Value>) -> Value {
        let (status, mut operation) = self.call(verb, path, body).await;
        assert_eq!(status, 200, "{operation}");
        while operation["status"] != "DONE" {
            let name = operation["name"].as_str().unwrap().to_owned();
            operation = self.call("POST", &format!("operations/{name}/wait"), None).await.1;
        }
        assert_eq!(operation["progress"], 100);
        operation
    }

    async fn insert(&self, body: Value) -> Value {
        let done = self.done("POST", "images", Some(body)).await;
        assert_eq!(done.get("error"), None, "{done}");
        done
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }
}

/// The id that our own API knows an image by.
async fn own_id(fixture: &Fixture, name: &str) -> String {
    let list = image_api::compute::ListImagesRequest {
        folder_id: "p".to_owned(),
        filter: format!("name = {name}"),
        ..image_api::compute::ListImagesRequest::default()
    };
    fixture.client.list_images(&list, &fixture.cancel).await.unwrap().images[0].id.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_become_images() {
    let fixture = Fixture::start_with(|config| config.source_buckets.push("images".parse().unwrap())).await;
    let google = Google::of(&fixture);
    let content = disk(10 * MIB, &[(0, MIB), (6 * MIB, 3000)]);
    // By its name in the store, and by a pre-signed URL.
    fixture.upload("up/disk.tar.gz", &gce_archive(&content).await).await;
    let signed = fixture.upload("disk.tar", &tar(&content)).await;
    let named =
        json!({"source": "https://storage.googleapis.com/images/up/disk.tar.gz", "containerType": "TAR"});
    let done = google.insert(json!({"name": "web", "family": "linux", "rawDisk": named})).await;
    assert_eq!(done["targetLink"], format!("{}/images/web", google.base));
    let image = google.get("images/web").await;
    assert_eq!((&image["status"], &image["diskSizeGb"]), (&json!("READY"), &json!("1")));
    // Two blocks of 4 MiB.
    assert_eq!(image["archiveSizeBytes"], "8388608");
    assert_eq!((&image["storageLocations"], &image["rawDisk"]), (&json!(["local"]), &Value::Null));
    assert_eq!(google.get("images/family/linux").await, image);
    // Two blocks are all of it; not the whole GiB is read.
    let id = own_id(&fixture, "web").await;
    let stored = fixture.blocks().source(&id, fixture.manifest(&id).await, &Workers::default());
    assert_eq!(stored.len(), GIB);
    assert!(stored.read(Span::new(0, content.len() as u64)).await.unwrap() == content);

    google.insert(json!({"name": "plain", "rawDisk": {"source": signed}, "diskSizeGb": 20})).await;
    assert_eq!(google.get("images/plain").await["diskSizeGb"], "20");
    assert!(fixture.read_back(&own_id(&fixture, "plain").await).await == content);
    // It is the same disk with zeroes behind it: all blocks but the last one are the same.
    google.insert(json!({"name": "copy", "sourceImage": "global/images/plain"})).await;
    assert_eq!(fixture.block_count().await, 2);
    let list = google.get("images?maxResults=2").await;
    assert_eq!((&list["items"][0]["name"], &list["items"][1]["name"]), (&json!("copy"), &json!("plain")));
    assert!(list["nextPageToken"].is_string());

    for name in ["copy", "plain", "web"] {
        let done = google.done("DELETE", &format!("images/{name}"), None).await;
        assert_eq!((&done["operationType"], done.get("error")), (&json!("delete"), None));
    }
    assert_eq!(fixture.block_count().await, 0);
    assert_eq!(google.call("GET", "images/web", None).await.0, 404);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_image_fails_and_leaves_nothing() {
    let fixture = Fixture::start_with(|config| config.source_buckets.push("images".parse().unwrap())).await;
    let google = Google::of(&fixture);
    fixture.upload("text", &b"to whom it may concern".repeat(100)).await;
    let name = "requestId=0f8fad5b-d9cb-469f-a165-70867728950e";
    let raw =
        |object: &str| Some(json!({"name": "web", "rawDisk": {"source": format!("gs://images/{object}")}}));
    for (object, code, status, words) in [
        ("text", "INVALID_ARGUMENT", 400, "no known disk image format"),
        ("nothing", "FAILED_PRECONDITION", 400, "not found"),
    ] {
        let done = google.done("POST", "images", raw(object)).await;
        assert_eq!(
            (&done["httpErrorStatusCode"], &done["httpErrorMessage"]),
            (&json!(status), &json!("BAD REQUEST"))
        );
        let fault = &done["error"]["errors"][0];
        let message = fault["message"].as_str().unwrap();
        assert!(fault["code"] == code && message.contains(words) && !message.contains("X-Amz-"), "{fault}");
        assert_eq!(done["targetLink"], format!("{}/images/web", google.base), "though there is none");
        assert_eq!(google.call("GET", "images/web", None).await.0, 404);
    }
    // What the server keeps in the same bucket is not read by its name; nor is it by detours.
    let content = disk(8 * MIB, &[(0, 8 * MIB)]);
    fixture.upload("disk", &content).await;
    google.insert(raw("disk").unwrap()).await;
    let page = fixture.store.list("images", ".blocks/blocks/", None, &fixture.cancel).await.unwrap();
    let block = page.objects[0].key.clone();
    for object in [block.clone(), format!("up/../{block}"), ".blocks/owner".to_owned()] {
        let (status, body) = google.call("POST", &format!("images?{name}"), raw(&object)).await;
        assert_eq!(status, 400, "{object}: {body}");
    }
    // An attempt that failed is no answer to the next one with its id.
    let failed = google
        .done(
            "POST",
            &format!("images?{name}"),
            Some(json!({"name": "db", "rawDisk": {"source": "gs://images/later"}})),
        )
        .await;
    assert!(failed.get("error").is_some());
    fixture.upload("later", &content).await;
    let again = google
        .done(
            "POST",
            &format!("images?{name}"),
            Some(json!({"name": "db", "rawDisk": {"source": "gs://images/later"}})),
        )
        .await;
    assert_eq!(again.get("error"), None);
    assert_ne!(again["id"], failed["id"]);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_and_snapshots_are_sources() {
    let dir = tempfile::tempdir().unwrap();
    let content = disk(5 * MIB, &[(0, MIB)]);
    std::fs::write(dir.path().join("plain.raw"), &content).unwrap();
    let fixture = Fixture::start_with(|config| {
        config.volumes.snapshots = Some(Arc::new(VolumeFolder::new(dir.path())));
        config.volumes.disks = Some(Arc::new(VolumeFolder::new(dir.path())));
    })
    .await;
    let google = Google::of(&fixture);
    google.insert(json!({"name": "a", "sourceSnapshot": "projects/p/global/snapshots/plain"})).await;
    let disk = json!({"name": "b", "sourceDisk": "projects/p/zones/z/disks/plain"});
    let done = google.done("POST", "images?forceCreate=true", Some(disk)).await;
    assert_eq!(done.get("error"), None, "{done}");
    for (name, field, path) in
        [("a", "sourceSnapshot", "global/snapshots/plain"), ("b", "sourceDisk", "zones/z/disks/plain")]
    {
        let link = google.get(&format!("images/{name}")).await[field].as_str().unwrap().to_owned();
        assert!(link.ends_with(&format!("/projects/p/{path}")), "{link}");
        assert!(fixture.read_back(&own_id(&fixture, name).await).await == content, "{name}");
    }
    let missing = json!({"name": "c", "sourceDisk": "zones/z/disks/nothing"});
    let (status, body) = google.call("POST", "images", Some(missing)).await;
    assert_eq!((status, &body["error"]["errors"][0]["reason"]), (404, &json!("notFound")));
    fixture.stop().await;
}

/// How far it is can be seen before it is done.
#[tokio::test(flavor = "multi_thread")]
async fn progress() {
    let content = disk(40 * 4 * MIB, &(0..40).map(|block| (block * 4 * MIB + 512, 512)).collect::<Vec<_>>());
    let slow = support::SlowSource::start(content).await;
    let fixture = Fixture::start_with(|config| config.allowed_uri_hosts.push(slow.rule())).await;
    let google = Google::of(&fixture);
    slow.stall_at(120 * MIB);
    let new = json!({"name": "web", "rawDisk": {"source": slow.url()}});
    let (_, operation) = google.call("POST", "images", Some(new)).await;
    let name = operation["name"].as_str().unwrap().to_owned();
    let progress = loop {
        let seen = google.get(&format!("operations/{name}")).await;
        let progress = seen["progress"].as_i64().unwrap();
        assert!(progress < 100 && seen["status"] != "DONE", "{seen}");
        if progress > 0 {
            break progress;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert!((1..=99).contains(&progress));
    slow.stall_at(usize::MAX);
    let done = google.done("POST", &format!("operations/{name}/wait"), None).await;
    assert_eq!(done.get("error"), None, "{done}");
    fixture.stop().await;
}
