//! `operation get|wait|cancel`: what became of a Create.

use image_api::Client;

use crate::args::{OperationArgs, OperationTarget, OperationVerb};
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::local::Local;
use crate::{service, show};

/// Shows, waits for, or cancels an operation.
pub(crate) async fn run(args: &OperationArgs, context: &Context) -> Result<Exit, Error> {
    let (OperationVerb::Get(target) | OperationVerb::Wait(target) | OperationVerb::Cancel(target)) =
        &args.verb;
    let OperationTarget { local, api, allow_http, .. } = target;
    match &local.local {
        None => act(&args.verb, &service::connect(api, *allow_http)?, context).await,
        Some(dir) => {
            let local = Local::start(dir.as_deref(), api.transport.into(), context).await?;
            let result = act(&args.verb, local.client(), context).await;
            local.stop(context).await;
            result
        }
    }
}

async fn act(verb: &OperationVerb, client: &Client, context: &Context) -> Result<Exit, Error> {
    let (operation, is_awaited) = match verb {
        OperationVerb::Get(target) => (client.get_operation(&target.id, &context.cancel).await?, false),
        OperationVerb::Wait(target) => (service::wait(context, client, &target.id).await?, true),
        OperationVerb::Cancel(target) => (client.cancel_operation(&target.id, &context.cancel).await?, false),
    };
    show::operation(context, &operation)?;
    match service::failure(&operation).filter(|_| is_awaited) {
        Some(failure) => Err(failure),
        None => Ok(Exit::Done),
    }
}
