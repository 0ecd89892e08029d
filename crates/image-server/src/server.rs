//! A server from its start to its end.

mod lock;
mod patience;
mod tls;

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum_server::Handle;
use block_store::BlockStore;
use disk_convert::{Options, Workers};
use hyper_util::rt::TokioTimer;
use object_io::{BucketUri, Store};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use url::Url;

use crate::{
    Config, ServerError, Storage,
    catalog::Catalog,
    content::StoredContent,
    embedded::Embedded,
    ledger::CatalogLedger,
    limits,
    rest::{self, App},
    uri::UriPolicy,
    worker::Worker,
};
pub(crate) use lock::DirLock;
use patience::Patience;

/// The image server.
pub struct Server;

/// A server that runs. Dropped without [`Running::shutdown`] it is told to stop and not waited for; nothing that was
/// accepted is lost, the next start continues it.
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Scheme and address, as a client wants them.
    pub endpoint: String,
    /// The store that blocks and manifests go to; uploads may go there too, the embedded one has no other use.
    pub store: Store,
    /// Where in the store they are.
    pub bucket: BucketUri,
    http: Handle<SocketAddr>,
    serving: Option<JoinHandle<io::Result<()>>>,
    worker: Worker,
    catalog: Catalog,
    embedded: Option<Embedded>,
    _lock: DirLock,
}

impl Server {
    /// Starts a server: opens catalog and store, continues what was left unfinished, listens.
    pub async fn start(config: Config) -> Result<Running, ServerError> {
        if config.tokens.is_empty() && !config.listen.ip().is_loopback() {
            return Err(ServerError::OpenToTheNetwork { listen: config.listen });
        }
        let tls = config.tls.as_ref().map(tls::load).transpose()?;
        let lock = make_dir(&config.data_dir)?;
        // Bound before anything is begun, so that a taken port costs nothing; connections wait until it is served.
        let (listener, addr) = bind(config.listen)?;
        let catalog = open_catalog(&config).await?;
        let starting = CancellationToken::new();
        let Place { embedded, store, bucket } = open_storage(config.storage, &config.data_dir, false).await?;
        let own_endpoint = own_endpoint(&store, &bucket, &starting).await?;
        let uris = UriPolicy {
            hosts: config.allowed_uri_hosts,
            allow_http: config.allow_http,
            any_host: config.any_uri_host,
            own_endpoint,
        };
        let content = StoredContent {
            blocks: open_blocks(&store, &bucket, &catalog).await?,
            http: uris.http_options(),
            options: Options {
                memory: config.memory,
                workers: Workers::new(config.jobs).map_err(|source| ServerError::Workers { source })?,
                ..Options::default()
            },
        };
        let worker = Worker::new(catalog.clone(), Arc::new(content));
        worker.start();
        let app = App { catalog: catalog.clone(), worker: worker.clone(), uris, tokens: config.tokens };
        let endpoint = format!("{}://{addr}", if tls.is_some() { "https" } else { "http" });
        let http = Handle::new();
        let serving = serve(listener, tls, http.clone(), app).map_err(listen_error(addr))?;
        info!(%endpoint, "listening");
        Ok(Running {
            addr,
            endpoint,
            store,
            bucket,
            http,
            serving: Some(serving),
            worker,
            catalog,
            embedded,
            _lock: lock,
        })
    }
}

impl Running {
    /// The name under which the store has the manifest of an image; `None` if there is no such image, or it has no content.
    pub async fn manifest_name(&self, image_id: &str) -> Option<String> {
        self.catalog.manifest(image_id).await.ok()
    }

    /// Stops: first the socket, then the ingests, then catalog and store. Requests in flight are answered; unfinished
    /// operations are handed back, for another server or the next start.
    pub async fn shutdown(mut self) {
        self.http.graceful_shutdown(Some(limits::SHUTDOWN_GRACE));
        self.worker.shutdown().await;
        if let Some(serving) = self.serving.take() {
            match serving.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => error!(error = &error as &dyn std::error::Error, "the listener failed"),
                Err(error) => error!(error = &error as &dyn std::error::Error, "the listener panicked"),
            }
        }
        self.catalog.close().await;
        if let Some(embedded) = self.embedded.take() {
            embedded.stop().await;
        }
        info!("stopped");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.http.shutdown();
        self.worker.stop();
    }
}

/// Where blocks and manifests go.
pub(crate) struct Place {
    pub(crate) embedded: Option<Embedded>,
    pub(crate) store: Store,
    pub(crate) bucket: BucketUri,
}

/// Connects to the store; starts the embedded one, unless there is a server `beside` that has it.
pub(crate) async fn open_storage(storage: Storage, dir: &Path, beside: bool) -> Result<Place, ServerError> {
    let starting = CancellationToken::new();
    match storage {
        Storage::Embedded if beside => {
            let (store, bucket) = Embedded::connect(dir).await?;
            Ok(Place { embedded: None, store, bucket })
        }
        Storage::Embedded => {
            let embedded = Embedded::start(dir, &starting).await?;
            let (store, bucket) = (embedded.store.clone(), embedded.uri.clone());
            Ok(Place { embedded: Some(embedded), store, bucket })
        }
        Storage::Bucket { uri, config } => {
            let unusable = |source| ServerError::Store { source };
            let store = Store::connect(*config).await.map_err(unusable)?;
            store.head_bucket(uri.bucket(), &starting).await.map_err(unusable)?;
            Ok(Place { embedded: None, store, bucket: uri })
        }
        Storage::Connected { store, uri } => Ok(Place { embedded: None, store, bucket: uri }),
    }
}

/// The folder, and the lock on it. Where we make it, it is for the owner alone; where it was there, what we put into it is.
pub(crate) fn make_dir(dir: &Path) -> Result<DirLock, ServerError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(ServerError::io("create", dir))?;
    DirLock::take(dir)
}

fn bind(listen: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let bound = TcpListener::bind(listen).and_then(|listener| {
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        Ok((listener, addr))
    });
    bound.map_err(listen_error(listen))
}

fn listen_error(listen: SocketAddr) -> impl FnOnce(io::Error) -> ServerError {
    move |source| ServerError::Listen { listen, source }
}

async fn open_catalog(config: &Config) -> Result<Catalog, ServerError> {
    let opened = match &config.database_url {
        Some(url) => Catalog::open_url(url).await,
        None => Catalog::open_file(&catalog_path(&config.data_dir)).await,
    };
    opened.map_err(|source| ServerError::Catalog { source: Box::new(source) })
}

/// The catalog in a server's folder.
pub(crate) fn catalog_path(dir: &Path) -> PathBuf {
    dir.join("catalog.sqlite")
}

/// The block store, whose ledger is the catalog, if it is this catalog's.
pub(crate) async fn open_blocks(
    store: &Store,
    bucket: &BucketUri,
    catalog: &Catalog,
) -> Result<BlockStore, ServerError> {
    let identity = catalog.identity().await;
    let identity = identity.map_err(|source| ServerError::Catalog { source: Box::new(source) })?;
    let ledger = Arc::new(CatalogLedger::new(catalog.clone()));
    let blocks = BlockStore::shared(store.clone(), bucket.bucket(), bucket.prefix(), ledger);
    match blocks.belongs_to(&identity, &CancellationToken::new()).await {
        Ok(true) => Ok(blocks),
        Ok(false) => Err(ServerError::ForeignStore { bucket: bucket.to_string() }),
        Err(source) => Err(ServerError::Blocks { source: Box::new(source) }),
    }
}

/// Scheme, host and port that pre-signed URLs of our own bucket have, whatever the store was configured by.
async fn own_endpoint(
    store: &Store,
    bucket: &BucketUri,
    cancel: &CancellationToken,
) -> Result<Option<Url>, ServerError> {
    let signed = store.presign_get(bucket.bucket(), "x", Duration::from_secs(60), cancel).await;
    let signed = signed.map_err(|source| ServerError::Store { source })?;
    Ok(Url::parse(signed.expose()).ok())
}

fn serve(
    listener: TcpListener,
    tls: Option<axum_server::tls_rustls::RustlsConfig>,
    handle: Handle<SocketAddr>,
    app: App,
) -> io::Result<JoinHandle<io::Result<()>>> {
    let routes = rest::router(Arc::new(app)).into_make_service();
    Ok(match tls {
        Some(tls) => {
            let mut server = axum_server::from_tcp_rustls(listener, tls)?.map(Patience).handle(handle);
            limit(server.http_builder());
            tokio::spawn(server.serve(routes))
        }
        None => {
            let mut server = axum_server::from_tcp(listener)?.map(Patience).handle(handle);
            limit(server.http_builder());
            tokio::spawn(server.serve(routes))
        }
    })
}

/// A caller that opens a connection and sends nothing is not waited for.
fn limit(http: &mut hyper_util::server::conn::auto::Builder<hyper_util::rt::TokioExecutor>) {
    http.http1().timer(TokioTimer::new()).header_read_timeout(limits::REQUEST_HEAD);
    http.http2().timer(TokioTimer::new()).keep_alive_interval(limits::REQUEST_HEAD);
}
