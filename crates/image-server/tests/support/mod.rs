//! A server with its embedded store, a client, and a source that takes its time.

// Each test binary uses a part of it; clippy takes only `#[test]` functions for tests.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod postgres;

use std::{
    ffi::OsStr,
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, Response, StatusCode, header},
    routing::get,
};
use block_store::{BlockStore, Manifest};
use bytes::Bytes;
use disk_convert::{
    ByteSource as _, Disk, GuestDigest, MemorySource, Options, References, Workers, open_image,
};
use disk_image::{Format, OpenOptions, Span};
use futures_util::stream;
use image_api::{
    Client, ClientOptions, CreateImageRequest, Operation, OperationOutcome, Transport, Uuid, WaitOptions,
    compute::{CreateImageMetadata, create_image_request::Source},
    rpc::Status,
};
use image_server::{Config, Running, Server, Storage, TlsFiles};
use object_io::{Credentials, PutOptions, Store, StoreConfig};
use tokio_util::sync::CancellationToken;

const BUCKET: &str = "images";
const TLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls");

pub struct Fixture {
    dir: tempfile::TempDir,
    config: Config,
    running: Running,
    pub client: Client,
    pub store: Store,
    pub cancel: CancellationToken,
}

impl Fixture {
    /// A server that reads from its own store and, by http, from 127.0.0.1.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new("127.0.0.1:0".parse().unwrap(), dir.path().join("data"));
        config.allow_http = true;
        config.jobs = Some(2);
        change(&mut config);
        Self::over(dir, config).await
    }

    /// A server whose blocks go to the store of another one, from which it reads too.
    pub async fn start_on(storage: Storage) -> Self {
        Self::start_with(|config| config.storage = storage).await
    }

    async fn over(dir: tempfile::TempDir, mut config: Config) -> Self {
        let running = Server::start(config.clone()).await.unwrap();
        // The same address after a restart, as an operator would have it.
        config.listen = running.addr;
        let client = client(&running, Transport::Rest, config.tokens.first().cloned());
        let store = running.store.clone();
        Self { dir, config, running, client, store, cancel: CancellationToken::new() }
    }

    /// What `store.json` says, as any S3 client would be told it.
    pub fn store_config(&self) -> StoreConfig {
        let keys: serde_json::Value =
            serde_json::from_slice(&std::fs::read(self.dir().join("store.json")).unwrap()).unwrap();
        let text = |name: &str| keys[name].as_str().unwrap().to_owned();
        StoreConfig {
            endpoint_url: Some(text("endpoint")),
            region: Some(text("region")),
            credentials: Some(Credentials::new(text("accessKey"), text("secretKey"))),
            ..StoreConfig::default()
        }
    }

    /// As [`Fixture::config`], in a folder of its own.
    pub fn config_elsewhere(&self) -> Config {
        Config { data_dir: self.dir.path().join("elsewhere"), ..self.config() }
    }

    pub fn config(&self) -> Config {
        Config { listen: "127.0.0.1:0".parse().unwrap(), ..self.config.clone() }
    }

    pub fn dir(&self) -> &Path {
        &self.config.data_dir
    }

    pub fn client_with(&self, token: Option<image_api::Token>) -> Client {
        self.client_over(Transport::Rest, token)
    }

    pub fn client_over(&self, transport: Transport, token: Option<image_api::Token>) -> Client {
        client(&self.running, transport, token)
    }

    pub fn token(&self) -> Option<image_api::Token> {
        self.config.tokens.first().cloned()
    }

    pub async fn stop(self) {
        self.running.shutdown().await;
    }

    pub async fn restart(self) -> Self {
        self.running.shutdown().await;
        Self::over(self.dir, self.config).await
    }

    /// Puts an object and signs its URL.
    pub async fn upload(&self, key: &str, content: &[u8]) -> String {
        let content = Bytes::copy_from_slice(content);
        self.store.put(BUCKET, key, content, &PutOptions::default(), &self.cancel).await.unwrap();
        self.sign(key).await
    }

    pub async fn sign(&self, key: &str) -> String {
        let hour = Duration::from_secs(3600);
        self.store.presign_get(BUCKET, key, hour, &self.cancel).await.unwrap().expose().to_owned()
    }

    pub async fn create(&self, request: &CreateImageRequest) -> Operation {
        self.client.create_image(request, Uuid::new_v4(), &self.cancel).await.unwrap()
    }

    pub async fn wait(&self, operation: &Operation) -> Operation {
        let options = WaitOptions {
            first_interval: Duration::from_millis(10),
            max_interval: Duration::from_millis(50),
            ..WaitOptions::default()
        };
        let wait = self.client.wait_operation(&operation.id, &options, |_| {}, &self.cancel);
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the operation ends").unwrap()
    }

    /// An image with this content; its id.
    pub async fn ready(&self, name: &str, content: &[u8]) -> String {
        let url = self.upload(name, content).await;
        let done = self.wait(&self.create(&request(name, &url)).await).await;
        assert!(matches!(done.outcome(), OperationOutcome::Succeeded(_)), "{done:?}");
        image_id(&done)
    }

    pub fn blocks(&self) -> BlockStore {
        BlockStore::new(self.store.clone(), self.running.bucket.bucket(), self.running.bucket.prefix())
    }

    pub async fn manifest(&self, image_id: &str) -> Manifest {
        let name = self.running.manifest_name(image_id).await.unwrap();
        self.blocks().load(&name, &self.cancel).await.unwrap()
    }

    /// The disk that is stored as the content of an image.
    pub async fn read_back(&self, image_id: &str) -> Vec<u8> {
        let (blocks, manifest) = (self.blocks(), self.manifest(image_id).await);
        let source = blocks.source(image_id, manifest, &Workers::default());
        source.read(Span::new(0, source.len())).await.unwrap().to_vec()
    }

    pub async fn block_count(&self) -> usize {
        self.object_count(".blocks/blocks/").await
    }

    /// The large files of the embedded store, and when each was written: blocks, and what was uploaded.
    pub fn large_files(&self) -> Vec<(std::path::PathBuf, std::time::SystemTime)> {
        let (mut folders, mut files) = (vec![self.dir().join("store")], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let metadata = entry.metadata().unwrap();
                if metadata.is_dir() {
                    folders.push(entry.path());
                } else if metadata.len() >= 1 << 20 {
                    files.push((entry.path(), metadata.modified().unwrap()));
                }
            }
        }
        files.sort();
        files
    }

    /// Where metrics are served.
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.running.metrics
    }

    /// Scheme and address.
    pub fn endpoint(&self) -> &str {
        &self.running.endpoint
    }

    /// Objects below a prefix, beside the one that says whose the blocks are.
    pub async fn object_count(&self, prefix: &str) -> usize {
        let page = self.store.list(BUCKET, prefix, None, &self.cancel).await.unwrap();
        page.objects.iter().filter(|object| !object.key.ends_with("/owner")).count()
    }

    pub async fn until_object_count(&self, prefix: &str, count: usize) {
        for _ in 0..1500 {
            if self.object_count(prefix).await == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("there are still {} objects below {prefix}", self.object_count(prefix).await);
    }
}

fn client(running: &Running, transport: Transport, token: Option<image_api::Token>) -> Client {
    let roots = std::fs::read(format!("{TLS}/root.pem")).unwrap();
    let options = ClientOptions { transport, extra_roots_pem: Some(roots), ..ClientOptions::default() };
    Client::with_options(&running.endpoint, token, &options).unwrap()
}

/// A certificate for localhost and 127.0.0.1, good until 2126, whose root nobody trusts but these tests.
pub fn tls_files() -> TlsFiles {
    TlsFiles { certificate: format!("{TLS}/cert.pem").into(), key: format!("{TLS}/key.pem").into() }
}

pub fn request(name: &str, uri: &str) -> CreateImageRequest {
    CreateImageRequest {
        folder_id: "folder".to_owned(),
        name: name.to_owned(),
        source: Some(Source::Uri(uri.to_owned())),
        ..CreateImageRequest::default()
    }
}

pub fn image_id(operation: &Operation) -> String {
    operation.metadata_as::<CreateImageMetadata>().unwrap().image_id
}

pub fn failure(operation: &Operation) -> Status {
    match operation.outcome() {
        OperationOutcome::Failed(status) => status,
        other => panic!("expected a failure, found {other:?}"),
    }
}

/// A raw disk with a boot sector's signature and noise in `runs` (offset, length).
pub fn disk(len: usize, runs: &[(usize, usize)]) -> Vec<u8> {
    let mut disk = vec![0; len];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for &(start, run) in runs {
        for byte in &mut disk[start..start + run] {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state.to_le_bytes()[0];
        }
    }
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    // Noise must not look like another format.
    disk[..16].fill(0);
    disk
}

/// The digest of a raw disk, by the engine itself.
pub async fn digest(content: &[u8]) -> GuestDigest {
    let source = Arc::new(MemorySource::new("disk", Bytes::copy_from_slice(content)));
    let raw = OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() };
    let (options, cancel) = (Options::default(), CancellationToken::new());
    let disk: Disk = open_image(source, &raw, &References::Deny, &options, &cancel).await.unwrap();
    disk_convert::digest(&disk, &options, &cancel).await.unwrap().guest_digest
}

/// What qemu-img makes of a raw disk.
pub fn qemu_convert(content: &[u8], arguments: &[&str]) -> Option<Vec<u8>> {
    let from = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(from.path(), content).unwrap();
    let convert = ["convert", "-f", "raw"].iter().chain(arguments).map(OsStr::new);
    qemu_img(convert.chain([from.path().as_os_str()]), &[])
}

/// The disk in a qcow2, as qemu-img reads it.
pub fn qemu_to_raw(qcow2: &[u8]) -> Option<Vec<u8>> {
    let from = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(from.path(), qcow2).unwrap();
    let convert = ["convert", "-f", "qcow2", "-O", "raw"].map(OsStr::new);
    qemu_img(convert.into_iter().chain([from.path().as_os_str()]), &[])
}

/// An image of qemu-img without any data.
pub fn qemu_create(format: &str, size: &str) -> Option<Vec<u8>> {
    qemu_img(["create", "-q", "-f", format].map(OsStr::new), &[size])
}

/// The file that qemu-img makes where its arguments name one between `before` and `after`.
fn qemu_img<'a>(before: impl IntoIterator<Item = &'a OsStr>, after: &[&str]) -> Option<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("to");
    let mut command = Command::new("qemu-img");
    match command.args(before).arg(&to).args(after).status() {
        Ok(status) => {
            assert!(status.success(), "{command:?}");
            Some(std::fs::read(to).unwrap())
        }
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "qemu-img is needed: {error}");
            eprintln!("SKIPPED: qemu-img is not installed ({error})");
            None
        }
    }
}

/// Serves ranges of one object, a little at a time until it is told to hurry.
pub struct SlowSource {
    address: SocketAddr,
    shared: Arc<Slow>,
}

struct Slow {
    content: Bytes,
    served: AtomicUsize,
    fast: AtomicBool,
    /// Bytes after which nothing more comes.
    stall_at: AtomicUsize,
    /// Which version of the object: its ETag.
    version: AtomicUsize,
}

/// Bytes at a time, and how long until the next ones.
const SIP: usize = 64 << 10;
const BETWEEN_SIPS: Duration = Duration::from_millis(50);

impl SlowSource {
    pub async fn start(content: Vec<u8>) -> Self {
        let shared = Arc::new(Slow {
            content: content.into(),
            served: AtomicUsize::new(0),
            fast: AtomicBool::new(false),
            stall_at: AtomicUsize::new(usize::MAX),
            version: AtomicUsize::new(1),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = axum::Router::new().route("/disk", get(range)).with_state(Arc::clone(&shared));
        // Ends with the test's runtime.
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { address, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}/disk?X-Amz-Signature=secret", self.address)
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn rule(&self) -> image_server::HostRule {
        self.host().parse().unwrap()
    }

    pub fn served(&self) -> usize {
        self.shared.served.load(Ordering::SeqCst)
    }

    pub fn hurry(&self) {
        self.shared.fast.store(true, Ordering::SeqCst);
    }

    /// Serves quickly until it has served this much in all, then nothing.
    pub fn stall_at(&self, bytes: usize) {
        self.shared.stall_at.store(bytes, Ordering::SeqCst);
        self.hurry();
    }

    /// Puts another object in the place of the one that is being read.
    pub fn replace(&self) {
        self.shared.version.fetch_add(1, Ordering::SeqCst);
    }

    /// Until guest content is being read, beyond what opening needs.
    pub async fn until_reading(&self) {
        for _ in 0..3000 {
            if self.served() > 256 << 10 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("nobody reads");
    }
}

async fn range(State(shared): State<Arc<Slow>>, headers: HeaderMap) -> Response<Body> {
    let whole = shared.content.len();
    let wanted = headers[header::RANGE].to_str().unwrap().strip_prefix("bytes=").unwrap();
    let (first, last) = wanted.split_once('-').unwrap();
    let first: usize = first.parse().unwrap();
    let last = last.parse().unwrap_or(usize::MAX).min(whole - 1);
    let bytes = shared.content.slice(first..=last);
    let etag = format!("\"{}\"", shared.version.load(Ordering::SeqCst));
    let sips = stream::unfold((bytes, shared), |(mut bytes, shared)| async move {
        if bytes.is_empty() {
            return None;
        }
        if !shared.fast.load(Ordering::SeqCst) && bytes.len() > 1 {
            tokio::time::sleep(BETWEEN_SIPS).await;
        }
        while bytes.len() > 1
            && shared.served.load(Ordering::SeqCst) >= shared.stall_at.load(Ordering::SeqCst)
        {
            tokio::time::sleep(BETWEEN_SIPS).await;
        }
        let sip = bytes.split_to(bytes.len().min(SIP));
        shared.served.fetch_add(sip.len(), Ordering::SeqCst);
        Some((Ok::<_, std::io::Error>(sip), (bytes, shared)))
    });
    Response::builder()
        .status(StatusCode::PARTIAL_CONTENT)
        .header(header::CONTENT_RANGE, format!("bytes {first}-{last}/{whole}"))
        .header(header::CONTENT_LENGTH, last - first + 1)
        .header(header::ETAG, etag)
        .body(Body::from_stream(sips))
        .unwrap()
}
