//! What can go wrong between a manifest and its blocks.

use std::time::Duration;

use disk_convert::{SinkError, SinkFault};
use object_io::ObjectError;

use crate::{LedgerError, ManifestError};

/// A verb of the block store that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockStoreError {
    /// The store failed, or has no such thing.
    #[error(transparent)]
    Store(#[from] ObjectError),
    /// The manifest is damaged.
    #[error("the manifest `{key}` is damaged")]
    Manifest {
        /// The object.
        key: Box<str>,
        /// What is wrong.
        source: ManifestError,
    },
    /// The knowledge of what is in use is out of reach, or this writer's right to change it is gone.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store took too long to remove blocks.
    #[error("the store took longer than {} s to remove blocks", limit.as_secs())]
    Slow {
        /// What it may take.
        limit: Duration,
    },
}

impl BlockStoreError {
    /// True if there is no such Image.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_not_found())
    }

    /// True if the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::Ledger(_) | Self::Slow { .. } => true,
            Self::Manifest { .. } => false,
        }
    }

    /// The same failure, seen by a conversion into the store.
    pub(crate) fn into_sink_error(self, offset: Option<u64>) -> SinkError {
        match self {
            Self::Store(error) => error.into_sink_error(offset),
            Self::Manifest { ref key, .. } => {
                SinkError::new(key.clone(), offset, SinkFault::Protocol).because(self)
            }
            Self::Ledger(_) | Self::Slow { .. } => {
                SinkError::new("ledger", offset, SinkFault::Unavailable).because(self)
            }
        }
    }
}
