//! Ingest from a URI as a durable, cancellable operation, behind the REST API of the image service.
//!
//! The receiver's end of the engine: a Create call names a pre-signed URL; the server reads the disk image behind it by byte
//! ranges, proves its mapping before it believes it, and stores the raw content as blocks in an S3-compatible store. The
//! contract is the cloud's (`image_api`), so its clients work here. Servers with a contract of their own want [`image_ingest`], which
//! is that without this.
//!
//! - `rest`: paths, JSON, codes, tokens.
//! - `operation`: the states of an operation, changed by one pure function.
//! - `catalog`: images and operations on SQLite; READY and done are one commit.
//! - `worker`: four ingests at once, the rest in order; cancel, shutdown, restart.
//! - `ingest`, `content`: from the URL to blocks and manifest, by [`image_ingest`].
//! - `volumes`: disks and snapshots of the operator's, which Images are made from too.
//! - `observe`: health and metrics.
//! - `embedded`: the S3 server inside the process, where no other store is given.
//!
//! One process writes to a catalog and to a block store. gRPC, PostgreSQL and several servers at once are not here yet. A
//! source URL is a secret: its query stands in the catalog as long as the operation runs, and nowhere else.

mod catalog;
mod config;
mod content;
mod embedded;
mod error;
mod ids;
mod ingest;
mod limits;
mod observe;
mod operation;
mod origin;
mod rest;
mod server;
mod uri;
mod volumes;
mod worker;

pub use config::{Config, Limits, Storage, TlsFiles};
pub use error::ServerError;
pub use server::{Running, Server};
pub use volumes::{Volume, VolumeFolder, VolumeSources, Volumes};
// Named by `Config`.
pub use object_io::{HostRule, TimeLimits};
