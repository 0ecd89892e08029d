//! What an ingest may do, and what it must come to.

use std::time::Duration;

use disk_convert::Options;
use disk_image::Format;
use disk_image::limits::{MAX_MAP_MEMORY, MAX_VIRTUAL_SIZE};
use object_io::TimeLimits;

use crate::{MemoryBudget, UriPolicy, limits};

/// What an ingest may do, and what it must come to. Sizes in bytes. Cheap to clone.
///
/// The limits of the formats themselves (table sizes, expansion, nesting) are constants, see [`disk_image::limits`].
#[derive(Clone, Debug)]
pub struct Policy {
    /// Which URIs are read.
    pub uris: UriPolicy,
    /// The format, where it is known: what a guest has written must not choose it. By content otherwise.
    pub format: Option<Format>,
    /// When a source counts as too slow.
    pub http: TimeLimits,
    /// The longest time, from the end of the wait for memory on.
    pub time: Duration,
    /// The largest disk; [`MAX_VIRTUAL_SIZE`] holds in any case.
    pub max_virtual_size: u64,
    /// Memory that the map of an image may take; [`MAX_MAP_MEMORY`] holds in any case.
    pub max_metadata: u64,
    /// The most that may be stored: all blocks of 4 MiB in which the image stores anything, zeroes included.
    pub max_storage_size: u64,
    /// The smallest disk that the caller wants to allow; 0 means what the content needs.
    pub wanted_disk_size: u64,
    /// Memory and workers of one ingest, and counters of its progress. Clones of a policy count together.
    pub options: Options,
    /// Memory of all ingests that have this budget; without one, nothing is waited for.
    pub budget: Option<MemoryBudget>,
}

impl Policy {
    /// The limits of this crate, for these URIs.
    pub fn new(uris: UriPolicy) -> Self {
        Self {
            uris,
            format: None,
            http: TimeLimits::default(),
            time: limits::INGEST_TIME,
            max_virtual_size: MAX_VIRTUAL_SIZE,
            max_metadata: MAX_MAP_MEMORY as u64,
            max_storage_size: u64::MAX,
            wanted_disk_size: 0,
            options: Options::default(),
            budget: None,
        }
    }
}
