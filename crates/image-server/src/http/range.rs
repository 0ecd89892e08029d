//! Which bytes of an object a request asks for.
//!
//! RFC 9110, sections 13 (conditions, in the order of 13.2.2) and 14 (ranges). One range is served; of several, which no reader of disks
//! asks for, the whole is (14.2 allows it), and so of a header that is none. Versions are strong ETags.

use axum::http::{HeaderMap, HeaderName, header};
use disk_image::Span;

/// What to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Everything.
    Whole,
    /// These bytes; not empty.
    Part(Span),
    /// There are no such bytes.
    Unsatisfiable,
    /// The caller has it.
    NotModified,
    /// It is another one than the caller means.
    Changed,
}

/// Reads the headers of a request for an object of `len` bytes whose version is `etag`, quotes included.
pub(super) fn wanted(headers: &HeaderMap, etag: &str, len: u64) -> Wanted {
    let names = |name: HeaderName| {
        let value = headers.get(name)?.to_str().ok()?;
        Some(value.split(',').map(str::trim).any(|tag| tag == "*" || tag == etag))
    };
    if headers.contains_key(header::IF_MATCH) && names(header::IF_MATCH) != Some(true) {
        return Wanted::Changed;
    }
    if names(header::IF_NONE_MATCH) == Some(true) {
        return Wanted::NotModified;
    }
    // Bytes of another version are no use: whoever has them gets the whole of this one.
    let other = headers.get(header::IF_RANGE).is_some_and(|version| version != etag);
    let range = headers.get(header::RANGE).filter(|_| !other).and_then(|range| range.to_str().ok());
    range.and_then(|range| one_range(range, len)).unwrap_or(Wanted::Whole)
}

/// `bytes=FIRST-LAST`, `bytes=FIRST-` or `bytes=-LENGTH`.
fn one_range(header: &str, len: u64) -> Option<Wanted> {
    let (unit, range) = header.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let span = if first.is_empty() {
        let suffix = number(last)?.min(len);
        Span::new(len - suffix, suffix)
    } else {
        let first = number(first)?;
        let last = if last.is_empty() { u64::MAX } else { number(last)? };
        if last < first {
            return None;
        }
        Span::between(first.min(len), last.saturating_add(1).min(len))
    };
    Some(if span.is_empty() { Wanted::Unsatisfiable } else { Wanted::Part(span) })
}

/// Digits only: `parse` would take a sign too. What no number of bytes can be is past every end.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(headers: &[(HeaderName, &str)]) -> Wanted {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        wanted(&headers, "\"v1\"", 100)
    }

    #[test]
    fn ranges() {
        assert_eq!(ask(&[]), Wanted::Whole);
        for (range, start, len) in [
            ("bytes=0-0", 0, 1),
            ("bytes=0-", 0, 100),
            ("bytes=99-", 99, 1),
            ("bytes=10-19", 10, 10),
            ("bytes=10-1000", 10, 90),
            ("bytes=10-99999999999999999999", 10, 90),
            ("bytes=-1", 99, 1),
            ("bytes=-1000", 0, 100),
            ("Bytes = 1-2", 1, 2),
        ] {
            assert_eq!(ask(&[(header::RANGE, range)]), Wanted::Part(Span::new(start, len)), "{range}");
        }
        for range in ["bytes=100-", "bytes=100-200", "bytes=99999999999999999999-", "bytes=-0"] {
            assert_eq!(ask(&[(header::RANGE, range)]), Wanted::Unsatisfiable, "{range}");
        }
        for range in
            ["", "bytes", "bytes=", "bytes=-", "bytes=2-1", "bytes=+1-2", "bytes=0-1,5-6", "lines=0-1"]
        {
            assert_eq!(ask(&[(header::RANGE, range)]), Wanted::Whole, "{range}");
        }
        assert_eq!(wanted(&HeaderMap::new(), "\"v1\"", 0), Wanted::Whole);
    }

    #[test]
    fn conditions() {
        let part = Wanted::Part(Span::new(0, 1));
        let range = (header::RANGE, "bytes=0-0");
        for (name, value, expected) in [
            (header::IF_MATCH, "\"v1\"", part),
            (header::IF_MATCH, "\"v0\", \"v1\"", part),
            (header::IF_MATCH, "*", part),
            (header::IF_MATCH, "\"v2\"", Wanted::Changed),
            (header::IF_MATCH, "W/\"v1\"", Wanted::Changed),
            (header::IF_NONE_MATCH, "\"v1\"", Wanted::NotModified),
            (header::IF_NONE_MATCH, "\"v2\"", part),
            (header::IF_RANGE, "\"v1\"", part),
            (header::IF_RANGE, "\"v2\"", Wanted::Whole),
        ] {
            let shown = format!("{name}: {value}");
            assert_eq!(ask(&[range.clone(), (name, value)]), expected, "{shown}");
        }
    }
}
