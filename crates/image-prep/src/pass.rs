//! One pass over a disk: its progress while it runs, and at its end how much work it was.
//!
//! Work is counted, not timed: the same image, options and version give the same counts on every machine, however busy it is.
//! With `-v` each pass says them in a line; JSON results have those of all passes as `counters`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use disk_convert::{Counters, Options};
use schemars::JsonSchema;
use serde::Serialize;

use crate::args::values::Size;
use crate::progress::Shown;

/// The passes that have ended, by what they did.
#[derive(Debug, Default)]
pub(crate) struct Passes(Mutex<Counted>);

/// How much work the passes over disks were, by what they did.
pub(crate) type Counted = BTreeMap<&'static str, Work>;

impl Passes {
    /// The counts of each.
    pub(crate) fn counted(&self) -> Counted {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A pass over a disk.
pub(crate) struct Pass<'a> {
    /// What it may use, with counters of its own.
    pub(crate) options: Options,
    what: &'static str,
    passes: &'a Passes,
    _shown: Shown,
}

impl<'a> Pass<'a> {
    /// Begins one; `what` is what it does to the disk.
    pub(crate) fn new(what: &'static str, options: Options, shown: Shown, passes: &'a Passes) -> Self {
        Self { options, what, passes, _shown: shown }
    }

    /// Ends it well: its work is told, and kept for the result.
    pub(crate) fn end(self) {
        let work = Work::from(&*self.options.counters);
        tracing::info!("{}: {work}", self.what);
        self.passes.0.lock().unwrap_or_else(PoisonError::into_inner).insert(self.what, work);
    }
}

/// What was done; sizes in bytes.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Work {
    /// Of content; metadata is not counted.
    bytes_read: u64,
    requests: u64,
    decodes: u64,
    bytes_decoded: u64,
    /// Placed as they are stored.
    bytes_copied: u64,
    /// Shared with the source by the file system: neither read nor put.
    bytes_shared: u64,
    encodes: u64,
    bytes_encoded: u64,
    /// Taken by the output: written, sent, or hashed.
    bytes_put: u64,
    parts: u64,
    /// Found to be zero, and left out.
    zeroes_left_out: u64,
}

impl From<&Counters> for Work {
    fn from(counters: &Counters) -> Self {
        Self {
            bytes_read: counters.bytes_read(),
            requests: counters.reads(),
            decodes: counters.decodes(),
            bytes_decoded: counters.bytes_decoded(),
            bytes_copied: counters.bytes_copied(),
            bytes_shared: counters.bytes_shared(),
            encodes: counters.encodes(),
            bytes_encoded: counters.bytes_encoded(),
            bytes_put: counters.bytes_put(),
            parts: counters.parts(),
            zeroes_left_out: counters.zeroes_left_out(),
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} read in {} requests, {} decoded from {} units, {} copied, {} shared, {} units encoded to {}, {} put in {} parts, {} of \
             zeroes left out",
            Size(self.bytes_read),
            self.requests,
            Size(self.bytes_decoded),
            self.decodes,
            Size(self.bytes_copied),
            Size(self.bytes_shared),
            self.encodes,
            Size(self.bytes_encoded),
            Size(self.bytes_put),
            self.parts,
            Size(self.zeroes_left_out),
        )
    }
}
