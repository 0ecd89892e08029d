//! A stored Image as a source of its raw content.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use disk_convert::{BLOCK_SIZE, ByteSource, SourceError, SourceFault, SourceShape, Workers, block_id};
use disk_image::{ReadShape, Span};
use tokio_util::sync::CancellationToken;

use crate::{BlockStore, BlockStoreError, Manifest};

/// The raw content of a stored Image. Each block is read whole and checked against its id.
pub struct ManifestSource {
    store: BlockStore,
    name: Box<str>,
    manifest: Manifest,
    workers: Workers,
}

impl ManifestSource {
    pub(crate) fn new(store: BlockStore, id: &str, manifest: Manifest, workers: Workers) -> Self {
        Self { store, name: format!("image {id}").into(), manifest, workers }
    }

    async fn block(&self, index: u64) -> Result<Bytes, SourceError> {
        let span = self.manifest.block_span(index);
        let Some(id) = self.manifest.blocks().get(&index).copied() else {
            return Ok(Bytes::from(vec![0; usize::try_from(span.len).unwrap_or(usize::MAX)]));
        };
        // Dropping the future stops the read; there is nothing else to cancel.
        let content = self.store.get_block(&id, &CancellationToken::new()).await;
        let content = content.map_err(|error| self.failed(span, error))?;
        let hashed = content.clone();
        let found = self.workers.run(move || block_id(&hashed)).await;
        match found {
            Ok(found) if found == id && content.len() as u64 == span.len => Ok(content),
            // A store that gives other bytes under this name: whoever reads must not get them.
            Ok(_) => Err(SourceError::new(&*self.name, span, SourceFault::Changed)),
            Err(error) => Err(SourceError::new(&*self.name, span, SourceFault::Io).because(error)),
        }
    }

    fn failed(&self, span: Span, error: BlockStoreError) -> SourceError {
        let fault = match error.is_not_found() {
            true => SourceFault::NotFound,
            false => SourceFault::Unavailable,
        };
        SourceError::new(&*self.name, span, fault).because(error)
    }
}

#[async_trait]
impl ByteSource for ManifestSource {
    fn len(&self) -> u64 {
        self.manifest.virtual_size()
    }

    fn name(&self) -> &str {
        &self.name
    }

    async fn read(&self, span: Span) -> Result<Bytes, SourceError> {
        if span.end() > self.len() {
            return Err(SourceError::new(&*self.name, span, SourceFault::Shrunk));
        }
        let mut out = BytesMut::new();
        let mut at = span.start;
        while at < span.end() {
            let index = at / BLOCK_SIZE;
            let block = self.manifest.block_span(index);
            let wanted = block.intersect(span);
            let content = self.block(index).await?;
            let from = usize::try_from(wanted.start - block.start).unwrap_or(usize::MAX);
            let to = usize::try_from(wanted.end() - block.start).unwrap_or(usize::MAX);
            let content = content.slice(from..to);
            if wanted == span {
                return Ok(content);
            }
            out.extend_from_slice(&content);
            at = wanted.end();
        }
        Ok(out.freeze())
    }

    async fn allocation(&self) -> Result<Option<Vec<Span>>, SourceError> {
        Ok(Some(self.manifest.blocks().keys().map(|index| self.manifest.block_span(*index)).collect()))
    }

    fn shape(&self) -> SourceShape {
        SourceShape { reads: ReadShape { max_gap: 0, max_len: BLOCK_SIZE }, part: BLOCK_SIZE, in_flight: 8 }
    }
}
