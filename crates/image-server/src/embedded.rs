//! The store of the embedded default: an S3 server in this process, on loopback, over `DIR/store`.
//!
//! Its port and keys are made once and kept in `DIR/store.json`, readable by the owner alone, so that URLs that were signed
//! before a restart are good after it. Where the port was taken meanwhile, another one is taken and written down; URLs
//! of the old port are dead then, and operations on them fail with a clear error.

use std::{
    fs,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use local_store::Credentials;
use object_io::{BucketUri, Store, StoreConfig};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::ServerError;

/// The region that signatures must name.
const REGION: &str = "local";
/// The bucket of uploads, and of the folder of blocks and manifests, which is out of their way.
const BUCKET: &str = "images";
/// That folder.
const FOLDER: &str = ".blocks";

/// The store while it runs.
pub(crate) struct Embedded {
    pub(crate) store: Store,
    /// Where blocks and manifests go.
    pub(crate) uri: BucketUri,
    shutdown: CancellationToken,
    task: Option<JoinHandle<()>>,
}

/// What stands in `store.json`: all that an S3 client needs.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoreFile {
    endpoint: String,
    region: String,
    bucket: String,
    access_key: String,
    secret_key: String,
}

impl Embedded {
    /// Starts the store and makes its bucket.
    pub(crate) async fn start(dir: &Path, cancel: &CancellationToken) -> Result<Self, ServerError> {
        let path = dir.join("store.json");
        let known = read(&path)?;
        let listener = bind(known.as_ref().and_then(port_of))?;
        let address = listener.local_addr().map_err(|source| listen_error(0, source))?;
        let mut file = known.unwrap_or_else(StoreFile::generate);
        let endpoint = format!("http://{address}");
        if file.endpoint != endpoint {
            if !file.endpoint.is_empty() {
                warn!(was = %file.endpoint, is = %endpoint, "the port of the embedded store was taken");
            }
            file.endpoint = endpoint;
            write(dir, &path, &file)?;
        }
        let uri = format!("s3://{}/{FOLDER}", file.bucket).parse();
        let uri = uri.map_err(|source| ServerError::StoreBucket { path: path.clone(), source })?;
        // The disks of others: for the owner alone, also where the folder around it is not.
        let store = dir.join("store");
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&store);
        made.map_err(ServerError::io("create", &store))?;
        let (shutdown, config) = (CancellationToken::new(), file.server_config(dir));
        let serve = local_store::serve(listener, config, shutdown.clone());
        let task = tokio::spawn(async move {
            if let Err(error) = serve.await {
                error!(error = &error as &dyn std::error::Error, "the embedded store stopped");
            }
        });
        info!(endpoint = %file.endpoint, bucket = %file.bucket, keys = %path.display(), "embedded store started");
        let client = file.client_config();
        let store = Store::connect(client).await.map_err(|source| ServerError::Store { source })?;
        // From here on a failure stops the store again.
        let embedded = Self { store, uri, shutdown, task: Some(task) };
        let made = embedded.store.create_bucket_if_missing(&file.bucket, cancel).await;
        made.map_err(|source| ServerError::Store { source })?;
        Ok(embedded)
    }

    /// Connects to the store of a server that runs on this folder.
    pub(crate) async fn connect(dir: &Path) -> Result<(Store, BucketUri), ServerError> {
        let path = dir.join("store.json");
        let missing = || ServerError::io("read", &path)(io::ErrorKind::NotFound.into());
        let file = read(&path)?.ok_or_else(missing)?;
        let uri = format!("s3://{}/{FOLDER}", file.bucket).parse();
        let uri = uri.map_err(|source| ServerError::StoreBucket { path: path.clone(), source })?;
        let store = Store::connect(file.client_config()).await;
        Ok((store.map_err(|source| ServerError::Store { source })?, uri))
    }

    /// Stops the store after the requests in flight.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        if let Some(task) = self.task.take() {
            // A panic was reported by whoever panicked; there is nothing left to stop.
            let _ = task.await;
        }
    }
}

/// Told to stop, not waited for.
impl Drop for Embedded {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl StoreFile {
    fn generate() -> Self {
        let random = || Uuid::new_v4().simple().to_string();
        Self {
            endpoint: String::new(),
            region: REGION.to_owned(),
            bucket: BUCKET.to_owned(),
            access_key: format!("local-{}", &random()[..12]),
            secret_key: random() + &random(),
        }
    }

    fn server_config(&self, dir: &Path) -> local_store::Config {
        local_store::Config {
            dir: dir.join("store"),
            region: self.region.clone(),
            credentials: Credentials {
                access_key: self.access_key.clone(),
                secret_key: self.secret_key.clone(),
            },
        }
    }

    fn client_config(&self) -> StoreConfig {
        StoreConfig {
            endpoint_url: Some(self.endpoint.clone()),
            region: Some(self.region.clone()),
            credentials: Some(object_io::Credentials::new(&*self.access_key, &*self.secret_key)),
            ..StoreConfig::default()
        }
    }
}

fn read(path: &Path) -> Result<Option<StoreFile>, ServerError> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| ServerError::StoreFile { path: path.to_owned(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ServerError::io("read", path)(error)),
    }
}

/// Whole or not at all, and never readable by others, not even for a moment.
fn write(dir: &Path, path: &Path, file: &StoreFile) -> Result<(), ServerError> {
    let failed = |error| ServerError::io("write", path)(error);
    let new = dir.join("store.json.new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let text = serde_json::to_vec_pretty(file)
        .map_err(|source| ServerError::StoreFile { path: path.to_owned(), source })?;
    let mut out =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(failed)?;
    out.write_all(&text).and_then(|()| out.sync_all()).map_err(failed)?;
    fs::rename(&new, path).map_err(failed)?;
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
}

fn port_of(file: &StoreFile) -> Option<u16> {
    file.endpoint.rsplit(':').next()?.parse().ok()
}

fn bind(port: Option<u16>) -> Result<TcpListener, ServerError> {
    let at = |port| TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    match port.map(at) {
        Some(Ok(listener)) => Ok(listener),
        _ => at(0).map_err(|source| listen_error(0, source)),
    }
}

fn listen_error(port: u16, source: io::Error) -> ServerError {
    ServerError::Listen { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), source }
}
