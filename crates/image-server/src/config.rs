//! What a server is made from.

use std::{net::SocketAddr, path::PathBuf};

use image_api::Token;
use object_io::{BucketUri, HostRule, Store, StoreConfig};

use crate::limits;

/// What a server is made from. Everything can be chosen that `image-server serve` has a flag for.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; port 0 takes a free one, see [`crate::Running::addr`].
    pub listen: SocketAddr,
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
    /// Hosts that images may be read from. None: only the host of the store of blocks.
    pub allowed_uri_hosts: Vec<HostRule>,
    /// Plain http is fine for those hosts.
    pub allow_http: bool,
    /// Images may be read from any host, by https and http: only where whoever has a token may reach what this machine can
    /// reach, and has checked the URL.
    pub any_uri_host: bool,
    /// Bytes of parts and reads that one ingest may hold; metadata comes on top.
    pub memory: u64,
    /// CPU workers; as many as there are cores where `None`.
    pub jobs: Option<usize>,
}

impl Config {
    /// The embedded default: catalog and store in `data_dir`, open to this machine alone.
    pub fn new(listen: SocketAddr, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen,
            data_dir: data_dir.into(),
            database_url: None,
            storage: Storage::Embedded,
            tls: None,
            tokens: Vec::new(),
            allowed_uri_hosts: Vec::new(),
            allow_http: false,
            any_uri_host: false,
            memory: limits::INGEST_MEMORY,
            jobs: None,
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
