//! Ingest from a URI as a durable, cancellable operation, behind the REST API of the image service.
#![allow(dead_code)]

mod catalog;
mod ids;
mod ingest;
mod limits;
mod operation;
mod rest;
mod uri;
mod worker;

pub use ingest::{IngestError, Ingested};
pub use uri::{HostRule, InvalidHostRule};
