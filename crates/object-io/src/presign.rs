//! Pre-signed URLs: permission to GET one object for a while.
//!
//! Signature Version 4 in the query ("Authenticating Requests: Using Query Parameters", Amazon S3 API). The SDK gives the address;
//! the signature is made here, since the SDK refuses the 30 days that Yandex allows and adds a parameter that GCS dislikes.
//!
//! Refused: expiries of no whole second, or above the store's limit.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_credential_types::provider::ProvideCredentials as _;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SessionTokenMode, SignableBody, SignableRequest,
    SignatureLocation, SigningParams, SigningSettings, UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::config::is_yandex;
use crate::limits::{MAX_EXPIRY, MAX_EXPIRY_YANDEX};
use crate::retry::{Question, ask_once};
use crate::store::Store;
use crate::{ObjectError, Verb};

/// Permission to GET one object until it expires. A secret: prints without its query.
#[derive(Clone)]
pub struct PresignedUrl {
    url: Url,
    expires_at: SystemTime,
}

impl PresignedUrl {
    /// The URL itself, to hand to whom it is for; never to a log.
    pub fn expose(&self) -> &str {
        self.url.as_str()
    }

    /// When it ends: with its signature, or with the temporary credentials that signed it if they end sooner.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }
}

impl fmt::Display for PresignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_query(&self.url))
    }
}

impl fmt::Debug for PresignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PresignedUrl({self}?..)")
    }
}

/// Scheme, host and path: what of a URL may be shown.
pub(crate) fn without_query(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    // A URL that cannot have a user name has none to hide.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.into()
}

/// The URL without what a signature adds to its query: the same for every signing of an object, and another for another object,
/// also where only the query tells them apart, as `versionId` does. Not fit to be shown: signatures of other kinds stay in it.
///
/// Signature Version 4 of AWS (`X-Amz-*`) and of Google (`X-Goog-*`); Version 2 and CloudFront, whose names mean this only beside
/// a `Signature`.
pub fn without_signature(url: &Url) -> Url {
    const BESIDE_SIGNATURE: [&str; 6] =
        ["signature", "expires", "awsaccesskeyid", "googleaccessid", "key-pair-id", "policy"];
    let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_ascii_lowercase();
    let query = url.query().unwrap_or_default();
    let is_old = query.split('&').any(|pair| name(pair) == "signature");
    let is_of_signature = |pair: &str| {
        let name = name(pair);
        let is_new = name.starts_with("x-amz-") || name.starts_with("x-goog-");
        is_new || (is_old && BESIDE_SIGNATURE.contains(&name.as_str()))
    };
    let rest = query.split('&').filter(|pair| !is_of_signature(pair)).collect::<Vec<_>>().join("&");
    let mut url = url.clone();
    url.set_query((!rest.is_empty()).then_some(rest.as_str()));
    url
}

impl Store {
    /// Signs a GET of an object, good for `expires` from now. The object need not be there; the store is not asked.
    ///
    /// # Errors
    ///
    /// [`ObjectError::Expiry`] if `expires` is below a second or above the store's limit; [`ObjectError::CannotSign`] where a token takes
    /// the place of a key pair.
    pub async fn presign_get(
        &self,
        bucket: &str,
        key: &str,
        expires: Duration,
        cancel: &CancellationToken,
    ) -> Result<PresignedUrl, ObjectError> {
        let limit =
            if self.0.endpoint.as_ref().is_some_and(is_yandex) { MAX_EXPIRY_YANDEX } else { MAX_EXPIRY };
        if expires > limit || expires.as_secs() == 0 {
            return Err(ObjectError::Expiry { asked: expires, limit });
        }
        let expires = Duration::from_secs(expires.as_secs());
        let place = self.place(bucket, key);
        if self.0.is_bearer {
            return Err(ObjectError::CannotSign { place: place.into() });
        }
        let mut url = self.address(bucket, key, &place, cancel).await?;
        let credentials = self.0.credentials.provide_credentials().await;
        let credentials =
            credentials.map_err(|error| ObjectError::Credentials { source: Box::new(error) })?;
        let now = self.0.clock.now();
        let ends_with_credentials = credentials.expiry();

        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(expires);
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.session_token_mode = SessionTokenMode::Include;
        let identity = credentials.into();
        let failed = |source| ObjectError::Protocol {
            verb: Verb::Sign,
            place: place.as_str().into(),
            source: Some(source),
        };
        let params: SigningParams<'_> = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.0.region)
            .name("s3")
            .time(now)
            .settings(settings)
            .build()
            .map_err(|error| failed(error.into()))?
            .into();
        let request =
            SignableRequest::new("GET", url.as_str(), std::iter::empty(), SignableBody::UnsignedPayload);
        let request = request.map_err(|error| failed(error.into()))?;
        let (instructions, _) = sign(request, &params).map_err(|error| failed(error.into()))?.into_parts();
        url.query_pairs_mut().extend_pairs(instructions.params());

        let signature_ends = now + expires;
        let expires_at = ends_with_credentials.map_or(signature_ends, |end| end.min(signature_ends));
        Ok(PresignedUrl { url, expires_at })
    }

    /// The object's URL without any signature.
    ///
    /// # Errors
    ///
    /// If the endpoint gives none.
    pub async fn url(&self, bucket: &str, key: &str, cancel: &CancellationToken) -> Result<Url, ObjectError> {
        self.address(bucket, key, &self.place(bucket, key), cancel).await
    }

    /// The object's URL, by the SDK's rules for endpoints.
    async fn address(
        &self,
        bucket: &str,
        key: &str,
        place: &str,
        cancel: &CancellationToken,
    ) -> Result<Url, ObjectError> {
        let failed =
            |source| ObjectError::Protocol { verb: Verb::Sign, place: place.into(), source: Some(source) };
        let config =
            PresigningConfig::expires_in(Duration::from_secs(1)).map_err(|error| failed(error.into()))?;
        let request = self.0.client.get_object().bucket(bucket).key(key);
        // Nothing is sent; credentials may be fetched.
        let question = Question { verb: Verb::Sign, place, timeout: self.0.retry.attempt_timeout, cancel };
        let signed = ask_once(question, request.presigned(config)).await?;
        let mut url = Url::parse(signed.uri()).map_err(|error| failed(error.into()))?;
        url.set_query(None);
        Ok(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_goes_and_the_rest_of_the_query_stays() {
        for (query, rest) in [
            ("", ""),
            ("?X-Amz-Date=1&versionId=2&X-Amz-Signature=3&x-amz-security-token=4", "?versionId=2"),
            ("?X-Goog-Expires=1&generation=2&X-Goog-Signature=3", "?generation=2"),
            ("?AWSAccessKeyId=1&Expires=2&Signature=3", ""),
            ("?Policy=1&Signature=2&Key-Pair-Id=3&v=4", "?v=4"),
            ("?expires=1&policy=2", "?expires=1&policy=2"),
            ("?file=a%20b&c", "?file=a%20b&c"),
        ] {
            let url = |query: &str| Url::parse(&format!("https://host/b/k{query}")).unwrap();
            assert_eq!(without_signature(&url(query)), url(rest), "{query}");
        }
    }
}
