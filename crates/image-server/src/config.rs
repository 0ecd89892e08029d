//! What a server is made from.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use disk_image::limits::{MAX_MAP_MEMORY, MAX_VIRTUAL_SIZE};
use image_api::Token;
use object_io::{BucketUri, HostRule, Resolver, Store, StoreConfig, SystemResolver, TimeLimits};

use crate::{Grant, SourceBucket, VolumeSources, catalog::QueueLimits, limits};

/// What a server is made from. Everything can be chosen that `image-server serve` has a flag for.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; port 0 takes a free one, see [`crate::Running::addr`].
    pub listen: SocketAddr,
    /// Where to serve metrics, by plain http; nowhere if not given.
    pub metrics: Option<SocketAddr>,
    /// Folder of the embedded catalog and store. Locked while the server runs.
    pub data_dir: PathBuf,
    /// Catalog elsewhere: `sqlite:PATH`, or `postgres://...` for several servers.
    pub database_url: Option<String>,
    /// Where blocks and manifests go.
    pub storage: Storage,
    /// Certificate and key; plain http without.
    pub tls: Option<TlsFiles>,
    /// Tokens of which a caller must show one. None: everyone may call, which only a loopback address allows.
    pub tokens: Vec<Token>,
    /// Service accounts, and what they may do.
    pub access: Access,
    /// Host and port that clients are told to call; where `None`, those by which they came.
    pub advertised: Option<String>,
    /// Hosts that images may be read from. None: only the host of the store of blocks.
    pub allowed_uri_hosts: Vec<HostRule>,
    /// Plain http is fine for those hosts.
    pub allow_http: bool,
    /// The names of those hosts may lead to private networks and to this machine; see [`image_ingest::UriPolicy`].
    pub allow_private_hosts: bool,
    /// Who tells the addresses of those hosts.
    pub resolver: Arc<dyn Resolver>,
    /// Snapshots and disks that images are made from.
    pub volumes: VolumeSources,
    /// Buckets of the store whose objects may be named, `gs://BUCKET/OBJECT`, and are read with the server's rights; what the server
    /// keeps itself excepted.
    pub source_buckets: Vec<SourceBucket>,
    /// Folder for copies of pooled images, as far as [`Limits::pool_quota`] goes. Locked while the server runs; servers on one catalog
    /// have one each.
    pub pool: Option<PathBuf>,
    /// Images may be read from any host, by https and http: only where whoever has a token may reach what this machine can
    /// reach, and has checked the URL.
    pub any_uri_host: bool,
    /// Bytes of parts and reads that one ingest may hold; metadata comes on top.
    pub memory: u64,
    /// CPU workers; as many as there are cores where `None`.
    pub jobs: Option<usize>,
    /// What callers and sources are held to.
    pub limits: Limits,
}

impl Config {
    /// The embedded default: catalog and store in `data_dir`, open to this machine alone.
    pub fn new(listen: SocketAddr, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen,
            metrics: None,
            data_dir: data_dir.into(),
            database_url: None,
            storage: Storage::Embedded,
            tls: None,
            tokens: Vec::new(),
            access: Access::default(),
            advertised: None,
            allowed_uri_hosts: Vec::new(),
            allow_http: false,
            allow_private_hosts: false,
            resolver: Arc::new(SystemResolver),
            volumes: VolumeSources::default(),
            source_buckets: Vec::new(),
            pool: None,
            any_uri_host: false,
            memory: limits::INGEST_MEMORY,
            jobs: None,
            limits: Limits::default(),
        }
    }
}

/// What callers and sources are held to. Sizes in bytes. The error of whoever meets one names it.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Ingests that run at once, over all folders.
    pub running_ingests: usize,
    /// Operations that may wait for one of these places; more are RESOURCE_EXHAUSTED.
    pub queued_operations: u32,
    /// Images that may be created in a folder each second, on average over ten; more are RESOURCE_EXHAUSTED.
    pub creates_per_second: u32,
    /// What the images of a folder may store. Checked before the first block is written, with the most that an image can come to:
    /// the 4 MiB blocks in which it stores anything.
    pub folder_quota: Option<u64>,
    /// What copies of pooled images may take on disk in [`Config::pool`]; 0 refuses them.
    pub pool_quota: u64,
    /// Answers with the content of images that are given at a time. Each holds three blocks of 4 MiB.
    pub content_readers: usize,
    /// Memory of all ingests together, their maps included. What `None` means: so many as may run, each with a map of
    /// ordinary size, and one with the largest.
    pub total_memory: Option<u64>,
    /// The largest disk.
    pub max_virtual_size: u64,
    /// Memory that the map of one image may take.
    pub max_metadata: u64,
    /// The longest time of one ingest.
    pub ingest_time: Duration,
    /// When a source counts as too slow.
    pub http: TimeLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            running_ingests: limits::RUNNING_INGESTS,
            queued_operations: limits::QUEUED_OPERATIONS,
            creates_per_second: limits::CREATES_PER_SECOND,
            folder_quota: None,
            pool_quota: 0,
            content_readers: limits::READERS,
            total_memory: None,
            max_virtual_size: MAX_VIRTUAL_SIZE,
            max_metadata: MAX_MAP_MEMORY as u64,
            ingest_time: image_ingest::limits::INGEST_TIME,
            http: TimeLimits::default(),
        }
    }
}

impl Limits {
    /// Memory of all ingests, of which each may hold so many bytes besides its map.
    pub(crate) fn total_memory(&self, each: u64) -> u64 {
        let ordinary = each.saturating_add(limits::ORDINARY_MAP);
        let all = ordinary.saturating_mul(self.running_ingests as u64).saturating_add(MAX_MAP_MEMORY as u64);
        self.total_memory.unwrap_or(all)
    }

    pub(crate) fn queue(&self) -> QueueLimits {
        let unfinished = u64::from(self.queued_operations).saturating_add(self.running_ingests as u64);
        QueueLimits {
            unfinished: i64::try_from(unfinished).unwrap_or(i64::MAX),
            creates_per_second: self.creates_per_second,
        }
    }
}

/// Service accounts, and what they may do.
#[derive(Clone, Debug)]
pub struct Access {
    /// Files with the public keys of service accounts, as `yc iam key create` writes them; a JWT of one of them is good for a
    /// token.
    pub account_keys: Vec<PathBuf>,
    /// Roles of those accounts. Without one an account may do nothing but what an image's access bindings say.
    pub grants: Vec<Grant>,
    /// What a JWT may be meant for (`aud`). The SDKs name the cloud's own address, wherever they send it.
    pub audiences: Vec<String>,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            account_keys: Vec::new(),
            grants: Vec::new(),
            audiences: vec!["https://iam.api.cloud.yandex.net/iam/v1/tokens".to_owned()],
        }
    }
}

/// Where blocks and manifests go.
#[derive(Clone, Debug)]
pub enum Storage {
    /// An S3 server inside this process, on loopback, in `DIR/store`. Its address and keys stand in `DIR/store.json`.
    Embedded,
    /// A bucket, or a folder in one, of any S3-compatible store.
    Bucket {
        /// Which.
        uri: BucketUri,
        /// How to reach it.
        config: Box<StoreConfig>,
    },
    /// A store that the caller is connected to already.
    Connected {
        /// The store.
        store: Store,
        /// The bucket or the folder in one.
        uri: BucketUri,
    },
}

/// Files in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Certificate and those between it and the root.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
}
