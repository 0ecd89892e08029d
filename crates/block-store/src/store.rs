//! Where blocks and manifests lie, and the verbs on them.

use std::sync::Arc;

use bytes::Bytes;
use disk_convert::{BlockId, Workers};
use object_io::{PutOptions, Store};
use tokio_util::sync::CancellationToken;

use crate::ledger::{Ledger, MemoryLedger};
use crate::{BlockSink, BlockStoreError, Manifest, ManifestSource};

/// Content-addressed blocks in a bucket. Cheap to clone; clones share the knowledge of which blocks are in use.
#[derive(Clone)]
pub struct BlockStore {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    bucket: Box<str>,
    prefix: Box<str>,
    ledger: Arc<dyn Ledger>,
}

impl BlockStore {
    /// The block store below `prefix` in `bucket`. One process at a time may write to it, through clones of this one; every
    /// manifest in it is in use.
    pub fn new(store: Store, bucket: impl Into<Box<str>>, prefix: impl Into<Box<str>>) -> Self {
        Self::shared(store, bucket, prefix, Arc::new(MemoryLedger::default()))
    }

    /// As [`BlockStore::new`], for as many processes as share what `ledger` knows.
    pub fn shared(
        store: Store,
        bucket: impl Into<Box<str>>,
        prefix: impl Into<Box<str>>,
        ledger: Arc<dyn Ledger>,
    ) -> Self {
        let (bucket, prefix) = (bucket.into(), prefix.into());
        Self { inner: Arc::new(Inner { store, bucket, prefix, ledger }) }
    }

    /// A sink for the raw content of a disk of `virtual_size` bytes. Finishing it saves the manifest `name`.
    pub fn sink(
        &self,
        name: &str,
        virtual_size: u64,
        workers: &Workers,
        cancel: &CancellationToken,
    ) -> BlockSink {
        BlockSink::new(self.clone(), name, virtual_size, workers.clone(), cancel.clone())
    }

    /// The raw content of a stored Image, as a source; `id` is what errors call it.
    pub fn source(&self, id: &str, manifest: Manifest, workers: &Workers) -> ManifestSource {
        ManifestSource::new(self.clone(), id, manifest, workers.clone())
    }

    /// Reads and checks the manifest `name`.
    ///
    /// # Errors
    ///
    /// If there is none ([`BlockStoreError::is_not_found`]), or it is damaged, or the store fails.
    pub async fn load(&self, name: &str, cancel: &CancellationToken) -> Result<Manifest, BlockStoreError> {
        let key = self.manifest_key(name);
        let bytes = self.get(&key, cancel).await?;
        Manifest::decode(&bytes).map_err(|source| BlockStoreError::Manifest { key: key.into(), source })
    }

    /// Removes the manifest `name`; that there is none is as good. Its blocks stay until [`BlockStore::collect`].
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn delete(&self, name: &str, cancel: &CancellationToken) -> Result<(), BlockStoreError> {
        let key = self.manifest_key(name);
        Ok(self.inner.store.delete(&self.inner.bucket, &key, cancel).await?)
    }

    pub(crate) async fn save(
        &self,
        name: &str,
        manifest: &Manifest,
        cancel: &CancellationToken,
    ) -> Result<(), BlockStoreError> {
        self.put(self.manifest_key(name), manifest.encode(), PutOptions::default(), cancel).await
    }

    /// Stores a block unless it is there already. The caller has claimed it.
    pub(crate) async fn put_block(
        &self,
        id: &BlockId,
        content: Bytes,
        cancel: &CancellationToken,
    ) -> Result<(), BlockStoreError> {
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

    pub(crate) async fn remove_block(
        &self,
        id: &BlockId,
        cancel: &CancellationToken,
    ) -> Result<(), BlockStoreError> {
        Ok(self.inner.store.delete(&self.inner.bucket, &self.block_key(id), cancel).await?)
    }

    /// The blocks that are stored, and their bytes. What is not named like a block is not ours.
    pub(crate) async fn stored_blocks(
        &self,
        cancel: &CancellationToken,
    ) -> Result<Vec<(BlockId, u64)>, BlockStoreError> {
        let listed = self.list(&self.blocks_prefix(), cancel).await?;
        let block = |(name, size): (String, u64)| {
            let mut id = [0; 32];
            let name = name.rsplit('/').next().unwrap_or_default();
            hex::decode_to_slice(name, &mut id).is_ok().then_some((id, size))
        };
        Ok(listed.into_iter().filter_map(block).collect())
    }

    /// The names of the manifests that are stored.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn stored_manifests(&self, cancel: &CancellationToken) -> Result<Vec<String>, BlockStoreError> {
        let listed = self.list(&self.manifests_prefix(), cancel).await?;
        Ok(listed.into_iter().map(|(name, _)| name).collect())
    }

    /// What follows the prefix in the keys below it, and sizes.
    async fn list(
        &self,
        prefix: &str,
        cancel: &CancellationToken,
    ) -> Result<Vec<(String, u64)>, BlockStoreError> {
        let mut all = Vec::new();
        let mut next = None;
        loop {
            let page = self.inner.store.list(&self.inner.bucket, prefix, next.as_ref(), cancel).await?;
            let name = |key: &str| key.strip_prefix(prefix).unwrap_or(key).to_owned();
            all.extend(page.objects.iter().map(|object| (name(&object.key), object.size)));
            next = page.next;
            if next.is_none() {
                return Ok(all);
            }
        }
    }

    pub(crate) fn ledger(&self) -> &dyn Ledger {
        &*self.inner.ledger
    }

    fn blocks_prefix(&self) -> String {
        format!("{}blocks/", self.folder())
    }

    fn manifests_prefix(&self) -> String {
        format!("{}manifests/", self.folder())
    }

    fn block_key(&self, id: &BlockId) -> String {
        let hex = hex::encode(id);
        format!("{}{}/{hex}", self.blocks_prefix(), &hex[..2])
    }

    pub(crate) fn owner_key(&self) -> String {
        format!("{}owner", self.folder())
    }

    fn manifest_key(&self, name: &str) -> String {
        format!("{}{name}", self.manifests_prefix())
    }

    fn folder(&self) -> String {
        match self.inner.prefix.trim_end_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        }
    }

    pub(crate) async fn get(&self, key: &str, cancel: &CancellationToken) -> Result<Bytes, BlockStoreError> {
        Ok(self.inner.store.get(&self.inner.bucket, key, None, cancel).await?)
    }

    pub(crate) async fn put(
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
