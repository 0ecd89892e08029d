//! What the server bounds, and why there.

use std::time::Duration;

/// Ingests that run at once. Each holds a memory budget and decodes on all cores; more would only wait for each other.
pub(crate) const RUNNING_INGESTS: usize = 4;

/// Operations that may wait for a place. A pre-signed URL that waits behind a hundred ingests is likely to expire first.
pub(crate) const QUEUED_OPERATIONS: u32 = 100;

/// Images that may be created in a folder each second, on average over [`CREATE_WINDOW`].
pub(crate) const CREATES_PER_SECOND: u32 = 10;

/// Long enough that a queue can be filled at once, as scripts do.
pub(crate) const CREATE_WINDOW: Duration = Duration::from_secs(10);

/// Memory for the map of an image, of each ingest that runs beside one with the largest map; see
/// [`Limits::total_memory`](crate::Limits::total_memory). Holds the map of nearly every image.
pub(crate) const ORDINARY_MAP: u64 = 32 << 20;

/// What a caller is told to wait when the queue is full.
pub(crate) const QUEUE_RETRY_AFTER: Duration = Duration::from_secs(10);

/// What a caller is told to wait when the catalog or the store is away: long enough for a restart to have begun.
pub(crate) const OUTAGE_RETRY_AFTER: Duration = Duration::from_secs(2);

/// Bytes of a request's body: a Create with full labels and 64 product ids is below 32 KiB, a pre-signed URL with a
/// session token below 8 KiB.
pub(crate) const REQUEST_BODY: usize = 256 << 10;

/// Characters of an `Idempotency-Key`; the contract's are UUIDs of 36.
pub(crate) const IDEMPOTENCY_KEY: usize = 128;

/// Default memory of one ingest: parts in flight and decoded units. The image's map comes on top.
pub(crate) const INGEST_MEMORY: u64 = 192 << 20;

/// How long a stopping server waits for its connections and its operations. An operation that is still busy then is
/// continued by the next start.
pub(crate) const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// How long a worker may not be heard of before another one takes its operation. Long enough for a pause of the machine or a restart
/// of the database, short enough that a caller does not notice that a server died.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// A lease is renewed when this much of it has gone by: two renewals may fail.
pub(crate) const LEASE_RENEWAL: Duration = Duration::from_secs(3);

/// A worker that could not renew stops this long before its lease runs out, by its own clock.
pub(crate) const LEASE_MARGIN: Duration = Duration::from_secs(1);

/// How often a server looks whether its operations were cancelled elsewhere: one indexed read for all of them. A cancel
/// stops the download within a second.
pub(crate) const LEASE_WATCH: Duration = Duration::from_millis(300);

/// How often an idle server looks for work that others accepted, or left.
pub(crate) const WORK_POLL: Duration = Duration::from_secs(1);

/// Deletions and creations to be taken back that run at once: they wait for the store, and share collections.
pub(crate) const RUNNING_LIGHT: usize = 64;

/// Connections to PostgreSQL of one server; its default is 100 for all.
pub(crate) const CATALOG_CONNECTIONS: u32 = 8;

/// How long PostgreSQL waits for a server that says nothing inside a transaction before it takes its locks away: less than a lease, so
/// that a server which stands still does not cost the others theirs.
pub(crate) const CATALOG_IDLE: Duration = Duration::from_secs(5);

/// How long a write waits for another one in the catalog before it fails.
pub(crate) const CATALOG_BUSY: Duration = Duration::from_secs(10);

/// Images on a page where the caller does not say, and at most.
pub(crate) const PAGE_SIZE: i64 = 100;
/// See [`PAGE_SIZE`].
pub(crate) const PAGE_SIZE_MAX: i64 = 1000;

/// Images on a page of Google's list where the caller does not say, and at most, as its reference has it.
pub(crate) const GOOGLE_PAGE: usize = 500;

/// Images that one request of Google's list looks at for a filter, well below a second of work. The page ends there, and its token
/// goes on.
pub(crate) const GOOGLE_SCAN: usize = 2000;

/// How long it looks at them: regular expressions are a caller's, and may take a thousand times what others do.
pub(crate) const GOOGLE_FILTER_TIME: Duration = Duration::from_millis(500);

/// How long `operations.wait` waits: the reference promises two minutes at most, of which the way back takes a part.
pub(crate) const GOOGLE_WAIT: Duration = Duration::from_secs(110);

/// How often it looks at an operation in the end, which is what a caller can be late by.
pub(crate) const GOOGLE_WAIT_POLL: Duration = Duration::from_secs(1);

/// Callers who wait for operations at a time: each is an indexed read a second. Others are answered at once.
pub(crate) const GOOGLE_WAITERS: usize = 256;

/// How long the server's own URL of an object is good that an image is made from: stores allow a week, and no ingest takes longer.
pub(crate) const OBJECT_URL_LIFE: Duration = Duration::from_secs(7 * 86_400);

/// How long a caller may take to send the head of a request, and then its body.
pub(crate) const REQUEST_HEAD: Duration = Duration::from_secs(30);

/// Access bindings of one image; as many as one call of the contract can set.
pub(crate) const ACCESS_BINDINGS: usize = 1000;

/// Life of a token that is given out for a JWT: short, as nobody can take one back; a client asks again.
pub(crate) const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// Longest life of a JWT, as the contract has it.
pub(crate) const JWT_LIFE: Duration = Duration::from_secs(3600);

/// How far a caller's clock may be ahead.
pub(crate) const JWT_CLOCK_SKEW: Duration = Duration::from_secs(60);
/// Answers with the content of images that are given at a time, and how long one waits for its turn. Each holds up to three
/// blocks of 4 MiB.
pub(crate) const READERS: usize = 16;
/// See [`READERS`].
pub(crate) const READER_PATIENCE: Duration = Duration::from_secs(10);

/// How long a reader may take for a block of 4 MiB: 64 KiB/s, as sources must.
pub(crate) const READER_IDLE: Duration = Duration::from_secs(64);

/// Images that stay open for readers, who come back for one range after the other. Each holds its manifest (9 MiB for a full disk of
/// 1 TiB) and two blocks.
pub(crate) const OPEN_IMAGES: usize = 4;
