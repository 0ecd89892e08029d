//! Who may ask: Signature Version 4 with the one key pair, for the one region.
//!
//! s3s verifies the signature, the clock and the expiry before any of this is asked.

use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Error, S3Result, s3_error};

use crate::Credentials;
use crate::limits::MAX_PRESIGN_SECONDS;

/// The one key pair.
pub(crate) struct KeyPair(pub(crate) Credentials);

#[async_trait::async_trait]
impl S3Auth for KeyPair {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key == self.0.access_key {
            return Ok(SecretKey::from(self.0.secret_key.as_str()));
        }
        Err(s3_error!(
            InvalidAccessKeyId,
            "The AWS Access Key Id you provided does not exist in our records."
        ))
    }
}

/// What s3s would let pass and S3 does not.
pub(crate) struct Gate {
    pub(crate) region: String,
}

#[async_trait::async_trait]
impl S3Access for Gate {
    async fn check(&self, request: &mut S3AccessContext<'_>) -> S3Result<()> {
        if request.credentials().is_none() {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        }
        let header = request.headers().get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if let Some(header) = header {
            let credential = header
                .strip_prefix("AWS4-HMAC-SHA256")
                .and_then(|rest| value_of(rest, &[',', ' '], "Credential"));
            let region = credential.ok_or_else(old_signature)?.split('/').nth(2);
            return self.check_region(region, |message| {
                s3_error!(AuthorizationHeaderMalformed, "The authorization header is malformed; {message}")
            });
        }
        let query = request.uri().query().unwrap_or_default();
        let credential = value_of(query, &['&'], "X-Amz-Credential")
            .ok_or_else(old_signature)?
            .replace("%2F", "/")
            .replace("%2f", "/");
        self.check_region(credential.split('/').nth(2), |message| {
            s3_error!(
                AuthorizationQueryParametersError,
                "Error parsing the X-Amz-Credential parameter; {message}"
            )
        })?;
        let expires = value_of(query, &['&'], "X-Amz-Expires").and_then(|text| text.parse::<u32>().ok());
        if expires.is_none_or(|seconds| seconds > MAX_PRESIGN_SECONDS) {
            return Err(s3_error!(
                AuthorizationQueryParametersError,
                "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be \
                 less than {MAX_PRESIGN_SECONDS} seconds"
            ));
        }
        Ok(())
    }
}

impl Gate {
    fn check_region(
        &self,
        found: Option<&str>,
        error: impl FnOnce(std::fmt::Arguments<'_>) -> S3Error,
    ) -> S3Result<()> {
        match found {
            Some(found) if found == self.region => Ok(()),
            found => {
                let (found, expected) = (found.unwrap_or_default(), &self.region);
                Err(error(format_args!("the region '{found}' is wrong; expecting '{expected}'")))
            }
        }
    }
}

/// The value of `name=value` in a list.
fn value_of<'a>(list: &'a str, separators: &[char], name: &str) -> Option<&'a str> {
    list.split(separators).find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

fn old_signature() -> S3Error {
    let message =
        "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.";
    s3_error!(InvalidRequest, "{message}")
}
