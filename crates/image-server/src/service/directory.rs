//! Where the services are: `ApiEndpointService`, which the SDKs ask first.
//!
//! All of them are this server, so the address is the one that the operator configures, else the one by which the caller
//! found us: whoever came by a name comes by it again, and its certificate fits. `storage` is the store of the bucket, where
//! uploads that are to become images may go.

use std::sync::Arc;

use image_api::{
    Code, Validate as _,
    endpoint::{ApiEndpoint, GetApiEndpointRequest, ListApiEndpointsRequest, ListApiEndpointsResponse},
    rpc::Status,
};

use super::{Call, Refusal, Service};

/// The services that are served here, by the names that the SDKs look for.
const HERE: [&str; 4] = ["compute", "endpoint", "iam", "operation"];

/// What is known about addresses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    /// Host and port that callers are told, where the operator says so.
    pub(crate) advertised: Option<String>,
    /// Where we listen.
    pub(crate) listen: String,
    /// Port of an address without one.
    pub(crate) default_port: u16,
    /// Host and port of the object store.
    pub(crate) storage: Option<String>,
}

impl Directory {
    /// Scheme and address, as the caller has them.
    pub(super) fn base(&self, authority: Option<&str>) -> String {
        // The default port is that of the scheme.
        let scheme = if self.default_port == 443 { "https" } else { "http" };
        let address = self.advertised.as_deref().or(authority).unwrap_or(&self.listen);
        format!("{scheme}://{address}")
    }

    fn endpoints(&self, authority: Option<&str>) -> Vec<ApiEndpoint> {
        let address = self.advertised.as_deref().or(authority).unwrap_or(&self.listen);
        let address = self.with_port(address);
        let endpoint =
            |id: &str, address: &str| ApiEndpoint { id: id.to_owned(), address: address.to_owned() };
        let mut endpoints: Vec<_> = HERE.iter().map(|id| endpoint(id, &address)).collect();
        endpoints.extend(self.storage.as_ref().map(|address| endpoint("storage", address)));
        endpoints
    }

    fn with_port(&self, address: &str) -> String {
        // The colons of an IPv6 address stand in brackets.
        let after_brackets = address.rsplit(']').next().unwrap_or(address);
        if after_brackets.contains(':') {
            address.to_owned()
        } else {
            format!("{address}:{}", self.default_port)
        }
    }
}

impl Service {
    pub(super) async fn get_endpoint(
        self: Arc<Self>,
        call: Call,
        request: GetApiEndpointRequest,
    ) -> Result<ApiEndpoint, Refusal> {
        request.validate()?;
        let endpoints = self.directory.endpoints(call.authority.as_deref());
        let found = endpoints.into_iter().find(|endpoint| endpoint.id == request.api_endpoint_id);
        found.ok_or_else(|| {
            let message = format!("no endpoint {:?} here", request.api_endpoint_id);
            Status::new(Code::NotFound, message).into()
        })
    }

    pub(super) async fn list_endpoints(
        self: Arc<Self>,
        call: Call,
        _request: ListApiEndpointsRequest,
    ) -> Result<ListApiEndpointsResponse, Refusal> {
        let endpoints = self.directory.endpoints(call.authority.as_deref());
        Ok(ListApiEndpointsResponse { endpoints, next_page_token: String::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let directory =
            Directory { listen: "127.0.0.1:8080".to_owned(), default_port: 443, ..Directory::default() };
        let address = |directory: &Directory, authority| directory.endpoints(authority)[0].address.clone();
        assert_eq!(address(&directory, None), "127.0.0.1:8080");
        assert_eq!(address(&directory, Some("images.example")), "images.example:443");
        assert_eq!(address(&directory, Some("[::1]:99")), "[::1]:99");
        assert_eq!(address(&directory, Some("[::1]")), "[::1]:443");
        let told = Directory { advertised: Some("api.example:8443".to_owned()), ..directory };
        assert_eq!(address(&told, Some("images.example")), "api.example:8443");
    }
}
