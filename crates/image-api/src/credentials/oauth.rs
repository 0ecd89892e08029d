//! A token endpoint: a form in, a token out.
//!
//! Source: RFC 6749, sections 5.1 (`access_token`, `expires_in` in seconds) and 5.2 (`error`, `error_description`); the metadata service of
//! Google's virtual machines, and of Yandex's, answers in the same shape.

use std::time::Duration;

use reqwest::header;
use serde::Deserialize;
use url::Url;

use super::Fresh;
use crate::{
    ApiError, ClientOptions, Code, StatusError, Token, TransportError,
    client::{http_client_of, server_of},
};

/// What errors say was tried.
const CALL: &str = "get a token";
/// Most bytes of an answer: tokens have some hundreds, those with identities in them a few KiB.
const ANSWER_MAX: usize = 64 << 10;

/// The endpoint.
pub(super) struct TokenEndpoint {
    url: Url,
    http: reqwest::Client,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    /// Seconds.
    #[serde(default)]
    expires_in: u64,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    error_description: String,
}

impl TokenEndpoint {
    pub(super) fn new(url: &str, options: &ClientOptions) -> Result<Self, ApiError> {
        let (url, http) = http_client_of(url, options)?;
        Ok(Self { url, http })
    }

    /// One attempt: whoever wanted the token repeats its own call.
    pub(super) async fn ask(&self, form: String) -> Result<Fresh, ApiError> {
        let request = self.http.post(self.url.clone());
        let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
        fetch(request, CALL, &server_of(&self.url)).await
    }
}

/// Sends a request that is answered with a token.
pub(super) async fn fetch(
    request: reqwest::RequestBuilder,
    call: &'static str,
    server: &str,
) -> Result<Fresh, ApiError> {
    let unreachable = |source: reqwest::Error| ApiError::Transport {
        call,
        server: server.to_owned(),
        source: TransportError::Http(source.without_url()),
    };
    let mut response = request.send().await.map_err(unreachable)?;
    let mut body = Vec::new();
    while let Some(bytes) = response.chunk().await.map_err(unreachable)? {
        body.extend_from_slice(&bytes);
        if body.len() > ANSWER_MAX {
            return Err(ApiError::AnswerTooLong { call, limit: ANSWER_MAX });
        }
    }
    if !response.status().is_success() {
        return Err(ApiError::Status(Box::new(refusal(response.status().as_u16(), &body))));
    }
    // Why it cannot be read may repeat a value, and the value may be a token.
    let answer: Answer = serde_json::from_slice(&body).map_err(|_| ApiError::NotAToken)?;
    let token = Token::new(&answer.access_token).ok_or(ApiError::NotAToken)?;
    Ok(Fresh { token, life: Duration::from_secs(answer.expires_in) })
}

/// What an endpoint refused. A page that is no refusal of this kind may repeat what was sent, and that was a secret.
fn refusal(http_status: u16, body: &[u8]) -> StatusError {
    let Ok(Refusal { error, error_description: description }) = serde_json::from_slice(body) else {
        return StatusError::read(http_status, b"", None, None);
    };
    let code = match error.as_str() {
        "invalid_grant" | "invalid_client" | "unauthorized_client" => Code::Unauthenticated,
        _ => Code::from_http_status(http_status),
    };
    let text = if description.is_empty() { error } else { format!("{error}: {description}") };
    let message = text.chars().filter(|c| !c.is_control()).take(200).collect();
    StatusError { code, message, details: Vec::new(), http_status, request_id: None, retry_after: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_and_pages_are_not() {
        let body = br#"{"error": "invalid_grant", "error_description": "Invalid JWT Signature."}"#;
        let error = refusal(400, body);
        assert_eq!(error.to_string(), "UNAUTHENTICATED: invalid_grant: Invalid JWT Signature.");
        let error = refusal(502, b"<html>assertion=SECRET</html>");
        assert_eq!((error.code, error.message.as_str()), (Code::Unavailable, ""));
        assert_eq!(refusal(400, br#"{"error": "invalid_scope"}"#).code, Code::InvalidArgument);
    }
}
