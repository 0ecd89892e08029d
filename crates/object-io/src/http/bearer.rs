//! A bearer token beside a URL: RFC 6750, section 2.1. A secret.

use std::fmt;

use reqwest::header::HeaderValue;

/// What stands in the `Authorization` header. Prints redacted; sent to the URL's own host alone, as no redirect of a request that
/// carries it is followed.
#[derive(Clone)]
pub struct Bearer(HeaderValue);

impl Bearer {
    /// The token as a header; `None` if it has characters that no header can carry.
    pub fn new(token: &str) -> Option<Self> {
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
        value.set_sensitive(true);
        Some(Self(value))
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(redacted)")
    }
}
