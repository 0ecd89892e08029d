//! The S3 server under `--local` and under the tests: [`s3s::S3`] over a folder, durable across restarts and
//! kills.
//!
//! s3s speaks the protocol: HTTP, XML, Signature Version 4 in all its forms, aws-chunked. This crate does the
//! rest of what the "Amazon S3 API Reference" says of buckets, objects and multipart uploads: checksums and
//! MD5s verified, ranges, conditions, pages, error codes. Completing an upload, and copying, move no byte of
//! data (see `folder`).
//!
//! Refused with `NotImplemented`: versions, tags, object lock, server-side encryption with keys, browser
//! forms, and every verb not in `service`. Access control lists and storage classes are taken and mean
//! nothing.
//!
//! Cost: a PUT hashes at the speed of MD5 (some 0.6 GB/s a core), since an ETag is one; other requests run at
//! the speed of the file system. A request holds two buffers of at most 1 MiB, and one chunk of aws-chunked, which
//! s3s collects whole; an object in the index takes some 600 bytes. An object is synced before it is answered.

mod access;
mod bucket;
mod checksums;
mod complete;
mod conditions;
mod data;
mod error;
mod errors;
mod exchange;
mod folder;
mod limits;
mod listing;
mod objects;
mod records;
mod server;
mod service;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod uploads;

use std::fmt;
use std::io;
use std::path::PathBuf;

pub use error::Error;
pub use server::serve;
pub use store::LocalStore;

/// What to serve, and to whom.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder; created where it is missing, locked while it is served.
    pub dir: PathBuf,
    /// The only region whose signatures are taken.
    pub region: String,
    /// The only key pair.
    pub credentials: Credentials,
}

/// A key pair. Its `Debug` hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Names the pair in every request.
    pub access_key: String,
    /// Signs, and is never sent.
    pub secret_key: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key", &self.access_key)
            .field("secret_key", &"[redacted]")
            .finish()
    }
}

/// A socket to [`serve`] on: the standard library's or tokio's.
#[derive(Debug)]
pub struct Listener(Kind);

#[derive(Debug)]
enum Kind {
    Std(std::net::TcpListener),
    Tokio(tokio::net::TcpListener),
}

impl From<std::net::TcpListener> for Listener {
    fn from(listener: std::net::TcpListener) -> Self {
        Self(Kind::Std(listener))
    }
}

impl From<tokio::net::TcpListener> for Listener {
    fn from(listener: tokio::net::TcpListener) -> Self {
        Self(Kind::Tokio(listener))
    }
}

impl Listener {
    fn into_tokio(self) -> io::Result<tokio::net::TcpListener> {
        match self.0 {
            Kind::Std(listener) => {
                listener.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(listener)
            }
            Kind::Tokio(listener) => Ok(listener),
        }
    }
}
