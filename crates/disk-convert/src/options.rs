//! What a conversion may use, and what it reports while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use disk_image::limits::MAX_UNPACKED;

use crate::Workers;

/// Memory that a conversion may hold unless told otherwise, bytes: 192 MiB.
pub const DEFAULT_MEMORY: u64 = 192 << 20;

/// What a conversion may use.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of parts and reads that may be held at a time. Metadata comes on top, see [`disk_image::limits`].
    pub memory: u64,
    /// The CPU workers.
    pub workers: Workers,
    /// Where work is counted, for whoever shows progress.
    pub counters: Arc<Counters>,
    /// The most that a file which is compressed as a whole may unpack to, bytes; [`MAX_UNPACKED`] unless less is wanted.
    pub max_unpacked: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory: DEFAULT_MEMORY,
            workers: Workers::default(),
            counters: Arc::default(),
            max_unpacked: MAX_UNPACKED,
        }
    }
}

/// Work done so far. Counts only grow, so they can be read at any time from any thread.
#[derive(Debug, Default)]
pub struct Counters {
    total: AtomicU64,
    done: AtomicU64,
    parts: AtomicU64,
    bytes_read: AtomicU64,
    reads: AtomicU64,
    decodes: AtomicU64,
    bytes_decoded: AtomicU64,
    bytes_copied: AtomicU64,
    bytes_shared: AtomicU64,
    bytes_put: AtomicU64,
    zeroes_left_out: AtomicU64,
    encodes: AtomicU64,
    bytes_encoded: AtomicU64,
}

impl Counters {
    /// Bytes that will be done, as far as is known: the object's where zeroes are written, else those that are stored.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Bytes done, counted as [`Counters::total`] does.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Parts put.
    pub fn parts(&self) -> u64 {
        self.parts.load(Ordering::Relaxed)
    }

    /// Bytes read from the source for guest content, gaps between merged runs included.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// Reads of the source for guest content.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Encoded units decoded.
    pub fn decodes(&self) -> u64 {
        self.decodes.load(Ordering::Relaxed)
    }

    /// Bytes that the encoded units decoded to.
    pub fn bytes_decoded(&self) -> u64 {
        self.bytes_decoded.load(Ordering::Relaxed)
    }

    /// Stored bytes that were placed in a part as they are.
    pub fn bytes_copied(&self) -> u64 {
        self.bytes_copied.load(Ordering::Relaxed)
    }

    /// Stored bytes that the output shares with the source: neither read nor put.
    pub fn bytes_shared(&self) -> u64 {
        self.bytes_shared.load(Ordering::Relaxed)
    }

    /// Bytes that the sink took. A comparison has none.
    pub fn bytes_put(&self) -> u64 {
        self.bytes_put.load(Ordering::Relaxed)
    }

    /// Bytes that the sink was given and left out, being zero.
    pub fn zeroes_left_out(&self) -> u64 {
        self.zeroes_left_out.load(Ordering::Relaxed)
    }

    /// Units encoded, whether they shrank or not.
    pub fn encodes(&self) -> u64 {
        self.encodes.load(Ordering::Relaxed)
    }

    /// Bytes that the encoded units took.
    pub fn bytes_encoded(&self) -> u64 {
        self.bytes_encoded.load(Ordering::Relaxed)
    }

    pub(crate) fn expect(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn part_done(&self, bytes: u64) {
        self.parts.fetch_add(1, Ordering::Relaxed);
        self.advance(bytes);
    }

    /// For what is done before it is put.
    pub(crate) fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, bytes: u64) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn decoded(&self, bytes: u64) {
        self.decodes.fetch_add(1, Ordering::Relaxed);
        self.bytes_decoded.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn copied(&self, bytes: u64) {
        self.bytes_copied.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn shared(&self, bytes: u64) {
        self.bytes_shared.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn put(&self, given: u64, zeroes: u64) {
        self.bytes_put.fetch_add(given - zeroes, Ordering::Relaxed);
        self.zeroes_left_out.fetch_add(zeroes, Ordering::Relaxed);
    }

    pub(crate) fn encoded(&self, units: u64, bytes: u64) {
        self.encodes.fetch_add(units, Ordering::Relaxed);
        self.bytes_encoded.fetch_add(bytes, Ordering::Relaxed);
    }
}
