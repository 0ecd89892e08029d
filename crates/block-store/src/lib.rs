//! Content-addressed raw blocks, and the manifests that list them, in a bucket of any object store.
//!
//! A stored Image is a [`Manifest`]: which 4 MiB blocks of the disk are not zero, and the SHA-256 of each. The id is also the
//! checksum that the store verifies when the block arrives. Equal blocks are stored once, whichever Images they belong to.
//!
//! | key below the prefix | what |
//! |---|---|
//! | `blocks/ab/abcd…` | a block's raw content; its name is its id, by the first two digits in folders |
//! | `manifests/ID` | the manifest of Image ID |

mod collect;
mod error;
mod manifest;
mod sink;
mod source;
mod store;

pub use collect::Collected;
pub use error::BlockStoreError;
pub use manifest::{Manifest, ManifestError};
pub use sink::BlockSink;
pub use source::ManifestSource;
pub use store::BlockStore;
