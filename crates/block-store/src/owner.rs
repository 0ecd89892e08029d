//! Whose store it is.
//!
//! A collection removes what the ledger does not name. With the ledger of somebody else that would be everything, so a store says by
//! an object of its own to whom it belongs, and who means to write to it asks first.

use object_io::PutOptions;
use tokio_util::sync::CancellationToken;

use crate::{BlockStore, BlockStoreError};

impl BlockStore {
    /// Whether the store belongs to `owner`; takes it if it is nobody's. One that holds manifests and does not say whose it is belongs
    /// to whom knows one of them.
    ///
    /// # Errors
    ///
    /// If the store or the ledger fails.
    pub async fn belongs_to(&self, owner: &str, cancel: &CancellationToken) -> Result<bool, BlockStoreError> {
        let key = self.owner_key();
        match self.get(&key, cancel).await {
            Ok(found) => return Ok(found == owner.as_bytes()),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        let stored = self.stored_manifests(cancel).await?;
        let used = self.ledger().manifests().await?;
        let is_ours = |name: &String| used.as_ref().is_none_or(|used| used.contains(name));
        if !stored.is_empty() && !stored.iter().any(is_ours) {
            return Ok(false);
        }
        let first = PutOptions { if_none_match: true, ..PutOptions::default() };
        // Refused where somebody was faster; that there are stores which ignore the condition, the second look takes care of.
        let put = self.put(key.clone(), owner.to_owned().into(), first, cancel).await;
        match self.get(&key, cancel).await {
            Ok(found) => Ok(found == owner.as_bytes()),
            Err(error) => put.and(Err(error)),
        }
    }
}
