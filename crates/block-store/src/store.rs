//! Where blocks and manifests lie, and the verbs on them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use disk_convert::{BlockId, Workers};
use object_io::{PutOptions, Store};
use tokio::sync::RwLock;
use tokio_util::sync::CancellationToken;

use crate::{BlockSink, BlockStoreError, Manifest, ManifestSource};

/// Content-addressed blocks in a bucket. Cheap to clone; clones share the knowledge of which blocks are about to be listed.
#[derive(Clone)]
pub struct BlockStore {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    bucket: Box<str>,
    prefix: Box<str>,
    /// Read while a block is put, written while blocks are collected: a block that an ingest has found present must not vanish
    /// before its manifest lists it.
    gate: RwLock<()>,
    claims: Mutex<HashMap<BlockId, usize>>,
}

impl BlockStore {
    /// The block store below `prefix` in `bucket`. One process at a time may write to it.
    pub fn new(store: Store, bucket: impl Into<Box<str>>, prefix: impl Into<Box<str>>) -> Self {
        let (bucket, prefix) = (bucket.into(), prefix.into());
        let inner = Inner { store, bucket, prefix, gate: RwLock::default(), claims: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// A sink for the raw content of a disk of `virtual_size` bytes. Finishing it saves the manifest of Image `id`.
    pub fn sink(
        &self,
        id: &str,
        virtual_size: u64,
        workers: &Workers,
        cancel: &CancellationToken,
    ) -> BlockSink {
        BlockSink::new(self.clone(), id, virtual_size, workers.clone(), cancel.clone())
    }

    /// The raw content of a stored Image, as a source.
    pub fn source(&self, id: &str, manifest: Manifest, workers: &Workers) -> ManifestSource {
        ManifestSource::new(self.clone(), id, manifest, workers.clone())
    }

    /// Reads and checks the manifest of Image `id`.
    ///
    /// # Errors
    ///
    /// If there is none ([`BlockStoreError::is_not_found`]), or it is damaged, or the store fails.
    pub async fn load(&self, id: &str, cancel: &CancellationToken) -> Result<Manifest, BlockStoreError> {
        let key = self.manifest_key(id);
        let bytes = self.get(&key, cancel).await?;
        Manifest::decode(&bytes).map_err(|source| BlockStoreError::Manifest { key: key.into(), source })
    }

    /// Removes the manifest of Image `id`; that there is none is as good. Its blocks stay until [`BlockStore::collect`].
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn delete(&self, id: &str, cancel: &CancellationToken) -> Result<(), BlockStoreError> {
        let key = self.manifest_key(id);
        Ok(self.inner.store.delete(&self.inner.bucket, &key, cancel).await?)
    }

    /// Gives Image `to` the content of Image `from`: the manifest is copied, and no block moves.
    ///
    /// # Errors
    ///
    /// If there is no Image `from` ([`BlockStoreError::is_not_found`]), its manifest is damaged, or the store fails.
    pub async fn share(
        &self,
        from: &str,
        to: &str,
        cancel: &CancellationToken,
    ) -> Result<Manifest, BlockStoreError> {
        // No collection while the blocks may be listed by nobody: `from` may be deleted meanwhile.
        let _open = self.inner.gate.read().await;
        let manifest = self.load(from, cancel).await?;
        self.put(self.manifest_key(to), manifest.encode(), PutOptions::default(), cancel).await?;
        Ok(manifest)
    }

    pub(crate) async fn save(
        &self,
        id: &str,
        manifest: &Manifest,
        cancel: &CancellationToken,
    ) -> Result<(), BlockStoreError> {
        // A collection that has read the manifests already must not see the claims of this one go.
        let _open = self.inner.gate.read().await;
        self.put(self.manifest_key(id), manifest.encode(), PutOptions::default(), cancel).await
    }

    /// Stores a block unless it is there already. The caller has claimed it.
    pub(crate) async fn put_block(
        &self,
        id: &BlockId,
        content: Bytes,
        cancel: &CancellationToken,
    ) -> Result<(), BlockStoreError> {
        let _open = self.inner.gate.read().await;
        let key = self.block_key(id);
        match self.inner.store.head(&self.inner.bucket, &key, cancel).await {
            // Not every store compares checksums: a block of another length is not this one, and is put right.
            Ok(found) if found.size == content.len() as u64 => return Ok(()),
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        let checked = PutOptions { checksum_sha256: Some(*id), ..PutOptions::default() };
        self.put(key, content, checked, cancel).await
    }

    pub(crate) async fn get_block(
        &self,
        id: &BlockId,
        cancel: &CancellationToken,
    ) -> Result<Bytes, BlockStoreError> {
        self.get(&self.block_key(id), cancel).await
    }

    /// Keeps a block from being collected until [`BlockStore::release`].
    pub(crate) fn claim(&self, id: BlockId) {
        *self.inner.claims.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default() += 1;
    }

    pub(crate) fn release<'a>(&self, ids: impl IntoIterator<Item = &'a BlockId>) {
        let mut claims = self.inner.claims.lock().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            if let Some(count) = claims.get_mut(id) {
                *count -= 1;
                if *count == 0 {
                    claims.remove(id);
                }
            }
        }
    }

    pub(crate) fn is_claimed(&self, id: &BlockId) -> bool {
        self.inner.claims.lock().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    pub(crate) fn gate(&self) -> &RwLock<()> {
        &self.inner.gate
    }

    pub(crate) fn object_store(&self) -> (&Store, &str) {
        (&self.inner.store, &self.inner.bucket)
    }

    pub(crate) fn blocks_prefix(&self) -> String {
        format!("{}blocks/", self.folder())
    }

    pub(crate) fn manifests_prefix(&self) -> String {
        format!("{}manifests/", self.folder())
    }

    fn block_key(&self, id: &BlockId) -> String {
        let hex = hex::encode(id);
        format!("{}{}/{hex}", self.blocks_prefix(), &hex[..2])
    }

    fn manifest_key(&self, id: &str) -> String {
        format!("{}{id}", self.manifests_prefix())
    }

    fn folder(&self) -> String {
        match self.inner.prefix.trim_end_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        }
    }

    async fn get(&self, key: &str, cancel: &CancellationToken) -> Result<Bytes, BlockStoreError> {
        Ok(self.inner.store.get(&self.inner.bucket, key, None, cancel).await?)
    }

    async fn put(
        &self,
        key: String,
        content: Bytes,
        options: PutOptions,
        cancel: &CancellationToken,
    ) -> Result<(), BlockStoreError> {
        self.inner.store.put(&self.inner.bucket, &key, content, &options, cancel).await?;
        Ok(())
    }
}
