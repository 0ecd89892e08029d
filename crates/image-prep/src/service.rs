//! The image service: its client, its credentials, and waiting for an operation.

use std::path::Path;
use std::time::Duration;

use image_api::compute::ListImagesRequest;
use image_api::{Client, ClientOptions, Code, Operation, OperationOutcome, Token, WaitOptions};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::args::ApiArgs;
use crate::context::Context;
use crate::error::Error;
use crate::url_policy;

/// Where a token is looked for, in this order.
const TOKEN_VARIABLES: [&str; 2] = ["YC_TOKEN", "YC_IAM_TOKEN"];

/// For an operation to stop after Ctrl-C: what the end of the process leaves.
const CANCEL_GRACE: Duration = Duration::from_millis(700);

/// A client of the service that the command line and the environment name.
pub(crate) fn connect(args: &ApiArgs, allow_http: bool) -> Result<Client, Error> {
    let (_, token) = credentials(args, allow_http)?;
    let options = ClientOptions { transport: args.transport.into(), ..ClientOptions::default() };
    Ok(Client::with_options(&args.endpoint, token, &options)?)
}

/// The endpoint and the token that the command line and the environment name.
pub(crate) fn credentials(args: &ApiArgs, allow_http: bool) -> Result<(Url, Option<Token>), Error> {
    let endpoint = url_policy::check(&args.endpoint, allow_http)?;
    let token = match &args.token_file {
        Some(path) => Some(read_token(path)?),
        None => token_from_environment()?,
    };
    if token.is_none() && endpoint.scheme() == "https" && !url_policy::is_loopback(&endpoint) {
        return Err(Error::NoToken);
    }
    Ok((endpoint, token))
}

fn read_token(path: &Path) -> Result<Token, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::File {
        action: "read the token in",
        path: path.to_owned(),
        source,
    })?;
    Token::new(&text).ok_or_else(|| Error::Token { place: path.display().to_string() })
}

fn token_from_environment() -> Result<Option<Token>, Error> {
    for name in TOKEN_VARIABLES {
        if let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) {
            let token = value.to_str().and_then(Token::new);
            return token.map(Some).ok_or_else(|| Error::Token { place: name.to_owned() });
        }
    }
    Ok(None)
}

/// Asks the service for something small, so that a wrong endpoint or token is told before an upload and not after it.
pub(crate) async fn check(context: &Context, client: &Client, folder_id: &str) -> Result<(), Error> {
    let request = ListImagesRequest { folder_id: folder_id.to_owned(), page_size: 1, ..Default::default() };
    match client.list_images(&request, &context.cancel).await {
        // Who may create need not be allowed to list, and a service need not implement it.
        Err(error) if error.status().is_some() && error.code() != Code::Unauthenticated => Ok(()),
        answer => Ok(answer.map(drop)?),
    }
}

/// Waits until an operation is done, and returns it whether it succeeded or failed.
pub(crate) async fn wait(context: &Context, client: &Client, id: &str) -> Result<Operation, Error> {
    let shown = context.progress.waiting(format!("operation {id}"));
    let on_progress = |operation: &Operation| {
        if matches!(operation.outcome(), OperationOutcome::Running) && operation.result.is_some() {
            shown.say(format!("operation {id}: failed, being rolled back"));
        }
    };
    Ok(client.wait_operation(id, &WaitOptions::default(), on_progress, &context.cancel).await?)
}

/// Asks an operation to stop and gives it a moment to do so. Says nothing: the process is about to end.
pub(crate) async fn cancel_now(client: &Client, id: &str) {
    let forever = CancellationToken::new();
    let stopped = async {
        if let Err(error) = client.cancel_operation(id, &forever).await {
            tracing::info!(%error, "the operation could not be cancelled");
            return;
        }
        let options = WaitOptions { first_interval: Duration::from_millis(50), ..WaitOptions::default() };
        let _ = client.wait_operation(id, &options, |_| {}, &forever).await;
    };
    let _ = tokio::time::timeout(CANCEL_GRACE, stopped).await;
}

/// The error of an operation that failed.
pub(crate) fn failure(operation: &Operation) -> Option<Error> {
    match operation.outcome() {
        OperationOutcome::Failed(status) => Some(Error::Operation {
            id: operation.id.clone(),
            code: status.canonical_code(),
            message: status.message,
        }),
        _ => None,
    }
}
