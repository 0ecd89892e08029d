//! Where the services of a cloud are: built in for three, found out by an address that knows, or all at one address.
//!
//! Source: the endpoints that <https://yandex.cloud/en/docs/api-design-guide/concepts/endpoints> lists, and `ApiEndpointService`; of
//! Google's <https://cloud.google.com/compute/docs/reference/rest/v1>.

use clap::ValueEnum;
use image_api::{Client, ClientOptions};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::error::Error;
use crate::url_policy;

/// The clouds that are built in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Cloud {
    /// cloud.yandex.net, store storage.yandexcloud.net
    #[default]
    Ru,
    /// yandexcloud.kz, store storage.yandexcloud.kz
    Kz,
    /// Google's: Compute Engine and Cloud Storage
    Gcp,
}

impl Cloud {
    /// Those that speak the one API, and take the same credentials.
    const YANDEX: [Self; 2] = [Self::Ru, Self::Kz];

    /// The host beneath which each service has one of its own.
    fn api_host(self) -> &'static str {
        match self {
            Self::Ru => "api.cloud.yandex.net",
            Self::Kz => "api.yandexcloud.kz",
            Self::Gcp => "googleapis.com",
        }
    }

    /// Its image service.
    pub(crate) fn endpoint(self) -> String {
        format!("https://compute.{}", self.api_host())
    }

    /// The address that knows where all its services are.
    pub(crate) fn directory(self) -> String {
        format!("https://{}", self.api_host())
    }

    /// Its object store.
    pub(crate) fn storage_url(self) -> &'static str {
        match self {
            Self::Ru => "https://storage.yandexcloud.net",
            Self::Kz => "https://storage.yandexcloud.kz",
            Self::Gcp => "https://storage.googleapis.com",
        }
    }

    /// The cloud that an address belongs to, over TLS. Of Google's see [`Cloud::has`]: nothing of the others is for it.
    pub(crate) fn of(url: &Url) -> Option<Self> {
        Self::YANDEX.into_iter().find(|cloud| cloud.has(url))
    }

    /// Whether an address belongs to it, over TLS.
    pub(crate) fn has(self, url: &Url) -> bool {
        let host = url.host_str().filter(|_| url.scheme() == "https");
        let rest = host.and_then(|host| host.strip_suffix(self.api_host()));
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

/// Where the services are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Services {
    /// Images.
    pub(crate) compute: Url,
    /// Operations, if elsewhere than the client would look.
    pub(crate) operation: Option<Url>,
    /// Tokens.
    pub(crate) iam: Url,
}

/// An address as typed: a URL, or a host with or without a port, which stands for `scheme`.
pub(crate) fn parse(text: &str, scheme: &str, allow_http: bool) -> Result<Url, Error> {
    match url_policy::is_url(text) {
        true => url_policy::check(text, allow_http),
        false => url_policy::check(&format!("{scheme}://{text}"), allow_http),
    }
}

impl Services {
    /// The services that go with an address; asks it where its host begins with `api.`.
    pub(crate) async fn at(endpoint: &Url, cancel: &CancellationToken) -> Result<Self, Error> {
        let host = endpoint.host_str().unwrap_or_default();
        if let Some(rest) = host.strip_prefix("compute.api.") {
            let mut iam = endpoint.clone();
            // A host that was one stays one with another first label.
            let _ = iam.set_host(Some(&format!("iam.api.{rest}")));
            return Ok(Self { compute: endpoint.clone(), operation: None, iam });
        }
        if host.starts_with("api.") {
            return Self::listed(endpoint, cancel).await;
        }
        Ok(Self { compute: endpoint.clone(), operation: None, iam: endpoint.clone() })
    }

    /// What the address itself says.
    pub(crate) async fn listed(directory: &Url, cancel: &CancellationToken) -> Result<Self, Error> {
        let client = Client::with_options(directory.as_str(), None, &ClientOptions::default())?;
        let listed = client.list_endpoints(cancel).await?.endpoints;
        let find = |id: &'static str| {
            let found = listed.iter().find(|endpoint| endpoint.id == id);
            let missing = || Error::NoService { id, directory: host_of(directory) };
            let address = &found.ok_or_else(missing)?.address;
            // TLS or not, as the one that was asked: a list must not lead from one to the other.
            Url::parse(&format!("{}://{address}", directory.scheme())).map_err(|_| missing())
        };
        Ok(Self { compute: find("compute")?, operation: Some(find("operation")?), iam: find("iam")? })
    }
}

/// Host and port of a URL, for people.
pub(crate) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_belong_to_clouds() {
        let of = |url: &str| Cloud::of(&Url::parse(url).unwrap());
        for url in ["https://api.cloud.yandex.net:443", "https://compute.api.cloud.yandex.net/"] {
            assert_eq!(of(url), Some(Cloud::Ru), "{url}");
        }
        assert_eq!(of("https://iam.api.yandexcloud.kz"), Some(Cloud::Kz));
        let is_google = |url: &str| Cloud::Gcp.has(&Url::parse(url).unwrap());
        assert!(is_google(&Cloud::Gcp.endpoint()) && is_google("https://oauth2.googleapis.com/token"));
        assert!(!is_google("http://compute.googleapis.com") && !is_google("https://evilgoogleapis.com"));
        assert_eq!(of("https://compute.googleapis.com"), None, "no token of the other clouds goes there");
        for other in [
            "http://compute.api.cloud.yandex.net",
            "https://evilapi.cloud.yandex.net",
            "https://api.cloud.yandex.net.example",
            "https://127.0.0.1",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn services_go_with_addresses() {
        let never = CancellationToken::new();
        let at = |text: &'static str| {
            let never = never.clone();
            async move { Services::at(&parse(text, "https", false).unwrap(), &never).await.unwrap() }
        };
        let services = at("compute.api.yandexcloud.kz").await;
        assert_eq!(services.iam.as_str(), "https://iam.api.yandexcloud.kz/");
        assert_eq!(
            (services.compute.as_str(), services.operation),
            ("https://compute.api.yandexcloud.kz/", None)
        );
        let one = at("http://127.0.0.1:8080").await;
        assert_eq!((one.iam.as_str(), &one.iam), ("http://127.0.0.1:8080/", &one.compute));
        assert!(parse("images.example:80", "http", false).is_err());
        assert_eq!(parse("localhost:80", "http", false).unwrap().as_str(), "http://localhost/");
    }
}
