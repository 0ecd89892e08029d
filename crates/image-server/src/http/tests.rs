//! Both faces under a real client, over a catalog on disk and content that does what its URI says.

mod access;
mod changes;
mod faces;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use disk_convert::{GuestDigest, MemorySource};
use image_api::{
    ApiError, Client, ClientOptions, Code, CreateImageRequest, Image, Operation, OperationOutcome, Retry,
    Transport, Uuid, WaitOptions,
    compute::{
        CreateImageMetadata, DeleteImageMetadata, Generation2HardwareFeatures, HardwareGeneration,
        ListImagesRequest, Os, create_image_request::Source, hardware_generation::Features, image, os,
    },
    rpc::Status,
    unpack,
};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    Limits,
    catalog::Catalog,
    content::{Form, Readable},
    ingest::{IngestError, Ingested},
    limits,
    service::{Directory, Identity, Rights},
    uri::UriPolicy,
    volumes::VolumeSources,
    worker::{Content, IngestWork, Worker},
};

/// Makes of each function two tests, one for each transport: what a caller sees must not depend on it.
macro_rules! over_both {
    ($($name:ident),+ $(,)?) => { $(mod $name {
        #[tokio::test]
        async fn rest() {
            super::$name(image_api::Transport::Rest).await;
        }

        #[tokio::test]
        async fn grpc() {
            super::$name(image_api::Transport::Grpc).await;
        }
    })+ };
}
use over_both;

const HOST: &str = "https://store.example/bucket";

/// Ingests a disk of 9 MiB, or does what the last word of the URI says.
#[derive(Default)]
struct Fake {
    running: AtomicUsize,
    most: AtomicUsize,
    ingests: AtomicUsize,
    collected: AtomicUsize,
    go_on: Notify,
    /// What every image reads as.
    content: Vec<u8>,
}

#[async_trait]
impl Content for Fake {
    async fn ingest(
        &self,
        work: &IngestWork,
        cancel: &CancellationToken,
    ) -> Result<Ingested<String>, IngestError> {
        self.ingests.fetch_add(1, Ordering::SeqCst);
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        let path = crate::uri::without_query(work.source.expose());
        let ended = match path.rsplit('/').next().unwrap_or_default() {
            "panic" => panic!("as asked"),
            "slow" => {
                tokio::select! {
                    () = cancel.cancelled() => Err(IngestError::Cancelled),
                    () = self.go_on.notified() => Ok(()),
                }
            }
            "deaf" => {
                // Finishes although it was told to stop: the moment between the last block and the commit.
                self.go_on.notified().await;
                Ok(())
            }
            _ => Ok(()),
        };
        self.running.fetch_sub(1, Ordering::SeqCst);
        ended?;
        let virtual_size = 9 << 20;
        Ok(Ingested {
            virtual_size,
            storage_size: 1 << 20,
            min_disk_size: image_ingest::min_disk_size(virtual_size, work.wanted_disk_size)?,
            guest_digest: GuestDigest([7; 32]),
            output: work.manifest(),
        })
    }

    async fn open(
        &self,
        image_id: &str,
        form: Form,
        _cancel: &CancellationToken,
    ) -> Result<Readable, IngestError> {
        assert_eq!(form, Form::Raw);
        let source = Arc::new(MemorySource::new(image_id, self.content.clone()));
        Ok(Readable { source, etag: "\"7\"".to_owned() })
    }

    async fn collect(&self, _cancel: &CancellationToken) -> Result<u64, IngestError> {
        self.collected.fetch_add(1, Ordering::SeqCst);
        Ok(0)
    }
}

struct Harness {
    dir: tempfile::TempDir,
    fake: Arc<Fake>,
    app: Arc<Service>,
    client: Client,
    address: std::net::SocketAddr,
    stop: CancellationToken,
    cancel: CancellationToken,
}

impl Harness {
    async fn start(transport: Transport, tokens: &[&str]) -> Self {
        Self::over(transport, tempfile::tempdir().unwrap(), tokens).await
    }

    async fn over(transport: Transport, dir: tempfile::TempDir, tokens: &[&str]) -> Self {
        let identity = Identity {
            tokens: tokens.iter().map(|token| token.parse().unwrap()).collect(),
            ..Identity::default()
        };
        Self::with(transport, dir, identity, Rights::default()).await
    }

    async fn with(transport: Transport, dir: tempfile::TempDir, identity: Identity, rights: Rights) -> Self {
        let catalog = Catalog::open_file(&dir.path().join("catalog.sqlite")).await.unwrap();
        let content = (0..9 << 20).map(|i: u32| (i / 11 % 253).to_le_bytes()[0]).collect();
        let fake = Arc::new(Fake { content, ..Fake::default() });
        let worker =
            Worker::new(catalog.clone(), Arc::clone(&fake) as Arc<dyn Content>, limits::RUNNING_INGESTS);
        worker.start();
        let hosts = vec!["store.example".parse().unwrap()];
        let token = identity.tokens.first().map(|token| token.expose().to_owned());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Arc::new(Service {
            catalog,
            worker,
            content: Arc::clone(&fake) as Arc<dyn Content>,
            readers: Arc::new(Semaphore::new(2)),
            uris: UriPolicy { hosts, ..UriPolicy::default() },
            volumes: VolumeSources::default(),
            queue: Limits::default().queue(),
            identity,
            rights,
            directory: Directory {
                listen: address.to_string(),
                default_port: 80,
                storage: Some("store.example:443".to_owned()),
                ..Directory::default()
            },
        });
        let routes = router(Arc::clone(&app)).await.unwrap();
        let stop = CancellationToken::new();
        let serve = axum::serve(listener, routes).with_graceful_shutdown(stop.clone().cancelled_owned());
        tokio::spawn(async move { serve.await.unwrap() });
        let client = client(transport, address, token.as_deref());
        Self { dir, fake, app, client, address, stop, cancel: CancellationToken::new() }
    }

    /// Stops as a signal would, and gives the folder back.
    async fn stop(self) -> tempfile::TempDir {
        self.stop.cancel();
        self.app.worker.shutdown().await;
        self.app.catalog.close().await;
        self.dir
    }

    async fn create(&self, request: &CreateImageRequest) -> Result<Operation, ApiError> {
        self.client.create_image(request, Uuid::new_v4(), &self.cancel).await
    }

    async fn wait(&self, id: &str) -> Operation {
        let options = WaitOptions { first_interval: Duration::from_millis(5), ..WaitOptions::default() };
        let wait = self.client.wait_operation(id, &options, |_| {}, &self.cancel);
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the operation ends").unwrap()
    }

    async fn until_running(&self, count: usize) {
        eventually("running", || self.fake.running.load(Ordering::SeqCst) == count).await;
    }

    async fn until_collected(&self, count: usize) {
        eventually("collection", || self.fake.collected.load(Ordering::SeqCst) == count).await;
    }
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what} never happened");
}

fn client(transport: Transport, address: std::net::SocketAddr, token: Option<&str>) -> Client {
    let retry = Retry { attempts: 1, ..Retry::default() };
    let options = ClientOptions { transport, retry, ..ClientOptions::default() };
    let token = token.map(|token| token.parse().unwrap());
    Client::with_options(&format!("http://{address}"), token, &options).unwrap()
}

over_both!(
    an_image_becomes_ready,
    sizes_that_callers_want,
    refusals,
    tokens,
    a_repeated_call_gives_the_same_operation,
    a_key_whose_operation_failed_starts_anew,
    cancel_while_it_runs,
    cancel_at_the_last_moment_wins,
    four_run_and_the_rest_wait,
    a_restart_continues,
    what_an_earlier_run_stored_goes_with_the_failure,
    a_catalog_that_fails_for_a_moment_delays_an_operation,
    a_cancel_before_a_crash_is_kept,
    an_image_of_an_image_inherits_what_is_not_said,
    deletion,
    pages,
);

fn request(name: &str, what: &str) -> CreateImageRequest {
    CreateImageRequest {
        folder_id: "folder".to_owned(),
        name: name.to_owned(),
        source: Some(Source::Uri(format!("{HOST}/{what}?X-Amz-Signature=secret"))),
        ..CreateImageRequest::default()
    }
}

fn failure(operation: &Operation) -> Status {
    match operation.outcome() {
        OperationOutcome::Failed(status) => status,
        other => panic!("expected a failure, found {other:?}"),
    }
}

fn refusal<T: std::fmt::Debug>(answer: Result<T, ApiError>) -> image_api::StatusError {
    match answer.unwrap_err() {
        ApiError::Status(error) => *error,
        other => panic!("expected a refusal, found {other:?}"),
    }
}

async fn an_image_becomes_ready(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let operation = server.create(&request("web", "disk")).await.unwrap();
    let image_id = operation.metadata_as::<CreateImageMetadata>().unwrap().image_id;
    let done = server.wait(&operation.id).await;
    let OperationOutcome::Succeeded(Some(any)) = done.outcome() else { panic!("{done:?}") };
    let image: Image = unpack(&any).unwrap();
    assert_eq!((image.id.as_str(), image.status()), (image_id.as_str(), image::Status::Ready));
    assert_eq!((image.storage_size, image.min_disk_size), (1 << 20, 12 << 20));
    assert_eq!(server.client.get_image(&image_id, &server.cancel).await.unwrap(), image);
    assert_eq!(server.client.get_operation(&operation.id, &server.cancel).await.unwrap(), done);
    server.stop().await;
}

async fn sizes_that_callers_want(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let with = |size| CreateImageRequest { min_disk_size: size, ..request("", "disk") };
    let small = server.create(&with(4 << 20)).await.unwrap();
    let status = failure(&server.wait(&small.id).await);
    assert_eq!(status.canonical_code(), Code::InvalidArgument);
    assert_eq!(status.message, "Minimal disk size should be greater or equal than 12582912");
    let large = server.create(&with(10 << 30)).await.unwrap();
    let OperationOutcome::Succeeded(Some(any)) = server.wait(&large.id).await.outcome() else { panic!() };
    assert_eq!(unpack::<Image>(&any).unwrap().min_disk_size, 10 << 30);
    server.stop().await;
}

async fn refusals(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let bad = CreateImageRequest { name: "Web".to_owned(), folder_id: String::new(), ..request("", "disk") };
    let error = refusal(server.create(&bad).await);
    assert_eq!((error.code, error.http_status), (Code::InvalidArgument, 400));
    let fields: Vec<_> = error.field_violations().into_iter().map(|violation| violation.field).collect();
    assert_eq!(fields, ["folder_id", "name"]);
    assert!(error.request_id.is_some());

    let nothing = Some(Source::ImageId("nothing".to_owned()));
    let error = refusal(server.create(&CreateImageRequest { source: nothing, ..request("", "") }).await);
    assert_eq!((error.code, error.http_status), (Code::NotFound, 404));
    for (source, field) in
        [(Source::DiskId("d".to_owned()), "disk_id"), (Source::SnapshotId("s".to_owned()), "snapshot_id")]
    {
        let error =
            refusal(server.create(&CreateImageRequest { source: Some(source), ..request("", "") }).await);
        assert_eq!((error.code, error.http_status), (Code::Unimplemented, 501));
        assert_eq!(error.field_violations()[0].field, field);
    }
    let error = refusal(server.create(&CreateImageRequest { pooled: true, ..request("", "disk") }).await);
    assert_eq!((error.code, error.http_status), (Code::ResourceExhausted, 429));
    assert!(error.message.starts_with("pooled"), "{error}");

    for uri in
        ["https://evil.example/x?sig=secret", "http://store.example/x?sig=secret", "file:///x?sig=secret"]
    {
        let source = Some(Source::Uri(uri.to_owned()));
        let error = refusal(server.create(&CreateImageRequest { source, ..request("", "") }).await);
        assert_eq!((error.code, error.field_violations()[0].field.as_str()), (Code::InvalidArgument, "uri"));
        assert!(!error.message.contains("secret"));
    }
    let error = refusal(server.client.get_image("nothing", &server.cancel).await);
    assert_eq!((error.code, error.http_status), (Code::NotFound, 404));
    let error = refusal(server.client.get_operation("nothing", &server.cancel).await);
    assert_eq!((error.code, error.http_status), (Code::NotFound, 404));
    server.stop().await;
}

#[tokio::test]
async fn raw_http() {
    let server = Harness::start(Transport::Rest, &[]).await;
    let http = reqwest_of(&server);
    let post = async |body: &str| {
        let answer =
            http.post(url(&server, "/compute/v1/images")).body(body.to_owned()).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, body) = post(r#"{"folderId":"f","unknown":1}"#).await;
    assert_eq!(status, 400);
    assert!(body.starts_with(r#"{"code":3,"#) && body.contains("unknown"), "{body}");
    assert_eq!(post("").await.0, 400);
    assert_eq!(post(&format!(r#"{{"description":"{}"}}"#, "x".repeat(limits::REQUEST_BODY))).await.0, 400);
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/compute/v1/disks", 404),
        ("PATCH", "/compute/v1/images/fd8", 404),
        ("PUT", "/compute/v1/images/fd8", 405),
        ("HEAD", "/compute/v1/images/fd8", 404),
        ("POST", "/operations/fd8", 405),
        ("POST", "/operations/fd8:stop", 404),
        ("GET", "/operations/fd8:cancel", 404),
        ("GET", "/operations/%ff", 400),
        ("DELETE", "/compute/v1/images/%ff", 400),
        ("POST", "/operations/fd8:cancel", 404),
        ("GET", "/compute/v1/images", 400),
        ("GET", "/compute/v1/images?folderId=f&pageSize=1001", 400),
        ("GET", "/compute/v1/images?folderId=f&color=red", 400),
        ("GET", "/compute/v1/images?folderId=f&filter=size%3D1", 400),
        ("GET", "/compute/v1/images?folderId=f", 200),
    ] {
        let method = method.parse().unwrap();
        let answer = http.request(method, url(&server, path)).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path}");
        assert!(answer.headers().contains_key("x-request-id"));
        assert_eq!(answer.headers()["content-type"], "application/json");
    }
    let page =
        http.get(url(&server, "/compute/v1/images?folderId=f")).header("origin", "http://evil.example");
    assert_eq!(page.send().await.unwrap().status().as_u16(), 403);
    for (host, status) in [
        ("evil.example", 403),
        ("evil.example:80", 403),
        ("LocalHost:1", 200),
        ("[::1]:1", 200),
        ("127.0.0.1", 200),
    ] {
        let rebound = http.get(url(&server, "/compute/v1/images?folderId=f")).header("host", host);
        assert_eq!(rebound.send().await.unwrap().status().as_u16(), status, "{host}");
    }
    server.stop().await;
}

async fn tokens(transport: Transport) {
    let server = Harness::start(transport, &["first", "second"]).await;
    let operation = server.create(&request("web", "disk")).await.unwrap();
    assert_eq!(operation.created_by, "token-1");
    for wrong in [None, Some("third"), Some("firs"), Some("first1")] {
        let error = refusal(
            client(transport, server.address, wrong).get_operation(&operation.id, &server.cancel).await,
        );
        assert_eq!((error.code, error.http_status), (Code::Unauthenticated, 401), "{wrong:?}");
    }
    let second = client(transport, server.address, Some("second"));
    assert_eq!(second.get_operation(&operation.id, &server.cancel).await.unwrap().id, operation.id);
    server.stop().await;
}

async fn a_repeated_call_gives_the_same_operation(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let key = Uuid::new_v4();
    let first = server.client.create_image(&request("web", "disk"), key, &server.cancel).await.unwrap();
    server.wait(&first.id).await;
    // Another signing of the same object is the same request.
    let source = Some(Source::Uri(format!("{HOST}/disk?X-Amz-Signature=another")));
    let again = CreateImageRequest { source, ..request("web", "") };
    let second = server.client.create_image(&again, key, &server.cancel).await.unwrap();
    assert_eq!(first.id, second.id);
    // Another version of it is not.
    let source = Some(Source::Uri(format!("{HOST}/disk?versionId=2&X-Amz-Signature=another")));
    let version = CreateImageRequest { source, ..request("web", "") };
    let error = refusal(server.client.create_image(&version, key, &server.cancel).await);
    assert_eq!((error.code, error.http_status), (Code::AlreadyExists, 409));
    let error = refusal(server.client.create_image(&request("other", "disk"), key, &server.cancel).await);
    assert_eq!((error.code, error.http_status), (Code::AlreadyExists, 409));
    let error = refusal(server.create(&request("web", "disk")).await);
    assert_eq!((error.code, error.http_status), (Code::AlreadyExists, 409), "the name is taken");
    assert_eq!(server.fake.ingests.load(Ordering::SeqCst), 1);
    server.stop().await;
}

async fn a_key_whose_operation_failed_starts_anew(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let key = Uuid::new_v4();
    let first = server.client.create_image(&request("web", "panic"), key, &server.cancel).await.unwrap();
    let status = failure(&server.wait(&first.id).await);
    assert_eq!(status.canonical_code(), Code::Internal, "a panic ends the operation too");
    let second = server.client.create_image(&request("web", "disk"), key, &server.cancel).await.unwrap();
    assert_ne!(first.id, second.id);
    assert!(matches!(server.wait(&second.id).await.outcome(), OperationOutcome::Succeeded(_)));
    server.stop().await;
}

async fn cancel_while_it_runs(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let operation = server.create(&request("web", "slow")).await.unwrap();
    server.until_running(1).await;
    let asked = std::time::Instant::now();
    server.client.cancel_operation(&operation.id, &server.cancel).await.unwrap();
    let status = failure(&server.wait(&operation.id).await);
    assert!(asked.elapsed() < Duration::from_secs(1));
    assert_eq!(status.canonical_code(), Code::Cancelled);
    let image_id = operation.metadata_as::<CreateImageMetadata>().unwrap().image_id;
    assert_eq!(refusal(server.client.get_image(&image_id, &server.cancel).await).code, Code::NotFound);
    server.until_collected(1).await;
    let again = server.client.cancel_operation(&operation.id, &server.cancel).await.unwrap();
    assert!(again.done, "cancelling what has ended shows how it ended");
    server.stop().await;
}

async fn cancel_at_the_last_moment_wins(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let operation = server.create(&request("web", "deaf")).await.unwrap();
    server.until_running(1).await;
    let answer = server.client.cancel_operation(&operation.id, &server.cancel).await.unwrap();
    assert!(!answer.done);
    server.fake.go_on.notify_one();
    assert_eq!(failure(&server.wait(&operation.id).await).canonical_code(), Code::Cancelled);
    server.until_collected(1).await;
    server.stop().await;
}

async fn four_run_and_the_rest_wait(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let mut operations = Vec::new();
    for _ in 0..6 {
        operations.push(server.create(&request("", "slow")).await.unwrap());
    }
    server.until_running(limits::RUNNING_INGESTS).await;
    // One that waits is cancelled at once, without a place.
    let last = operations.pop().unwrap();
    server.client.cancel_operation(&last.id, &server.cancel).await.unwrap();
    assert_eq!(failure(&server.wait(&last.id).await).canonical_code(), Code::Cancelled);
    for _ in 0..limits::RUNNING_INGESTS {
        server.fake.go_on.notify_one();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.until_running(1).await;
    server.fake.go_on.notify_one();
    for operation in &operations {
        assert!(matches!(server.wait(&operation.id).await.outcome(), OperationOutcome::Succeeded(_)));
    }
    assert_eq!(server.fake.most.load(Ordering::SeqCst), limits::RUNNING_INGESTS);
    assert_eq!(server.fake.ingests.load(Ordering::SeqCst), 5);
    server.stop().await;
}

async fn a_restart_continues(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let goes_on = server.create(&request("web", "slow")).await.unwrap();
    server.until_running(1).await;
    let server = Harness::over(transport, server.stop().await, &[]).await;
    server.until_running(1).await;
    let seen = server.client.get_operation(&goes_on.id, &server.cancel).await.unwrap();
    assert!(!seen.done);
    server.fake.go_on.notify_one();
    assert!(matches!(server.wait(&goes_on.id).await.outcome(), OperationOutcome::Succeeded(_)));
    server.stop().await;
}

async fn what_an_earlier_run_stored_goes_with_the_failure(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let small = CreateImageRequest { min_disk_size: 4 << 20, ..request("web", "slow") };
    let operation = server.create(&small).await.unwrap();
    server.until_running(1).await;
    // The first run may have stored everything, up to the manifest; the second one is refused before its first block.
    let server = Harness::over(transport, server.stop().await, &[]).await;
    server.until_running(1).await;
    server.fake.go_on.notify_one();
    assert_eq!(failure(&server.wait(&operation.id).await).canonical_code(), Code::InvalidArgument);
    server.until_collected(1).await;
    server.stop().await;
}

async fn a_catalog_that_fails_for_a_moment_delays_an_operation(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let path = server.dir.path().join("catalog.sqlite");
    let database = sqlx::SqlitePool::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    let full = "CREATE TRIGGER full BEFORE UPDATE ON operations WHEN NEW.state = 'RUNNING' \
                BEGIN SELECT RAISE(FAIL, 'disk full'); END";
    sqlx::query(full).execute(&database).await.unwrap();
    let operation = server.create(&request("web", "disk")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.fake.ingests.load(Ordering::SeqCst), 0);
    sqlx::query("DROP TRIGGER full").execute(&database).await.unwrap();
    assert!(matches!(server.wait(&operation.id).await.outcome(), OperationOutcome::Succeeded(_)));
    database.close().await;
    server.stop().await;
}

async fn a_cancel_before_a_crash_is_kept(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let operation = server.create(&request("web", "deaf")).await.unwrap();
    server.until_running(1).await;
    server.app.catalog.cancel(&operation.id).await.unwrap();
    // The catalog is opened again while the first server still holds it, as after a crash: nothing was said goodbye to.
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(server.dir.path().join("catalog.sqlite"), dir.path().join("catalog.sqlite")).unwrap();
    std::fs::copy(server.dir.path().join("catalog.sqlite-wal"), dir.path().join("catalog.sqlite-wal"))
        .unwrap();
    let after = Harness::over(transport, dir, &[]).await;
    assert_eq!(failure(&after.wait(&operation.id).await).canonical_code(), Code::Cancelled);
    assert_eq!(after.fake.ingests.load(Ordering::SeqCst), 0, "nothing is downloaded for it again");
    after.until_collected(1).await;
    after.stop().await;
    server.fake.go_on.notify_one();
    server.stop().await;
}

async fn an_image_of_an_image_inherits_what_is_not_said(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let first = CreateImageRequest {
        os: Some(Os { r#type: os::Type::Windows.into(), ..Os::default() }),
        product_ids: vec!["p".to_owned()],
        hardware_generation: Some(HardwareGeneration {
            features: Some(Features::Generation2Features(Generation2HardwareFeatures {})),
        }),
        ..request("first", "slow")
    };
    let creating = server.create(&first).await.unwrap();
    let id = creating.metadata_as::<CreateImageMetadata>().unwrap().image_id;
    let of =
        |name: &str| CreateImageRequest { source: Some(Source::ImageId(id.clone())), ..request(name, "") };
    let early = refusal(server.create(&of("early")).await);
    assert_eq!(early.code, Code::FailedPrecondition, "{}", early.message);
    server.until_running(1).await;
    server.fake.go_on.notify_one();
    server.wait(&creating.id).await;

    let ready = async |request: &CreateImageRequest| {
        let operation = server.create(request).await.unwrap();
        let OperationOutcome::Succeeded(Some(any)) = server.wait(&operation.id).await.outcome() else {
            panic!()
        };
        unpack::<Image>(&any).unwrap()
    };
    let second = ready(&of("second")).await;
    assert_eq!((&second.os, &second.product_ids), (&first.os, &first.product_ids));
    assert_eq!(second.hardware_generation, first.hardware_generation);
    let said = CreateImageRequest {
        os: Some(Os { r#type: os::Type::Linux.into(), ..Os::default() }),
        product_ids: vec!["q".to_owned(), "r".to_owned()],
        ..of("third")
    };
    let third = ready(&said).await;
    assert_eq!((&third.os, &third.product_ids), (&said.os, &said.product_ids));
    assert_eq!(third.hardware_generation, first.hardware_generation);
    server.stop().await;
}

#[tokio::test]
async fn content_by_ranges() {
    let server = Harness::start(Transport::Rest, &["token"]).await;
    let operation = server.create(&request("web", "slow")).await.unwrap();
    let image_id = operation.metadata_as::<CreateImageMetadata>().unwrap().image_id;
    let http = reqwest_of(&server);
    let path = format!("/images/{image_id}/disk.raw");
    let ask = async |method: &str, path: &str, name: &str, value: &str| {
        let request = http.request(method.parse().unwrap(), url(&server, path)).bearer_auth("token");
        let answer = request.header(name, value).send().await.unwrap();
        let head = (answer.status().as_u16(), answer.headers().clone());
        (head.0, head.1, answer.bytes().await.unwrap())
    };
    server.until_running(1).await;
    assert_eq!(ask("GET", &path, "range", "bytes=0-0").await.0, 400, "it is not READY yet");
    server.fake.go_on.notify_one();
    server.wait(&operation.id).await;

    let content = server.fake.content.clone();
    let (status, headers, body) = ask("GET", &path, "accept", "*/*").await;
    assert_eq!((status, headers["etag"].to_str().unwrap()), (200, "\"7\""));
    assert!(body == content && headers["content-length"] == content.len().to_string().as_str());
    let (status, headers, body) = ask("GET", &path, "range", "bytes=4194000-8389000").await;
    assert_eq!((status, headers["content-range"].to_str().unwrap()), (206, "bytes 4194000-8389000/9437184"));
    assert!(body == content[4_194_000..=8_389_000]);
    let (status, headers, body) = ask("HEAD", &path, "range", "bytes=0-9").await;
    assert_eq!((status, headers["content-length"].to_str().unwrap(), body.len()), (206, "10", 0));
    let (status, headers, body) = ask("HEAD", &path, "accept", "*/*").await;
    assert_eq!((status, headers["content-length"].to_str().unwrap(), body.len()), (200, "9437184", 0));
    assert_eq!(headers["accept-ranges"], "bytes");
    let (status, headers, body) = ask("GET", &path, "range", "bytes=9437184-").await;
    assert_eq!((status, headers["content-range"].to_str().unwrap(), body.len()), (416, "bytes */9437184", 0));
    assert_eq!(ask("GET", &path, "if-match", "\"8\"").await.0, 412);
    assert_eq!(ask("GET", &path, "if-none-match", "\"7\"").await.0, 304);

    assert_eq!(ask("GET", "/images/nothing/disk.raw", "accept", "*/*").await.0, 404);
    assert_eq!(ask("GET", &format!("/images/{image_id}/disk.vmdk"), "accept", "*/*").await.0, 404);
    let stranger = http.get(url(&server, &path)).send().await.unwrap();
    assert_eq!(stranger.status().as_u16(), 401);
    server.stop().await;
}

#[tokio::test]
async fn readers_take_turns() {
    let server = Harness::start(Transport::Rest, &[]).await;
    let operation = server.create(&request("web", "disk")).await.unwrap();
    server.wait(&operation.id).await;
    let image_id = operation.metadata_as::<CreateImageMetadata>().unwrap().image_id;
    let http = reqwest_of(&server);
    let ask = || http.get(url(&server, &format!("/images/{image_id}/disk.raw"))).send();
    // Two that are in no hurry hold both places, until they go.
    let first = ask().await.unwrap();
    let second = ask().await.unwrap();
    eventually("both places are taken", || server.app.readers.available_permits() == 0).await;
    drop(first);
    assert_eq!(ask().await.unwrap().bytes().await.unwrap().len(), 9 << 20);
    drop(second);
    eventually("both places are free", || server.app.readers.available_permits() == 2).await;
    server.stop().await;
}

async fn deletion(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let operation = server.create(&request("web", "disk")).await.unwrap();
    server.wait(&operation.id).await;
    let image_id = operation.metadata_as::<CreateImageMetadata>().unwrap().image_id;
    let key = Uuid::new_v4();
    let delete = server.client.delete_image(&image_id, key, &server.cancel).await.unwrap();
    assert_eq!(delete.metadata_as::<DeleteImageMetadata>().unwrap().image_id, image_id);
    let done = server.wait(&delete.id).await;
    let OperationOutcome::Succeeded(Some(any)) = done.outcome() else { panic!("{done:?}") };
    unpack::<()>(&any).unwrap();
    assert_eq!(
        server.fake.collected.load(Ordering::SeqCst),
        1,
        "the bytes are free when the operation says so"
    );
    assert_eq!(refusal(server.client.get_image(&image_id, &server.cancel).await).code, Code::NotFound);
    let same = server.client.delete_image(&image_id, key, &server.cancel).await.unwrap();
    assert_eq!(same.id, delete.id);
    let error = refusal(server.client.delete_image(&image_id, Uuid::new_v4(), &server.cancel).await);
    assert_eq!(error.code, Code::NotFound);
    server.stop().await;
}

async fn pages(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    for name in ["d", "a", "c", "b", "e"] {
        server.wait(&server.create(&request(name, "disk")).await.unwrap().id).await;
    }
    let names = async |order_by: &str, filter: &str, page_size: i64| {
        let mut list = ListImagesRequest {
            folder_id: "folder".to_owned(),
            order_by: order_by.to_owned(),
            filter: filter.to_owned(),
            page_size,
            ..ListImagesRequest::default()
        };
        let mut names = String::new();
        loop {
            let page = server.client.list_images(&list, &server.cancel).await.unwrap();
            assert!(page_size == 0 || page.images.len() as i64 <= page_size);
            names.extend(page.images.iter().map(|image| image.name.as_str()));
            if page.next_page_token.is_empty() {
                return names;
            }
            list.page_token = page.next_page_token;
        }
    };
    assert_eq!(names("name", "", 0).await, "abcde");
    assert_eq!(names("name desc", "", 2).await, "edcba");
    assert_eq!(names("createdAt", "", 1).await, "dacbe");
    assert_eq!(names("createdAt desc", "", 5).await, "ebcad");
    assert_eq!(names("", "", 2).await.len(), 5);
    assert_eq!(names("name", r#"name != "c" AND status = READY"#, 3).await, "abde");
    assert_eq!(names("name", "name IN (a, 'e', x)", 0).await, "ae");
    assert_eq!(names("name", "status = CREATING", 0).await, "");
    server.stop().await;
}

fn url(server: &Harness, path: &str) -> String {
    format!("http://{}{path}", server.address)
}

fn reqwest_of(_server: &Harness) -> reqwest::Client {
    // The client of image-api, made before, has installed the TLS provider that reqwest asks for.
    reqwest::Client::new()
}
