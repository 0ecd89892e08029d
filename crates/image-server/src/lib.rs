//! Ingest from a URI as a durable, cancellable operation, behind the API of the image service.
//!
//! The receiver's end of the engine: a Create call names a pre-signed URL; the server reads the disk image behind it by byte
//! ranges, proves its mapping before it believes it, and stores the raw content as blocks in an S3-compatible store. The
//! contract is the cloud's (`image_api`), so its clients work here.
//!
//! - `service`: the methods of the API, without a transport: who may call them, what they refuse, what they do.
//! - `rest`, `grpc`: its two faces, on one port (`http`).
//! - `operation`: the states of an operation, changed by one pure function.
//! - `catalog`: images and operations on SQLite; READY and done are one commit.
//! - `worker`: four ingests at once, the rest in order; cancel, shutdown, restart.
//! - `ingest`, `content`: from the URL to blocks and manifest.
//! - `uri`: which URLs are read at all.
//! - `embedded`: the S3 server inside the process, where no other store is given.
//!
//! One process writes to a catalog and to a block store. PostgreSQL and several servers at once are not here yet. A
//! source URL is a secret: its query stands in the catalog as long as the operation runs, and nowhere else.

mod catalog;
mod config;
mod content;
mod embedded;
mod error;
mod grpc;
mod http;
mod ids;
mod ingest;
mod limits;
mod operation;
mod rest;
mod server;
mod service;
mod uri;
mod worker;

pub use config::{Access, Config, Storage, TlsFiles};
pub use error::ServerError;
pub use ingest::{IngestError, Ingested, Policy, ingest};
pub use server::{Running, Server};
pub use service::{AccountKeyError, Grant, GrantError};
// Named by `Config`.
pub use object_io::HostRule;
