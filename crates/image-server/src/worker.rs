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
mod run;

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use image_ingest::SourceUri;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument as _, error, info, info_span, warn};

use crate::{
    catalog::{Attempt, Catalog, CatalogError, Claimed, OperationRecord, Ticket, Want},
    content::{Form, Readable},
    ingest::{IngestError, Ingested},
    limits,
    operation::{Kind, Refused, State},
};
use run::Run;

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

    /// Removes the copies in this server's pool that no image needs.
    async fn sweep(&self) -> Result<(), IngestError> {
        Ok(())
    }
}

/// What to ingest.
#[derive(Debug)]
pub(crate) struct IngestWork {
    pub(crate) image_id: String,
    /// Which attempt at it this is.
    pub(crate) attempt: Attempt,
    pub(crate) source: SourceUri,
    /// Bytes of the smallest disk that the caller wants to allow; 0 means what the content needs.
    pub(crate) wanted_disk_size: u64,
    /// Whether a copy is wanted in the pool.
    pub(crate) pooled: bool,
}

impl IngestWork {
    /// The name of the manifest to save: no other attempt at this image has it.
    pub(crate) fn manifest(&self) -> String {
        self.attempt.to_string()
    }
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

    /// Cancelled when all work is told to stop.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.shared.shutdown
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
        let light = Arc::clone(&self.light_places).try_acquire_owned().ok();
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        let want = match (&place, &light) {
            (Some(_), _) => Want::Any,
            (None, Some(_)) => Want::Light,
            (None, None) => return Ok(None),
        };
        let asked = Instant::now();
        let Some(claimed) = self.catalog.claim(&self.owner, limits::LEASE, want).await? else {
            return Ok(None);
        };
        let moves_content = claimed.job.kind == Kind::Create && claimed.job.state != State::Cancelling;
        let place = if moves_content { place.or(light) } else { light.or(place) };
        Ok(place.map(|place| (claimed, place, asked)))
    }

    fn run_in_place(self: &Arc<Self>, claimed: Claimed, place: OwnedSemaphorePermit, asked: Instant) {
        let tokens = Tokens { cancel: self.shutdown.child_token(), lost: CancellationToken::new() };
        let ticket = claimed.ticket.clone();
        let held = Held { ticket: ticket.clone(), renewed: asked, tokens: tokens.clone() };
        // This process had it before, and its task may not have noticed yet that it has lost it.
        if let Some(before) = self.held().insert(ticket.id.clone(), held) {
            before.lose("it was claimed anew");
        }
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
            shared.forget(&ticket);
            drop(place);
            shared.work.notify_one();
        };
        self.tasks.spawn(task.instrument(span));
    }

    /// The work under a lease is over; that under a later one may have begun.
    fn forget(&self, ticket: &Ticket) {
        let mut all = self.held();
        if all.get(&ticket.id).is_some_and(|held| held.ticket == *ticket) {
            all.remove(&ticket.id);
        }
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
        // Images may have been deleted by other servers. A pool that cannot be read keeps no block in the store.
        let swept = self.content.sweep().await;
        let leftovers = self.catalog.leftovers().await?;
        // What another collection is removing may come back if that one dies: then it is looked at once more.
        if !leftovers.is_empty() && self.collect().await? == 0 {
            self.catalog.collected(&leftovers).await?;
        }
        Ok(swept?)
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
