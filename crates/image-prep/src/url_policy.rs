//! Which URLs are talked to: https, and plain http to this machine or where the user allows it.

use url::{Host, Url};

use crate::error::Error;

/// True if this names a URL rather than a path.
pub(crate) fn is_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    })
}

/// Checks a URL before anything is sent to it.
pub(crate) fn check(text: &str, allow_http: bool) -> Result<Url, Error> {
    let not_https = || Error::Scheme { url: shown(text).to_owned() };
    let url = Url::parse(text).map_err(|_| not_https())?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if allow_http || is_loopback(&url) => Ok(url),
        "http" => Err(Error::PlainHttp { host: url.host_str().unwrap_or_default().to_owned() }),
        _ => Err(not_https()),
    }
}

/// What may be shown of a path or URL: of the latter no user, no password, no query.
pub(crate) fn name_of(image: &str) -> String {
    if !is_url(image) {
        return image.to_owned();
    }
    let Ok(mut url) = Url::parse(image) else { return shown(image).to_owned() };
    url.set_query(None);
    url.set_fragment(None);
    match (url.set_username(""), url.set_password(None)) {
        (Ok(()), Ok(())) => url.into(),
        // Of a URL without a host.
        _ => shown(url.as_str()).to_owned(),
    }
}

/// What may be shown of text that is not a URL: what stands before an `@` or after a `?` may be a secret.
fn shown(text: &str) -> &str {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    text.rsplit('@').next().unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_no_urls() {
        for url in ["https://h/p", "http://h", "s3://b/k", "nbd+unix:///x"] {
            assert!(is_url(url), "{url}");
        }
        for path in ["", "disk.raw", "/dev/sda", "./a:b", "://x", "a b://c"] {
            assert!(!is_url(path), "{path}");
        }
    }

    #[test]
    fn names_hold_no_secret() {
        for (image, name) in [
            ("disks/a?b@c.raw", "disks/a?b@c.raw"),
            ("https://s/b/k?X-Amz-Signature=abc#d", "https://s/b/k"),
            ("HTTPS://me:secret@s/b/k?sig=abc", "https://s/b/k"),
            ("https://me:secret@[s/k?sig=abc", "[s/k"),
            ("s3:me:secret@s/k", "s3:me:secret@s/k"),
        ] {
            assert_eq!(name_of(image), name);
        }
    }

    #[test]
    fn plain_http_stays_here_unless_allowed() {
        for url in ["https://h/p", "http://127.0.0.1:1/p", "http://[::1]/p", "http://localhost/p"] {
            assert!(check(url, false).is_ok(), "{url}");
        }
        assert!(matches!(check("http://h/p", false), Err(Error::PlainHttp { host }) if host == "h"));
        assert!(check("http://h/p", true).is_ok());
        assert!(matches!(check("s3://b/k?secret", true), Err(Error::Scheme { url }) if url == "s3://b/k"));
        assert!(check("http://127.0.0.1.example.com/", false).is_err());
        assert!(matches!(check("ftp://me:secret@h/k", true), Err(Error::Scheme { url }) if url == "h/k"));
    }
}
