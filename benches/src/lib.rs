//! What the benchmarks share: disk images made by qemu-img in a temporary folder, and a sink that throws everything away.
//!
//! `cargo bench -p benches` takes about two minutes on two cores. `image` measures the pure functions (open, extents, decode),
//! `convert` the engine (assemble, convert, scan, digest) and its peers, `upload` the way to an object store. The images are small
//! enough for the page cache: what is measured is what we do, not the disk.

mod disk;
mod null;

use anyhow::Result;
use disk_convert::{Disk, FileSource, Options, References, Workers, open_image};
use disk_image::OpenOptions;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

pub use disk::{Images, STORED};
pub use null::NullSink;

/// A runtime, and what a conversion may use, with this many workers.
pub struct Bench {
    /// Where futures run.
    pub runtime: Runtime,
    /// What a conversion may use.
    pub options: Options,
    /// Never fires.
    pub cancel: CancellationToken,
}

impl Bench {
    /// With `jobs` workers; with as many as this machine has cores where `None`.
    ///
    /// # Errors
    ///
    /// If threads cannot be started.
    pub fn new(jobs: Option<usize>) -> Result<Self> {
        let options = Options { workers: Workers::new(jobs)?, ..Options::default() };
        Ok(Self { runtime: Runtime::new()?, options, cancel: CancellationToken::new() })
    }

    /// Opens an image in a file.
    ///
    /// # Errors
    ///
    /// If it cannot be opened.
    pub fn open(&self, path: &std::path::Path) -> Result<Disk> {
        let source = std::sync::Arc::new(FileSource::open(path)?);
        let how = OpenOptions::default();
        let opening = open_image(source, &how, &References::Deny, &self.options, &self.cancel);
        Ok(self.runtime.block_on(opening)?)
    }
}
