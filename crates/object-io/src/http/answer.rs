//! Whether an answer is what was asked for.
//!
//! RFC 9110, sections 8.6 (Content-Length), 8.8.3 (ETag), 13.1.1 (If-Match), 14 (ranges). Every answer is held against what was opened:
//! version, length and range must be the same, whatever the status says.

use std::collections::BTreeMap;
use std::time::SystemTime;

use disk_convert::SourceFault;
use disk_image::Span;
use reqwest::Response;
use reqwest::header::{
    CONTENT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED, RETRY_AFTER,
};

use super::fault::{Failure, HttpFault};
use crate::error::printable;
use crate::limits::MAX_ERROR_BODY;
use crate::retry::parse_retry_after;

/// What must not change while an object is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) len: u64,
    etag: Option<Box<str>>,
    last_modified: Option<Box<str>>,
    /// When it was opened, where the server says nothing by which another time could be compared.
    opened: Option<SystemTime>,
}

impl Identity {
    pub(super) fn of(len: u64, headers: &HeaderMap) -> Self {
        let (etag, last_modified) = (text(headers, ETAG), text(headers, LAST_MODIFIED));
        let opened = (etag.is_none() && last_modified.is_none()).then(SystemTime::now);
        Self { len, etag, last_modified, opened }
    }

    /// As text to compare with that of another time.
    pub(super) fn version(&self) -> String {
        if let Some(opened) = self.opened {
            return format!("{} bytes, opened {opened:?}", self.len);
        }
        let version = self.etag.as_deref().or(self.last_modified.as_deref()).unwrap_or_default();
        format!("{} bytes, {version}", self.len)
    }

    /// For `If-Match`: a strong ETag, since a weak one never matches there.
    pub(super) fn if_match(&self) -> Option<&str> {
        self.etag.as_deref().filter(|etag| !etag.starts_with("W/"))
    }

    /// For `If-Unmodified-Since`, where there is no ETag to match.
    pub(super) fn if_unmodified_since(&self) -> Option<&str> {
        self.last_modified.as_deref().filter(|_| self.if_match().is_none())
    }

    /// Fails unless the answer is about the same version.
    fn check_version(&self, headers: &HeaderMap) -> Result<(), Failure> {
        // Where there is a strong ETag, dates add nothing, and mirrors disagree about them.
        let (expected, found) = match self.if_match() {
            Some(_) => (&self.etag, text(headers, ETAG)),
            None if self.etag.is_some() => (&self.etag, text(headers, ETAG)),
            None => (&self.last_modified, text(headers, LAST_MODIFIED)),
        };
        match expected {
            Some(expected) if found.as_ref() != Some(expected) => {
                let found = found.as_deref().map_or_else(|| "none".into(), printable);
                let cause = HttpFault::Version { found, expected: printable(expected) };
                Err(Failure::new(SourceFault::Changed, cause))
            }
            _ => Ok(()),
        }
    }
}

/// A `Content-Range`, `bytes FIRST-LAST/LENGTH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentRange {
    pub(super) span: Span,
    pub(super) len: u64,
}

impl ContentRange {
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (range, len) = header.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last, len) = (number(first)?, number(last)?, number(len)?);
        (first <= last && last < len).then(|| Self { span: Span::new(first, last - first + 1), len })
    }
}

/// How names of metadata begin in headers: S3's way, and that of Google's own signatures.
const METADATA: [&str; 2] = ["x-amz-meta-", "x-goog-meta-"];

/// What an object says about itself. What is no text is left out.
pub(super) fn metadata(headers: &HeaderMap) -> BTreeMap<String, String> {
    let entry = |(name, value): (&HeaderName, &HeaderValue)| {
        let name = METADATA.iter().find_map(|prefix| name.as_str().strip_prefix(prefix))?;
        Some((name.to_owned(), value.to_str().ok()?.to_owned()))
    };
    headers.iter().filter_map(entry).collect()
}

/// Fails unless a 206 has the bytes `span` of the object that was opened.
pub(super) fn check_part(headers: &HeaderMap, span: Span, opened: &Identity) -> Result<(), Failure> {
    check_plain(headers)?;
    opened.check_version(headers)?;
    let header = text(headers, CONTENT_RANGE).unwrap_or_default();
    match ContentRange::parse(&header) {
        Some(found) if found.len != opened.len => {
            let fault = if found.len < opened.len { SourceFault::Shrunk } else { SourceFault::Changed };
            Err(Failure::new(fault, HttpFault::Size { found: found.len, expected: opened.len }))
        }
        Some(found) if found.span == span => Ok(()),
        _ => Err(wrong_range(&header, span, opened.len)),
    }
}

/// Fails if the body is encoded: its bytes are not the object's then.
pub(super) fn check_plain(headers: &HeaderMap) -> Result<(), Failure> {
    match text(headers, CONTENT_ENCODING) {
        // What is stored with this mark, servers send with it; only the bytes count, and those are what was stored.
        Some(encoding) if !matches!(&*encoding, "identity" | "aws-chunked" | "") => {
            Err(Failure::new(SourceFault::Protocol, HttpFault::Encoded))
        }
        _ => Ok(()),
    }
}

pub(super) fn wrong_range(found: &str, span: Span, len: u64) -> Failure {
    let expected = format!("bytes {}-{}/{len}", span.start, span.end().saturating_sub(1)).into();
    Failure::new(SourceFault::Protocol, HttpFault::Range { found: printable(found), expected })
}

/// The length of an object that has no byte to give, from a 416: `bytes */0`. `Some(0)` too where the server does not say.
pub(super) fn unsatisfied_len(headers: &HeaderMap) -> Option<u64> {
    match text(headers, CONTENT_RANGE) {
        Some(header) => header.strip_prefix("bytes */").and_then(number),
        None => Some(0),
    }
}

/// What an answer that is neither 200, 206 nor 416 means. Reads some of its body.
pub(super) async fn refusal(mut response: Response, expires_at: Option<SystemTime>) -> Failure {
    let status = response.status().as_u16();
    let retry_after = text(response.headers(), RETRY_AFTER).as_deref().and_then(parse_retry_after);
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = MAX_ERROR_BODY - body.len();
        body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        if body.len() == MAX_ERROR_BODY {
            break;
        }
    }
    let body = String::from_utf8_lossy(&body);
    let element = |open, close| {
        body.split_once(open).and_then(|(_, rest)| rest.split_once(close)).map(|(text, _)| text)
    };
    let code = element("<Code>", "</Code>").unwrap_or_default();
    let message = element("<Message>", "</Message>").unwrap_or_default();
    let expired = expires_at.is_some_and(|end| end <= SystemTime::now()) || says_expired(code, message);
    let fault = match status {
        400 | 401 | 403 if expired => SourceFault::Expired,
        401 | 403 | 407 | 451 => SourceFault::Denied,
        404 | 410 => SourceFault::NotFound,
        412 => SourceFault::Changed,
        408 | 429 | 500..=599 => SourceFault::Unavailable,
        _ => SourceFault::Protocol,
    };
    let cause = HttpFault::Status { status, code: printable(code), message: printable(message) };
    Failure::new(fault, cause).retry_after(retry_after)
}

/// AWS: `AccessDenied`, "Request has expired"; `ExpiredToken`. Garage: `InvalidRequest`, "Date is too old" or "expired".
fn says_expired(code: &str, message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    code == "ExpiredToken" || message.contains("expired") || message.contains("date is too old")
}

pub(super) fn text(headers: &HeaderMap, name: HeaderName) -> Option<Box<str>> {
    headers.get(name)?.to_str().ok().map(Into::into)
}

/// Digits only: `parse` would take a sign too.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_is_exact() {
        let whole = ContentRange { span: Span::new(0, 1), len: 10 };
        assert_eq!(ContentRange::parse("bytes 0-0/10"), Some(whole));
        let last = ContentRange { span: Span::new(5, 5), len: 10 };
        assert_eq!(ContentRange::parse("bytes 5-9/10"), Some(last));
        for header in [
            "",
            "bytes 0-0/*",
            "bytes */10",
            "bytes 5-10/10",
            "bytes 5-4/10",
            "bytes +0-0/10",
            "0-0/10",
            "bytes 0-0/99999999999999999999",
        ] {
            assert_eq!(ContentRange::parse(header), None, "{header}");
        }
    }
}
