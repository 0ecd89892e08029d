//! The one call that needs no token: it gets one.

use url::Url;

use super::{ApiError, CREATE_IAM_TOKEN, ClientOptions, endpoints::Endpoints, rest::Rest};
use crate::iam::{CreateIamTokenRequest, CreateIamTokenResponse};

/// The `IamTokenService` of an endpoint, over HTTP.
pub(crate) struct Exchange {
    rest: Rest,
    url: Url,
}

impl Exchange {
    pub(crate) fn new(endpoint: &str, options: &ClientOptions) -> Result<Self, ApiError> {
        let endpoints = Endpoints::new(endpoint, options)?;
        let url = endpoints.base.clone();
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self { rest: Rest::new(endpoints, options)?, url })
    }

    /// Where it is.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// One attempt: whoever wanted the token repeats its own call.
    pub(crate) async fn ask(
        &self,
        request: &CreateIamTokenRequest,
    ) -> Result<CreateIamTokenResponse, ApiError> {
        let answer = self.rest.attempt(&CREATE_IAM_TOKEN, request, None, None).await;
        // Why it cannot be read may repeat a value, and the value may be a token.
        answer.map_err(|error| match error {
            ApiError::Answer { .. } => ApiError::NotAToken,
            error => error,
        })
    }
}
