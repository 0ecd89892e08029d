//! The source URI of a Create: a secret, and a thing to be careful with.
//!
//! Source: `hardening.md`, row "URL". What a caller names is opened by this server with this server's place in the
//! network, so only hosts that the operator listed are contacted, at public addresses and by https unless the operator says
//! otherwise, and a redirect is never followed. Names are compared after normalisation by the URL standard, ports included;
//! addresses at each connection, as names may change where they lead.

use std::fmt;
use std::sync::Arc;

use object_io::{AddressPolicy, HostRule, HttpOptions, Resolver, SystemResolver, TimeLimits};
use url::Url;

use crate::limits;

/// A pre-signed URL. Its text appears in no `Debug`, no `Display` and no error.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceUri(String);

impl SourceUri {
    /// Takes a URL that was checked before it was stored.
    pub fn trusted(text: String) -> Self {
        Self(text)
    }

    /// The secret itself, for the one who fetches and for the catalog.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// The URL without its query: what people may see, and what is the same over two signings of one object.
pub fn without_query(text: &str) -> &str {
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

/// Which URIs are read.
#[derive(Clone, Debug)]
pub struct UriPolicy {
    /// Hosts that the operator listed. Where there are none, only `own_endpoint` is read.
    pub hosts: Vec<HostRule>,
    /// Plain http is fine for the listed hosts.
    pub allow_http: bool,
    /// The names of the listed hosts may lead to private networks and to this machine. Without it they must be public, unless an
    /// address itself is listed. Link-local addresses and other places of metadata services are never asked.
    pub allow_private: bool,
    /// Any host at any address, by https and http: for a server whose only caller is its operator.
    pub any_host: bool,
    /// The store that the server writes to. Its scheme, and that it may be private, was chosen by the operator with the endpoint.
    pub own_endpoint: Option<Url>,
    /// Who tells the addresses of names.
    pub resolver: Arc<dyn Resolver>,
}

impl Default for UriPolicy {
    /// Nothing is read.
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            allow_http: false,
            allow_private: false,
            any_host: false,
            own_endpoint: None,
            resolver: Arc::new(SystemResolver),
        }
    }
}

impl UriPolicy {
    /// Checks a URI before it is accepted.
    ///
    /// # Errors
    ///
    /// What is expected; the query is never repeated.
    pub fn check(&self, text: &str) -> Result<SourceUri, UriRefusal> {
        if text.len() > limits::URI {
            return Err(UriRefusal::Long { found: text.len() });
        }
        // What is parsed here is parsed again from the same text: a parser that skips characters is not asked about them.
        if text.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(UriRefusal::NotUrl);
        }
        let url = Url::parse(text).map_err(|_| UriRefusal::NotUrl)?;
        let port = match url.scheme() {
            "https" => url.port().unwrap_or(443),
            "http" => url.port().unwrap_or(80),
            _ => return Err(UriRefusal::Scheme),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(UriRefusal::NotUrl)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UriRefusal::UserInfo);
        }
        if url.fragment().is_some() {
            return Err(UriRefusal::Fragment);
        }
        if self.any_host || self.is_own(&url) {
            return Ok(SourceUri(text.to_owned()));
        }
        if !self.hosts.iter().any(|rule| rule.allows(&url)) {
            return Err(UriRefusal::Host { host: host.to_owned(), port });
        }
        if url.scheme() == "http" && !self.allow_http {
            return Err(UriRefusal::PlainHttp);
        }
        Ok(SourceUri(text.to_owned()))
    }

    /// The same policy for whoever opens the connections: an operation that was accepted yesterday is checked again by
    /// what is allowed today.
    pub(crate) fn http_options(&self, limits: TimeLimits) -> HttpOptions {
        let own = self.own_endpoint.as_ref().filter(|_| self.hosts.is_empty() && !self.any_host);
        let rule =
            own.and_then(|url| format!("{}:{}", url.host_str()?, url.port_or_known_default()?).parse().ok());
        let (allow_http, addresses) = match own {
            _ if self.any_host => (true, AddressPolicy::Any),
            Some(url) => (url.scheme() == "http", AddressPolicy::Private),
            None if self.allow_private => (self.allow_http, AddressPolicy::Private),
            None => (self.allow_http, AddressPolicy::Public),
        };
        HttpOptions {
            allow_http,
            addresses,
            allowed_hosts: (!self.any_host).then(|| self.hosts.iter().cloned().chain(rule).collect()),
            resolver: self.resolver.clone(),
            redirects: 0,
            limits,
            ..HttpOptions::default()
        }
    }

    fn is_own(&self, url: &Url) -> bool {
        self.hosts.is_empty() && self.own_endpoint.as_ref().is_some_and(|own| own.origin() == url.origin())
    }
}

/// Why a URI is not read. Nothing of it is repeated but the host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UriRefusal {
    /// Longer than any signature makes it.
    #[error("found {found} bytes, expected at most {}", limits::URI)]
    Long {
        /// Its length.
        found: usize,
    },
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
    Host {
        /// Its name or address.
        host: String,
        /// Its port.
        port: u16,
    },
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
        UriPolicy { hosts, allow_http, own_endpoint, ..UriPolicy::default() }
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
    fn whoever_connects_has_the_same_policy() {
        let options = |policy: UriPolicy| policy.http_options(TimeLimits::default());
        let own = options(policy(&[], false));
        assert_eq!((own.allow_http, own.redirects, own.addresses), (true, 0, AddressPolicy::Private));
        let rules = own.allowed_hosts.unwrap();
        assert!(rules.len() == 1 && rules[0].allows(&Url::parse("http://127.0.0.1:9000/b/k").unwrap()));
        let listed = options(policy(&["storage.example"], false));
        assert_eq!((listed.allow_http, listed.addresses), (false, AddressPolicy::Public));
        assert_eq!(listed.allowed_hosts.unwrap(), ["storage.example".parse().unwrap()]);
        let private = options(UriPolicy { allow_private: true, ..policy(&["storage.example"], false) });
        assert_eq!(private.addresses, AddressPolicy::Private);
        let nothing = options(UriPolicy { allow_http: true, ..UriPolicy::default() });
        assert_eq!((nothing.allowed_hosts, nothing.addresses), (Some(vec![]), AddressPolicy::Public));
        let any = options(UriPolicy { any_host: true, ..policy(&["storage.example"], false) });
        assert_eq!((any.allowed_hosts, any.addresses), (None, AddressPolicy::Any));
    }

    #[test]
    fn the_query_stays_hidden() {
        let uri = SourceUri::trusted("https://s.example/b/k?X-Amz-Signature=secret".to_owned());
        assert_eq!(uri.to_string(), "https://s.example/b/k");
        assert!(!format!("{uri:?}").contains("secret"));
        assert_eq!(without_query("https://s/b#f?q"), "https://s/b");
    }
}
