//! One operation under one lease, from the claim to its end, or until the lease is lost.

use std::{future::Future, panic::AssertUnwindSafe};

use futures_util::FutureExt as _;
use image_api::{Code, rpc::Status};
use tracing::{error, info, warn};

use super::{FIRST_PAUSE, IngestWork, MAX_PAUSE, Shared, Tokens, sleep};
use crate::{
    catalog::{Attempt, Blocks, CatalogError, Claimed, Sizes, Ticket},
    ingest::{IngestError, Ingested},
    operation::{Kind, Refused, State},
};

/// One operation under one lease.
pub(super) struct Run<'a> {
    pub(super) shared: &'a Shared,
    pub(super) ticket: &'a Ticket,
    pub(super) tokens: &'a Tokens,
}

impl Run<'_> {
    pub(super) async fn run(&self, claimed: &Claimed) -> Result<(), CatalogError> {
        let job = &claimed.job;
        match (job.kind, job.state, &job.source) {
            (Kind::Delete, ..) => self.delete(&job.image_id, job.pooled).await,
            (Kind::Create, State::Cancelling, _) => self.take_back(&job.image_id).await,
            (Kind::Create, _, Some(source)) => {
                let attempt = Attempt { image_id: job.image_id.clone(), epoch: self.ticket.epoch };
                let work = IngestWork {
                    image_id: job.image_id.clone(),
                    attempt,
                    source: source.clone(),
                    wanted_disk_size: job.wanted_disk_size,
                    pooled: job.pooled,
                };
                self.create(&work, claimed.is_repeated()).await
            }
            (Kind::Create, _, None) => {
                // Only a hand that edited the catalog can do this.
                let status = Status::new(Code::DataLoss, "the source of the image is not known any more");
                self.failed(&status, Blocks::None).await
            }
        }
    }

    async fn create(&self, work: &IngestWork, is_repeated: bool) -> Result<(), CatalogError> {
        info!(image_id = %work.image_id, source = %work.source, is_repeated, "ingest started");
        // A panic must not leave the operation to hang until its lease runs out.
        let ingest = AssertUnwindSafe(self.shared.content.ingest(work, &self.tokens.cancel)).catch_unwind();
        let ended = ingest.await.unwrap_or(Err(IngestError::Panicked));
        if self.tokens.lost.is_cancelled() {
            warn!(image_id = %work.image_id, "ingest stopped: the lease is lost");
            return Ok(());
        }
        match ended {
            Ok(ingested) => self.publish(work, &ingested).await,
            Err(IngestError::Cancelled) => self.interrupted(&work.image_id).await,
            Err(error) => {
                let status = error.status(work);
                info!(image_id = %work.image_id, code = %status.canonical_code(), reason = %status.message, "ingest failed");
                // What the attempts before this one stored, nobody knows.
                let may_be_left = is_repeated || error.leaves_blocks();
                let blocks = if may_be_left { Blocks::MayBeLeft } else { Blocks::None };
                self.failed(&status, blocks).await
            }
        }
    }

    async fn publish(&self, work: &IngestWork, ingested: &Ingested<String>) -> Result<(), CatalogError> {
        let sizes = Sizes { storage_size: ingested.storage_size, min_disk_size: ingested.min_disk_size };
        let own = work.manifest();
        let publish = || self.shared.catalog.publish(self.ticket, sizes, &own, &ingested.output);
        let published = self.persist(publish).await;
        match published {
            Ok(_) => {}
            // A commit whose answer was lost: this epoch's, or the state would not be that.
            Err(CatalogError::Refused(Refused::State { state: State::Succeeded, .. })) => {}
            // A cancel came first: everything is stored, and has to go.
            Err(CatalogError::Refused(Refused::State { state: State::Cancelling, .. })) => {
                return self.take_back(&work.image_id).await;
            }
            Err(error @ CatalogError::ContentGone { .. }) => {
                return self.failed(&Status::new(Code::NotFound, error.to_string()), Blocks::None).await;
            }
            Err(error) => return Err(error),
        }
        info!(
            image_id = %work.image_id,
            guest_digest = %ingested.guest_digest,
            virtual_size = ingested.virtual_size,
            storage_size = ingested.storage_size,
            min_disk_size = ingested.min_disk_size,
            "image ready",
        );
        Ok(())
    }

    /// The work stopped on demand: of a caller, or of whoever stops the server.
    async fn interrupted(&self, image_id: &str) -> Result<(), CatalogError> {
        if self.persist(|| self.shared.catalog.operation(&self.ticket.id)).await?.state == State::Cancelling {
            return self.take_back(image_id).await;
        }
        self.hand_back().await
    }

    async fn hand_back(&self) -> Result<(), CatalogError> {
        info!("operation handed back");
        self.shared.catalog.release(self.ticket).await
    }

    /// Ends a cancelled creation. What it stored is collected later: the caller waits for the end, not for the broom.
    async fn take_back(&self, image_id: &str) -> Result<(), CatalogError> {
        ended(self.persist(|| self.shared.catalog.stopped(self.ticket)).await)?;
        info!(image_id, "operation cancelled");
        self.shared.leftovers.notify_one();
        Ok(())
    }

    async fn failed(&self, status: &Status, blocks: Blocks) -> Result<(), CatalogError> {
        ended(self.persist(|| self.shared.catalog.failed(self.ticket, status, blocks)).await)?;
        self.shared.leftovers.notify_one();
        Ok(())
    }

    async fn delete(&self, image_id: &str, pooled: bool) -> Result<(), CatalogError> {
        self.persist(|| self.shared.catalog.unlist(self.ticket)).await?;
        let collected = tokio::select! {
            biased;
            () = self.tokens.lost.cancelled() => return Ok(()),
            collected = self.shared.collect() => collected,
        };
        // The image is deleted whatever becomes of its copy: that is looked for once a minute.
        if pooled
            && collected.is_ok()
            && let Err(error) = self.shared.patiently(|| self.shared.content.sweep()).await
        {
            let error = &error as &dyn std::error::Error;
            warn!(image_id, error, "the copy is removed from the pool later");
        }
        match collected {
            Ok(left) => {
                // Another collection is removing the rest; should it die, somebody has to look again.
                let blocks = if left > 0 { Blocks::MayBeLeft } else { Blocks::None };
                ended(self.persist(|| self.shared.catalog.deleted(self.ticket, blocks)).await)?;
                info!(image_id, "image deleted");
                Ok(())
            }
            Err(_) if self.shared.shutdown.is_cancelled() => self.hand_back().await,
            Err(error) => {
                error!(image_id, error = &error as &dyn std::error::Error, "image not deleted");
                let status =
                    Status::new(error.code(), "the content of the image cannot be removed from the store");
                ended(self.persist(|| self.shared.catalog.not_deleted(self.ticket, &status)).await)
            }
        }
    }

    /// Commits, as often as the database fails: an operation must not hang because its disk was full for a moment. Not for longer than
    /// the lease: then another worker has the operation.
    async fn persist<T, F>(&self, commit: impl Fn() -> F) -> Result<T, CatalogError>
    where
        F: Future<Output = Result<T, CatalogError>>,
    {
        let mut pause = FIRST_PAUSE;
        loop {
            match commit().await {
                Err(CatalogError::Database { action, source }) => {
                    let error = CatalogError::Database { action, source };
                    warn!(error = &error as &dyn std::error::Error, "commit failed; it is tried again");
                    let goes_on = tokio::select! {
                        biased;
                        () = self.tokens.lost.cancelled() => false,
                        goes_on = sleep(pause, &self.shared.shutdown) => goes_on,
                    };
                    if !goes_on {
                        return Err(error);
                    }
                    pause = (pause * 2).min(MAX_PAUSE);
                }
                done => return done,
            }
        }
    }
}

/// A commit that ends the operation and whose answer was lost is refused the second time: it has ended.
fn ended(committed: Result<(), CatalogError>) -> Result<(), CatalogError> {
    match committed {
        Err(CatalogError::Refused(Refused::State { state, .. })) if state.is_done() => Ok(()),
        committed => committed,
    }
}
