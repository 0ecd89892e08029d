//! A store over a folder that ends with the test, or one that is there already.

use std::collections::BTreeMap;

use object_io::{Credentials, Store, StoreConfig};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const BUCKET: &str = "images";
const REGION: &str = "here";
const ACCESS_KEY: &str = "test-access-key";
const SECRET_KEY: &str = "test-secret-key";

/// A served store with one bucket.
pub(crate) struct Local {
    pub(crate) store: Store,
    pub(crate) endpoint: String,
    pub(crate) never: CancellationToken,
    config: StoreConfig,
    shutdown: CancellationToken,
    served: Option<JoinHandle<()>>,
    _dir: Option<TempDir>,
}

impl Local {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let credentials =
            local_store::Credentials { access_key: ACCESS_KEY.into(), secret_key: SECRET_KEY.into() };
        let config =
            local_store::Config { dir: dir.path().join("store"), region: REGION.into(), credentials };
        let end = shutdown.clone();
        let served = tokio::spawn(async move { local_store::serve(listener, config, end).await.unwrap() });
        let store = Store::connect(config_for(&endpoint)).await.unwrap();
        let never = CancellationToken::new();
        store.create_bucket_if_missing(BUCKET, &never).await.unwrap();
        let config = config_for(&endpoint);
        Self { store, endpoint, never, config, shutdown, served: Some(served), _dir: Some(dir) }
    }

    /// The store that `UPLOAD_SUITE_ENDPOINT` names, with keys and region of the AWS variables; else as [`Local::start`].
    pub(crate) async fn under_test() -> Self {
        let Ok(endpoint) = std::env::var("UPLOAD_SUITE_ENDPOINT") else { return Self::start().await };
        let config = StoreConfig { endpoint_url: Some(endpoint.clone()), ..StoreConfig::default() };
        let store = Store::connect(config.clone()).await.unwrap();
        let never = CancellationToken::new();
        store.create_bucket_if_missing(BUCKET, &never).await.unwrap();
        let shutdown = CancellationToken::new();
        Self { store, endpoint, never, config, shutdown, served: None, _dir: None }
    }

    /// What reaches the same store by another address.
    pub(crate) fn config_by(&self, endpoint: &str) -> StoreConfig {
        StoreConfig { endpoint_url: Some(endpoint.into()), ..self.config.clone() }
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.endpoint.trim_start_matches("http://").parse().unwrap()
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        drop(self.store);
        if let Some(served) = self.served {
            served.await.unwrap();
        }
    }
}

pub(crate) fn config_for(endpoint: &str) -> StoreConfig {
    StoreConfig {
        endpoint_url: Some(endpoint.into()),
        region: Some(REGION.into()),
        credentials: Some(Credentials::new(ACCESS_KEY, SECRET_KEY)),
        ..StoreConfig::default()
    }
}

/// Bytes that are never the same at two places of a part, and never zero throughout.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = vec![0; len];
    for word in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
    }
    bytes
}

pub(crate) fn metadata() -> BTreeMap<String, String> {
    [("guest-digest", "0123"), ("format", "qcow2")].map(|(key, value)| (key.into(), value.into())).into()
}
