//! The crate against real protocols: a store over a folder, servers that misbehave, an environment of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod addresses;
mod environment;
mod google;
mod hostile;
mod local;
mod multipart;
mod outage;
mod presigned;
mod ranges;
mod resume;
mod suite;
mod verbs;
