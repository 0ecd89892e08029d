//! The metadata service of a virtual machine: the token of the service account that the machine has.
//!
//! Source: <https://yandex.cloud/en/docs/compute/operations/vm-metadata/get-vm-metadata>, in the form of Google Compute Engine: plain
//! http on a link-local address, with a header that no browser sends. Where there is no such service the address is
//! silent, so the time-outs are short; the service is on the same host, and answers in milliseconds.

use std::time::Duration;

use serde::Deserialize;

use super::Fresh;
use crate::{ApiError, StatusError, Token, TransportError};

/// Where virtual machines find it.
pub const METADATA_ADDRESS: &str = "169.254.169.254";

const TOKEN_PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
/// What errors say was tried.
const CALL: &str = "get the machine's token";
/// For a connection.
const CONNECT: Duration = Duration::from_secs(1);
/// For all of it.
const TOTAL: Duration = Duration::from_secs(3);
/// Most bytes of an answer: tokens have some hundreds.
const ANSWER_MAX: usize = 64 << 10;

/// The service, by its address.
pub(super) struct Metadata {
    address: String,
    http: reqwest::Client,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    /// Seconds.
    #[serde(default)]
    expires_in: u64,
}

impl Metadata {
    pub(super) fn new(address: &str) -> Result<Self, ApiError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
        if address.is_empty() || !address.chars().all(is_plain) {
            return Err(ApiError::Endpoint);
        }
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A proxy of the environment has another machine's metadata.
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .timeout(TOTAL)
            .build()
            .map_err(|source| ApiError::Setup { source: TransportError::Http(source) })?;
        Ok(Self { address: address.to_owned(), http })
    }

    pub(super) async fn fetch(&self) -> Result<Fresh, ApiError> {
        let unreachable = |source: reqwest::Error| ApiError::Transport {
            call: CALL,
            server: self.address.clone(),
            source: TransportError::Http(source.without_url()),
        };
        let url = format!("http://{}{TOKEN_PATH}", self.address);
        let request = self.http.get(url).header("Metadata-Flavor", "Google");
        let mut response = request.send().await.map_err(unreachable)?;
        let mut body = Vec::new();
        while let Some(bytes) = response.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&bytes);
            if body.len() > ANSWER_MAX {
                return Err(ApiError::AnswerTooLong { call: CALL, limit: ANSWER_MAX });
            }
        }
        if !response.status().is_success() {
            let error = StatusError::read(response.status().as_u16(), &body, None, None);
            return Err(ApiError::Status(Box::new(error)));
        }
        let answer: Answer = serde_json::from_slice(&body).map_err(|_| ApiError::NotAToken)?;
        let token = Token::new(&answer.access_token).ok_or(ApiError::NotAToken)?;
        Ok(Fresh { token, life: Duration::from_secs(answer.expires_in) })
    }
}
