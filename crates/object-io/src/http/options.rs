//! What a source may ask of whom, and for how long.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use url::{Host, Url};

use super::bearer::Bearer;
use super::resolver::{Resolver, SystemResolver};
use crate::limits::{CONNECT_TIMEOUT, MAX_ATTEMPTS, MIN_RATE};

/// How to read from a URL.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Take `http` URLs too. On by default: callers that take URLs from others must narrow this.
    pub allow_http: bool,
    /// The only hosts to ask, where given.
    pub allowed_hosts: Option<Vec<HostRule>>,
    /// Which addresses names may resolve to. An address that stands in `allowed_hosts` itself is not asked for its kind.
    pub addresses: AddressPolicy,
    /// Who tells the addresses of names: asked for every connection, and held to `addresses` each time.
    pub resolver: Arc<dyn Resolver>,
    /// Who asks, where the server wants to know that beside the URL. None for pre-signed URLs.
    pub bearer: Option<Bearer>,
    /// Redirects to follow while opening; each must pass the same policy. None by default. Ranges are never redirected.
    pub redirects: u32,
    /// Longer reads are split into requests of this many bytes.
    pub part: u64,
    /// Requests in flight, over all reads of the source.
    pub in_flight: usize,
    /// Attempts at each request, the first included.
    pub attempts: u32,
    /// When to give an attempt up.
    pub limits: TimeLimits,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            allow_http: true,
            allowed_hosts: None,
            addresses: AddressPolicy::Any,
            resolver: Arc::new(SystemResolver),
            bearer: None,
            redirects: 0,
            part: 8 << 20,
            in_flight: 8,
            attempts: MAX_ATTEMPTS,
            limits: TimeLimits::default(),
        }
    }
}

/// When to give an attempt up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// For a connection.
    pub connect: Duration,
    /// From the request to the head of the answer.
    pub first_byte: Duration,
    /// Between two pieces of an answer.
    pub idle: Duration,
    /// Bytes a second that must arrive on average over each `rate_window`.
    pub min_rate: u64,
    /// Over which the rate is measured.
    pub rate_window: Duration,
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self {
            connect: CONNECT_TIMEOUT,
            first_byte: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            min_rate: MIN_RATE,
            rate_window: Duration::from_secs(60),
        }
    }
}

/// Which addresses a host may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressPolicy {
    /// Any.
    Any,
    /// Those of the public Internet, of private networks, and of this machine: for stores that an operator runs. Not link-local
    /// addresses and others behind which clouds tell a machine its secrets.
    Private,
    /// Only those of the public Internet: not this machine, not its networks, not its cloud's metadata service. The connection
    /// goes to an address that was checked, so a name that resolves differently the second time gains nothing.
    Public,
}

/// A host that may be asked: `HOST` at the scheme's own port, or `HOST:PORT`. Compared without regard to case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostRule {
    host: Host,
    port: Option<u16>,
}

impl HostRule {
    /// True if the rule lets `url` pass.
    pub fn allows(&self, url: &Url) -> bool {
        let port = match url.scheme() {
            "https" => 443,
            _ => 80,
        };
        let host = url.host().map(|host| host.to_owned());
        host.as_ref() == Some(&self.host) && url.port_or_known_default() == Some(self.port.unwrap_or(port))
    }
}

impl FromStr for HostRule {
    type Err = HostRuleError;

    fn from_str(rule: &str) -> Result<Self, HostRuleError> {
        let refused = || HostRuleError { rule: rule.into() };
        // An IPv6 address has colons of its own, inside brackets.
        let (host, port) = match rule.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().map_err(|_| refused())?)),
            _ => (rule, None),
        };
        if host.is_empty() {
            return Err(refused());
        }
        // As in a URL of http, where 127.1 is an address too.
        let url = Url::parse(&format!("http://{host}/")).map_err(|_| refused())?;
        let only_host =
            url.port().is_none() && url.username().is_empty() && url.path() == "/" && url.query().is_none();
        let host = url.host().filter(|_| only_host).ok_or_else(refused)?;
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => write!(f, "{}", self.host),
        }
    }
}

/// Not a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{rule}` is neither HOST nor HOST:PORT")]
pub struct HostRuleError {
    rule: Box<str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_names_a_host_and_perhaps_a_port() {
        for (rule, url, allowed) in [
            ("storage.yandexcloud.net", "https://storage.yandexcloud.net/b/k?q", true),
            ("Storage.YandexCloud.net", "https://storage.yandexcloud.net/", true),
            ("storage.yandexcloud.net", "https://storage.yandexcloud.net:8443/", false),
            ("storage.yandexcloud.net", "https://evil.storage.yandexcloud.net/", false),
            ("storage.yandexcloud.net", "https://storage.yandexcloud.net.evil/", false),
            ("127.0.0.1:9000", "http://127.0.0.1:9000/b/k", true),
            ("127.0.0.1:9000", "http://127.0.0.1/b/k", false),
            ("127.0.0.1", "http://2130706433/", true),
            ("[::1]:9000", "http://[::1]:9000/", true),
            ("[::1]", "http://[::1]/", true),
        ] {
            assert_eq!(
                rule.parse::<HostRule>().unwrap().allows(&Url::parse(url).unwrap()),
                allowed,
                "{rule} {url}"
            );
        }
        for rule in ["", ":80", "host:", "host:99999", "user@host", "host/path", "a b", "::1", "http://host"]
        {
            assert!(rule.parse::<HostRule>().is_err(), "{rule}");
        }
    }
}
