//! Operations that `create` gave up and could not cancel: they are ended first, so that nothing reads any more what was uploaded
//! for them. Those of Compute Engine, which cancels nothing, are waited for.

use std::time::{Duration, SystemTime};

use image_api::{Code, OperationOutcome};

use super::Cleanup;
use crate::args::CleanupArgs;
use crate::context::Context;
use crate::error::Error;
use crate::notes::{self, Note};
use crate::service::{self, Images};

/// How long an operation may take to end once it is asked to. The journals of all that is to be removed are held meanwhile.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// The image service, and what notes call it.
pub(super) struct Service {
    images: Images,
    endpoint: String,
}

impl Service {
    /// The one that has the operations. Where it cannot be had, they are left.
    pub(super) async fn find(args: &CleanupArgs, context: &Context) -> Option<Self> {
        match Self::try_find(args, context).await {
            Ok(service) => Some(service),
            Err(error) => {
                context.warn(&format!("the image service is not asked to end operations: {error}"));
                None
            }
        }
    }

    async fn try_find(args: &CleanupArgs, context: &Context) -> Result<Self, Error> {
        let (images, endpoint) = service::connect(&args.api, args.allow_http, context).await?;
        Ok(Self { images, endpoint })
    }
}

impl Cleanup<'_> {
    /// The operations, and when they were given up.
    pub(super) fn operations(&self) -> Vec<(Note, Option<SystemTime>)> {
        let is_asked = |note: &Note| {
            self.place.is_none_or(|(bucket, prefix)| {
                note.object
                    .as_ref()
                    .is_some_and(|object| object.bucket == bucket && object.key.starts_with(prefix))
            })
        };
        let mut found = notes::given_up();
        found.retain(|(note, changed)| is_asked(note) && !self.is_young(*changed));
        found
    }

    /// Ends an operation and waits until it has. False, and told, if it may still run.
    pub(super) async fn end(&self, note: &Note) -> bool {
        let Note { id, endpoint, .. } = note;
        let Some(service) = self.service.filter(|service| service.endpoint == *endpoint) else {
            let how =
                if endpoint.contains("/projects/") { "--cloud gcp and --project" } else { "--endpoint" };
            self.context.warn(&format!("operation {id} is of {endpoint}: name it with {how}"));
            return false;
        };
        // What was taken up again meanwhile is somebody's.
        if !notes::of(id, endpoint).is_some_and(|note| note.given_up) {
            self.context.warn(&format!("operation {id} is left: it is waited for again"));
            return false;
        }
        let answer = service.images.cancel(id, &self.context.cancel).await;
        let how = if answer.is_ok() { "is asked to end, and has not yet" } else { "has not ended yet" };
        let ended = match answer {
            // It may have ended meanwhile, and not all can be cancelled.
            Ok(_) | Err(_) if !self.context.cancel.is_cancelled() => {
                let ended = service::wait(self.context, &service.images, id);
                match tokio::time::timeout(ENDS_WITHIN, ended).await {
                    Ok(ended) => ended,
                    Err(_) => {
                        self.context.warn(&format!("operation {id} {how}"));
                        return false;
                    }
                }
            }
            answer => answer,
        };
        match ended {
            Ok(operation) if !operation.done => return false,
            Ok(operation) => {
                if matches!(operation.outcome(), OperationOutcome::Succeeded(_)) {
                    self.context
                        .warn(&format!("operation {id} had ended: there is an Image `{}`", note.name));
                }
            }
            Err(Error::Api(error)) if error.code() == Code::NotFound => {}
            Err(error) => {
                self.context.warn(&format!("operation {id}: {error}"));
                return false;
            }
        }
        notes::remove(id, endpoint);
        true
    }
}
