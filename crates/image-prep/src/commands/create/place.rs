//! Where Images are made: the image service, and the store that it reads from. One of each for a command, however many Images it
//! makes, so that they share connections, tokens and --limit-rate.

use object_io::{BucketUri, Store};

use crate::args::CreateArgs;
use crate::context::Context;
use crate::error::Error;
use crate::local::Local;
use crate::service::{self, Images};
use crate::transfer;

/// The image service and the store; a clone shares their connections.
#[derive(Clone)]
pub(super) struct Cloud {
    pub(super) images: Images,
    /// The service, by which an operation is noted; those of `--local` are not.
    pub(super) endpoint: Option<String>,
    /// `None` where nothing is uploaded.
    pub(super) store: Option<Store>,
    pub(super) bucket: BucketUri,
}

/// A cloud for as long as the command runs.
pub(super) struct Place {
    pub(super) cloud: Cloud,
    local: Option<Local>,
}

impl Place {
    /// Connects to what the command names, or starts it here. The service is asked for each of the folders or projects, so that what is
    /// wrong is told before anything is sent.
    pub(super) async fn open(
        args: &CreateArgs,
        context: &Context,
        owners: impl IntoIterator<Item = &str>,
        bucket: BucketUri,
    ) -> Result<Self, Error> {
        let uploads = args.uri.is_none();
        let _shown = context.progress.waiting("connecting");
        let Some(dir) = &args.local.local else {
            let (images, endpoint) = service::connect(&args.api, args.open.allow_http, context).await?;
            for owner in owners {
                service::check(context, &images, owner).await?;
            }
            let store = match uploads {
                true => {
                    Some(transfer::connect(&args.store, bucket.scheme(), Some(&args.api), context).await?)
                }
                false => None,
            };
            return Ok(Self {
                cloud: Cloud { images, endpoint: Some(endpoint), store, bucket },
                local: None,
            });
        };
        let local = Local::start(dir.as_deref(), args.api.transport.into(), context).await?;
        if uploads && let Err(error) = local.bucket(bucket.bucket(), context).await {
            local.stop(context).await;
            return Err(error);
        }
        let (images, store) = (Images::Yandex(local.client().clone()), Some(local.store().clone()));
        Ok(Self { cloud: Cloud { images, endpoint: None, store, bucket }, local: Some(local) })
    }

    /// Ends what was started here.
    pub(super) async fn close(self, context: &Context) {
        // Idle connections would be waited for.
        drop(self.cloud);
        if let Some(local) = self.local {
            local.stop(context).await;
        }
    }
}
