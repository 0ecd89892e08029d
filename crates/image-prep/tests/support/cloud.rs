//! A cloud for the program to talk to: an image server and its store, in the test's process.
#![allow(dead_code, reason = "each test file uses some of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::Permissions;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use image_api::compute::ListImagesRequest;
use image_api::{Client, Image, Token, Uuid};
use image_server::{Config, Running, Server};
use object_io::{Credentials, PutOptions, Store, StoreConfig, TimeLimits};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::support::schema::conforms;
use crate::support::{Bench, Run, finish};

/// The folder of the Images that the tests make.
pub(crate) const FOLDER: &str = "b1gtestfolder";
/// The bucket that the tests upload to.
pub(crate) const BUCKET: &str = "test-uploads";

/// The key pair of a service account, for tests alone.
const IAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../image-server/tests/iam");

/// A running cloud; stopped when it is dropped.
pub(crate) struct Cloud {
    runtime: Runtime,
    running: Option<Running>,
    store: Store,
    client: Client,
    keys: Value,
}

impl Cloud {
    /// Starts one with its state in `dir`, which may be what `--local` left behind.
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_as(Config::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), dir), None)
    }

    /// The same, with a server that reads images from wherever it is told.
    pub(crate) fn start_for_any_host(dir: &Path) -> Self {
        let mut config = Config::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), dir);
        config.any_uri_host = true;
        Self::start_as(config, None)
    }

    /// The same, with a server that takes no disk above this size, bytes.
    pub(crate) fn start_with_limit(dir: &Path, max_virtual_size: u64) -> Self {
        let mut config = Config::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), dir);
        config.limits.max_virtual_size = max_virtual_size;
        Self::start_as(config, None)
    }

    /// The same, with a server that reads the objects of the bucket by their names, as Compute Engine does, and what it is told; one at a
    /// time, and it has patience. With a token, for whoever has it; with a limit, for disks up to that.
    pub(crate) fn start_for_google(dir: &Path, token: Option<&str>, max_virtual_size: Option<u64>) -> Self {
        let mut config = Config::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), dir);
        if let Some(limit) = max_virtual_size {
            config.limits.max_virtual_size = limit;
        }
        config.source_buckets.push(BUCKET.parse().unwrap());
        config.any_uri_host = true;
        config.limits.running_ingests = 1;
        let hour = Duration::from_secs(3600);
        config.limits.http = TimeLimits { first_byte: hour, idle: hour, ..TimeLimits::default() };
        let token = token.map(|token| Token::new(token).unwrap());
        config.tokens.extend(token.clone());
        Self::start_as(config, token)
    }

    /// The same, open to whoever has a token.
    pub(crate) fn start_with_token(dir: &Path, token: &str) -> Self {
        let token = Token::new(token).unwrap();
        let mut config = Config::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), dir);
        config.tokens.push(token.clone());
        Self::start_as(config, Some(token))
    }

    /// The same, for the service account whose key [`Cloud::write_key`] writes, with a role in all folders. What is asked of this
    /// cloud directly is asked by a token that may do everything.
    pub(crate) fn start_with_account(dir: &Path, role: &str) -> Self {
        // The JWT names the port, so it has to be known before the server is made.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut config = Config::new(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), dir);
        let token = Token::new("t1.the-tests-own").unwrap();
        config.tokens.push(token.clone());
        config.access.account_keys.push(Path::new(IAM).join("key.json"));
        config.access.grants.push(format!("ajeaccount={role}").parse().unwrap());
        config.access.audiences.push(format!("http://127.0.0.1:{port}/iam/v1/tokens"));
        Self::start_as(config, Some(token))
    }

    /// Writes the key of that account, for its owner alone.
    pub(crate) fn write_key(&self, path: &Path) {
        let private = std::fs::read_to_string(Path::new(IAM).join("private.pem")).unwrap();
        let json = serde_json::json!({
            "id": "ajekey", "service_account_id": "ajeaccount", "created_at": "2026-01-01T00:00:00Z",
            "key_algorithm": "RSA_2048", "private_key": private,
        });
        std::fs::write(path, json.to_string()).unwrap();
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }

    /// Where the image server is.
    pub(crate) fn endpoint(&self) -> &str {
        &self.running.as_ref().unwrap().endpoint
    }

    /// The same as an address.
    pub(crate) fn server_address(&self) -> SocketAddr {
        self.endpoint().strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// Endpoint and region of the store.
    pub(crate) fn store_settings(&self) -> (&str, &str) {
        let key = |name: &str| self.keys[name].as_str().unwrap();
        (key("endpoint"), key("region"))
    }

    /// Tells a command the keys of the store, and not where it is.
    pub(crate) fn tell_keys(&self, command: &mut Command) {
        let key = |name: &str| self.keys[name].as_str().unwrap();
        command.env("AWS_ACCESS_KEY_ID", key("accessKey")).env("AWS_SECRET_ACCESS_KEY", key("secretKey"));
    }

    /// Only a store, which runs elsewhere and has the bucket; `keys` are what this one has in its `store.json`.
    pub(crate) fn of_store(keys: Value) -> Self {
        let runtime = runtime();
        let store = runtime.block_on(connect(&keys));
        // Port 1 of this machine: nobody listens, and nobody asks.
        let client = Client::new("http://127.0.0.1:1", None).unwrap();
        Self { runtime, running: None, store, client, keys }
    }

    fn start_as(config: Config, token: Option<Token>) -> Self {
        let runtime = runtime();
        let dir = config.data_dir.clone();
        let running = runtime.block_on(Server::start(config)).unwrap();
        let keys: Value = serde_json::from_slice(&std::fs::read(dir.join("store.json")).unwrap()).unwrap();
        let store = runtime.block_on(connect(&keys));
        runtime.block_on(store.create_bucket(BUCKET, &CancellationToken::new())).unwrap();
        let client = Client::new(&running.endpoint, token).unwrap();
        Self { runtime, running: Some(running), store, client, keys }
    }

    /// Tells a command where this cloud is.
    pub(crate) fn tell(&self, command: &mut Command) {
        self.tell_store(command);
        command.env("YC_ENDPOINT", &self.running.as_ref().unwrap().endpoint).env("YC_FOLDER_ID", FOLDER);
    }

    /// Tells a command where this cloud is, as if it were Google's.
    pub(crate) fn tell_google(&self, command: &mut Command) {
        self.tell_keys(command);
        let (endpoint, region) = self.store_settings();
        command.env("STORAGE_EMULATOR_HOST", endpoint).env("AWS_REGION", region);
        command.env("GOOGLE_CLOUD_PROJECT", FOLDER);
    }

    /// Tells a command where the store is, and nothing of the image server.
    pub(crate) fn tell_store(&self, command: &mut Command) {
        let key = |name: &str| self.keys[name].as_str().unwrap();
        command
            .env("AWS_ENDPOINT_URL", key("endpoint"))
            .env("AWS_REGION", key("region"))
            .env("AWS_ACCESS_KEY_ID", key("accessKey"))
            .env("AWS_SECRET_ACCESS_KEY", key("secretKey"));
    }

    /// Tells a command where the store is, by way of a proxy.
    pub(crate) fn tell_store_behind(&self, proxy: &str, command: &mut Command) {
        self.tell_store(command);
        command.env("AWS_ENDPOINT_URL", proxy);
    }

    /// Where the store listens.
    pub(crate) fn store_address(&self) -> SocketAddr {
        self.keys["endpoint"].as_str().unwrap().strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// The bytes of an object.
    pub(crate) fn object(&self, bucket: &str, key: &str) -> Vec<u8> {
        let never = CancellationToken::new();
        self.runtime.block_on(self.store.get(bucket, key, None, &never)).unwrap().to_vec()
    }

    /// Writes an object.
    pub(crate) fn put(&self, bucket: &str, key: &str, bytes: &'static [u8]) {
        self.put_told(bucket, key, bytes.to_vec(), &[]);
    }

    /// Writes an object that says something about itself.
    pub(crate) fn put_told(&self, bucket: &str, key: &str, bytes: Vec<u8>, metadata: &[(&str, &str)]) {
        let metadata =
            metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (never, how) = (CancellationToken::new(), PutOptions { metadata, ..PutOptions::default() });
        self.runtime.block_on(self.store.put(bucket, key, bytes.into(), &how, &never)).unwrap();
    }

    /// What an object says about itself.
    pub(crate) fn metadata(&self, bucket: &str, key: &str) -> BTreeMap<String, String> {
        self.runtime.block_on(self.store.head(bucket, key, &CancellationToken::new())).unwrap().metadata
    }

    /// Removes an object.
    pub(crate) fn delete(&self, bucket: &str, key: &str) {
        self.runtime.block_on(self.store.delete(bucket, key, &CancellationToken::new())).unwrap();
    }

    /// Aborts all uploads to a bucket.
    pub(crate) fn abort_uploads(&self, bucket: &str) {
        let never = CancellationToken::new();
        for upload in self.runtime.block_on(self.store.list_uploads(bucket, "", &never)).unwrap() {
            self.runtime.block_on(self.store.abort_upload(bucket, &upload.key, &upload.id, &never)).unwrap();
        }
    }

    /// Keys in a bucket.
    pub(crate) fn objects(&self, bucket: &str) -> Vec<String> {
        let never = CancellationToken::new();
        let page = self.runtime.block_on(self.store.list(bucket, "", None, &never)).unwrap();
        page.objects.into_iter().map(|object| object.key).collect()
    }

    /// Keys of unfinished uploads to a bucket.
    pub(crate) fn uploads(&self, bucket: &str) -> Vec<String> {
        let never = CancellationToken::new();
        let uploads = self.runtime.block_on(self.store.list_uploads(bucket, "", &never)).unwrap();
        uploads.into_iter().map(|upload| upload.key).collect()
    }

    /// Deletes the Image of a name.
    pub(crate) fn delete_image(&self, folder: &str, name: &str) {
        let image = self.images(folder).into_iter().find(|image| image.name == name).unwrap();
        let never = CancellationToken::new();
        self.runtime.block_on(self.client.delete_image(&image.id, Uuid::new_v4(), &never)).unwrap();
        until("the Image is gone", || self.images(folder).iter().all(|found| found.id != image.id));
    }

    /// Asks an operation to stop, and waits until it has.
    pub(crate) fn cancel_operation(&self, id: &str) {
        let never = CancellationToken::new();
        self.runtime.block_on(self.client.cancel_operation(id, &never)).unwrap();
        until("the operation has stopped", || {
            self.runtime.block_on(self.client.get_operation(id, &never)).unwrap().done
        });
    }

    /// Images of a folder, whatever their status.
    pub(crate) fn images(&self, folder: &str) -> Vec<Image> {
        let request = ListImagesRequest { folder_id: folder.to_owned(), ..ListImagesRequest::default() };
        self.runtime.block_on(self.client.list_images(&request, &CancellationToken::new())).unwrap().images
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = self
                .runtime
                .block_on(async { tokio::time::timeout(Duration::from_secs(20), running.shutdown()).await });
        }
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn connect(keys: &Value) -> Store {
    let key = |name: &str| keys[name].as_str().unwrap().to_owned();
    let config = StoreConfig {
        endpoint_url: Some(key("endpoint")),
        region: Some(key("region")),
        credentials: Some(Credentials::new(key("accessKey"), key("secretKey"))),
        ..StoreConfig::default()
    };
    Store::connect(config).await.unwrap()
}

/// Waits until something is true.
pub(crate) fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_true() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a command that knows where the cloud is, to its end.
pub(crate) fn run(bench: &Bench, cloud: &Cloud, args: &[&str]) -> Run {
    let mut command = bench.command(args);
    cloud.tell(&mut command);
    let run = finish(command.spawn().unwrap());
    conforms(&args.iter().map(OsStr::new).collect::<Vec<_>>(), &run);
    run
}
