//! Ingest from a URI as a durable, cancellable operation, behind the API of the image service.
//!
//! The receiver's end of the engine: a Create call names a pre-signed URL; the server reads the disk image behind it by byte
//! ranges, proves its mapping before it believes it, and stores the raw content as blocks in an S3-compatible store. The
//! contract is the cloud's (`image_api`), so its clients work here. Servers with a contract of their own want [`image_ingest`], which
//! is that without this.
//!
//! - `service`: the methods of the API, without a transport: who may call them, what they refuse, what they do.
//! - `rest`, `grpc`: its two faces, on one port (`http`); beside them the content of images, by ranges.
//! - `operation`: the states of an operation and the leases on it, changed by one pure function.
//! - `catalog`: images and operations on SQLite or PostgreSQL; READY and done are one commit.
//! - `worker`: some ingests at once, the rest in order; leases, cancel, shutdown, restart.
//! - `ledger`: the catalog's knowledge of blocks in use, as the block store asks for it.
//! - `ingest`, `content`: from the URL to blocks and manifest, by [`image_ingest`].
//! - `service/google`: the images API of Compute Engine, on the same methods.
//! - `buckets`: objects of the server's own store that are named instead of pre-signed.
//! - `volumes`: disks and snapshots of the operator's, which Images are made from too.
//! - `pool`: copies of pooled Images.
//! - `upkeep`: gc and fsck, beside servers that run.
//! - `observe`: health and metrics.
//! - `embedded`: the S3 server inside the process, where no other store is given.
//!
//! As many servers as there are work on one catalog on PostgreSQL and one bucket. A source URL is a secret: its query stands in the
//! catalog as long as the operation runs, and nowhere else.

mod buckets;
mod catalog;
mod config;
mod content;
mod embedded;
mod error;
mod grpc;
mod http;
mod ids;
mod ingest;
mod ledger;
mod limits;
mod observe;
mod operation;
mod origin;
mod pool;
#[cfg(test)]
#[path = "../tests/support/postgres.rs"]
mod postgres;
mod rest;
mod server;
mod service;
mod upkeep;
mod volumes;
mod worker;

pub use buckets::{SourceBucket, SourceBucketError};
pub use config::{Access, Config, Limits, Storage, TlsFiles};
pub use error::ServerError;
pub use server::{Running, Server};
pub use service::{AccountKeyError, Grant, GrantError};
pub use upkeep::{Pooled, Report, Upkeep, UpkeepError};
pub use volumes::{Volume, VolumeFolder, VolumeSources, Volumes};
// Named by `Config` and by `Upkeep`.
pub use block_store::{Collected, Depth, Sum};
pub use object_io::{HostRule, TimeLimits};
