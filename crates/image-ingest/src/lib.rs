//! Takes a disk image behind a stranger's URL into any sink: policy, limits, proof, digest.
//!
//! For servers that accept URLs of disk images. [`ingest`] checks the URL against a [`UriPolicy`], waits until its memory is free,
//! proves the whole mapping of the image against named limits, and only then has a sink made and gives it the raw content of the
//! disk. Nothing that an image names beside itself is opened; the format is found by content unless the policy says it. [`probe`] is the first half alone, for
//! whoever has something to decide between the two, a quota for example.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use disk_convert::{Digesting, FileSink};
//! use image_ingest::{MemoryBudget, Policy, UriPolicy, ingest};
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // Only these hosts, by https, where they have public addresses; no redirects.
//! let uris = UriPolicy { hosts: vec!["storage.example.com".parse()?], ..UriPolicy::default() };
//! // Shared by all ingests of the process.
//! let budget = MemoryBudget::new(1 << 30);
//! let policy = Policy { max_virtual_size: 1 << 40, budget: Some(budget), ..Policy::new(uris) };
//!
//! let url = "https://storage.example.com/uploads/disk.qcow2?X-Amz-Signature=0123";
//! let cancel = CancellationToken::new();
//! // Any `disk_convert::Sink` will do. A file does not hash what it holds, so that is done on the way.
//! let sink = |found: &image_ingest::Found| {
//!     let file = FileSink::create(Path::new("disk.raw"), found.virtual_size())?;
//!     Ok(Digesting::new(file, &policy.options.workers))
//! };
//! let ingested = ingest(url, &policy, sink, &cancel).await?;
//! println!("{} on disks from {} bytes on", ingested.guest_digest, ingested.min_disk_size);
//! # Ok(())
//! # }
//! ```
//!
//! The output of a sink that hashes blocks itself implements [`disk_convert::Summed`]; nothing is hashed twice then.
//!
//! Refused before the first byte is written: URLs outside of the policy, damaged or unsafe images, disks above the limits. Cost: the
//! memory of [`Policy::options`], and the image's map, at most 256 MiB, both within [`Policy::budget`].

mod error;
mod found;
pub mod limits;
mod memory;
mod policy;
mod uri;

pub use error::{IngestError, Limit};
pub use found::{Found, Ingested, ingest, min_disk_size, probe, probe_source};
pub use memory::{Held, MemoryBudget};
pub use policy::Policy;
pub use uri::{SourceUri, UriPolicy, UriRefusal, without_query};
