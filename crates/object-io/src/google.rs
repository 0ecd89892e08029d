//! What Google Cloud Storage wants otherwise of its XML interface.
//!
//! Source: <https://cloud.google.com/storage/docs/migrating> and `.../xml-api/reference-headers`. An HMAC key signs as AWS does ("simple
//! migration"); the parameter `x-id`, which the SDK adds to every request, is taken out before. A bearer token ("full migration") takes the
//! place of the signature: what is `x-amz-` in such a request is `x-goog-` or nothing, and back in the answer.
//!
//! The token comes through the SDK as the session token of a key pair that signs for nobody, since that is what the SDK asks for
//! asynchronously, for each request; it stands in a header of its own when the request is signed, and goes from there to where it belongs.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_sdk_s3::config::interceptors::{
    BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextMut,
};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;

/// What the SDK adds to queries, and Google's store takes for a part of its own grammar.
const ID: &str = "x-id=";

/// Where the token stands in a signed request.
const TOKEN: &str = "x-amz-security-token";

/// How the access ids of Google's HMAC keys begin (<https://cloud.google.com/storage/docs/authentication/hmackeys>).
const HMAC_PREFIX: &str = "GOOG";

const AMZ: &str = "x-amz-";
const AMZ_META: &str = "x-amz-meta-";
const GOOG_META: &str = "x-goog-meta-";

/// A token that comes.
pub type TokenFuture<'a> =
    Pin<Box<dyn Future<Output = Result<String, Box<dyn StdError + Send + Sync>>> + Send + 'a>>;

/// Where bearer tokens come from; asked often, so it keeps what it has got.
pub trait Tokens: fmt::Debug + Send + Sync {
    /// A token that is good for a few minutes at least.
    fn token(&self) -> TokenFuture<'_>;

    /// The store has refused the last one: if there is another to be had, it comes next.
    fn refused(&self);
}

/// Bearer tokens in the shape of a key pair.
#[derive(Debug)]
pub(crate) struct Bearer(pub(crate) Arc<dyn Tokens>);

impl ProvideCredentials for Bearer {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let token = self.0.token().await.map_err(CredentialsError::provider_error)?;
            Ok(Credentials::new("bearer", "none", Some(token), None, "Bearer"))
        })
    }
}

/// Key pairs as far as they are HMAC keys of Google's: those of AWS lie in the same variables and files. Google's keys are lasting, so
/// no pair with a session token is one; at Google's own host they are known by their [names](HMAC_PREFIX) too.
#[derive(Debug)]
pub(crate) struct HmacKeys<P> {
    pub(crate) keys: P,
    /// Google's own host is spoken to, and nothing that stands in for it.
    pub(crate) at_google: bool,
    /// There is something else to try, and nobody named these for this command.
    pub(crate) may_fail: bool,
}

impl<P: ProvideCredentials> ProvideCredentials for HmacKeys<P> {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let none = || CredentialsError::not_loaded("no HMAC key of Google's");
            match self.keys.provide_credentials().await {
                Ok(pair) if pair.session_token().is_some() => Err(none()),
                Ok(pair) if self.at_google && !pair.access_key_id().starts_with(HMAC_PREFIX) => Err(none()),
                Err(_) if self.may_fail => Err(none()),
                found => found,
            }
        })
    }
}

/// Speaks Google's dialect; with `tokens` where they take the place of signatures.
#[derive(Debug)]
pub(crate) struct Dialect {
    pub(crate) tokens: Option<Arc<dyn Tokens>>,
}

impl Intercept for Dialect {
    fn name(&self) -> &'static str {
        "GoogleDialect"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request_mut();
        if let Some(uri) = without_id(request.uri()) {
            request.set_uri(uri)?;
        }
        Ok(())
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.request_mut().headers_mut();
        if self.tokens.is_none() {
            return Ok(());
        }
        // What is only asked for its address has the token in the query, and is never sent.
        let Some(token) = headers.remove(TOKEN) else { return Ok(()) };
        headers.try_insert("authorization", format!("Bearer {token}"))?;
        let ours: Vec<_> = headers.iter().filter(|(name, _)| name.starts_with(AMZ)).map(owned).collect();
        for (name, value) in ours {
            headers.remove(&name);
            if let Some(of) = name.strip_prefix(AMZ_META) {
                headers.try_insert(format!("{GOOG_META}{of}"), value)?;
            }
        }
        Ok(())
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(tokens) = self.tokens.as_ref().filter(|_| context.response().status().as_u16() == 401) {
            tokens.refused();
        }
        let headers = context.response_mut().headers_mut();
        let theirs: Vec<_> =
            headers.iter().filter(|(name, _)| name.starts_with(GOOG_META)).map(owned).collect();
        for (name, value) in theirs {
            if let Some(of) = name.strip_prefix(GOOG_META) {
                headers.try_insert(format!("{AMZ_META}{of}"), value)?;
            }
        }
        Ok(())
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// The address without what the SDK adds to its query; `None` where it has not.
fn without_id(uri: &str) -> Option<String> {
    let (path, query) = uri.split_once('?')?;
    let kept: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with(ID)).collect();
    if kept.len() == query.split('&').count() {
        return None;
    }
    Some(if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keys_of_aws_are_not_googles() {
        let pair = |id: &str, token: Option<&str>| {
            Credentials::new(id, "secret", token.map(str::to_owned), None, "test")
        };
        let google = |keys| HmacKeys { keys, at_google: true, may_fail: true };
        for (keys, is_taken) in [
            (google(pair("GOOG1EXAMPLE", None)), true),
            (google(pair("AKIAEXAMPLE", None)), false),
            (google(pair("ASIAEXAMPLE", Some("token"))), false),
            (HmacKeys { at_google: false, ..google(pair("test-key", None)) }, true),
            (HmacKeys { at_google: false, ..google(pair("test-key", Some("token"))) }, false),
        ] {
            let found = keys.provide_credentials().await;
            assert_eq!(found.is_ok(), is_taken, "{keys:?}");
            let is_none = matches!(found, Ok(_) | Err(CredentialsError::CredentialsNotLoaded(_)));
            assert!(is_none, "the next in the chain is asked: {keys:?}");
        }
        // A profile that cannot be had ends the search where somebody named it.
        for may_fail in [false, true] {
            let found = HmacKeys { keys: Broken, at_google: true, may_fail }.provide_credentials().await;
            let is_none = matches!(found, Err(CredentialsError::CredentialsNotLoaded(_)));
            assert_eq!(is_none, may_fail, "{found:?}");
        }
    }

    #[derive(Debug)]
    struct Broken;

    impl ProvideCredentials for Broken {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::ready(Err(CredentialsError::provider_error("expired")))
        }
    }

    #[test]
    fn what_the_sdk_adds_to_queries_is_taken_out() {
        for (uri, kept) in [
            ("https://h/b/k?x-id=PutObject", Some("https://h/b/k")),
            ("https://h/b/k?x-id=UploadPart&partNumber=1", Some("https://h/b/k?partNumber=1")),
            (
                "https://h/b/k?partNumber=1&x-id=UploadPart&uploadId=a%3D",
                Some("https://h/b/k?partNumber=1&uploadId=a%3D"),
            ),
            ("https://h/b/k?uploads", None),
            ("https://h/b/x-id=1", None),
        ] {
            assert_eq!(without_id(uri).as_deref(), kept, "{uri}");
        }
    }
}
