//! Compute Engine's face: its shapes, its errors and its waiting. What the images really are: `tests/google.rs`.

use axum::http::StatusCode;
use image_api::google::WaitGlobalOperationRequest;
use serde_json::{Value, json};

use super::*;
use crate::service::Caller;

/// A caller of the project `folder`.
struct Google<'a> {
    server: &'a Harness,
    http: reqwest::Client,
    token: Option<String>,
}

impl<'a> Google<'a> {
    fn of(server: &'a Harness) -> Self {
        Self { server, http: reqwest_of(server), token: None }
    }

    async fn call(&self, verb: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let target = url(self.server, &format!("/compute/v1/projects/{path}"));
        let mut request = self.http.request(verb.parse().unwrap(), target);
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap();
        let status = StatusCode::from_u16(answer.status().as_u16()).unwrap();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn insert(&self, query: &str, body: Value) -> (StatusCode, Value) {
        self.call("POST", &format!("folder/global/images{query}"), Some(body)).await
    }

    /// An image that is READY.
    async fn ready(&self, body: Value) -> Value {
        let (status, operation) = self.insert("", body).await;
        assert_eq!(status, 200, "{operation}");
        let name = operation["name"].as_str().unwrap();
        let (_, done) = self.call("POST", &format!("folder/global/operations/{name}/wait"), None).await;
        assert_eq!((&done["status"], done.get("error")), (&json!("DONE"), None), "{done}");
        done
    }

    /// The reasons of a refusal, which has the shape that clients read.
    async fn refused(&self, verb: &str, path: &str, body: Option<Value>) -> (u16, String, String) {
        let (status, answer) = self.call(verb, path, body).await;
        let error = &answer["error"];
        assert_eq!(error["code"], status.as_u16(), "{answer}");
        assert!(error["status"].is_string(), "{answer}");
        let first = &error["errors"][0];
        assert_eq!(first["domain"], "global", "{answer}");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (status.as_u16(), text(&first["reason"]), text(&error["message"]))
    }
}

fn raw(name: &str, object: &str) -> Value {
    json!({"name": name, "rawDisk": {"source": format!("{HOST}/{object}")}})
}

#[tokio::test]
async fn what_is_shown() {
    let server = Harness::start(Transport::Rest, &[]).await;
    let google = Google::of(&server);
    let mut new = raw("web", "disk");
    new["family"] = json!("linux");
    new["labels"] = json!({"a": "1"});
    new["guestOsFeatures"] = json!([{"type": "UEFI_COMPATIBLE"}]);
    new["architecture"] = json!("X86_64");
    new["licenses"] = json!(["projects/p/global/licenses/l"]);
    new["diskSizeGb"] = json!("2");
    let operation = google.ready(new).await;
    let base = format!("http://{}/compute/v1/projects/folder/global", server.address);
    let image = google.get("folder/global/images/web").await;
    assert_eq!(image["selfLink"], format!("{base}/images/web"));
    assert_eq!((&operation["targetLink"], &operation["targetId"]), (&image["selfLink"], &image["id"]));
    assert_eq!((&operation["progress"], &operation["operationType"]), (&json!(100), &json!("insert")));
    let expected = json!({
        "kind": "compute#image", "name": "web", "family": "linux", "labels": {"a": "1"}, "status": "READY", "sourceType": "RAW",
        "guestOsFeatures": [{"type": "UEFI_COMPATIBLE"}], "architecture": "X86_64", "storageLocations": ["here"],
        "licenses": ["projects/p/global/licenses/l"], "diskSizeGb": "2", "archiveSizeBytes": "1048576",
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(image[name], *value, "{name}");
    }
    assert!(image["id"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(google.get("folder/global/images/family/linux").await, image);
    let list = google.get("folder/global/images?alt=json").await;
    assert_eq!((&list["kind"], &list["items"]), (&json!("compute#imageList"), &json!([image])));
    // The other API has the same image, by its own names, and one of its own is shown here.
    let same = ListImagesRequest { folder_id: "folder".to_owned(), ..ListImagesRequest::default() };
    let same = server.client.list_images(&same, &server.cancel).await.unwrap().images;
    assert_eq!((same[0].name.as_str(), same[0].min_disk_size), ("web", 2 << 30));
    let windows = Os { r#type: os::Type::Windows.into(), ..Os::default() };
    let own = server.create(&CreateImageRequest { os: Some(windows), ..request("", "disk") }).await.unwrap();
    server.wait(&own.id).await;
    let id = own.metadata_as::<CreateImageMetadata>().unwrap().image_id;
    let unnamed = google.get(&format!("folder/global/images/{id}")).await;
    assert_eq!((&unnamed["name"], &unnamed["guestOsFeatures"]), (&json!(id), &json!([{"type": "WINDOWS"}])));
    assert_eq!(google.get(&format!("folder/global/operations/{}", own.id)).await["targetId"], unnamed["id"]);
    server.stop().await;
}

#[tokio::test]
async fn what_is_refused_is_named() {
    let server = Harness::start(Transport::Rest, &[]).await;
    let google = Google::of(&server);
    let with = |field: &str, value: Value| {
        let mut image = raw("web", "disk");
        image[field] = value;
        image
    };
    let images = "folder/global/images";
    for (body, words) in [
        (with("name", json!("Web")), "'resource.name'"),
        (with("family", json!("-")), "'resource.family'"),
        (with("labels", json!({"A": "x"})), "'resource.labels.A'"),
        (with("architecture", json!("RISCV")), "'resource.architecture'"),
        (with("guestOsFeatures", json!([{"type": "WINGS"}])), "'resource.guestOsFeatures[0].type'"),
        (with("diskSizeGb", json!("5000")), "'resource.diskSizeGb'"),
        (with("sourceType", json!("COOKED")), "'resource.sourceType'"),
        (
            with("storageLocations", json!(["us"])),
            "'resource.storageLocations': this server stores in \"here\" only",
        ),
        (json!({"name": "web"}), "exactly one of raw_disk, source_image, source_snapshot, source_disk"),
        (json!({"name": "web", "sourceImage": "web"}), "'resource.sourceImage'"),
        (raw("", "disk"), "'resource.name'"),
        // What Google has and this server does not, what the server sets, and what nobody has.
        (with("imageEncryptionKey", json!({})), "imageEncryptionKey"),
        (with("shieldedInstanceInitialState", json!({})), "shieldedInstanceInitialState"),
        (with("deprecated", json!({})), "deprecated"),
        (with("status", json!("READY")), "status"),
        (with("colour", json!("red")), "colour"),
        (
            json!({"name": "web", "rawDisk": {"source": format!("{HOST}/disk"), "sha1Checksum": "x"}}),
            "sha1Checksum",
        ),
        (
            json!({"name": "web", "rawDisk": {"source": "https://other.example/b/k"}}),
            "'resource.rawDisk.source': host other.example",
        ),
        (json!({"name": "web", "rawDisk": {"source": "gs://other/k"}}), "bucket other"),
    ] {
        let (status, reason, message) = google.refused("POST", images, Some(body.clone())).await;
        assert_eq!((status, reason.as_str()), (400, "invalid"), "{body}: {message}");
        assert!(message.contains(words), "{body}: {message}");
    }
    for (query, words) in [
        ("?requestId=7", "'requestId'"),
        ("?requestId=00000000-0000-0000-0000-000000000000", "zero UUID"),
        ("?forceCreate=true", "'forceCreate'"),
        ("?colour=red", "'colour': no such parameter"),
        ("?alt=media", "'alt'"),
    ] {
        let path = format!("{images}{query}");
        let (status, _, message) = google.refused("POST", &path, Some(raw("web", "disk"))).await;
        assert!(status == 400 && message.contains(words), "{query}: {message}");
    }
    for (query, words) in [
        ("?maxResults=501", "maxResults"),
        ("?orderBy=size", "orderBy"),
        ("?filter=size=1", "filter"),
        ("?pageToken=x", "pageToken"),
    ] {
        let (status, _, message) = google.refused("GET", &format!("{images}{query}"), None).await;
        assert!(status == 400 && message.contains(words), "{query}: {message}");
    }
    let empty = google.refused("POST", images, None).await;
    assert_eq!((empty.0, empty.1.as_str()), (400, "invalid"));
    // Nothing of that name, of that path, of that verb; and two of a name.
    for path in
        ["folder/global/images/web", "folder/global/images/family/web", "folder/global/operations/web"]
    {
        let (status, reason, message) = google.refused("GET", path, None).await;
        assert_eq!((status, reason.as_str()), (404, "notFound"));
        assert!(message.contains(&format!("projects/{path}' was not found")), "{message}");
    }
    assert_eq!(google.refused("DELETE", "folder/global/images/web", None).await.0, 404);
    assert_eq!(google.refused("GET", "folder/global/disks/web", None).await.0, 404);
    assert_eq!(google.refused("PUT", "folder/global/images/web", None).await.0, 405);
    google.ready(raw("web", "disk")).await;
    let twice = google.refused("POST", images, Some(raw("web", "disk"))).await;
    assert_eq!((twice.0, twice.1.as_str()), (409, "alreadyExists"));
    // An operation belongs to its project.
    let done = google.ready(raw("db", "disk")).await;
    let foreign = format!("other/global/operations/{}", done["name"].as_str().unwrap());
    assert_eq!(google.refused("GET", &foreign, None).await.0, 404);
    server.stop().await;
}

#[tokio::test]
async fn one_request_id_is_one_operation() {
    let server = Harness::start(Transport::Rest, &[]).await;
    let google = Google::of(&server);
    let insert = "?requestId=6e0c24cc-4f5c-4f43-8a08-2c0e9cd9ef6b";
    let (_, first) = google.insert(insert, raw("web", "disk")).await;
    // Signed once more, and in capitals.
    let again = json!({"name": "web", "rawDisk": {"source": format!("{HOST}/disk?X-Amz-Signature=other")}});
    let (_, second) = google.insert(&insert.replace("6e0c", "6E0C"), again).await;
    assert_eq!(first["id"], second["id"]);
    assert_eq!(second["clientOperationId"], "6e0c24cc-4f5c-4f43-8a08-2c0e9cd9ef6b");
    let other =
        google.refused("POST", &format!("folder/global/images{insert}"), Some(raw("db", "disk"))).await;
    assert_eq!(other.0, 409, "{}", other.2);
    server.wait(first["name"].as_str().unwrap()).await;

    let delete = "folder/global/images/web?requestId=8ad5aa5c-2b73-4a7a-8f0a-74a9bd1c4f7e";
    let (status, first) = google.call("DELETE", delete, None).await;
    assert_eq!((status.as_u16(), &first["operationType"]), (200, &json!("delete")));
    server.wait(first["name"].as_str().unwrap()).await;
    let (_, second) = google.call("DELETE", delete, None).await;
    assert_eq!(
        (&second["id"], &second["status"]),
        (&first["id"], &json!("DONE")),
        "the image is gone, the answer is not"
    );
    assert!(second["targetLink"].as_str().unwrap().ends_with("/images/web"));
    let (_, third) = google.call("DELETE", &delete.replace("8ad5", "8AD5"), None).await;
    assert_eq!(third["id"], first["id"], "{third}");
    server.stop().await;
}

#[tokio::test]
async fn images_that_are_made_of_others_inherit() {
    let server = Harness::start(Transport::Rest, &[]).await;
    let google = Google::of(&server);
    let mut base = raw("base", "disk");
    base["architecture"] = json!("ARM64");
    base["guestOsFeatures"] = json!([{"type": "GVNIC"}]);
    google.ready(base).await;
    google.ready(json!({"name": "copy", "sourceImage": "projects/folder/global/images/base"})).await;
    let (base, copy) =
        (google.get("folder/global/images/base").await, google.get("folder/global/images/copy").await);
    assert_eq!(
        (&copy["architecture"], &copy["guestOsFeatures"]),
        (&json!("ARM64"), &json!([{"type": "GVNIC"}]))
    );
    assert_eq!((&copy["sourceImage"], &copy["sourceImageId"]), (&base["selfLink"], &base["id"]));
    let missing = json!({"name": "x", "sourceImage": "global/images/nothing"});
    assert_eq!(google.refused("POST", "folder/global/images", Some(missing)).await.0, 404);
    let no_disks = json!({"name": "x", "sourceDisk": "zones/z/disks/d"});
    let refused = google.refused("POST", "folder/global/images", Some(no_disks)).await;
    assert_eq!((refused.0, refused.1.as_str()), (501, "notImplemented"));
    assert!(refused.2.contains("resource.sourceDisk"), "{}", refused.2);
    server.stop().await;
}

#[tokio::test]
async fn objects_of_a_listed_bucket_are_named() {
    let server = Harness::start(Transport::Rest, &[]).await;
    let google = Google::of(&server);
    let new = |name: &str, source: &str| json!({"name": name, "rawDisk": {"source": source, "containerType": "TAR"}});
    google.ready(new("a", "gs://uploads/d.tar.gz")).await;
    google.ready(new("b", "https://storage.googleapis.com/uploads/d.tar.gz")).await;
    // The bucket is for another project.
    let path = "other/global/images";
    let (status, _, message) = google.refused("POST", path, Some(new("c", "gs://uploads/d.tar.gz"))).await;
    assert!(status == 400 && message.contains("bucket uploads"), "{message}");
    // In our own words too.
    let mut own = request("d", "");
    own.source = Some(Source::Uri("gs://uploads/d.tar.gz".to_owned()));
    let done = server.wait(&server.create(&own).await.unwrap().id).await;
    assert!(matches!(done.outcome(), OperationOutcome::Succeeded(_)), "{done:?}");
    server.stop().await;
}

#[tokio::test]
async fn pages_and_filters() {
    let server = Harness::start(Transport::Rest, &[]).await;
    let google = Google::of(&server);
    for (name, family) in [("a", "linux"), ("b", "windows"), ("c", "linux"), ("d", "linux")] {
        let mut new = raw(name, "disk");
        new["family"] = json!(family);
        google.ready(new).await;
    }
    let names = async |query: &str| {
        let (mut names, mut pages, mut token) = (String::new(), 0, String::new());
        loop {
            let page = google.get(&format!("folder/global/images?{query}&pageToken={token}")).await;
            pages += 1;
            for item in page["items"].as_array().into_iter().flatten() {
                names += item["name"].as_str().unwrap();
            }
            match page["nextPageToken"].as_str() {
                Some(next) => token = next.to_owned(),
                None => return (names, pages),
            }
        }
    };
    assert_eq!(names("").await, ("abcd".to_owned(), 1));
    assert_eq!(names("maxResults=2").await, ("abcd".to_owned(), 2));
    assert_eq!(names("orderBy=creationTimestamp+desc&maxResults=3").await, ("dcba".to_owned(), 2));
    assert_eq!(names("filter=family+%3D+linux&maxResults=1").await, ("acd".to_owned(), 3));
    // Three images are looked at for each answer.
    assert_eq!(names("filter=(family+%3D+linux)+(name+!%3D+c)").await, ("ad".to_owned(), 2));
    assert_eq!(names("filter=name+eq+[ab]").await, ("ab".to_owned(), 2));
    assert_eq!(names("filter=name+%3D+x").await, (String::new(), 2));
    server.stop().await;
}

#[tokio::test]
async fn labels_and_words_change() {
    let server = Harness::start(Transport::Rest, &[]).await;
    let google = Google::of(&server);
    google.ready(raw("web", "disk")).await;
    let before = google.get("folder/global/images/web").await;
    let labels = json!({"labels": {"a": "1"}, "labelFingerprint": before["labelFingerprint"]});
    let path = "folder/global/images/web/setLabels";
    let (status, done) = google.call("POST", path, Some(labels.clone())).await;
    assert_eq!(
        (status.as_u16(), &done["status"], &done["operationType"]),
        (200, &json!("DONE"), &json!("update"))
    );
    let (status, reason, _) = google.refused("POST", path, Some(labels)).await;
    assert_eq!((status, reason.as_str()), (412, "conditionNotMet"));
    let patch = json!({"description": "text", "family": "linux"});
    assert_eq!(google.call("PATCH", "folder/global/images/web", Some(patch)).await.0, 200);
    let after = google.get("folder/global/images/family/linux").await;
    assert_eq!((&after["description"], &after["labels"]), (&json!("text"), &json!({"a": "1"})));
    assert_ne!(after["labelFingerprint"], before["labelFingerprint"]);
    let (status, _, message) =
        google.refused("PATCH", "folder/global/images/web", Some(json!({"labels": {}}))).await;
    assert!(status == 400 && message.contains("labels"), "{message}");
    server.stop().await;
}

#[tokio::test]
async fn tokens_and_rights() {
    let server = Harness::start(Transport::Rest, &["first"]).await;
    let mut google = Google::of(&server);
    assert_eq!(google.refused("GET", "folder/global/images", None).await.0, 401);
    assert_eq!(google.refused("GET", "folder/global/disks", None).await.0, 404);
    google.token = Some("wrong".to_owned());
    let (status, reason, _) = google.refused("GET", "folder/global/images", None).await;
    assert_eq!((status, reason.as_str()), (401, "authError"));
    google.token = Some("first".to_owned());
    google.get("folder/global/images").await;
    server.stop().await;
}

/// What one may not see is not there, what one may see and not change is forbidden.
#[tokio::test]
async fn rights_by_project() {
    let server = access::start(Transport::Rest, &["ajeaccount=viewer@folder"]).await;
    let mut google = Google::of(&server);
    google.token = Some("admin".to_owned());
    let done = google.ready(raw("web", "disk")).await;
    let elsewhere = google.call("POST", "other/global/images", Some(raw("db", "disk"))).await.1;
    server.wait(elsewhere["name"].as_str().unwrap()).await;
    let fingerprint = google.get("folder/global/images/web").await["labelFingerprint"].clone();

    google.token = Some(access::token(Transport::Rest, &server).await);
    google.get("folder/global/images/web").await;
    google.get("folder/global/images").await;
    google.get(&format!("folder/global/operations/{}", done["name"].as_str().unwrap())).await;
    let labels = json!({"labels": {}, "labelFingerprint": fingerprint});
    let copy = json!({"name": "copy", "sourceImage": "projects/other/global/images/db"});
    for (verb, path, body) in [
        ("POST", "folder/global/images", Some(raw("new", "disk"))),
        ("DELETE", "folder/global/images/web", None),
        ("PATCH", "folder/global/images/web", Some(json!({"description": "x"}))),
        ("POST", "folder/global/images/web/setLabels", Some(labels)),
        ("POST", "folder/global/images", Some(copy)),
        ("GET", "other/global/images", None),
    ] {
        let (status, reason, message) = google.refused(verb, path, body).await;
        assert_eq!((status, reason.as_str()), (403, "forbidden"), "{verb} {path}: {message}");
    }
    let operation = format!("other/global/operations/{}", elsewhere["name"].as_str().unwrap());
    for path in ["other/global/images/db", operation.as_str()] {
        let (status, _, message) = google.refused("GET", path, None).await;
        assert_eq!(status, 404, "{path}");
        assert!(message.contains(&format!("projects/{path}' was not found")), "{message}");
    }
    // Another one deletes the image: how that ends is seen by whoever saw the image in its folder.
    let account = google.token.replace("admin".to_owned());
    let (_, delete) = google.call("DELETE", "folder/global/images/web", None).await;
    let name = delete["name"].as_str().unwrap();
    server.wait(name).await;
    google.token = account;
    assert_eq!(google.get(&format!("folder/global/operations/{name}")).await["status"], "DONE");
    server.stop().await;
}

#[tokio::test]
async fn waiting_ends() {
    let server = Harness::start(Transport::Rest, &[]).await;
    let google = Google::of(&server);
    let (_, operation) = google.insert("", raw("web", "slow")).await;
    let name = operation["name"].as_str().unwrap().to_owned();
    server.until_running(1).await;
    // The image is there, and not ready; so it is not found by its family.
    assert_eq!(google.get("folder/global/images/web").await["status"], "PENDING");
    let shown = google.get(&format!("folder/global/operations/{name}")).await;
    assert_eq!((&shown["status"], &shown["progress"]), (&json!("RUNNING"), &json!(0)));
    let wait = WaitGlobalOperationRequest { project: "folder".to_owned(), operation: name.clone() };
    // When the time is over.
    let seen = server.app.wait_for(&Caller::Local, &wait, Duration::from_millis(30)).await.unwrap();
    assert!(!seen.message.done);
    // There is room for one who waits; the next is answered as it is.
    let place = server.app.waiters.acquire().await.unwrap();
    let (status, busy) = google.call("POST", &format!("folder/global/operations/{name}/wait"), None).await;
    assert_eq!((status.as_u16(), &busy["status"]), (200, &json!("RUNNING")), "{busy}");
    drop(place);
    // When it is done.
    let path = format!("folder/global/operations/{name}/wait");
    let (waited, ()) = tokio::join!(google.call("POST", &path, None), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.fake.go_on.notify_one();
    });
    assert_eq!(waited.1["status"], "DONE", "{waited:?}");
    // When the server stops.
    let (_, operation) = google.insert("", raw("db", "deaf")).await;
    server.until_running(1).await;
    let path = format!("folder/global/operations/{}/wait", operation["name"].as_str().unwrap());
    let (waited, ()) = tokio::join!(google.call("POST", &path, None), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.app.worker.stop();
    });
    assert_eq!(waited.1["status"], "RUNNING", "{waited:?}");
    server.fake.go_on.notify_one();
    server.stop().await;
}
