//! Where the services are, and which of them serves a method.

use url::{Host, Url};

use super::{ApiError, Call, ClientOptions};

/// Where the services are.
#[derive(Clone, Debug)]
pub(super) struct Endpoints {
    pub(super) base: Url,
    pub(super) operations: Url,
}

impl Endpoints {
    pub(super) fn new(endpoint: &str, options: &ClientOptions) -> Result<Self, ApiError> {
        let base = parse_endpoint(endpoint)?;
        let operations = match &options.operation_endpoint {
            Some(endpoint) => parse_endpoint(endpoint)?,
            None => operation_host(&base),
        };
        Ok(Self { base, operations })
    }

    /// The one that serves a method.
    pub(super) fn of(&self, call: &Call) -> &Url {
        if is_of_operations(call) { &self.operations } else { &self.base }
    }
}

pub(super) fn is_of_operations(call: &Call) -> bool {
    call.path.starts_with("/yandex.cloud.operation.")
}

/// Host and port, for errors.
pub(crate) fn server_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

pub(super) fn parse_endpoint(endpoint: &str) -> Result<Url, ApiError> {
    let usable = |url: &Url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    };
    Url::parse(endpoint).ok().filter(usable).ok_or(ApiError::Endpoint)
}

/// True if the URL leads to this machine. `localhost` is this machine by RFC 6761, section 6.3.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn operation_host(base: &Url) -> Url {
    let mut url = base.clone();
    if let Some(rest) = base.host_str().and_then(|host| host.strip_prefix("compute.api.")) {
        // A host that was one stays one with another first label.
        let _ = url.set_host(Some(&format!("operation.api.{rest}")));
    }
    url
}

#[cfg(test)]
mod tests {
    use super::super::{CANCEL_OPERATION, GET_IMAGE, GET_OPERATION};
    use super::*;

    #[test]
    fn endpoints() {
        let of = |endpoint| Endpoints::new(endpoint, &ClientOptions::default());
        let cloud = of("https://compute.api.cloud.yandex.net").unwrap();
        assert_eq!(cloud.of(&GET_IMAGE).as_str(), "https://compute.api.cloud.yandex.net/");
        assert_eq!(cloud.of(&GET_OPERATION).as_str(), "https://operation.api.cloud.yandex.net/");
        let other = of("http://127.0.0.1:8080/prefix/").unwrap();
        assert_eq!(other.of(&CANCEL_OPERATION).as_str(), "http://127.0.0.1:8080/prefix/");
        for wrong in ["", "compute.api", "ftp://a/", "https://user@a/", "https://a/?q"] {
            assert!(matches!(of(wrong), Err(ApiError::Endpoint)), "{wrong}");
        }
    }
}
