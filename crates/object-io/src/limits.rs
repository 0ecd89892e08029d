//! Limits of the protocol and of our patience, each with its reason.

use std::time::Duration;

const MIB: u64 = 1 << 20;

/// Parts of one upload. Amazon S3 User Guide, "Amazon S3 multipart upload limits".
pub const MAX_PARTS: u64 = 10_000;
/// The largest part, as above.
pub const MAX_PART_LEN: u64 = 5 << 30;
/// The largest object: as many of the largest parts as an upload may have, 48.8 TiB.
pub const MAX_OBJECT_LEN: u64 = MAX_PARTS * MAX_PART_LEN;
/// The same on Yandex Object Storage ("Quotas and limits in Object Storage": 5 TB), taken as powers of 1000.
pub const MAX_OBJECT_LEN_YANDEX: u64 = 5_000_000_000_000;
/// The part size that uploads begin with: the largest that is still fast (`benches`), so that few requests are made.
pub const PART_LEN: u64 = 16 * MIB;
/// Larger part sizes are multiples of this: parts stay aligned to clusters and blocks.
pub const PART_LEN_STEP: u64 = 4 * MIB;
/// Parts in flight at most, where the line is worth it and memory allows: more than fill 1 Gbit/s at 300 ms.
pub const PARTS_IN_FLIGHT: usize = 16;
/// Parts in flight at first: six of 16 MiB fill 1 Gbit/s at 100 ms, and two cores on loopback.
pub(crate) const FIRST_IN_FLIGHT: usize = 6;

/// What the names of objects of zeroes begin with, from which uploads copy their holes: beneath `image-prep/`, as all that is put for a time.
pub const ZEROES_PREFIX: &str = "image-prep/zeroes/";

/// The longest journal of an upload that is read: 10,000 parts with the longest ETags that stores give stay below 4 MiB.
pub(crate) const MAX_JOURNAL_LEN: u64 = 16 * MIB;

/// How far the clock of whoever signs may be off. Amazon S3 API, "Error responses", `RequestTimeTooSkewed`; others do the same.
pub const MAX_SKEW: Duration = Duration::from_secs(15 * 60);
/// Differences of clocks below it are not told from the way that an answer takes.
pub(crate) const CLOCK_NOISE: Duration = Duration::from_secs(60);

/// The longest that a pre-signed URL lives. Amazon S3 API, `X-Amz-Expires`.
pub const MAX_EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);
/// The same on Yandex Object Storage ("Pre-signed URLs": 2,592,000 seconds).
pub const MAX_EXPIRY_YANDEX: Duration = Duration::from_secs(30 * 24 * 3600);

/// The largest object that [`crate::Store::get`] holds in memory: the manifest of 64 TiB in 4 MiB blocks is 576 MiB.
pub const MAX_GET_LEN: u64 = 1 << 30;

/// Longest key, bytes of UTF-8. Amazon S3 User Guide, "Naming Amazon S3 objects".
pub const MAX_KEY_LEN: usize = 1024;

/// What is read of an answer that reports an error: enough for any store's XML.
pub(crate) const MAX_ERROR_BODY: usize = 16 << 10;
/// What is shown of a store's own message.
pub(crate) const MAX_MESSAGE_CHARS: usize = 300;

/// Opening a connection, to any host.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One attempt of a verb without a large body.
pub(crate) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// One attempt to complete an upload: Amazon says that it may take minutes.
pub(crate) const COMPLETE_TIMEOUT: Duration = Duration::from_secs(300);
/// Aborting an upload; shorter than the two seconds in which Ctrl-C must be done would leave uploads behind on slow links.
pub(crate) const ABORT_TIMEOUT: Duration = Duration::from_secs(10);
/// The slowest link that is worth using, bytes a second; what a body may take follows from it.
pub(crate) const MIN_RATE: u64 = 64 << 10;
/// How much slower than the parts before it a part may be before it counts as stuck: lines that are shared vary by less.
pub(crate) const RATE_MARGIN: f64 = 4.0;
/// Under a limit on bytes a second, parts in flight are as many as it sends in this time: more would only make each of them late.
pub(crate) const RATE_PART_TIME: Duration = Duration::from_secs(8);
/// Attempts of a verb and of a range, the first included.
pub(crate) const MAX_ATTEMPTS: u32 = 5;
/// Pause before the second attempt; doubled each time, with jitter.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause between attempts: the network that comes back is noticed soon.
pub(crate) const MAX_PAUSE: Duration = Duration::from_secs(10);
/// The longest `Retry-After` that a verb on its own waits for; an upload waits as long as [`OUTAGE`].
pub(crate) const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);
/// How long an upload goes on while nothing of it succeeds: a minute without a network must not end it.
pub(crate) const OUTAGE: Duration = Duration::from_secs(90);
/// Retries of one upload: 16 parts that fail for as long as [`OUTAGE`] lasts make some 250.
pub(crate) const RETRY_BUDGET: u32 = 400;

/// Listings of an upload's parts before one that is missing counts as lost: a listing may be cut short on its way.
pub(crate) const LISTINGS: u32 = 3;

/// How long what was learned of a store is believed: it may be updated.
pub(crate) const MEMORY_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
