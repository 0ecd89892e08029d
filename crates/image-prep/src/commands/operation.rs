//! `operation get|wait|cancel`: what became of a Create.

use image_api::{Code, Operation};
use object_io::{Journal, Scheme, Store};

use crate::args::{ApiArgs, OperationArgs, OperationTarget, OperationVerb, StoreArgs, WaitTarget};
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::local::Local;
use crate::service::{self, Images};
use crate::{notes, resume, show, transfer};

/// Shows, waits for, or cancels operations.
pub(crate) async fn run(args: &OperationArgs, context: &Context) -> Result<Exit, Error> {
    let (target, is_cancel) = match &args.verb {
        OperationVerb::Wait(target) => return wait(target, context).await,
        OperationVerb::Get(target) => (target, false),
        OperationVerb::Cancel(target) => (target, true),
    };
    let OperationTarget { local, api, allow_http, id } = target;
    let operation = match &local.local {
        None => ask(id, is_cancel, &service::connect(api, *allow_http, context).await?.0, context).await,
        Some(dir) => {
            let local = Local::start(dir.as_deref(), api.transport.into(), context).await?;
            let result = ask(id, is_cancel, &Images::Yandex(local.client().clone()), context).await;
            local.stop(context).await;
            result
        }
    }?;
    show::operation(context, &operation)?;
    Ok(Exit::Done)
}

/// Asks for an operation, or for its end.
async fn ask(id: &str, is_cancel: bool, images: &Images, context: &Context) -> Result<Operation, Error> {
    match is_cancel {
        true => images.cancel(id, &context.cancel).await,
        false => images.operation(id, &context.cancel).await,
    }
}

async fn wait(target: &WaitTarget, context: &Context) -> Result<Exit, Error> {
    let WaitTarget { id, allow_http, local, store, api } = target;
    if let Some(dir) = &local.local {
        let id = id.as_deref().ok_or(Error::NoOperation)?;
        let local = Local::start(dir.as_deref(), api.transport.into(), context).await?;
        let images = Images::Yandex(local.client().clone());
        let result = service::wait(context, &images, id).await;
        // Its idle connections would be waited for.
        drop(images);
        local.stop(context).await;
        return end(&result?, context);
    }
    let (images, endpoint) = service::connect(api, *allow_http, context).await?;
    let endpoint = endpoint.as_str();
    let ids = match id {
        Some(id) => vec![id.clone()],
        None => notes::at(endpoint).into_iter().map(|note| note.id).collect(),
    };
    if ids.is_empty() {
        context.note("no operation of this service is noted here");
    }
    let mut worst = Ok(Exit::Done);
    for id in ids {
        let ended = match service::wait(context, &images, &id).await {
            Ok(operation) => {
                settle(&id, endpoint, store, api, context).await;
                end(&operation, context)
            }
            Err(Error::Api(error)) if error.code() == Code::NotFound => {
                // The service forgot it; or hides it from this account, and then it may still read the object.
                if notes::of(&id, endpoint).is_some_and(|note| note.object.is_none()) {
                    notes::remove(&id, endpoint);
                }
                Err(error.into())
            }
            // What goes wrong here goes wrong with all of them.
            Err(error) => return Err(error),
        };
        if let Err(failure) = ended {
            // One is told at the end, the others here.
            if let Err(earlier) = std::mem::replace(&mut worst, Err(failure)) {
                context.warn(&earlier.to_string());
            }
        }
    }
    worst
}

/// Prints an operation that is done.
fn end(operation: &Operation, context: &Context) -> Result<Exit, Error> {
    show::operation(context, operation)?;
    service::failure(operation).map_or(Ok(Exit::Done), Err)
}

/// Removes what was uploaded for an operation, and its note; not what another operation reads too.
async fn settle(id: &str, endpoint: &str, store: &StoreArgs, api: &ApiArgs, context: &Context) {
    let object = notes::of(id, endpoint).and_then(|note| note.object);
    // First: it reads nothing any more. Of the object the journal tells `cleanup`.
    notes::remove(id, endpoint);
    let Some(object) = object else { return };
    let notes::Object { store: at, bucket, key, .. } = &object;
    if let Some(other) = notes::reader(at, bucket, key) {
        let id = other.id;
        let place = Scheme::of_endpoint(at).place(bucket, key);
        context.warn(&format!("{place} is kept: operation {id} may still read it"));
        return;
    }
    if let Err(error) = remove(&object, store, api, context).await {
        let place = Scheme::of_endpoint(at).place(bucket, key);
        context.warn(&format!("{place} is left for `image-prep cleanup`: {error}"));
    }
}

async fn remove(
    object: &notes::Object,
    args: &StoreArgs,
    api: &ApiArgs,
    context: &Context,
) -> Result<(), Error> {
    let Some(folder) = resume::folder() else { return Ok(()) };
    let notes::Object { store: at, bucket, key, etag } = object;
    let scheme = transfer::scheme_at(at, api, context)?;
    let store: Store = transfer::connect(args, scheme, Some(api), context).await?;
    if store.endpoint() != *at {
        return Err(Error::OtherStore { found: store.endpoint(), expected: at.clone() });
    }
    let journal = Journal::open(&folder, at, bucket, key).map_err(Error::Journal)?;
    if !transfer::delete_if(&store, bucket, key, Some(etag), &context.cancel).await? {
        let place = store.place(bucket, key);
        context.warn(&format!("{place} is left in the store: it is another one by now"));
    }
    journal.remove();
    Ok(())
}
