//! Workers of several servers on one catalog; content that waits until it is told to end.

use std::sync::atomic::AtomicUsize;

use disk_convert::GuestDigest;

use super::*;
use crate::{
    catalog::{
        Admission,
        tests::{Db, admit, new_image, on_both},
    },
    pool::PoolError,
    postgres::Postgres,
};

/// A cancel, or the loss of a lease, is noticed within a second.
const _: () = assert!(limits::LEASE_WATCH.as_millis() < 1000);

/// Ingests that end when they are cancelled, or let go.
#[derive(Default)]
struct Waiting {
    running: AtomicUsize,
    cancelled: AtomicUsize,
    go_on: CancellationToken,
    /// Attempts to tidy up the pool, which all fail.
    sweeps: AtomicUsize,
}

#[async_trait]
impl Content for Waiting {
    async fn ingest(
        &self,
        work: &IngestWork,
        cancel: &CancellationToken,
    ) -> Result<Ingested<String>, IngestError> {
        self.running.fetch_add(1, Ordering::SeqCst);
        let ended = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(IngestError::Cancelled),
            () = self.go_on.cancelled() => Ok(()),
        };
        self.running.fetch_sub(1, Ordering::SeqCst);
        if ended.is_err() {
            self.cancelled.fetch_add(1, Ordering::SeqCst);
        }
        ended?;
        let guest_digest = GuestDigest([7; 32]);
        let size = 4 << 20;
        let output = work.manifest();
        Ok(Ingested { virtual_size: size, storage_size: size, min_disk_size: size, guest_digest, output })
    }

    async fn open(
        &self,
        _image_id: &str,
        _form: Form,
        _cancel: &CancellationToken,
    ) -> Result<Readable, IngestError> {
        unreachable!("nobody reads")
    }

    async fn collect(&self, _cancel: &CancellationToken) -> Result<u64, IngestError> {
        Ok(0)
    }

    async fn sweep(&self) -> Result<(), IngestError> {
        self.sweeps.fetch_add(1, Ordering::SeqCst);
        Err(PoolError::Foreign.into())
    }
}

struct Server {
    worker: Worker,
    content: Arc<Waiting>,
}

impl Server {
    fn start(catalog: Catalog) -> Self {
        let content = Arc::new(Waiting::default());
        let worker = Worker::new(catalog, Arc::clone(&content) as Arc<dyn Content>, limits::RUNNING_INGESTS);
        worker.start();
        Self { worker, content }
    }

    fn running(&self) -> usize {
        self.content.running.load(Ordering::SeqCst)
    }

    async fn until_running(&self, count: usize) {
        eventually(async || self.running() == count).await;
    }
}

async fn eventually(holds: impl AsyncFn() -> bool) {
    for _ in 0..1500 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never happened");
}

async fn state(catalog: &Catalog, id: &str) -> State {
    catalog.operation(id).await.unwrap().state
}

async fn servers_share_the_work(db: Db) {
    let servers =
        [Server::start(db.again().await), Server::start(db.again().await), Server::start(db.again().await)];
    let mut operations = Vec::new();
    for _ in 0..3 * limits::RUNNING_INGESTS {
        operations.push(admit(&db.catalog, "").await.id);
    }
    for server in &servers {
        server.until_running(limits::RUNNING_INGESTS).await;
    }
    for server in &servers {
        server.content.go_on.cancel();
    }
    for id in &operations {
        eventually(async || state(&db.catalog, id).await == State::Succeeded).await;
    }
    for server in servers {
        server.worker.shutdown().await;
    }
}

async fn a_cancel_reaches_the_owner_from_any_server(db: Db) {
    let (owner, other) = (Server::start(db.again().await), Server::start(db.again().await));
    let running = admit(&db.catalog, "").await;
    eventually(async || owner.running() + other.running() == 1).await;
    let (owner, other) = if owner.running() == 1 { (owner, other) } else { (other, owner) };
    other.worker.cancel(&running.id).await.unwrap();
    eventually(async || owner.running() == 0).await;
    eventually(async || state(&db.catalog, &running.id).await == State::Cancelled).await;
    owner.worker.shutdown().await;
    other.worker.shutdown().await;
}

async fn who_lost_the_lease_stops_at_once(db: Db) {
    let server = Server::start(db.again().await);
    let record = admit(&db.catalog, "").await;
    server.until_running(1).await;
    // As if it had slept.
    let taken = loop {
        db.catalog.free_leases().await.unwrap();
        if let Some(taken) = db.catalog.claim("thief", limits::LEASE, Want::Any).await.unwrap() {
            break taken.ticket;
        }
    };
    server.until_running(0).await;
    server.worker.shutdown().await;
    assert_eq!(
        state(&db.catalog, &record.id).await,
        State::Running,
        "nothing was handed back that is another's"
    );
    db.catalog.renew(&taken, limits::LEASE).await.unwrap();
}

async fn a_lease_that_is_claimed_anew_is_kept(db: Db) {
    let server = Server::start(db.again().await);
    let record = admit(&db.catalog, "").await;
    server.until_running(1).await;
    db.catalog.free_leases().await.unwrap();
    server.worker.wake();
    // The first task ends after the second one has begun.
    eventually(async || server.content.cancelled.load(Ordering::SeqCst) == 1 && server.running() == 1).await;
    tokio::time::sleep(2 * limits::LEASE_WATCH).await;
    let held: Vec<Ticket> = server.worker.shared.held().values().map(|held| held.ticket.clone()).collect();
    assert_eq!(held, [Ticket { id: record.id.clone(), epoch: 2 }]);
    server.content.go_on.cancel();
    eventually(async || state(&db.catalog, &record.id).await == State::Succeeded).await;
    server.worker.shutdown().await;
}

async fn a_server_that_stops_hands_back(db: Db) {
    let first = Server::start(db.again().await);
    let record = admit(&db.catalog, "").await;
    first.until_running(1).await;
    first.worker.shutdown().await;
    let lease = db.catalog.claim("looks", Duration::ZERO, Want::Any).await.unwrap();
    assert!(lease.is_some(), "nobody waits for a lease to run out");
    let second = Server::start(db.again().await);
    second.until_running(1).await;
    second.content.go_on.cancel();
    eventually(async || state(&db.catalog, &record.id).await == State::Succeeded).await;
    second.worker.shutdown().await;
}

async fn an_image_is_deleted_though_its_copy_stays(db: Db) {
    let server = Server::start(db.again().await);
    server.content.go_on.cancel();
    let mut new = new_image("", None);
    new.image.pooled = true;
    let Admission::New(create) = db.catalog.admit_create(new).await.unwrap() else {
        panic!("no key was given")
    };
    eventually(async || state(&db.catalog, &create.id).await == State::Succeeded).await;
    let admitted = db.catalog.admit_delete(&create.image_id, "anonymous", None).await.unwrap();
    let Admission::New(delete) = admitted else { panic!("no key was given") };
    let before = server.content.sweeps.load(Ordering::SeqCst);
    server.worker.wake();
    eventually(async || state(&db.catalog, &delete.id).await.is_done()).await;
    assert_eq!(state(&db.catalog, &delete.id).await, State::Succeeded);
    assert!(server.content.sweeps.load(Ordering::SeqCst) > before);
    server.worker.shutdown().await;
}

on_both![
    servers_share_the_work,
    a_cancel_reaches_the_owner_from_any_server,
    who_lost_the_lease_stops_at_once,
    a_lease_that_is_claimed_anew_is_kept,
    a_server_that_stops_hands_back,
    an_image_is_deleted_though_its_copy_stays,
];

/// A database that is away for less than the lease costs nothing; one that is away for longer costs the attempt.
#[tokio::test]
async fn a_database_that_crashes_loses_no_operation() {
    let Some(postgres) = Postgres::start() else { return };
    let catalog = Catalog::open_url(&postgres.database()).await.unwrap();
    let server = Server::start(catalog.clone());
    let record = admit(&catalog, "").await;
    server.until_running(1).await;
    postgres.stop_immediately();
    tokio::time::sleep(Duration::from_secs(2)).await;
    postgres.run();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((server.running(), server.content.cancelled.load(Ordering::SeqCst)), (1, 0));

    postgres.stop_immediately();
    server.until_running(0).await;
    postgres.run();
    server.until_running(1).await;
    server.content.go_on.cancel();
    eventually(async || catalog.operation(&record.id).await.is_ok_and(|now| now.state == State::Succeeded))
        .await;
    server.worker.shutdown().await;
}
