//! Compute Engine as a command finds it: where it is, for which project, and as whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use image_api::{ApiError, Client, ClientOptions, ComputeEngine, Credentials, METADATA_ADDRESS, Token};
use object_io::{TokenFuture, Tokens};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::Images;
use crate::args::{ApiArgs, TransportArg};
use crate::cloud::{self, Cloud};
use crate::context::Context;
use crate::credentials::google::{Choice, Source};
use crate::credentials::{self, By, Told};
use crate::error::Error;
use crate::url_policy;

/// Another address for the machine's metadata, by the name that Google's own clients have for it.
const METADATA_VARIABLE: &str = "GCE_METADATA_HOST";

/// How the tokens of Yandex's machines begin, which have metadata at the same address: none of Google's business.
const FOREIGN_TOKEN: &str = "t1.";

/// Compute Engine, for a project.
pub(crate) struct Google {
    endpoint: Told<Url>,
    project: String,
    /// `None` where none are needed.
    source: Option<Told<Source>>,
}

/// The project that the command line, the environment and the profile name.
pub(crate) fn project(args: &ApiArgs, context: &Context) -> Result<String, Error> {
    let choice = choice(args, context)?;
    // For a look at the key; the endpoint itself is used elsewhere, and checked there.
    let endpoint = choice.endpoint_url(true)?;
    Ok(choice.project(&endpoint)?.ok_or(Error::NoProject)?.value)
}

fn choice<'a>(args: &'a ApiArgs, context: &'a Context) -> Result<Choice<'a>, Error> {
    Ok(Choice { args, variable: &credentials::variable, own: context.profile()? })
}

/// Refuses to speak to Compute Engine what it does not.
pub(crate) fn check_transport(args: &ApiArgs) -> Result<(), Error> {
    match args.transport {
        TransportArg::Rest => Ok(()),
        TransportArg::Grpc => {
            Err(Error::OtherCloud { what: "--transport grpc", cloud: Error::COMPUTE_ENGINE })
        }
    }
}

/// Whether Compute Engine is Google's own, and nothing that stands in for it.
pub(crate) fn is_googles_own(args: &ApiArgs, context: &Context) -> Result<bool, Error> {
    Ok(Cloud::Gcp.has(&choice(args, context)?.endpoint_url(true)?.value))
}

impl Google {
    /// What the command line, the environment and the profile name.
    pub(crate) fn find(args: &ApiArgs, allow_http: bool, context: &Context) -> Result<Self, Error> {
        check_transport(args)?;
        let choice = choice(args, context)?;
        let endpoint = choice.endpoint_url(allow_http)?;
        let project = choice.project(&endpoint)?.ok_or(Error::NoProject)?.value;
        let source = choice.credentials(&endpoint)?;
        if let Some(path) = source.as_ref().and_then(|source| choice.file(&source.by))
            && credentials::is_open_to_others(&path)
        {
            context.warn(&format!("`{0}` can be read by others; `chmod 600 {0}` ends that", path.display()));
        }
        let needs_one = endpoint.value.scheme() == "https" && !url_policy::is_loopback(&endpoint.value);
        if source.is_none() && needs_one {
            return Err(Error::NoGoogleCredentials { source: None });
        }
        Ok(Self { endpoint, project, source })
    }

    /// Where it is, and who said so.
    pub(crate) fn endpoint(&self) -> (&Url, &By) {
        (&self.endpoint.value, &self.endpoint.by)
    }

    /// The project.
    pub(crate) fn project(&self) -> &str {
        &self.project
    }

    /// Where its tokens come from.
    pub(crate) fn credentials(&self) -> Option<&Told<Source>> {
        self.source.as_ref()
    }

    /// Whether tokens are got by what a clock that is wrong makes worthless.
    pub(crate) fn is_signing(&self) -> bool {
        self.source.as_ref().is_some_and(|told| matches!(&told.value, Source::Key(key) if key.is_signing()))
    }

    /// By what an operation is noted: its name says nothing without service and project.
    pub(crate) fn place(&self) -> String {
        let base = self.endpoint.value.as_str().trim_end_matches('/');
        format!("{base}/compute/v1/projects/{}/global", self.project)
    }

    /// Its images. Of a machine that nobody named it is found out whether it has credentials.
    pub(crate) async fn images(&self, context: &Context) -> Result<Images, Error> {
        let client = Client::with_options(self.endpoint.value.as_str(), None, &ClientOptions::default())?;
        let client = match &self.source {
            Some(source) => client.with_credentials(usable(source, context).await?),
            None => client,
        };
        Ok(Images::Google(ComputeEngine::new(client, &self.project)))
    }
}

/// Credentials of a source.
fn credentials_of(source: &Source) -> Result<Credentials, Error> {
    let options = ClientOptions::default();
    Ok(match source {
        Source::Bearer(token) => Credentials::token(token.clone()),
        Source::Key(key) => Credentials::google(key.clone(), None, &options)?,
        Source::Machine => {
            let address = credentials::variable(METADATA_VARIABLE);
            Credentials::metadata(address.as_deref().unwrap_or(METADATA_ADDRESS))?
        }
    })
}

async fn usable(source: &Told<Source>, context: &Context) -> Result<Credentials, Error> {
    let credentials = credentials_of(&source.value)?;
    if matches!(source.value, Source::Machine) {
        match credentials.get(&context.cancel).await {
            Ok(token) if is_foreign(&token) => return Err(Error::NoGoogleCredentials { source: None }),
            Ok(_) => {}
            Err(error) if is_guess(source) => {
                return Err(Error::NoGoogleCredentials { source: Some(error) });
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(credentials)
}

/// True of a machine that nobody named.
fn is_guess(source: &Told<Source>) -> bool {
    matches!(source, Told { value: Source::Machine, by: By::Default })
}

fn is_foreign(token: &Token) -> bool {
    token.expose().starts_with(FOREIGN_TOKEN)
}

/// Tokens for Google Cloud Storage at an endpoint, if there are any that may be used with it. None is asked for yet.
///
/// What options name is for the cloud of the command: where that is another, they are not for this store.
pub(crate) fn store_tokens(
    api: Option<&ApiArgs>,
    endpoint: &Told<String>,
    context: &Context,
) -> Result<Option<Arc<dyn Tokens>>, Error> {
    // What is no URL is told by whoever connects to it.
    let Ok(value) = cloud::parse(&endpoint.value, "https", true) else { return Ok(None) };
    if value.scheme() != "https" && !url_policy::is_loopback(&value) {
        return Ok(None);
    }
    let none = ApiArgs::default();
    let args = match api {
        Some(api) if super::is_google(api, context)? => api,
        _ => &none,
    };
    let choice = Choice { args, variable: &credentials::variable, own: context.profile()? };
    let by = if Cloud::Gcp.has(&value) { By::Default } else { endpoint.by.clone() };
    let Some(source) = choice.credentials(&Told { value, by })? else { return Ok(None) };
    let credentials = credentials_of(&source.value)?;
    let is_of_machine = matches!(source.value, Source::Machine);
    Ok(Some(Arc::new(StoreTokens { credentials, is_of_machine, is_refused: AtomicBool::default() })))
}

#[derive(Debug)]
struct StoreTokens {
    credentials: Credentials,
    is_of_machine: bool,
    /// The store has refused the last one.
    is_refused: AtomicBool,
}

impl StoreTokens {
    async fn get(&self) -> Result<Token, ApiError> {
        // A request that is cancelled drops this too.
        let never = CancellationToken::new();
        let token = self.credentials.get(&never).await?;
        match self.is_refused.swap(false, Ordering::Relaxed) && self.credentials.refused(&token).await {
            true => self.credentials.get(&never).await,
            false => Ok(token),
        }
    }
}

impl Tokens for StoreTokens {
    fn token(&self) -> TokenFuture<'_> {
        Box::pin(async {
            match self.get().await {
                Ok(token) if self.is_of_machine && is_foreign(&token) => Err(ApiError::NotAToken.into()),
                Ok(token) => Ok(token.expose().to_owned()),
                Err(error) => Err(error.into()),
            }
        })
    }

    fn refused(&self) {
        self.is_refused.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_machine_of_the_other_cloud_has_nothing_for_this_one() {
        for (token, is_of_machine, is_shown) in
            [("ya29.own", true, true), ("t1.other", true, false), ("t1.typed", false, true)]
        {
            let credentials = Credentials::token(Token::new(token).unwrap());
            let got =
                StoreTokens { credentials, is_of_machine, is_refused: AtomicBool::default() }.token().await;
            assert_eq!(got.is_ok(), is_shown, "{token}");
        }
    }
}
