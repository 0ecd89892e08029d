//! The content of images, for whoever may see them.

use image_api::{Code, compute::image, rpc::Status};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Origin, Refusal, Service, rights::Right};
use crate::content::{Form, Readable};

impl Service {
    /// Fails unless the caller may see the image, and it is READY.
    pub(crate) async fn readable_image(&self, origin: &Origin<'_>, id: &str) -> Result<(), Refusal> {
        let caller = self.identity.of(origin, &self.catalog).await?;
        let image = self.image_for(&caller, id, Right::Read).await?;
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
            warn!(
                image_id = id,
                error = &error as &dyn std::error::Error,
                "the content of an image cannot be read"
            );
            Status::new(Code::Unavailable, "the content of the image cannot be read at the moment").into()
        })
    }
}
