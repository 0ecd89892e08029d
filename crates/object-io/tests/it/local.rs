//! A store over a folder that ends with the test.

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
    shutdown: CancellationToken,
    served: JoinHandle<()>,
    _dir: TempDir,
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
        Self { store, endpoint, never, shutdown, served, _dir: dir }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        drop(self.store);
        self.served.await.unwrap();
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
