//! Images of the service as sources: `image:ID`, read by ranges from an image server.
//!
//! The content is beside the cloud's contract: `image-server` serves it, the clouds do not.

use std::sync::Arc;

use disk_convert::ByteSource;
use object_io::{Bearer, HttpOptions, HttpSource};

use crate::args::StoredArgs;
use crate::context::Context;
use crate::error::Error;
use crate::local::Local;
use crate::service;

/// What stands before the id of an Image.
const PREFIX: &str = "image:";

/// The id of the Image that an IMAGE names.
pub(crate) fn image_id(image: &str) -> Option<&str> {
    image.strip_prefix(PREFIX)
}

/// The service that the Images of a command are read from.
pub(crate) struct StoredImages {
    endpoint: String,
    bearer: Option<Bearer>,
    local: Option<Local>,
}

impl StoredImages {
    /// Connects, if one of the images is an Image.
    pub(crate) async fn connect(
        images: &[&str],
        args: &StoredArgs,
        allow_http: bool,
        context: &Context,
    ) -> Result<Option<Self>, Error> {
        if !images.iter().any(|image| image_id(image).is_some()) {
            return Ok(None);
        }
        Ok(Some(match &args.local.local {
            None => {
                let (endpoint, token) = service::credentials(&args.api, allow_http)?;
                let bearer = token.and_then(|token| Bearer::new(token.expose()));
                Self { endpoint: endpoint.as_str().trim_end_matches('/').to_owned(), bearer, local: None }
            }
            Some(dir) => {
                let local = Local::start(dir.as_deref(), context).await?;
                let bearer = Bearer::new(local.token().expose());
                Self { endpoint: local.endpoint().to_owned(), bearer, local: Some(local) }
            }
        }))
    }

    /// The content of an Image, as a qcow2: its tables say what there is to read.
    pub(crate) async fn open(&self, id: &str, context: &Context) -> Result<Arc<dyn ByteSource>, Error> {
        // An id is a word; whatever else is typed must not become another path.
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(Error::ImageId { id: id.to_owned() });
        }
        let url = format!("{}/images/{id}/disk.qcow2", self.endpoint);
        let options = HttpOptions { bearer: self.bearer.clone(), ..HttpOptions::default() };
        Ok(Arc::new(HttpSource::open(&url, &options, &context.cancel).await?))
    }

    /// Stops what was started for it.
    pub(crate) async fn stop(self, context: &Context) {
        if let Some(local) = self.local {
            local.stop(context).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_no_path() {
        assert_eq!(image_id("image:fd8"), Some("fd8"));
        for other in ["./image:fd8", "disk.raw", "https://h/image:x", "Image:fd8"] {
            assert_eq!(image_id(other), None, "{other}");
        }
    }
}
