//! Pages of keys: ListObjects in both versions.

use std::ops::Bound;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use s3s::dto::{
    ChecksumAlgorithm, CommonPrefix, EncodingType, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input,
    ListObjectsV2Output, Object as ObjectDto, ObjectStorageClass,
};
use s3s::{S3Result, s3_error};

use crate::limits::MAX_PAGE;
use crate::records::Object;
use crate::store::LocalStore;

/// What a listing walks over: keys under a prefix, rolled up at a delimiter.
#[derive(Default)]
pub(crate) struct Query<'a> {
    pub(crate) prefix: &'a str,
    pub(crate) delimiter: Option<&'a str>,
    pub(crate) after: Option<After>,
    pub(crate) max: usize,
}

/// Where a page begins: beyond a key, or beyond all keys that a common prefix stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Key(String),
    Prefix(String),
}

impl After {
    fn token(&self) -> String {
        let (kind, text) = match self {
            Self::Key(key) => ('k', key),
            Self::Prefix(prefix) => ('p', prefix),
        };
        BASE64.encode(format!("{kind}{text}"))
    }

    fn from_token(token: &str) -> Option<Self> {
        let text = String::from_utf8(BASE64.decode(token).ok()?).ok()?;
        match text.split_at_checked(1)? {
            ("k", key) => Some(Self::Key(key.to_owned())),
            ("p", prefix) => Some(Self::Prefix(prefix.to_owned())),
            _ => None,
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Key(text) | Self::Prefix(text) => text,
        }
    }
}

/// One page, in the order of bytes.
#[derive(Default)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    pub(crate) prefixes: Vec<String>,
    /// Where the next page begins; `None` after the last.
    pub(crate) next: Option<After>,
}

impl Query<'_> {
    /// Walks over `next`, which gives the first key beyond a bound. Rolled-up keys are skipped in one step
    /// each prefix.
    pub(crate) fn run<T>(&self, next: impl Fn(Bound<&[u8]>) -> Option<(String, T)>) -> Page<(String, T)> {
        let mut page = Page { items: Vec::new(), prefixes: Vec::new(), next: None };
        let mut last = self.after.clone();
        while let Some((key, item)) = next(self.bound(last.as_ref()).as_ref().map(Vec::as_slice)) {
            let Some(rest) = key.strip_prefix(self.prefix) else { break };
            if page.items.len() + page.prefixes.len() == self.max {
                // At max-keys=0 nothing is truncated: there is no page that a token could lead on from.
                page.next = last.filter(|_| self.max > 0);
                break;
            }
            let cut = self.delimiter.filter(|d| !d.is_empty()).and_then(|d| Some(rest.find(d)? + d.len()));
            if let Some(cut) = cut {
                let prefix = key[..self.prefix.len() + cut].to_owned();
                page.prefixes.push(prefix.clone());
                last = Some(After::Prefix(prefix));
            } else {
                last = Some(After::Key(key.clone()));
                page.items.push((key, item));
            }
        }
        page
    }

    fn bound(&self, after: Option<&After>) -> Bound<Vec<u8>> {
        let prefix = self.prefix.as_bytes();
        match after {
            Some(After::Key(key)) if key.as_bytes() >= prefix => Bound::Excluded(key.as_bytes().to_vec()),
            Some(After::Prefix(rolled)) if rolled.as_bytes() >= prefix => Bound::Included(beyond(rolled)),
            _ => Bound::Included(prefix.to_vec()),
        }
    }
}

/// The least bytes that are greater than all that begin with `prefix`. UTF-8 has no byte 0xff, so the last
/// can be raised.
fn beyond(prefix: &str) -> Vec<u8> {
    let mut bytes = prefix.as_bytes().to_vec();
    if let Some(last) = bytes.last_mut() {
        *last += 1;
    }
    bytes
}

impl LocalStore {
    pub(crate) fn list_v2(&self, input: ListObjectsV2Input) -> S3Result<ListObjectsV2Output> {
        let bucket = self.bucket(&input.bucket)?;
        let from_token = |token| {
            After::from_token(token)
                .ok_or_else(|| s3_error!(InvalidArgument, "The continuation token provided is incorrect"))
        };
        let after = match input.continuation_token.as_deref().filter(|token| !token.is_empty()) {
            Some(token) => Some(from_token(token)?),
            None => input.start_after.clone().map(After::Key),
        };
        let max = page_size(input.max_keys)?;
        let encode = Encoder::new(input.encoding_type.as_ref())?;
        let query = Query {
            prefix: input.prefix.as_deref().unwrap_or_default(),
            delimiter: input.delimiter.as_deref(),
            after,
            max,
        };
        let page = query.run(|bound| bucket.next_object(bound));
        Ok(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(encode.text(input.prefix.as_deref().unwrap_or_default())),
            max_keys: Some(count(max)),
            key_count: Some(count(page.items.len() + page.prefixes.len())),
            continuation_token: input.continuation_token,
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next.as_ref().map(After::token),
            contents: Some(contents(page.items, &encode)),
            common_prefixes: Some(common_prefixes(page.prefixes, &encode)),
            delimiter: input.delimiter.map(|delimiter| encode.text(&delimiter)),
            start_after: input.start_after.map(|key| encode.text(&key)),
            encoding_type: input.encoding_type,
            ..Default::default()
        })
    }

    pub(crate) fn list_v1(&self, input: ListObjectsInput) -> S3Result<ListObjectsOutput> {
        let bucket = self.bucket(&input.bucket)?;
        let max = page_size(input.max_keys)?;
        let encode = Encoder::new(input.encoding_type.as_ref())?;
        let prefix = input.prefix.as_deref().unwrap_or_default();
        // A marker may be the common prefix that ended the last page.
        let after = input.marker.clone().map(|marker| match &input.delimiter {
            Some(d)
                if !d.is_empty()
                    && marker.strip_prefix(prefix).is_some_and(|rest| rest.ends_with(d.as_str())) =>
            {
                After::Prefix(marker)
            }
            _ => After::Key(marker),
        });
        let page = Query { prefix, delimiter: input.delimiter.as_deref(), after, max }
            .run(|bound| bucket.next_object(bound));
        Ok(ListObjectsOutput {
            prefix: Some(encode.text(prefix)),
            name: Some(input.bucket),
            marker: Some(encode.text(input.marker.as_deref().unwrap_or_default())),
            max_keys: Some(count(max)),
            is_truncated: Some(page.next.is_some()),
            next_marker: page
                .next
                .as_ref()
                .filter(|_| input.delimiter.is_some())
                .map(|after| encode.text(after.text())),
            contents: Some(contents(page.items, &encode)),
            common_prefixes: Some(common_prefixes(page.prefixes, &encode)),
            delimiter: input.delimiter.map(|delimiter| encode.text(&delimiter)),
            encoding_type: input.encoding_type,
            ..Default::default()
        })
    }
}

fn contents(items: Vec<(String, Arc<Object>)>, encode: &Encoder) -> Vec<ObjectDto> {
    let item = |(key, object): (String, Arc<Object>)| ObjectDto {
        key: Some(encode.text(&key)),
        e_tag: Some(object.etag.dto()),
        size: Some(length(object.size())),
        last_modified: Some(object.modified.timestamp()),
        storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
        checksum_algorithm: object
            .checksum
            .map(|checksum| vec![ChecksumAlgorithm::from_static(checksum.digest.algorithm.name())]),
        checksum_type: object.checksum.map(|checksum| checksum.kind().dto()),
        ..Default::default()
    };
    items.into_iter().map(item).collect()
}

pub(crate) fn common_prefixes(prefixes: Vec<String>, encode: &Encoder) -> Vec<CommonPrefix> {
    prefixes.into_iter().map(|prefix| CommonPrefix { prefix: Some(encode.text(&prefix)) }).collect()
}

/// How many entries a page may have: what is asked, up to [`MAX_PAGE`].
pub(crate) fn page_size(asked: Option<i32>) -> S3Result<usize> {
    let asked = asked.map_or(Ok(MAX_PAGE), usize::try_from);
    asked.map(|asked| asked.min(MAX_PAGE)).map_err(|_| {
        s3_error!(InvalidArgument, "Argument max-keys must be an integer between 0 and 2147483647")
    })
}

/// A size as the protocol's signed numbers have it.
pub(crate) fn length(len: u64) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

pub(crate) fn count(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX)
}

/// `encoding-type=url`: keys may hold what XML cannot.
pub(crate) struct Encoder {
    url: bool,
}

impl Encoder {
    pub(crate) fn new(encoding: Option<&EncodingType>) -> S3Result<Self> {
        match encoding.map(EncodingType::as_str) {
            None => Ok(Self { url: false }),
            Some(EncodingType::URL) => Ok(Self { url: true }),
            Some(_) => Err(s3_error!(InvalidArgument, "Invalid Encoding Method specified in Request")),
        }
    }

    pub(crate) fn text(&self, text: &str) -> String {
        if !self.url {
            return text.to_owned();
        }
        let mut encoded = String::with_capacity(text.len());
        for &byte in text.as_bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' | b'/' => {
                    encoded.push(char::from(byte))
                }
                _ => {
                    encoded.push('%');
                    encoded.push_str(&hex::encode_upper([byte]));
                }
            }
        }
        encoded
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn pages(
        keys: &[&str],
        prefix: &str,
        delimiter: Option<&str>,
        max: usize,
        after: Option<&str>,
    ) -> Vec<Vec<String>> {
        let keys: BTreeSet<Vec<u8>> = keys.iter().map(|key| key.as_bytes().to_vec()).collect();
        let next = |bound: Bound<&[u8]>| {
            let key = keys.range::<[u8], _>((bound, Bound::Unbounded)).next()?;
            Some((String::from_utf8(key.clone()).unwrap(), ()))
        };
        let mut after = after.map(|key| After::Key(key.to_owned()));
        let mut pages = Vec::new();
        loop {
            let page = Query { prefix, delimiter, after, max }.run(next);
            let mut names: Vec<String> =
                page.items.into_iter().map(|(key, ())| key).chain(page.prefixes).collect();
            names.sort();
            pages.push(names);
            match page.next {
                Some(next) => after = After::from_token(&next.token()),
                None => return pages,
            }
        }
    }

    const KEYS: &[&str] =
        &["a", "a/1", "a/2", "a/2/x", "a0", "b/1", "b/2", "c", "\u{10ffff}/1", "\u{10ffff}/2"];

    #[test]
    fn prefixes_roll_up_once_across_pages() {
        let all = ["a", "a/", "a0", "b/", "c", "\u{10ffff}/"];
        assert_eq!(pages(KEYS, "", Some("/"), 1000, None).concat(), all);
        assert_eq!(pages(KEYS, "", Some("/"), 1, None).concat(), all);
        assert_eq!(pages(KEYS, "a/", Some("/"), 1, None).concat(), ["a/1", "a/2", "a/2/"]);
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_repetition() {
        for max in 1..=KEYS.len() {
            let pages = pages(KEYS, "", None, max, None);
            assert_eq!(pages.concat(), KEYS);
            assert!(pages.iter().all(|page| page.len() <= max));
            assert!(!pages.last().unwrap().is_empty());
        }
        assert_eq!(pages(KEYS, "a", None, 2, None).concat(), ["a", "a/1", "a/2", "a/2/x", "a0"]);
    }

    #[test]
    fn start_after_need_not_exist_nor_lie_in_the_prefix() {
        assert_eq!(pages(KEYS, "", None, 1000, Some("b")).concat(), KEYS[5..]);
        assert_eq!(pages(KEYS, "b/", None, 1000, Some("a")).concat(), ["b/1", "b/2"]);
        assert_eq!(pages(KEYS, "b/", None, 1000, Some("b/1")).concat(), ["b/2"]);
        assert!(pages(KEYS, "b/", None, 1000, Some("c")).concat().is_empty());
    }

    #[test]
    fn no_keys_asked_none_given() {
        assert_eq!(pages(KEYS, "", None, 0, None), [Vec::<String>::new()]);
    }
}
