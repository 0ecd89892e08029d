//! The image service: its client, its credentials, and waiting for an operation.

mod google;
mod images;

use std::time::Duration;

use image_api::{
    ApiError, Client, ClientOptions, Code, Credentials, METADATA_ADDRESS, Operation, OperationOutcome, Token,
    WaitOptions,
};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::args::ApiArgs;
use crate::args::values::Bucket;
use crate::cloud::{Cloud, Services};
use crate::context::Context;
use crate::credentials::{self, By, Choice, Source, Told};
use crate::error::Error;
use crate::url_policy;
pub(crate) use google::{Google, check_transport, is_googles_own, project, store_tokens};
pub(crate) use images::{Found, Images, Request, id_of_image, is_refused};

/// Another address for the machine's metadata; the cloud's own tools have it too.
const METADATA_VARIABLE: &str = "YC_METADATA_ADDR";

/// How the tokens of the cloud's own machines begin. Other clouds have metadata at the same address, and tokens of another form.
const CLOUD_TOKEN: &str = "t1.";

/// The service that a command talks to, and as whom.
pub(crate) struct Service {
    /// Where it is, and the services beside it.
    pub(crate) services: Services,
    /// Who its tokens are of; `None` where none is needed.
    pub(crate) credentials: Option<Credentials>,
}

/// Whether the command speaks to Compute Engine.
pub(crate) fn is_google(args: &ApiArgs, context: &Context) -> Result<bool, Error> {
    Ok(args.cloud.or(context.profile()?.cloud) == Some(Cloud::Gcp))
}

/// The bucket of the profile. By its name alone it is one of the profile's own cloud: in another that name may be a stranger's.
pub(crate) fn own_bucket<'a>(args: &ApiArgs, context: &'a Context) -> Result<Option<&'a Bucket>, Error> {
    let own = context.profile()?;
    let is_at_home = is_google(args, context)? == (own.cloud == Some(Cloud::Gcp));
    Ok(own.bucket.as_ref().filter(|bucket| is_at_home || bucket.scheme.is_some()))
}

/// The images of the cloud that the command line, the environment and the profiles name, and the service by which its operations are
/// noted.
pub(crate) async fn connect(
    args: &ApiArgs,
    allow_http: bool,
    context: &Context,
) -> Result<(Images, String), Error> {
    if is_google(args, context)? {
        let google = Google::find(args, allow_http, context)?;
        return Ok((google.images(context).await?, google.place()));
    }
    let service = find(args, allow_http, context).await?;
    Ok((Images::Yandex(client(args, &service)?), service.services.compute.to_string()))
}

/// A client of a service.
pub(crate) fn client(args: &ApiArgs, service: &Service) -> Result<Client, Error> {
    let Services { compute, operation, .. } = &service.services;
    let options = ClientOptions {
        transport: args.transport.into(),
        operation_endpoint: operation.as_ref().map(Url::to_string),
        ..ClientOptions::default()
    };
    let client = Client::with_options(compute.as_str(), None, &options)?;
    Ok(match &service.credentials {
        Some(credentials) => client.with_credentials(credentials.clone()),
        None => client,
    })
}

/// The service that the command line, the environment and the profiles name, which is not Google's.
pub(crate) async fn find(args: &ApiArgs, allow_http: bool, context: &Context) -> Result<Service, Error> {
    // The other cloud's credentials are no business of Google's.
    if is_google(args, context)? {
        return Err(Error::OtherCloud { what: "image:ID", cloud: Error::COMPUTE_ENGINE });
    }
    let yc = context.yc_profile(args)?;
    let choice = Choice { args, variable: &credentials::variable, own: context.profile()?, yc };
    let endpoint = choice.endpoint_url(allow_http)?;
    let source = choice.credentials(&endpoint)?;
    if let Some(path) = source.as_ref().and_then(|source| choice.file(&source.by))
        && credentials::is_open_to_others(&path)
    {
        context.warn(&format!("`{0}` can be read by others; `chmod 600 {0}` ends that", path.display()));
    }
    let services = Services::at(&endpoint.value, &context.cancel).await?;
    let needs_one = endpoint.value.scheme() == "https" && !url_policy::is_loopback(&endpoint.value);
    let credentials = match source {
        Some(source) => Some(usable(source, &services, context).await?),
        None if needs_one => return Err(Error::NoToken { source: None }),
        None => None,
    };
    Ok(Service { services, credentials })
}

/// The folder that the environment and the profiles name, if `typed` is nothing.
pub(crate) fn folder_id(args: &ApiArgs, typed: Option<&str>, context: &Context) -> Result<String, Error> {
    let yc = context.yc_profile(args)?;
    let choice = Choice { args, variable: &credentials::variable, own: context.profile()?, yc };
    choice.folder_id(typed).map(|told| told.value).ok_or(Error::NoFolder)
}

/// Credentials of a source.
pub(crate) fn credentials_of(source: &Source, services: &Services) -> Result<Credentials, ApiError> {
    let (iam, options) = (services.iam.as_str(), ClientOptions::default());
    match source {
        Source::Bearer(token) => Ok(Credentials::token(token.clone())),
        Source::Oauth(token) => Credentials::oauth(token.clone(), iam, &options),
        Source::Key(key) => Credentials::service_account(key.clone(), iam, &options),
        Source::Machine => {
            let address = credentials::variable(METADATA_VARIABLE);
            Credentials::metadata(address.as_deref().unwrap_or(METADATA_ADDRESS))
        }
    }
}

/// The same; of a machine that nobody named it is found out whether it has any.
pub(crate) async fn usable(
    source: Told<Source>,
    services: &Services,
    context: &Context,
) -> Result<Credentials, Error> {
    let credentials = credentials_of(&source.value, services)?;
    if is_guess(&source) {
        check_token(&source, credentials.get(&context.cancel).await)?;
    }
    Ok(credentials)
}

/// True of a machine that nobody named.
fn is_guess(source: &Told<Source>) -> bool {
    matches!(source, Told { value: Source::Machine, by: By::Default })
}

/// Whether a token was got, and may be used.
pub(crate) fn check_token(source: &Told<Source>, got: Result<Token, ApiError>) -> Result<(), Error> {
    match got {
        // A machine of another cloud, whose token is nobody's business here.
        Ok(token) if is_guess(source) && !token.expose().starts_with(CLOUD_TOKEN) => {
            Err(Error::NoToken { source: None })
        }
        Ok(_) => Ok(()),
        Err(error) if is_guess(source) => Err(Error::NoToken { source: Some(error) }),
        Err(error) => Err(error.into()),
    }
}

/// Asks the service for something small, so that a wrong endpoint or token is told before an upload and not after it.
pub(crate) async fn check(context: &Context, images: &Images, owner: &str) -> Result<(), Error> {
    match images.list_one(owner, &context.cancel).await {
        // Who may create need not be allowed to list, and a service need not implement it.
        Err(error) if error.status().is_some() && error.code() != Code::Unauthenticated => Ok(()),
        answer => Ok(answer?),
    }
}

/// Waits until an operation is done, and returns it whether it succeeded or failed.
pub(crate) async fn wait(context: &Context, images: &Images, id: &str) -> Result<Operation, Error> {
    let shown = context.progress.waiting(format!("operation {id}"));
    let say = |how: String| shown.say(format!("operation {id}: {how}"));
    images.wait(id, &WaitOptions::default(), say, &context.cancel).await
}

/// Asks an operation to stop and gives it a moment to do so: how it ended, also where it was too late to stop it. `None` if it may still be
/// running, as it will where there is no way to stop it.
pub(crate) async fn cancel_now(context: &Context, images: &Images, id: &str) -> Option<Operation> {
    let forever = CancellationToken::new();
    let stopped = async {
        if let Err(error) = images.cancel(id, &forever).await {
            tracing::info!(%error, "the operation could not be cancelled");
        }
        let options = WaitOptions { first_interval: Duration::from_millis(50), ..WaitOptions::default() };
        images.wait(id, &options, |_| {}, &forever).await.ok()
    };
    tokio::time::timeout(context.grace.cancel_operation(), stopped).await.ok().flatten()
}

/// The error of an operation that failed.
pub(crate) fn failure(operation: &Operation) -> Option<Error> {
    match operation.outcome() {
        OperationOutcome::Failed(status) => Some(Error::Operation {
            id: operation.id.clone(),
            code: status.canonical_code(),
            fields: status.field_violations(),
            message: status.message,
        }),
        _ => None,
    }
}
