//! The content of images, for whoever may use them.

use image_api::{Code, compute::image, rpc::Status};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Origin, Refusal, Service, rights::Right};
use crate::{
    catalog::CatalogError,
    content::{Form, Readable},
    ingest::IngestError,
};

impl Service {
    /// Fails unless the caller may use the image as a source, which is to have its content, and it is READY.
    pub(crate) async fn readable_image(&self, origin: &Origin<'_>, id: &str) -> Result<(), Refusal> {
        let caller = self.identity.of(origin, &self.catalog).await?;
        let image = self.image_for(&caller, id, Right::Use).await?;
        if image.status() == image::Status::Ready {
            return Ok(());
        }
        let status = image.status().as_str_name();
        Err(Status::new(Code::FailedPrecondition, format!("image {id} is {status}, expected READY")).into())
    }

    /// The content of an image that is READY.
    pub(crate) async fn open_content(&self, id: &str, form: Form) -> Result<Readable, Refusal> {
        // Dropping the handler stops the read; there is nothing else to cancel.
        self.content.open(id, form, &CancellationToken::new()).await.map_err(|error| {
            if let IngestError::Catalog(gone @ CatalogError::NoImage { .. }) = error {
                return gone.into();
            }
            warn!(
                image_id = id,
                error = &error as &dyn std::error::Error,
                "the content of an image cannot be read"
            );
            match error.code() {
                Code::Unavailable => {
                    Refusal::unavailable("the content of the image cannot be read at the moment")
                }
                _ => Refusal::internal(),
            }
        })
    }
}
