//! The content of images as it really is: URL to blocks.

use std::{pin::pin, sync::Arc};

use async_trait::async_trait;
use block_store::{BlockStore, BlockStoreError, Collected};
use disk_convert::Options;
use object_io::{HttpOptions, HttpSource};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    ingest::{IngestError, Ingested, Policy, ingest},
    limits,
    worker::{Content, IngestWork},
};

/// Reads by range GET, stores in a [`BlockStore`].
pub(crate) struct StoredContent {
    pub(crate) blocks: BlockStore,
    pub(crate) http: HttpOptions,
    pub(crate) options: Options,
}

#[async_trait]
impl Content for StoredContent {
    async fn ingest(&self, work: &IngestWork, cancel: &CancellationToken) -> Result<Ingested, IngestError> {
        let cancel = cancel.child_token();
        let mut ingest = pin!(self.read_and_store(work, &cancel));
        let Ok(ended) = timeout(limits::INGEST_TIME, &mut ingest).await else {
            cancel.cancel();
            // What is in flight ends before anything is said about it.
            let _ = ingest.await;
            return Err(IngestError::TooLong { limit: limits::INGEST_TIME });
        };
        ended
    }

    async fn collect(&self, cancel: &CancellationToken) -> Result<u64, IngestError> {
        let collected = self.blocks.collect(cancel).await.map_err(|error| stored(error, cancel))?;
        let Collected { kept, removed, bytes, left } = collected;
        tracing::info!(kept, removed, bytes, left, "unlisted blocks collected");
        Ok(left)
    }
}

impl StoredContent {
    async fn read_and_store(
        &self,
        work: &IngestWork,
        cancel: &CancellationToken,
    ) -> Result<Ingested, IngestError> {
        let source = HttpSource::open(work.source.expose(), &self.http, cancel).await;
        let source = source.map_err(|error| match cancel.is_cancelled() {
            true => IngestError::Cancelled,
            false => IngestError::opening(error.into()),
        })?;
        // Counters are of one ingest: what they count together is nobody's progress.
        let options = Options { counters: Arc::default(), ..self.options.clone() };
        let policy = Policy { wanted_disk_size: work.wanted_disk_size, options };
        ingest(Arc::new(source), &policy, &work.manifest, &self.blocks, cancel).await
    }
}

fn stored(error: BlockStoreError, cancel: &CancellationToken) -> IngestError {
    if cancel.is_cancelled() { IngestError::Cancelled } else { IngestError::Store(error) }
}
