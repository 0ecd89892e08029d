//! The source URI of a Create: a secret, and a thing to be careful with.
//!
//! Source: `hardening.md`, row "URL". What a caller names is opened by this server with this server's place in the
//! network, so only hosts that the operator listed are contacted, only by https unless the operator says otherwise, and
//! a redirect is never followed. Names are compared after normalisation by the URL standard, ports included.

use std::fmt;

use url::Url;

use crate::limits;

/// A pre-signed URL. Its text appears in no `Debug`, no `Display` and no error.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SourceUri(String);

impl SourceUri {
    /// Takes a URL that was checked before it was stored.
    pub(crate) fn trusted(text: String) -> Self {
        Self(text)
    }

    /// The secret itself, for the one who fetches and for the catalog.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

/// The URL without its query: what people may see, and what is the same over two signings of one object.
pub(crate) fn without_query(text: &str) -> &str {
    let end = text.find(['?', '#']).unwrap_or(text.len());
    &text[..end]
}

impl fmt::Debug for SourceUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceUri({})", without_query(&self.0))
    }
}

impl fmt::Display for SourceUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(without_query(&self.0))
    }
}

/// A host that may be read from, at one port or at the scheme's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRule {
    host: String,
    port: Option<u16>,
}

/// Text that is not `HOST` or `HOST:PORT`.
#[derive(Debug, thiserror::Error)]
#[error("expected HOST or HOST:PORT, without scheme and path")]
pub struct InvalidHostRule;

impl std::str::FromStr for HostRule {
    type Err = InvalidHostRule;

    fn from_str(text: &str) -> Result<Self, InvalidHostRule> {
        // A scheme without a default port, so that a port that is written is kept.
        let url = Url::parse(&format!("rule://{text}")).map_err(|_| InvalidHostRule)?;
        let bare = url.path().is_empty() && url.query().is_none() && url.fragment().is_none();
        let nobody = url.username().is_empty() && url.password().is_none();
        // The host once more by the rules of https: lower case, punycode, numbers as IPv4 addresses.
        let host = url.host_str().filter(|host| !host.is_empty() && bare && nobody).ok_or(InvalidHostRule)?;
        let normal = Url::parse(&format!("https://{host}/")).map_err(|_| InvalidHostRule)?;
        let host = normal.host_str().ok_or(InvalidHostRule)?.to_owned();
        Ok(Self { host, port: url.port() })
    }
}

/// Which URIs are read.
#[derive(Clone, Debug)]
pub(crate) struct UriPolicy {
    /// Hosts that the operator listed. Where there are none, only `own_endpoint` is read.
    pub(crate) hosts: Vec<HostRule>,
    /// Plain http is fine for the listed hosts.
    pub(crate) allow_http: bool,
    /// The store that the server writes to. Its scheme was chosen by the operator with the endpoint.
    pub(crate) own_endpoint: Option<Url>,
}

impl UriPolicy {
    /// Checks a URI; the error says what is expected and never repeats the query.
    pub(crate) fn check(&self, text: &str) -> Result<SourceUri, UriRefusal> {
        if text.len() > limits::URI {
            return Err(UriRefusal::Long { found: text.len() });
        }
        let url = Url::parse(text).map_err(|_| UriRefusal::NotUrl)?;
        let secure = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(UriRefusal::Scheme),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(UriRefusal::NotUrl)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UriRefusal::UserInfo);
        }
        if url.fragment().is_some() {
            return Err(UriRefusal::Fragment);
        }
        let own = self.own_endpoint.as_ref().is_some_and(|own| own.origin() == url.origin());
        if own && self.hosts.is_empty() {
            return Ok(SourceUri(text.to_owned()));
        }
        let standard = if secure { 443 } else { 80 };
        let port = url.port().unwrap_or(standard);
        if !self.hosts.iter().any(|rule| rule.host == host && rule.port.unwrap_or(standard) == port) {
            return Err(UriRefusal::Host { host: host.to_owned(), port });
        }
        if !secure && !self.allow_http {
            return Err(UriRefusal::PlainHttp);
        }
        Ok(SourceUri(text.to_owned()))
    }
}

/// Why a URI is not read. Nothing of it is repeated but the host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UriRefusal {
    /// Longer than any signature makes it.
    #[error("found {found} bytes, expected at most {}", limits::URI)]
    Long { found: usize },
    /// Not a URL with a host.
    #[error("not a URL with a host")]
    NotUrl,
    /// Neither https nor http.
    #[error("the scheme is not https")]
    Scheme,
    /// A name or password before the host.
    #[error("user information is not allowed")]
    UserInfo,
    /// A fragment, which no server would see.
    #[error("a fragment is not allowed")]
    Fragment,
    /// Nobody listed the host.
    #[error("host {host} with port {port} is not allowed on this server")]
    Host { host: String, port: u16 },
    /// http to a listed host.
    #[error("the scheme is http, expected https")]
    PlainHttp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(hosts: &[&str], allow_http: bool) -> UriPolicy {
        let own_endpoint = Some(Url::parse("http://127.0.0.1:9000").unwrap());
        let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
        UriPolicy { hosts, allow_http, own_endpoint }
    }

    #[test]
    fn without_a_list_only_the_own_store() {
        let policy = policy(&[], false);
        assert!(policy.check("http://127.0.0.1:9000/b/k?X-Amz-Signature=s").is_ok());
        for other in [
            "http://127.0.0.1:9001/b/k",
            "http://127.0.0.1/b/k",
            "https://127.0.0.1:9000/b/k",
            "http://localhost:9000/b/k",
            "http://127.0.0.1.example.com:9000/",
            "https://storage.example/b/k",
        ] {
            assert!(matches!(policy.check(other), Err(UriRefusal::Host { .. })), "{other}");
        }
    }

    #[test]
    fn a_list_replaces_the_own_store() {
        let policy = policy(&["storage.example", "other.example:8443"], false);
        for good in
            ["https://storage.example/b/k", "https://STORAGE.example:443/b", "https://other.example:8443/b"]
        {
            assert!(policy.check(good).is_ok(), "{good}");
        }
        for bad in [
            "https://storage.example:444/",
            "https://other.example/b",
            "https://sub.storage.example/",
            "https://storage.example.evil.example/",
            "http://127.0.0.1:9000/b/k",
        ] {
            assert!(matches!(policy.check(bad), Err(UriRefusal::Host { .. })), "{bad}");
        }
        assert_eq!(policy.check("http://storage.example/b"), Err(UriRefusal::PlainHttp));
    }

    #[test]
    fn plain_http_on_demand() {
        assert!(policy(&["storage.example"], true).check("http://storage.example/b").is_ok());
        let other_port = policy(&["storage.example"], true).check("http://storage.example:8080/b");
        assert!(matches!(other_port, Err(UriRefusal::Host { port: 8080, .. })));
    }

    #[test]
    fn tricks() {
        let policy = policy(&["storage.example"], true);
        assert_eq!(policy.check("https://storage.example@evil.example/"), Err(UriRefusal::UserInfo));
        assert_eq!(policy.check("https://u:p@storage.example/"), Err(UriRefusal::UserInfo));
        assert_eq!(policy.check("file:///etc/passwd"), Err(UriRefusal::Scheme));
        assert_eq!(policy.check("https://storage.example/#f"), Err(UriRefusal::Fragment));
        assert_eq!(policy.check("storage.example/b"), Err(UriRefusal::NotUrl));
        assert_eq!(policy.check(""), Err(UriRefusal::NotUrl));
        assert!(
            matches!(policy.check("https://0x7f.1/"), Err(UriRefusal::Host { host, .. }) if host == "127.0.0.1")
        );
        let long = format!("https://storage.example/?{}", "x".repeat(limits::URI));
        assert!(matches!(policy.check(&long), Err(UriRefusal::Long { .. })));
    }

    #[test]
    fn rules() {
        for good in ["a.example", "a.example:80", "[::1]:9000", "127.0.0.1", "MiXed.example"] {
            assert!(good.parse::<HostRule>().is_ok(), "{good}");
        }
        for bad in ["", ":80", "https://a", "a/b", "a b", "u@a", "a:99999", "a?b"] {
            assert!(bad.parse::<HostRule>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_query_stays_hidden() {
        let uri = SourceUri::trusted("https://s.example/b/k?X-Amz-Signature=secret".to_owned());
        assert_eq!(uri.to_string(), "https://s.example/b/k");
        assert!(!format!("{uri:?}").contains("secret"));
        assert_eq!(without_query("https://s/b#f?q"), "https://s/b");
    }
}
