//! What an ingest is held to unless its policy says otherwise, and why there.

use std::time::Duration;

/// Characters of a source URI. S3 signatures with a session token reach 3 KiB.
pub const URI: usize = 16 << 10;

/// `minDiskSize` counts in this unit and starts with it, as the cloud's does; bytes.
pub const DISK_UNIT: u64 = 4 << 20;

/// Longest time of one ingest. A source may be slow (64 KiB/s at least, [`object_io::TimeLimits`]), but not hold one of the few
/// places for days.
pub const INGEST_TIME: Duration = Duration::from_secs(24 * 3600);

/// Unit of [`crate::MemoryBudget`], bytes: 32 bits of permits cover any machine.
pub(crate) const BUDGET_UNIT: u64 = 1 << 20;
