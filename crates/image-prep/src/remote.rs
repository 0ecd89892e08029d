//! Sources that are neither paths nor URLs: `image:ID`, the content of an Image, and `s3://BUCKET/KEY` or `gs://BUCKET/KEY`, an object. Both are read as
//! everybody else would read them: by ranges, an object through a URL that is signed here and never shown.
//!
//! The content of an Image is beside the cloud's contract: `image-server` serves it, the clouds do not.

use object_io::limits::MAX_EXPIRY;
use object_io::{Bearer, HttpOptions, HttpSource, ObjectError, ObjectUri, Scheme, Store};

use crate::args::{StoreArgs, StoredArgs};
use crate::context::Context;
use crate::error::Error;
use crate::local::Local;
use crate::{service, transfer};

/// What stands before the id of an Image.
const PREFIX: &str = "image:";

/// The id of the Image that an IMAGE names.
pub(crate) fn image_id(image: &str) -> Option<&str> {
    image.strip_prefix(PREFIX)
}

/// True if this names an object in a store.
pub(crate) fn is_object(image: &str) -> bool {
    scheme_of(image).is_some()
}

fn scheme_of(image: &str) -> Option<Scheme> {
    [Scheme::S3, Scheme::Gs].into_iter().find(|scheme| image.starts_with(scheme.prefix()))
}

/// What the images of a command are read from that are neither paths nor URLs.
#[derive(Default)]
pub(crate) struct Remote {
    service: Option<ImageService>,
    /// Where objects are, by what their names begin with.
    stores: Vec<(Scheme, Store)>,
    local: Option<Local>,
}

struct ImageService {
    endpoint: String,
    bearer: Option<Bearer>,
}

impl Remote {
    /// Connects to what the images need: to the service for an Image, to the store for an object.
    pub(crate) async fn connect(
        images: &[&str],
        args: &StoredArgs,
        store: Option<&StoreArgs>,
        allow_http: bool,
        context: &Context,
    ) -> Result<Self, Error> {
        let has_image = images.iter().any(|image| image_id(image).is_some());
        let store = store.filter(|_| images.iter().any(|image| is_object(image)));
        let mut schemes: Vec<Scheme> = images.iter().filter_map(|image| scheme_of(image)).collect();
        schemes.dedup();
        if let (Some(dir), true) = (&args.local.local, has_image || store.is_some()) {
            let local = Local::start(dir.as_deref(), args.api.transport.into(), context).await?;
            let bearer = Bearer::new(local.token().expose());
            let service = ImageService { endpoint: local.endpoint().to_owned(), bearer };
            let here = |scheme| Some((scheme, store.map(|_| local.store().clone())?));
            let stores = schemes.into_iter().filter_map(here).collect();
            return Ok(Self { service: Some(service), stores, local: Some(local) });
        }
        let mut remote = Self::default();
        if has_image {
            let service::Service { services, credentials } =
                service::find(&args.api, allow_http, context).await?;
            let bearer = match credentials {
                Some(credentials) => Bearer::new(credentials.get(&context.cancel).await?.expose()),
                None => None,
            };
            let endpoint = services.compute.as_str().trim_end_matches('/').to_owned();
            remote.service = Some(ImageService { endpoint, bearer });
        }
        if let Some(store) = store {
            // What is sent there would be sent to the other's store: URLs that are signed, and tokens.
            if store.endpoint_url.is_some() && [Scheme::S3, Scheme::Gs].iter().all(|of| schemes.contains(of))
            {
                return Err(Error::TwoStores);
            }
            for scheme in schemes {
                let connected = transfer::connect(store, scheme, Some(&args.api), context).await?;
                remote.stores.push((scheme, connected));
            }
        }
        Ok(remote)
    }

    /// The image, if it is one of these. An Image comes as a qcow2: its tables say what there is to read.
    pub(crate) async fn open(&self, image: &str, context: &Context) -> Result<Option<HttpSource>, Error> {
        let (url, bearer) = if let (Some(service), Some(id)) = (&self.service, image_id(image)) {
            // An id is a word; whatever else is typed must not become another path.
            if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
                return Err(Error::ImageId { id: id.to_owned() });
            }
            (format!("{}/images/{id}/disk.qcow2", service.endpoint), service.bearer.clone())
        } else if let Some((_, store)) =
            self.stores.iter().find(|(scheme, _)| Some(*scheme) == scheme_of(image))
        {
            let object: ObjectUri = image.parse().map_err(ObjectError::from)?;
            let (bucket, key, cancel) = (object.bucket(), object.key(), &context.cancel);
            match store.bearer().await? {
                Some(bearer) => (store.url(bucket, key, cancel).await?.to_string(), Some(bearer)),
                // As long as every store lets a URL live: it ends with this process anyway.
                None => (store.presign_get(bucket, key, MAX_EXPIRY, cancel).await?.expose().to_owned(), None),
            }
        } else {
            return Ok(None);
        };
        let options = HttpOptions { bearer, ..HttpOptions::default() };
        Ok(Some(HttpSource::open(&url, &options, &context.cancel).await?))
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
    fn an_object_is_named_by_its_store() {
        assert_eq!(scheme_of("s3://bucket/key"), Some(Scheme::S3));
        assert_eq!(scheme_of("gs://bucket/key"), Some(Scheme::Gs));
        assert!(!is_object("./s3://bucket/key") && !is_object("https://h/gs://b"));
    }

    #[test]
    fn an_image_is_no_path() {
        assert_eq!(image_id("image:fd8"), Some("fd8"));
        for other in ["./image:fd8", "disk.raw", "https://h/image:x", "Image:fd8"] {
            assert_eq!(image_id(other), None, "{other}");
        }
    }
}
