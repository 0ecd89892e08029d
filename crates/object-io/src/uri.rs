//! Names of objects and buckets: `s3://BUCKET/KEY`.
//!
//! Bucket names by the Amazon S3 User Guide, "General purpose bucket naming rules", as far as every store shares them: 3 to 63 of
//! `a-z 0-9 . -`, beginning and ending with a letter or digit. Keys are 1 to 1024 bytes of UTF-8; refused are control characters,
//! and the segments `.` and `..`, which clients and proxies on the way would resolve.

use std::fmt;
use std::str::FromStr;

use crate::limits::MAX_KEY_LEN;

const SCHEME: &str = "s3://";

/// The name of one object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectUri {
    bucket: Box<str>,
    key: Box<str>,
}

impl ObjectUri {
    /// The object `key` in `bucket`.
    ///
    /// # Errors
    ///
    /// If one of the names is not valid.
    pub fn new(bucket: impl Into<Box<str>>, key: impl Into<Box<str>>) -> Result<Self, UriError> {
        let (bucket, key) = (bucket.into(), key.into());
        check_bucket(&bucket)?;
        check_key(&key)?;
        Ok(Self { bucket, key })
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl FromStr for ObjectUri {
    type Err = UriError;

    fn from_str(uri: &str) -> Result<Self, UriError> {
        let (bucket, key) = split(uri)?;
        Self::new(bucket, key)
    }
}

impl fmt::Display for ObjectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.bucket, self.key)
    }
}

/// The name of a bucket, and of a folder in it: `s3://BUCKET` or `s3://BUCKET/PREFIX`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BucketUri {
    bucket: Box<str>,
    prefix: Box<str>,
}

impl BucketUri {
    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The folder, without a slash at its end; empty for the whole bucket.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl FromStr for BucketUri {
    type Err = UriError;

    fn from_str(uri: &str) -> Result<Self, UriError> {
        let (bucket, prefix) = split(uri)?;
        check_bucket(bucket)?;
        let prefix = prefix.trim_end_matches('/');
        if !prefix.is_empty() {
            check_key(prefix)?;
        }
        Ok(Self { bucket: bucket.into(), prefix: prefix.into() })
    }
}

impl fmt::Display for BucketUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

/// Why a name is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// Another scheme, or none.
    #[error("the name of an object begins with `s3://`")]
    Scheme,
    /// Not a bucket's name.
    #[error(
        "a bucket name has 3 to 63 of a-z, 0-9, `.` and `-`, and begins and ends with a letter or a digit"
    )]
    Bucket,
    /// No key.
    #[error("the key is missing; expected `s3://BUCKET/KEY`")]
    NoKey,
    /// Longer than stores take.
    #[error("a key has at most {MAX_KEY_LEN} bytes, this one has {found}")]
    KeyLen {
        /// Its length in bytes.
        found: usize,
    },
    /// Characters or segments that do not survive the way.
    #[error("a key has no control characters and no `.` or `..` between slashes")]
    Key,
}

fn split(uri: &str) -> Result<(&str, &str), UriError> {
    let rest = uri.strip_prefix(SCHEME).ok_or(UriError::Scheme)?;
    Ok(rest.split_once('/').unwrap_or((rest, "")))
}

fn check_bucket(name: &str) -> Result<(), UriError> {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    let valid = (3..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'))
        && edge(bytes.first())
        && edge(bytes.last())
        && !name.contains("..");
    if valid { Ok(()) } else { Err(UriError::Bucket) }
}

fn check_key(key: &str) -> Result<(), UriError> {
    if key.is_empty() {
        return Err(UriError::NoKey);
    }
    if key.len() > MAX_KEY_LEN {
        return Err(UriError::KeyLen { found: key.len() });
    }
    let lost = |segment: &str| segment == "." || segment == "..";
    if key.chars().any(char::is_control) || key.split('/').any(lost) {
        return Err(UriError::Key);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_a_bucket_and_a_key() {
        let uri: ObjectUri = "s3://images/2025/web server.qcow2".parse().unwrap();
        assert_eq!((uri.bucket(), uri.key()), ("images", "2025/web server.qcow2"));
        assert_eq!(uri.to_string(), "s3://images/2025/web server.qcow2");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for (uri, why) in [
            ("https://images/x", UriError::Scheme),
            ("s3:/images/x", UriError::Scheme),
            ("s3://", UriError::Bucket),
            ("s3:///x", UriError::Bucket),
            ("s3://ab/x", UriError::Bucket),
            ("s3://Images/x", UriError::Bucket),
            ("s3://-images/x", UriError::Bucket),
            ("s3://a..b/x", UriError::Bucket),
            ("s3://images", UriError::NoKey),
            ("s3://images/", UriError::NoKey),
            ("s3://images/a/../b", UriError::Key),
            ("s3://images/a\nb", UriError::Key),
        ] {
            assert_eq!(uri.parse::<ObjectUri>(), Err(why), "{uri}");
        }
        let long = format!("s3://images/{}", "k".repeat(MAX_KEY_LEN + 1));
        assert_eq!(long.parse::<ObjectUri>(), Err(UriError::KeyLen { found: MAX_KEY_LEN + 1 }));
    }

    #[test]
    fn a_bucket_may_have_a_prefix() {
        for (uri, bucket, prefix, shown) in [
            ("s3://blocks", "blocks", "", "s3://blocks"),
            ("s3://blocks/", "blocks", "", "s3://blocks"),
            ("s3://blocks/a/b/", "blocks", "a/b", "s3://blocks/a/b"),
        ] {
            let parsed: BucketUri = uri.parse().unwrap();
            assert_eq!(
                (parsed.bucket(), parsed.prefix(), parsed.to_string().as_str()),
                (bucket, prefix, shown)
            );
        }
    }
}
