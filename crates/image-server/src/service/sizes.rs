//! How large a stored disk is, for a change of `minDiskSize`.

use async_trait::async_trait;
use block_store::BlockStore;
use image_api::{Code, rpc::Status};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::Refusal;

/// Knows the virtual sizes of images. One implementation serves, another one stands in for it under test.
#[async_trait]
pub(crate) trait Sizes: Send + Sync + 'static {
    /// Bytes that a guest of the image with this manifest sees. Reads the manifest: one request to the store.
    async fn virtual_size(&self, manifest: &str) -> Result<u64, Refusal>;
}

#[async_trait]
impl Sizes for BlockStore {
    async fn virtual_size(&self, manifest: &str) -> Result<u64, Refusal> {
        match self.load(manifest, &CancellationToken::new()).await {
            Ok(found) => Ok(found.virtual_size()),
            Err(error) => {
                error!(manifest, error = &error as &dyn std::error::Error, "a manifest cannot be read");
                Err(Status::new(Code::Unavailable, "the content of the image cannot be read from the store")
                    .into())
            }
        }
    }
}
