//! The crate against real protocols: a store over a folder, servers that misbehave, an environment of its own.

mod environment;
mod hostile;
mod local;
mod multipart;
mod presigned;
mod ranges;
mod verbs;
