//! Carries operations from QUEUED to their end: a bounded number of ingests at once, the rest in order of arrival.
//!
//! The catalog is the truth; what is kept here can be lost at any moment. An operation that was accepted is run by this
//! process or by the next one ([`Worker::resume`]), and it reaches its end exactly once, because only the catalog's
//! transition can end it. After a cancel the download stops at once, and the manifest, if there is one already, is removed
//! before the operation says CANCELLED; its blocks are collected afterwards, over restarts too. After a shutdown the operation stays as it is, for the next start.

use std::{
    collections::HashMap,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use disk_convert::ByteSource;
use futures_util::FutureExt as _;
use image_api::{Code, rpc::Status};
use tokio::sync::{Notify, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument as _, error, info, info_span, warn};

use crate::{
    catalog::{Blocks, Catalog, CatalogError, OperationRecord, Sizes},
    ingest::{IngestError, Ingested},
    limits,
    operation::{Kind, Refused, State},
    uri::SourceUri,
};

/// Attempts to remove something from the store, with growing pauses: about a minute in all.
const REMOVE_ATTEMPTS: u32 = 7;
/// First pause before such an attempt, and before a commit is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(20);
/// Pause after a collection that failed for good: nobody waits for it.
const COLLECT_PAUSE: Duration = Duration::from_secs(300);

/// Where the content of images goes and comes from. One implementation serves, another one stands in for it under test.
#[async_trait]
pub(crate) trait Content: Send + Sync + 'static {
    /// Reads a disk image, stores its blocks and its manifest. After an error nothing of them is left that can be seen;
    /// an ingest that is repeated replaces what the first one stored.
    async fn ingest(&self, work: &IngestWork, cancel: &CancellationToken) -> Result<Ingested, IngestError>;

    /// The content of an image that is READY, for reading.
    async fn open(
        &self,
        image_id: &str,
        form: Form,
        cancel: &CancellationToken,
    ) -> Result<Readable, IngestError>;

    /// Removes an image's manifest. Removing what is not there is no error.
    async fn remove(&self, image_id: &str, cancel: &CancellationToken) -> Result<(), IngestError>;

    /// Removes the blocks that no manifest lists and no running ingest has stored.
    async fn collect(&self, cancel: &CancellationToken) -> Result<(), IngestError>;
}

/// What the content of an image is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// What the guest sees.
    Raw,
    /// A qcow2 file.
    Qcow2,
}

/// The content of an image in a form.
#[derive(Clone)]
pub(crate) struct Readable {
    pub(crate) source: Arc<dyn ByteSource>,
    /// Names these bytes, quotes included.
    pub(crate) etag: String,
}

/// What to ingest.
#[derive(Debug)]
pub(crate) struct IngestWork {
    pub(crate) image_id: String,
    pub(crate) source: SourceUri,
    /// Bytes of the smallest disk that the caller wants to allow; 0 means what the content needs.
    pub(crate) wanted_disk_size: u64,
}

/// Runs operations; a clone runs the same ones.
#[derive(Clone)]
pub(crate) struct Worker {
    shared: Arc<Shared>,
}

/// Whether a process before this one may have worked on an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    First,
    Another,
}

struct Shared {
    catalog: Catalog,
    content: Arc<dyn Content>,
    places: Semaphore,
    /// One token for each operation that a task of this process holds.
    cancels: Mutex<HashMap<String, CancellationToken>>,
    tasks: TaskTracker,
    /// Told when blocks may be left over.
    leftovers: Notify,
    shutdown: CancellationToken,
}

impl Worker {
    pub(crate) fn new(catalog: Catalog, content: Arc<dyn Content>, places: usize) -> Self {
        let shared = Shared {
            catalog,
            content,
            places: Semaphore::new(places),
            cancels: Mutex::default(),
            tasks: TaskTracker::new(),
            leftovers: Notify::new(),
            shutdown: CancellationToken::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Takes every operation that another process left unfinished, and begins to collect what is left over.
    pub(crate) async fn resume(&self) -> Result<(), CatalogError> {
        for id in self.shared.catalog.requeue().await? {
            info!(operation_id = %id, "operation resumed");
            self.take(id, Run::Another);
        }
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn(async move { shared.collect_leftovers().await });
        Ok(())
    }

    /// Takes an operation that was just accepted.
    pub(crate) fn submit(&self, id: String) {
        self.take(id, Run::First);
    }

    fn take(&self, id: String, run: Run) {
        let cancel = self.shared.shutdown.child_token();
        self.shared.cancels().insert(id.clone(), cancel.clone());
        let (shared, span) = (Arc::clone(&self.shared), info_span!("operation", id = %id));
        let task = async move {
            if let Err(error) = shared.run(&id, run, &cancel).await {
                error!(error = &error as &dyn std::error::Error, "operation left for the next start");
            }
            shared.cancels().remove(&id);
        };
        self.shared.tasks.spawn(task.instrument(span));
    }

    /// Asks an operation to stop; gives it as it is then. What the catalog accepts is a promise, see [`crate::operation`].
    pub(crate) async fn cancel(&self, id: &str) -> Result<OperationRecord, CatalogError> {
        // First the catalog: a task that begins after this line sees CANCELLING, one that began before has its token here.
        let record = self.shared.catalog.cancel(id).await?;
        if record.state == State::Cancelling
            && let Some(cancel) = self.shared.cancels().get(id)
        {
            cancel.cancel();
        }
        Ok(record)
    }

    /// Tells all work to stop.
    pub(crate) fn stop(&self) {
        self.shared.shutdown.cancel();
    }

    /// Stops all work and waits for it. Unfinished operations stay unfinished.
    pub(crate) async fn shutdown(&self) {
        self.stop();
        self.shared.tasks.close();
        if tokio::time::timeout(limits::SHUTDOWN_GRACE, self.shared.tasks.wait()).await.is_err() {
            warn!("operations did not stop in time; the next start continues them");
        }
    }
}

impl Shared {
    fn cancels(&self) -> std::sync::MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.cancels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self, id: &str, run: Run, cancel: &CancellationToken) -> Result<(), CatalogError> {
        let job = self.persist(|| self.catalog.job(id)).await?;
        match (job.kind, job.state, job.source) {
            (_, state, _) if state.is_done() => Ok(()),
            (Kind::Delete, ..) => self.delete(id, &job.image_id).await,
            (Kind::Create, State::Cancelling, _) => self.take_back(id, &job.image_id).await,
            (Kind::Create, _, Some(source)) => {
                let work =
                    IngestWork { image_id: job.image_id, source, wanted_disk_size: job.wanted_disk_size };
                self.create(id, &work, run, cancel).await
            }
            (Kind::Create, _, None) => {
                // Only a hand that edited the catalog can do this.
                self.persist(|| self.catalog.start(id)).await?;
                let status = Status::new(Code::DataLoss, "the source of the image is not known any more");
                self.failed(id, &status, Blocks::None).await
            }
        }
    }

    async fn create(
        &self,
        id: &str,
        work: &IngestWork,
        run: Run,
        cancel: &CancellationToken,
    ) -> Result<(), CatalogError> {
        let place = tokio::select! {
            biased;
            () = cancel.cancelled() => None,
            place = self.places.acquire() => place.ok(),
        };
        let Some(_place) = place else {
            return self.interrupted(id, &work.image_id).await;
        };
        match self.persist(|| self.catalog.start(id)).await {
            Err(CatalogError::Refused(Refused { state: State::Cancelling, .. })) => {
                return self.take_back(id, &work.image_id).await;
            }
            started => started?,
        }
        info!(image_id = %work.image_id, source = %work.source, "ingest started");
        // A panic must not leave the operation to hang until the next start.
        let ingest = AssertUnwindSafe(self.content.ingest(work, cancel)).catch_unwind();
        match ingest.await.unwrap_or(Err(IngestError::Panicked)) {
            Ok(ingested) => self.publish(id, work, &ingested).await,
            Err(IngestError::Cancelled) => self.interrupted(id, &work.image_id).await,
            Err(error) => {
                let status = error.status(work);
                info!(image_id = %work.image_id, code = %status.canonical_code(), reason = %status.message, "ingest failed");
                // What the runs before this one stored, nobody knows.
                let may_be_left = run == Run::Another || error.leaves_blocks();
                let blocks = if may_be_left { Blocks::MayBeLeft } else { Blocks::None };
                self.failed(id, &status, blocks).await
            }
        }
    }

    async fn publish(&self, id: &str, work: &IngestWork, ingested: &Ingested) -> Result<(), CatalogError> {
        let sizes = Sizes { storage_size: ingested.storage_size, min_disk_size: ingested.min_disk_size };
        match self.persist(|| self.catalog.publish(id, sizes)).await {
            Ok(image) => {
                info!(
                    image_id = %image.id,
                    guest_digest = %ingested.guest_digest,
                    virtual_size = ingested.virtual_size,
                    storage_size = ingested.storage_size,
                    min_disk_size = ingested.min_disk_size,
                    "image ready",
                );
                Ok(())
            }
            // A cancel came first: everything is stored, and has to go.
            Err(CatalogError::Refused(Refused { state: State::Cancelling, .. })) => {
                self.take_back(id, &work.image_id).await
            }
            Err(error) => Err(error),
        }
    }

    /// The work stopped on demand: of a caller, or of whoever stops the server.
    async fn interrupted(&self, id: &str, image_id: &str) -> Result<(), CatalogError> {
        if self.persist(|| self.catalog.operation(id)).await?.state == State::Cancelling {
            return self.take_back(id, image_id).await;
        }
        info!("operation interrupted; the next start continues it");
        Ok(())
    }

    /// Ends a cancelled creation. Its manifest goes first, its blocks are collected later: the caller waits for the end,
    /// not for the broom.
    async fn take_back(&self, id: &str, image_id: &str) -> Result<(), CatalogError> {
        if let Err(error) = self.patiently(|| self.content.remove(image_id, &self.shutdown)).await {
            if self.shutdown.is_cancelled() {
                info!("removal interrupted; the next start continues it");
                return Ok(());
            }
            error!(
                image_id,
                error = &error as &dyn std::error::Error,
                "manifest of a cancelled image is left over"
            );
        }
        self.persist(|| self.catalog.stopped(id)).await?;
        info!(image_id, "operation cancelled");
        self.leftovers.notify_one();
        Ok(())
    }

    async fn failed(&self, id: &str, status: &Status, blocks: Blocks) -> Result<(), CatalogError> {
        self.persist(|| self.catalog.failed(id, status, blocks)).await?;
        self.leftovers.notify_one();
        Ok(())
    }

    async fn delete(&self, id: &str, image_id: &str) -> Result<(), CatalogError> {
        self.persist(|| self.catalog.start(id)).await?;
        let removed = async {
            self.patiently(|| self.content.remove(image_id, &self.shutdown)).await?;
            self.patiently(|| self.content.collect(&self.shutdown)).await
        };
        match removed.await {
            Ok(()) => {
                self.persist(|| self.catalog.deleted(id)).await?;
                info!(image_id, "image deleted");
                Ok(())
            }
            Err(_) if self.shutdown.is_cancelled() => Ok(()),
            Err(error) => {
                error!(image_id, error = &error as &dyn std::error::Error, "image not deleted");
                let status =
                    Status::new(error.code(), "the content of the image cannot be removed from the store");
                self.persist(|| self.catalog.not_deleted(id, &status)).await
            }
        }
    }

    /// Collects what withdrawn creations left over, whenever there is some, until the server stops.
    async fn collect_leftovers(&self) {
        loop {
            let pause = match self.collect_once().await {
                Ok(()) => None,
                Err(error) if self.shutdown.is_cancelled() => {
                    info!(error = &*error, "collection interrupted; the next start continues it");
                    return;
                }
                Err(error) => {
                    error!(error = &*error, "unlisted blocks cannot be collected; tried again later");
                    Some(COLLECT_PAUSE)
                }
            };
            let again = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => self.leftovers.notified().await,
                }
            };
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return,
                () = again => {}
            }
        }
    }

    async fn collect_once(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let leftovers = self.catalog.leftovers().await?;
        if leftovers.is_empty() {
            return Ok(());
        }
        // A manifest that no image has would keep its blocks for ever: a failed ingest may have stored one without knowing.
        for leftover in &leftovers {
            self.patiently(|| self.content.remove(&leftover.image_id, &self.shutdown)).await?;
        }
        self.patiently(|| self.content.collect(&self.shutdown)).await?;
        self.catalog.collected(&leftovers).await?;
        Ok(())
    }

    /// Does something to the store, as often as it takes within reason.
    async fn patiently<F>(&self, work: impl Fn() -> F) -> Result<(), IngestError>
    where
        F: Future<Output = Result<(), IngestError>>,
    {
        let mut pause = FIRST_PAUSE;
        for _ in 1..REMOVE_ATTEMPTS {
            match work().await {
                Err(error) if error.is_retryable() && self.sleep(pause).await => {
                    pause = (pause * 3).min(MAX_PAUSE)
                }
                done => return done,
            }
        }
        work().await
    }

    /// Commits, as often as the database fails: an operation must not hang because its disk was full for a moment.
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
                    if !self.sleep(pause).await {
                        return Err(error);
                    }
                    pause = (pause * 2).min(MAX_PAUSE);
                }
                done => return done,
            }
        }
    }

    /// False where the server stops meanwhile.
    async fn sleep(&self, pause: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }
}
