//! What a server is made from.

use std::{net::SocketAddr, path::PathBuf};

use image_api::Token;
use object_io::{BucketUri, HostRule, Store, StoreConfig};

use crate::{Grant, limits};

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
    /// Service accounts, and what they may do.
    pub access: Access,
    /// Host and port that clients are told to call; where `None`, those by which they came.
    pub advertised: Option<String>,
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
            access: Access::default(),
            advertised: None,
            allowed_uri_hosts: Vec::new(),
            allow_http: false,
            any_uri_host: false,
            memory: limits::INGEST_MEMORY,
            jobs: None,
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
