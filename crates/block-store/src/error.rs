//! What can go wrong between a manifest and its blocks.

use disk_convert::{SinkError, SinkFault};
use object_io::ObjectError;

use crate::ManifestError;

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
}

impl BlockStoreError {
    /// True if there is no such Image.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_not_found())
    }

    /// True if the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_retryable())
    }

    /// The same failure, seen by a conversion into the store.
    pub(crate) fn into_sink_error(self, offset: Option<u64>) -> SinkError {
        match self {
            Self::Store(error) => error.into_sink_error(offset),
            Self::Manifest { ref key, .. } => {
                SinkError::new(key.clone(), offset, SinkFault::Protocol).because(self)
            }
        }
    }
}
