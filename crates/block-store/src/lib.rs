//! Content-addressed raw blocks, and the manifests that list them, in a bucket of any object store.
//!
//! A stored Image is a [`Manifest`]: which 4 MiB blocks of the disk are not zero, and the SHA-256 of each. The id is also the
//! checksum that the store verifies when the block arrives. Equal blocks are stored once, whichever Images they belong to.
//!
//! | key below the prefix | what |
//! |---|---|
//! | `blocks/ab/abcd…` | a block's raw content; its name is its id, by the first two digits in folders |
//! | `manifests/NAME` | a manifest; which Image it is of, and whether of any, its writers know ([`Ledger`]) |
//! | `owner` | whose store it is |

mod check;
mod collect;
mod error;
mod ledger;
mod manifest;
mod owner;
mod sink;
mod source;
mod store;

pub use check::{Checked, Depth, Fault, Sum};
pub use collect::Collected;
pub use error::BlockStoreError;
pub use ledger::{CONDEMNED_PAUSE, Claims, Ledger, LedgerError, QUARANTINE, SENTENCE};
pub use manifest::{Manifest, ManifestError};
pub use sink::BlockSink;
pub use source::ManifestSource;
pub use store::BlockStore;
