//! Carries operations from QUEUED to their end: takes what nobody works on from the catalog, a bounded number at once.
//!
//! The catalog is the truth, and shared by as many servers as there are; what is kept here can be lost at any moment. An
//! operation is worked on under a lease ([`crate::operation`]): this process renews those that it holds, stops at once when one is
//! lost, and hands all of them back when it is told to stop. So an operation that was accepted is run by this server or by another
//! one, and it reaches its end exactly once, because only the catalog's transition can end it, for one epoch of the lease.
//!
//! A cancel reaches the worker by the catalog, from whichever server took it: within [`limits::LEASE_WATCH`] the download stops. What was
//! stored is collected afterwards, by whichever server comes to it.

mod keeper;

use std::{
    collections::HashMap,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use disk_convert::ByteSource;
use futures_util::FutureExt as _;
use image_api::{Code, rpc::Status};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument as _, error, info, info_span, warn};

use crate::{
    catalog::{Attempt, Blocks, Catalog, CatalogError, Claimed, OperationRecord, Sizes, Ticket, Want},
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
/// Pause after a collection that failed for good, or that left something to another one; and how often somebody looks whether a server
/// that is no more has left something.
const COLLECT_PAUSE: Duration = Duration::from_secs(60);

/// Where the content of images goes and comes from. One implementation serves, another one stands in for it under test.
#[async_trait]
pub(crate) trait Content: Send + Sync + 'static {
    /// Reads a disk image, stores its blocks and its manifest. After an error nothing of them is left that can be seen;
    /// an ingest that is repeated goes on from what the one before has stored.
    /// Gives the name of the manifest, which may be that of another image with the same content.
    async fn ingest(
        &self,
        work: &IngestWork,
        cancel: &CancellationToken,
    ) -> Result<Ingested<String>, IngestError>;

    /// The content of an image that is READY, for reading.
    async fn open(
        &self,
        image_id: &str,
        form: Form,
        cancel: &CancellationToken,
    ) -> Result<Readable, IngestError>;

    /// Removes the manifests that are not in use, and the blocks that no manifest lists and no ingest has claimed. Gives how many
    /// blocks are left to other collections.
    async fn collect(&self, cancel: &CancellationToken) -> Result<u64, IngestError>;
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
    /// The name of the manifest to save: no other attempt at this image has it.
    pub(crate) manifest: String,
    pub(crate) source: SourceUri,
    /// Bytes of the smallest disk that the caller wants to allow; 0 means what the content needs.
    pub(crate) wanted_disk_size: u64,
}

/// Runs operations; a clone runs the same ones.
#[derive(Clone)]
pub(crate) struct Worker {
    shared: Arc<Shared>,
}

struct Shared {
    catalog: Catalog,
    content: Arc<dyn Content>,
    /// This process, in leases.
    owner: String,
    /// For ingests.
    places: Arc<Semaphore>,
    /// For everything else.
    light_places: Arc<Semaphore>,
    /// The operations that tasks of this process work on.
    held: Mutex<HashMap<String, Held>>,
    tasks: TaskTracker,
    /// Told when there may be work.
    work: Notify,
    /// Told when blocks may be left over.
    leftovers: Notify,
    collections: Collections,
    shutdown: CancellationToken,
}

/// A lease, as its holder sees it.
struct Held {
    ticket: Ticket,
    /// When the latest renewal was asked for: the database's lease ends no earlier than that long after.
    renewed: Instant,
    tokens: Tokens,
}

/// How a task learns that it has to stop.
#[derive(Clone)]
struct Tokens {
    /// Whatever the reason.
    cancel: CancellationToken,
    /// Another worker has the operation, or may have: nothing must be written any more.
    lost: CancellationToken,
}

/// Collections that several wait for: one that begins after all of them have asked serves all.
#[derive(Default)]
struct Collections {
    asked: AtomicU64,
    served: tokio::sync::Mutex<u64>,
}

impl Worker {
    pub(crate) fn new(catalog: Catalog, content: Arc<dyn Content>, places: usize) -> Self {
        let shared = Shared {
            catalog,
            content,
            owner: uuid::Uuid::new_v4().to_string(),
            places: Arc::new(Semaphore::new(places)),
            light_places: Arc::new(Semaphore::new(limits::RUNNING_LIGHT)),
            held: Mutex::default(),
            tasks: TaskTracker::new(),
            work: Notify::new(),
            leftovers: Notify::new(),
            collections: Collections::default(),
            shutdown: CancellationToken::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Begins to take work, and to collect what is left over.
    pub(crate) fn start(&self) {
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn(async move { shared.take_work().await });
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn(async move { shared.collect_leftovers().await });
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move { shared.keep_leases().await });
    }

    /// Looks for work now: an operation was just accepted.
    pub(crate) fn wake(&self) {
        self.shared.work.notify_one();
    }

    /// Asks an operation to stop; gives it as it is then. What the catalog accepts is a promise, see [`crate::operation`].
    pub(crate) async fn cancel(&self, id: &str) -> Result<OperationRecord, CatalogError> {
        // First the catalog: a task that begins after this line sees CANCELLING, one that began before has its token here.
        let record = self.shared.catalog.cancel(id).await?;
        if record.state == State::Cancelling {
            match self.shared.held().get(id) {
                Some(held) => held.tokens.cancel.cancel(),
                None => self.wake(),
            }
        }
        Ok(record)
    }

    /// Tells all work to stop.
    pub(crate) fn stop(&self) {
        self.shared.shutdown.cancel();
    }

    /// Stops all work, waits for it, and hands unfinished operations back.
    pub(crate) async fn shutdown(&self) {
        self.stop();
        self.shared.tasks.close();
        if tokio::time::timeout(limits::SHUTDOWN_GRACE, self.shared.tasks.wait()).await.is_err() {
            warn!("operations did not stop in time; their leases run out, and another server continues them");
        }
    }
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes work as long as there are places for it, until the server stops.
    async fn take_work(self: Arc<Self>) {
        while !self.shutdown.is_cancelled() {
            match self.claim().await {
                Ok(Some((claimed, place, asked))) => self.run_in_place(claimed, place, asked),
                Ok(None) => self.rest(limits::WORK_POLL).await,
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "cannot look for work");
                    self.rest(limits::WORK_POLL * 2).await;
                }
            }
        }
    }

    async fn rest(&self, pause: Duration) {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => {}
            () = self.work.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    /// Claims an operation together with the place for it, if there are both.
    async fn claim(&self) -> Result<Option<(Claimed, OwnedSemaphorePermit, Instant)>, CatalogError> {
        let Ok(light) = Arc::clone(&self.light_places).try_acquire_owned() else { return Ok(None) };
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        let want = if place.is_some() { Want::Any } else { Want::Light };
        let asked = Instant::now();
        let Some(claimed) = self.catalog.claim(&self.owner, limits::LEASE, want).await? else {
            return Ok(None);
        };
        let moves_content = claimed.job.kind == Kind::Create && claimed.job.state != State::Cancelling;
        let place = place.filter(|_| moves_content).unwrap_or(light);
        Ok(Some((claimed, place, asked)))
    }

    fn run_in_place(self: &Arc<Self>, claimed: Claimed, place: OwnedSemaphorePermit, asked: Instant) {
        let tokens = Tokens { cancel: self.shutdown.child_token(), lost: CancellationToken::new() };
        let ticket = claimed.ticket.clone();
        let held = Held { ticket: ticket.clone(), renewed: asked, tokens: tokens.clone() };
        self.held().insert(ticket.id.clone(), held);
        let (shared, span) =
            (Arc::clone(self), info_span!("operation", id = %ticket.id, epoch = ticket.epoch));
        let task = async move {
            let run = Run { shared: &shared, ticket: &ticket, tokens: &tokens };
            match run.run(&claimed).await {
                Ok(()) => {}
                Err(CatalogError::Refused(Refused::LeaseLost { current, .. })) => {
                    warn!(current, "operation left to another worker");
                }
                Err(error) => {
                    error!(
                        error = &error as &dyn std::error::Error,
                        "operation left until its lease runs out"
                    );
                }
            }
            shared.held().remove(&ticket.id);
            drop(place);
            shared.work.notify_one();
        };
        self.tasks.spawn(task.instrument(span));
    }

    /// Collects what withdrawn creations left over, whenever there is some, until the server stops.
    async fn collect_leftovers(&self) {
        loop {
            match self.collect_once().await {
                Ok(()) => {}
                Err(error) if self.shutdown.is_cancelled() => {
                    info!(error = &*error, "collection interrupted");
                    return;
                }
                Err(error) => {
                    error!(error = &*error, "unlisted blocks cannot be collected; tried again later")
                }
            }
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return,
                () = self.leftovers.notified() => {}
                () = tokio::time::sleep(COLLECT_PAUSE) => {}
            }
        }
    }

    async fn collect_once(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let leftovers = self.catalog.leftovers().await?;
        if leftovers.is_empty() {
            return Ok(());
        }
        // What another collection is removing may come back if that one dies: then it is looked at once more.
        if self.collect().await? == 0 {
            self.catalog.collected(&leftovers).await?;
        }
        Ok(())
    }

    /// A collection that begins after this call.
    async fn collect(&self) -> Result<u64, IngestError> {
        let mine = self.collections.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut served = self.collections.served.lock().await;
        if *served >= mine {
            return Ok(0);
        }
        let serving = self.collections.asked.load(Ordering::SeqCst);
        let left = self.patiently(|| self.content.collect(&self.shutdown)).await?;
        if left == 0 {
            *served = serving;
        }
        Ok(left)
    }

    /// Does something to the store, as often as it takes within reason.
    async fn patiently<T, F>(&self, work: impl Fn() -> F) -> Result<T, IngestError>
    where
        F: Future<Output = Result<T, IngestError>>,
    {
        let mut pause = FIRST_PAUSE;
        for _ in 1..REMOVE_ATTEMPTS {
            match work().await {
                Err(error) if error.is_retryable() && sleep(pause, &self.shutdown).await => {
                    pause = (pause * 3).min(MAX_PAUSE);
                }
                done => return done,
            }
        }
        work().await
    }
}

/// One operation under one lease.
struct Run<'a> {
    shared: &'a Shared,
    ticket: &'a Ticket,
    tokens: &'a Tokens,
}

impl Run<'_> {
    async fn run(&self, claimed: &Claimed) -> Result<(), CatalogError> {
        let job = &claimed.job;
        match (job.kind, job.state, &job.source) {
            (Kind::Delete, ..) => self.delete(&job.image_id).await,
            (Kind::Create, State::Cancelling, _) => self.take_back(&job.image_id).await,
            (Kind::Create, _, Some(source)) => {
                let attempt = Attempt { image_id: job.image_id.clone(), epoch: self.ticket.epoch };
                let work = IngestWork {
                    image_id: job.image_id.clone(),
                    manifest: attempt.to_string(),
                    source: source.clone(),
                    wanted_disk_size: job.wanted_disk_size,
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
        let publish = || self.shared.catalog.publish(self.ticket, sizes, &work.manifest, &ingested.output);
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

    async fn delete(&self, image_id: &str) -> Result<(), CatalogError> {
        self.persist(|| self.shared.catalog.unlist(self.ticket)).await?;
        let collected = tokio::select! {
            biased;
            () = self.tokens.lost.cancelled() => return Ok(()),
            collected = self.shared.collect() => collected,
        };
        match collected {
            Ok(_) => {
                ended(self.persist(|| self.shared.catalog.deleted(self.ticket)).await)?;
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

/// False where the server stops meanwhile.
async fn sleep(pause: Duration, shutdown: &CancellationToken) -> bool {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => false,
        () = tokio::time::sleep(pause) => true,
    }
}

#[cfg(test)]
mod tests;
