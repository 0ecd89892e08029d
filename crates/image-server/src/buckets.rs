//! Buckets of the server's own store whose objects may be named, `gs://BUCKET/OBJECT`, instead of pre-signed.
//!
//! Compute Engine reads an object with the rights of whoever asks for an image of it. This server has one identity at its store, so the
//! operator says which buckets may be read with it, and for which folder: whoever may create images there reads them all. What the
//! server itself keeps in its store, the blocks of everybody's images, is never named so, whichever bucket it lies in.

use std::{fmt, str::FromStr};

use object_io::BucketUri;

/// Longest key of an object, bytes, as S3 has it.
const KEY: usize = 1024;

/// A bucket whose objects may be named: `BUCKET`, for all folders, or `BUCKET@FOLDER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceBucket {
    bucket: String,
    folder_id: Option<String>,
}

/// Text that is no [`SourceBucket`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected BUCKET or BUCKET@FOLDER")]
pub struct SourceBucketError;

impl FromStr for SourceBucket {
    type Err = SourceBucketError;

    fn from_str(text: &str) -> Result<Self, SourceBucketError> {
        let (bucket, folder) = text.split_once('@').map_or((text, None), |(name, of)| (name, Some(of)));
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if bucket.is_empty() || !bucket.chars().all(is_name) || folder == Some("") {
            return Err(SourceBucketError);
        }
        Ok(Self { bucket: bucket.to_owned(), folder_id: folder.map(str::to_owned) })
    }
}

/// An object of a store: `BUCKET/KEY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Object<'a> {
    pub(crate) bucket: &'a str,
    pub(crate) key: &'a str,
}

impl<'a> Object<'a> {
    /// `None` of what names none, or names it by a way that a URL would shorten.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (bucket, key) = text.split_once('/')?;
        let is_detour = |segment: &str| matches!(segment, "." | "..");
        let is_key = !key.is_empty()
            && key.len() <= KEY
            && !key.chars().any(char::is_control)
            && !key.split('/').any(is_detour);
        (!bucket.is_empty() && is_key).then_some(Self { bucket, key })
    }
}

impl fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.bucket, self.key)
    }
}

/// Which objects may be named.
#[derive(Clone, Debug)]
pub(crate) struct SourceBuckets {
    pub(crate) listed: Vec<SourceBucket>,
    /// Where the server's own objects are.
    pub(crate) own: BucketUri,
}

impl SourceBuckets {
    /// Whether an image of this folder may be made of an object; of `None` an image of any folder.
    pub(crate) fn allow(&self, folder_id: Option<&str>, object: Object<'_>) -> bool {
        let is_for = |rule: &SourceBucket| {
            folder_id.is_none() || rule.folder_id.is_none() || rule.folder_id.as_deref() == folder_id
        };
        self.listed.iter().any(|rule| rule.bucket == object.bucket && is_for(rule)) && !self.is_own(object)
    }

    fn is_own(&self, Object { bucket, key }: Object<'_>) -> bool {
        if bucket != self.own.bucket() {
            return false;
        }
        // A key that begins with a slash, or has two of them, is another one; not to every store.
        let key: Vec<_> = key.split('/').filter(|segment| !segment.is_empty()).collect();
        let own: Vec<_> = self.own.prefix().split('/').filter(|segment| !segment.is_empty()).collect();
        key.starts_with(&own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(own: &str) -> SourceBuckets {
        let listed = ["images", "shared", "mine@f1"].map(|rule| rule.parse().unwrap()).to_vec();
        SourceBuckets { listed, own: own.parse().unwrap() }
    }

    fn allows(buckets: &SourceBuckets, folder: &str, object: &str) -> bool {
        Object::parse(object).is_some_and(|object| buckets.allow(Some(folder), object))
    }

    #[test]
    fn buckets_are_for_all_or_for_one() {
        let buckets = buckets("s3://images/.blocks");
        assert!(allows(&buckets, "f1", "shared/a/b.tar.gz") && allows(&buckets, "f2", "shared/a"));
        assert!(allows(&buckets, "f1", "mine/a") && !allows(&buckets, "f2", "mine/a"));
        assert!(!allows(&buckets, "f1", "other/a"));
        assert!(buckets.allow(None, Object { bucket: "mine", key: "a" }));
        assert!(!buckets.allow(None, Object { bucket: "other", key: "a" }));
    }

    #[test]
    fn what_the_server_keeps_is_not_named() {
        let folder = buckets("s3://images/.blocks");
        assert!(allows(&folder, "f1", "images/disk.raw") && allows(&folder, "f1", "images/.blocksmith"));
        for own in
            [".blocks", ".blocks/blocks/ab", "/.blocks/x", "a/../.blocks/x", "./.blocks/x", ".blocks//x"]
        {
            assert!(!allows(&folder, "f1", &format!("images/{own}")), "{own}");
        }
        // Blocks that have a bucket to themselves leave no room for others.
        let whole = buckets("s3://images");
        assert!(!allows(&whole, "f1", "images/disk.raw") && allows(&whole, "f1", "shared/disk.raw"));
    }

    #[test]
    fn what_names_nothing() {
        for object in ["", "b", "b/", "/k", "b/..", "b/a/../c", "b/a\nb"] {
            assert_eq!(Object::parse(object), None, "{object:?}");
        }
        assert!(Object::parse(&format!("b/{}", "k".repeat(KEY + 1))).is_none());
        for rule in ["", "@f", "b@", "a/b", "s3://b"] {
            assert!(rule.parse::<SourceBucket>().is_err(), "{rule}");
        }
    }
}
