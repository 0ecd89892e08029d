//! Where Images are made: the image service, and the store that it reads from. One of each for a command, however many Images it
//! makes, so that they share connections, tokens and --limit-rate.

use image_api::Client;
use object_io::Store;

use crate::args::CreateArgs;
use crate::context::Context;
use crate::error::Error;
use crate::local::Local;
use crate::{service, transfer};

/// The image service and the store; a clone shares their connections.
#[derive(Clone)]
pub(super) struct Cloud {
    pub(super) client: Client,
    /// The service, by which an operation is noted; those of `--local` are not.
    pub(super) endpoint: Option<String>,
    /// `None` where nothing is uploaded.
    pub(super) store: Option<Store>,
    pub(super) bucket: String,
}

/// A cloud for as long as the command runs.
pub(super) struct Place {
    pub(super) cloud: Cloud,
    local: Option<Local>,
}

impl Place {
    /// Connects to what the command names, or starts it here. The service is asked for each of the folders, so that what is wrong is
    /// told before anything is sent.
    pub(super) async fn open(
        args: &CreateArgs,
        context: &Context,
        folders: impl IntoIterator<Item = &str>,
        bucket: &str,
    ) -> Result<Self, Error> {
        let (bucket, uploads) = (bucket.to_owned(), args.uri.is_none());
        let _shown = context.progress.waiting("connecting");
        let Some(dir) = &args.local.local else {
            let service = service::find(&args.api, args.open.allow_http, context).await?;
            let client = service::client(&args.api, &service)?;
            for folder in folders {
                service::check(context, &client, folder).await?;
            }
            let store = match uploads {
                true => Some(transfer::connect(&args.store, Some(&args.api), context).await?),
                false => None,
            };
            let endpoint = Some(service.services.compute.to_string());
            return Ok(Self { cloud: Cloud { client, endpoint, store, bucket }, local: None });
        };
        let local = Local::start(dir.as_deref(), args.api.transport.into(), context).await?;
        if uploads && let Err(error) = local.bucket(&bucket, context).await {
            local.stop(context).await;
            return Err(error);
        }
        let (client, store) = (local.client().clone(), Some(local.store().clone()));
        Ok(Self { cloud: Cloud { client, endpoint: None, store, bucket }, local: Some(local) })
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
