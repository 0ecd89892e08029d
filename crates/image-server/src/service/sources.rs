//! What a Create is made of: whether it may be, and what of it the Image inherits.

use image_api::{
    Code, CreateImageRequest, Violations,
    compute::{HardwareGeneration, Os, create_image_request::Source, image},
    rpc::Status,
};

use image_ingest::SourceUri;
use url::Url;

use super::{Caller, Refusal, Service, rights::Right};
use crate::{buckets::Object, origin::Origin, pool::PoolError, volumes::Volumes};

/// A source that may be used.
pub(super) struct Accepted {
    /// What the catalog keeps.
    pub(super) source: SourceUri,
    os: Option<Os>,
    product_ids: Vec<String>,
    hardware_generation: Option<HardwareGeneration>,
}

impl Accepted {
    fn of(origin: Origin<'_>) -> Self {
        let source = origin.keep();
        Self { source, os: None, product_ids: Vec::new(), hardware_generation: None }
    }

    /// The request, with what it does not say taken from the source.
    pub(super) fn fill(&self, request: CreateImageRequest) -> CreateImageRequest {
        let product_ids = match request.product_ids.is_empty() {
            true => self.product_ids.clone(),
            false => request.product_ids,
        };
        CreateImageRequest {
            os: request.os.or_else(|| self.os.clone()),
            product_ids,
            hardware_generation: request.hardware_generation.or(self.hardware_generation),
            ..request
        }
    }
}

impl Service {
    /// The source of a request, if there is one and the caller may use it.
    pub(super) async fn accept_source(
        &self,
        caller: &Caller,
        request: &CreateImageRequest,
    ) -> Result<Accepted, Refusal> {
        if request.pooled && !self.has_pool {
            return Err(Status::new(Code::ResourceExhausted, PoolError::None.to_string()).into());
        }
        match &request.source {
            Some(Source::Uri(uri)) => match uri.strip_prefix("gs://") {
                Some(object) => self.accept_object(&request.folder_id, object),
                None => match self.uris.check(uri) {
                    Ok(uri) => Ok(Accepted::of(Origin::Uri(&uri))),
                    Err(refusal) => Err(Violations::one("uri", refusal.to_string()).into()),
                },
            },
            Some(Source::ImageId(id)) => {
                let found = self.image_for(caller, id, Right::Use).await?;
                if found.status() != image::Status::Ready {
                    let status = found.status().as_str_name();
                    let message = format!("image {id} is {status}, expected READY");
                    return Err(Status::new(Code::FailedPrecondition, message).into());
                }
                let image_api::Image { os, product_ids, hardware_generation, .. } = found;
                Ok(Accepted { os, product_ids, hardware_generation, ..Accepted::of(Origin::Image(id)) })
            }
            Some(Source::SnapshotId(id)) => {
                self.check_volume(caller, "snapshot", id, self.volumes.snapshots.as_deref()).await?;
                Ok(Accepted::of(Origin::Snapshot(id)))
            }
            Some(Source::DiskId(id)) => {
                self.check_volume(caller, "disk", id, self.volumes.disks.as_deref()).await?;
                Ok(Accepted::of(Origin::Disk(id)))
            }
            None => Err(Violations::one("source", "required, found nothing").into()),
        }
    }

    /// An object by its name: of a bucket that the operator has listed, read with the server's rights; else as anybody may read it
    /// at Google's store, where URIs of that host are let in.
    fn accept_object(&self, folder_id: &str, text: &str) -> Result<Accepted, Refusal> {
        let Some(object) = Object::parse(text) else {
            return Err(Violations::one("uri", "expected gs://BUCKET/OBJECT").into());
        };
        if self.buckets.allow(Some(folder_id), object) {
            return Ok(Accepted::of(Origin::Object(text)));
        }
        let refused = |reason: &dyn std::fmt::Display| {
            let bucket = object.bucket;
            let words = format!("images of this folder are not made from bucket {bucket} by name; {reason}");
            Violations::one("uri", words)
        };
        let mut url = Url::parse("https://storage.googleapis.com").map_err(|error| refused(&error))?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().push(object.bucket).extend(object.key.split('/'));
        }
        match self.uris.check(url.as_str()) {
            Ok(uri) => Ok(Accepted::of(Origin::Uri(&uri))),
            Err(refusal) => Err(refused(&refusal).into()),
        }
    }

    /// Fails unless there is such a volume, and the caller may use it. Volumes belong to no folder: they are for those who may use
    /// the images of all.
    async fn check_volume(
        &self,
        caller: &Caller,
        kind: &'static str,
        id: &str,
        volumes: Option<&dyn Volumes>,
    ) -> Result<(), Refusal> {
        let Some(volumes) = volumes else { return Err(Refusal::unimplemented(&format!("{kind}_id"))) };
        let nothing = || Status::new(Code::NotFound, format!("{kind} {id} not found"));
        if !self.may_everywhere(caller, Right::Use) {
            return Err(nothing().into());
        }
        match volumes.open(id).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(nothing().into()),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a volume cannot be opened");
                Err(Refusal::unavailable(&format!("{kind} {id} cannot be opened at the moment")))
            }
        }
    }
}
