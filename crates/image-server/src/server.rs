//! A server from its start to its end.

mod lock;
mod patience;
mod tls;

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, middleware};
use axum_server::Handle;
use block_store::BlockStore;
use disk_convert::{Options, Workers};
use hyper_util::rt::TokioTimer;
use image_ingest::{MemoryBudget, Policy, UriPolicy};
use object_io::{BucketUri, Store};
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use url::Url;

use crate::{
    Config, ServerError, Storage,
    buckets::SourceBuckets,
    catalog::Catalog,
    content::{OpenImages, StoredContent},
    embedded::Embedded,
    http,
    ledger::CatalogLedger,
    limits,
    observe::{self, Observed},
    pool::Pool,
    service::{Accounts, Directory, Identity, Rights, Service},
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
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    http: Handle<SocketAddr>,
    serving: Vec<JoinHandle<io::Result<()>>>,
    observed: Arc<Observed>,
    worker: Worker,
    catalog: Catalog,
    embedded: Option<Embedded>,
    _lock: DirLock,
    _pool_lock: Option<DirLock>,
}

impl Server {
    /// Starts a server: opens catalog and store, continues what was left unfinished, listens.
    pub async fn start(config: Config) -> Result<Running, ServerError> {
        let identity = Identity { tokens: config.tokens.clone(), accounts: accounts(&config)? };
        if identity.is_open() && !config.listen.ip().is_loopback() {
            return Err(ServerError::OpenToTheNetwork { listen: config.listen });
        }
        let tls = config.tls.as_ref().map(tls::load).transpose()?;
        let lock = make_dir(&config.data_dir)?;
        // Bound before anything is begun, so that a taken port costs nothing; connections wait until it is served.
        let (listener, addr) = bind(config.listen)?;
        let watched = config.metrics.map(bind).transpose()?;
        let catalog = open_catalog(&config).await?;
        let starting = CancellationToken::new();
        let Place { embedded, store, bucket } = open_storage(config.storage, &config.data_dir, false).await?;
        let own_endpoint = own_endpoint(&store, &bucket, &starting).await?;
        let uris = UriPolicy {
            hosts: config.allowed_uri_hosts,
            allow_http: config.allow_http,
            allow_private: config.allow_private_hosts,
            any_host: config.any_uri_host,
            own_endpoint,
            resolver: config.resolver,
        };
        let given = config.limits;
        let pool = match config.pool.as_deref() {
            Some(dir) => Some(Pool::open(dir, given.pool_quota, &identity_of(&catalog).await?)?),
            None => None,
        };
        let (pool, pool_lock) = pool.unzip();
        let has_pool = pool.is_some() && given.pool_quota > 0;
        let budget = MemoryBudget::new(given.total_memory(config.memory));
        let readers = Arc::new(Semaphore::new(given.content_readers));
        let observed = Arc::new(Observed {
            catalog: catalog.clone(),
            budget: budget.clone(),
            readers: (Arc::clone(&readers), given.content_readers),
            traffic: Arc::default(),
            stopping: AtomicBool::new(false),
        });
        let policy = Policy {
            http: given.http,
            time: given.ingest_time,
            max_virtual_size: given.max_virtual_size,
            max_metadata: given.max_metadata,
            options: Options {
                memory: config.memory,
                workers: Workers::new(config.jobs).map_err(|source| ServerError::Workers { source })?,
                ..Options::default()
            },
            budget: Some(budget),
            ..Policy::new(uris.clone())
        };
        let buckets = SourceBuckets { listed: config.source_buckets, own: bucket.clone() };
        let content = Arc::new(StoredContent {
            blocks: open_blocks(&store, &bucket, &catalog).await?,
            catalog: catalog.clone(),
            policy,
            folder_quota: given.folder_quota,
            pool: pool.map(Arc::new),
            volumes: config.volumes.clone(),
            buckets: buckets.clone(),
            store: store.clone(),
            open: OpenImages::default(),
            traffic: Arc::clone(&observed.traffic),
        });
        let worker = Worker::new(catalog.clone(), content.clone(), given.running_ingests);
        worker.start();
        let directory = Directory {
            advertised: config.advertised,
            listen: addr.to_string(),
            default_port: if tls.is_some() { 443 } else { 80 },
            storage: uris.own_endpoint.as_ref().and_then(host_and_port),
        };
        let place = uris.own_endpoint.as_ref().and_then(region).unwrap_or_default();
        let service = Service {
            catalog: catalog.clone(),
            worker: worker.clone(),
            content,
            readers,
            uris,
            buckets,
            place,
            scan: limits::GOOGLE_SCAN,
            waiters: Semaphore::new(limits::GOOGLE_WAITERS),
            volumes: config.volumes,
            has_pool,
            queue: given.queue(),
            identity,
            rights: Rights(config.access.grants),
            directory,
        };
        let endpoint = format!("{}://{addr}", if tls.is_some() { "https" } else { "http" });
        let handle = Handle::new();
        let api = http::router(Arc::new(service)).await?.merge(observe::health(Arc::clone(&observed)));
        let counted = middleware::from_fn_with_state(Arc::clone(&observed.traffic), observe::count);
        let mut serving =
            vec![serve(listener, tls, handle.clone(), api.layer(counted)).map_err(listen_error(addr))?];
        let metrics = watched.as_ref().map(|(_, addr)| *addr);
        if let Some((listener, addr)) = watched {
            let routes = observe::metrics(Arc::clone(&observed));
            serving.push(serve(listener, None, handle.clone(), routes).map_err(listen_error(addr))?);
        }
        info!(%endpoint, "listening");
        Ok(Running {
            addr,
            endpoint,
            store,
            bucket,
            metrics,
            http: handle,
            serving,
            observed,
            worker,
            catalog,
            embedded,
            _lock: lock,
            _pool_lock: pool_lock,
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
        self.observed.stopping.store(true, Ordering::Relaxed);
        self.http.graceful_shutdown(Some(limits::SHUTDOWN_GRACE));
        self.worker.shutdown().await;
        for serving in std::mem::take(&mut self.serving) {
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

/// By which a catalog is known to what belongs to it.
pub(crate) async fn identity_of(catalog: &Catalog) -> Result<String, ServerError> {
    catalog.identity().await.map_err(|source| ServerError::Catalog { source: Box::new(source) })
}

/// The block store, whose ledger is the catalog, if it is this catalog's.
pub(crate) async fn open_blocks(
    store: &Store,
    bucket: &BucketUri,
    catalog: &Catalog,
) -> Result<BlockStore, ServerError> {
    let identity = identity_of(catalog).await?;
    let ledger = Arc::new(CatalogLedger::new(catalog.clone()));
    let blocks = BlockStore::shared(store.clone(), bucket.bucket(), bucket.prefix(), ledger);
    match blocks.belongs_to(&identity, &CancellationToken::new()).await {
        Ok(true) => Ok(blocks),
        Ok(false) => Err(ServerError::ForeignStore { bucket: bucket.to_string() }),
        Err(source) => Err(ServerError::Blocks { source: Box::new(source) }),
    }
}

/// The service accounts whose keys are configured.
fn accounts(config: &Config) -> Result<Accounts, ServerError> {
    let mut accounts = Accounts::new(config.access.audiences.clone());
    for path in &config.access.account_keys {
        let registered = accounts.register(path);
        registered.map_err(|source| ServerError::AccountKey { path: path.clone(), source })?;
    }
    Ok(accounts)
}

/// The region that a pre-signed URL is signed for, which is where the store says it is.
fn region(signed: &Url) -> Option<String> {
    let (_, scope) = signed.query_pairs().find(|(name, _)| name == "X-Amz-Credential")?;
    scope.split('/').nth(2).map(str::to_owned)
}

fn host_and_port(url: &Url) -> Option<String> {
    Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))
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
    routes: Router,
) -> io::Result<JoinHandle<io::Result<()>>> {
    let routes = routes.into_make_service();
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
