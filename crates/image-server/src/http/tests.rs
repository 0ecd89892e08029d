//! Both faces under a real client, over a catalog on disk and content that does what its URI says.

mod access;
mod changes;
mod content;
mod faces;
mod images;
mod operations;
mod outage;

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
use image_ingest::UriPolicy;
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
        let path = image_ingest::without_query(work.source.expose());
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
        Self::on(transport, dir, catalog, identity, rights).await
    }

    async fn on(
        transport: Transport,
        dir: tempfile::TempDir,
        catalog: Catalog,
        identity: Identity,
        rights: Rights,
    ) -> Self {
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
            has_pool: false,
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
    for _ in 0..6000 {
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

fn url(server: &Harness, path: &str) -> String {
    format!("http://{}{path}", server.address)
}

fn reqwest_of(_server: &Harness) -> reqwest::Client {
    // The client of image-api, made before, has installed the TLS provider that reqwest asks for.
    reqwest::Client::new()
}
