//! Names of objects and buckets: `s3://BUCKET/KEY`, and `gs://BUCKET/KEY` in Google Cloud Storage.
//!
//! Bucket names by the Amazon S3 User Guide, "General purpose bucket naming rules", as far as every store shares them: 3 to 63 of
//! `a-z 0-9 . -`, beginning and ending with a letter or digit; Google's may have `_` too. Keys are 1 to 1024 bytes of UTF-8; refused are control characters,
//! and the segments `.` and `..`, which clients and proxies on the way would resolve.

use std::fmt;
use std::str::FromStr;

use url::Url;

use crate::limits::MAX_KEY_LEN;
use crate::profile::StoreKind;

/// Which stores a name is of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `s3://`: the S3-compatible store that is configured.
    #[default]
    S3,
    /// `gs://`: Google Cloud Storage.
    Gs,
}

impl Scheme {
    const ALL: [Self; 2] = [Self::S3, Self::Gs];

    /// The scheme of the names in the store at an endpoint, by its host.
    pub fn of_endpoint(endpoint: &str) -> Self {
        let url = Url::parse(endpoint).ok();
        match url.as_ref().and_then(|url| StoreKind::of_endpoint(Some(url))) {
            Some(StoreKind::Gcs) => Self::Gs,
            _ => Self::S3,
        }
    }

    /// What names begin with.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::S3 => "s3://",
            Self::Gs => "gs://",
        }
    }

    /// The name of an object, or of a bucket where the key is empty. Unchecked: for messages.
    pub fn place(self, bucket: &str, key: &str) -> String {
        let slash = if key.is_empty() { "" } else { "/" };
        format!("{}{bucket}{slash}{key}", self.prefix())
    }
}

/// The name of one object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectUri {
    scheme: Scheme,
    bucket: Box<str>,
    key: Box<str>,
}

impl ObjectUri {
    /// The object `key` in `bucket`.
    ///
    /// # Errors
    ///
    /// If one of the names is not valid.
    pub fn new(
        scheme: Scheme,
        bucket: impl Into<Box<str>>,
        key: impl Into<Box<str>>,
    ) -> Result<Self, UriError> {
        let (bucket, key) = (bucket.into(), key.into());
        check_bucket(scheme, &bucket)?;
        check_key(&key)?;
        Ok(Self { scheme, bucket, key })
    }

    /// Which stores it is of.
    pub fn scheme(&self) -> Scheme {
        self.scheme
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
        let (scheme, bucket, key) = split(uri)?;
        Self::new(scheme, bucket, key)
    }
}

impl fmt::Display for ObjectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}/{}", self.scheme.prefix(), self.bucket, self.key)
    }
}

/// The name of a bucket, and of a folder in it: `s3://BUCKET` or `s3://BUCKET/PREFIX`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BucketUri {
    scheme: Scheme,
    bucket: Box<str>,
    prefix: Box<str>,
}

impl BucketUri {
    /// Which stores it is of.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

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
        let (scheme, bucket, prefix) = split(uri)?;
        check_bucket(scheme, bucket)?;
        let prefix = prefix.trim_end_matches('/');
        if !prefix.is_empty() {
            check_key(prefix)?;
        }
        Ok(Self { scheme, bucket: bucket.into(), prefix: prefix.into() })
    }
}

impl fmt::Display for BucketUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.scheme.place(&self.bucket, &self.prefix))
    }
}

/// Why a name is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// Another scheme, or none.
    #[error("the name of an object begins with `s3://` or `gs://`")]
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

fn split(uri: &str) -> Result<(Scheme, &str, &str), UriError> {
    let of = |scheme: Scheme| Some((scheme, uri.strip_prefix(scheme.prefix())?));
    let (scheme, rest) = Scheme::ALL.into_iter().find_map(of).ok_or(UriError::Scheme)?;
    let (bucket, rest) = rest.split_once('/').unwrap_or((rest, ""));
    Ok((scheme, bucket, rest))
}

fn check_bucket(scheme: Scheme, name: &str) -> Result<(), UriError> {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    let valid = (3..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' => true,
            b'_' => scheme == Scheme::Gs,
            _ => false,
        })
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
    fn a_name_says_which_stores_it_is_of() {
        let uri: ObjectUri = "gs://my_images/web.tar.gz".parse().unwrap();
        assert_eq!((uri.scheme(), uri.bucket(), uri.key()), (Scheme::Gs, "my_images", "web.tar.gz"));
        assert_eq!(uri.to_string(), "gs://my_images/web.tar.gz");
        assert_eq!("s3://my_images/web".parse::<ObjectUri>(), Err(UriError::Bucket));
        let bucket: BucketUri = "gs://images/a/".parse().unwrap();
        assert_eq!((bucket.scheme(), bucket.to_string().as_str()), (Scheme::Gs, "gs://images/a"));
        for (endpoint, scheme) in [
            ("https://storage.googleapis.com/", Scheme::Gs),
            ("https://evilstorage.googleapis.com/", Scheme::S3),
            ("http://127.0.0.1:9000/", Scheme::S3),
            ("aws:eu-north-1", Scheme::S3),
        ] {
            assert_eq!(Scheme::of_endpoint(endpoint), scheme, "{endpoint}");
        }
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
