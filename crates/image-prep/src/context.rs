//! What every command is given.

use std::sync::Arc;

use disk_convert::{Counters, Disk, Options, Workers};
use tokio_util::sync::CancellationToken;

use crate::args::CommonArgs;
use crate::error::Error;
use crate::output::Output;
use crate::progress::Progress;
use crate::report;

/// What every command is given.
pub(crate) struct Context {
    /// Where results go.
    pub(crate) output: Output,
    /// Where progress goes.
    pub(crate) progress: Progress,
    /// Fires on Ctrl-C and SIGTERM.
    pub(crate) cancel: CancellationToken,
    memory: u64,
    workers: Workers,
    quiet: bool,
}

impl Context {
    /// From the options that all commands have.
    pub(crate) fn new(common: &CommonArgs, cancel: CancellationToken) -> Result<Self, Error> {
        let workers =
            Workers::new(common.jobs.map(usize::from)).map_err(|source| Error::Threads { source })?;
        Ok(Self {
            output: Output::new(common.json),
            progress: Progress::new(common.quiet),
            cancel,
            memory: common.memory.0,
            workers,
            quiet: common.quiet,
        })
    }

    /// Options for one pass over a disk, with counters of its own.
    pub(crate) fn options(&self) -> Options {
        Options { memory: self.memory, workers: self.workers.clone(), counters: Arc::<Counters>::default() }
    }

    /// Memory for image data, bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.memory
    }

    /// Threads for CPU work.
    pub(crate) fn jobs(&self) -> usize {
        self.workers.jobs()
    }

    /// Tells what a user should know and may ignore.
    pub(crate) fn warn(&self, text: &str) {
        if !self.quiet {
            report::warning(text);
        }
    }

    /// Tells what is going on, where a user might wonder.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            report::note(text);
        }
    }

    /// Tells what is odd about an image.
    pub(crate) fn warn_of(&self, disk: &Disk) {
        for warning in disk.image().warnings() {
            self.warn(&format!("`{}`: {warning}", disk.source().name()));
        }
    }
}
