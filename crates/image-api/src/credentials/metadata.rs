//! The metadata service of a virtual machine: the token of the service account that the machine has.
//!
//! Source: <https://yandex.cloud/en/docs/compute/operations/vm-metadata/get-vm-metadata>, in the form of Google Compute Engine: plain
//! http on a link-local address, with a header that no browser sends. Where there is no such service the address is
//! silent, so the time-outs are short; the service is on the same host, and answers in milliseconds.

use std::time::Duration;

use super::{Fresh, oauth};
use crate::{ApiError, TransportError};

/// Where virtual machines find it.
pub const METADATA_ADDRESS: &str = "169.254.169.254";

const TOKEN_PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
/// What errors say was tried.
const CALL: &str = "get the machine's token";
/// For a connection.
const CONNECT: Duration = Duration::from_secs(1);
/// For all of it.
const TOTAL: Duration = Duration::from_secs(3);

/// The service, by its address.
pub(super) struct Metadata {
    address: String,
    http: reqwest::Client,
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
        let url = format!("http://{}{TOKEN_PATH}", self.address);
        let request = self.http.get(url).header("Metadata-Flavor", "Google");
        oauth::fetch(request, CALL, &self.address).await
    }
}
