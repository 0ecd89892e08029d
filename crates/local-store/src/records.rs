//! What the record files hold, and what the store keeps of them in memory: the same types.
//!
//! They are generic in how a data file is named: a [`FileId`] in a record, a [`DataFile`] in memory, whose
//! life is the file's. In memory an object takes some 600 bytes, and 200 more for each part after the first.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use s3s::dto::{ETag, Timestamp};
use serde::{Deserialize, Serialize};

use crate::checksums::{Declared, Digest, Kind};
use crate::data::DataFile;

/// The name of a data file: never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileId(u128);

impl FileId {
    pub(crate) fn fresh() -> Self {
        Self(uuid::Uuid::now_v7().as_u128())
    }

    /// The id that a file of this name has; `None` for a name that this store never gives.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let id = Self(u128::from_str_radix(name, 16).ok()?);
        (id.to_string() == name).then_some(id)
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for FileId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FileId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::from_name(&name).ok_or_else(|| serde::de::Error::custom("not the name of a data file"))
    }
}

/// A moment in whole seconds since 1970, which is all that HTTP dates can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Moment(u64);

impl Moment {
    pub(crate) fn now() -> Self {
        Self(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    }

    pub(crate) fn timestamp(self) -> Timestamp {
        Timestamp::from(UNIX_EPOCH + Duration::from_secs(self.0))
    }
}

/// The ETag of an object: its MD5, or for a completed upload the MD5 of its parts' MD5s and their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tag {
    #[serde(with = "hex")]
    pub(crate) md5: [u8; 16],
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parts: Option<u32>,
}

impl Tag {
    pub(crate) fn of_bytes(md5: [u8; 16]) -> Self {
        Self { md5, parts: None }
    }

    pub(crate) fn dto(&self) -> ETag {
        ETag::Strong(self.to_string())
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.md5))?;
        self.parts.map_or(Ok(()), |parts| write!(f, "-{parts}"))
    }
}

/// The checksum of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ObjectChecksum {
    pub(crate) digest: Digest,
    /// Of how many parts' checksums it is the checksum; `None` where it is that of the object's bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parts: Option<u32>,
}

impl ObjectChecksum {
    pub(crate) fn kind(&self) -> Kind {
        self.parts.map_or(Kind::FullObject, |_| Kind::Composite)
    }
}

impl fmt::Display for ObjectChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.digest.base64())?;
        self.parts.map_or(Ok(()), |parts| write!(f, "-{parts}"))
    }
}

/// What the client says about an object and gets back as it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Attributes {
    pub(crate) content_type: Option<String>,
    pub(crate) content_encoding: Option<String>,
    pub(crate) content_language: Option<String>,
    pub(crate) content_disposition: Option<String>,
    pub(crate) cache_control: Option<String>,
    pub(crate) expires: Option<Timestamp>,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// A run of bytes inside a data file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Slice<F> {
    pub(crate) file: F,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// A part of an upload, or of the object made from it. An object put in one request is one part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Part<F = DataFile> {
    pub(crate) size: u64,
    #[serde(with = "hex")]
    pub(crate) md5: [u8; 16],
    pub(crate) digests: Box<[Digest]>,
    pub(crate) modified: Moment,
    pub(crate) slices: Box<[Slice<F>]>,
}

impl<F> Part<F> {
    pub(crate) fn tag(&self) -> Tag {
        Tag::of_bytes(self.md5)
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &F> {
        self.slices.iter().map(|slice| &slice.file)
    }

    pub(crate) fn map_files<G>(self, mut to: impl FnMut(F) -> G) -> Part<G> {
        let Self { size, md5, digests, modified, slices } = self;
        let slices =
            slices.into_iter().map(|s| Slice { file: to(s.file), offset: s.offset, len: s.len }).collect();
        Part { size, md5, digests, modified, slices }
    }
}

/// An object. Never changes: a PUT over it makes another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Object<F = DataFile> {
    pub(crate) modified: Moment,
    pub(crate) etag: Tag,
    pub(crate) checksum: Option<ObjectChecksum>,
    pub(crate) attributes: Box<Attributes>,
    /// The upload that made it, so that a repeated Complete can be answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) upload: Option<Box<str>>,
    pub(crate) parts: Box<[Part<F>]>,
}

impl<F> Object<F> {
    pub(crate) fn size(&self) -> u64 {
        self.parts.iter().map(|part| part.size).sum()
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &F> {
        self.parts.iter().flat_map(Part::files)
    }

    pub(crate) fn map_files<G>(self, mut to: impl FnMut(F) -> G) -> Object<G> {
        let Self { modified, etag, checksum, attributes, upload, parts } = self;
        let parts = parts.into_iter().map(|part| part.map_files(&mut to)).collect();
        Object { modified, etag, checksum, attributes, upload, parts }
    }
}

/// `objects/HASH.json`.
#[derive(Serialize, Deserialize)]
pub(crate) struct ObjectRecord<O> {
    pub(crate) key: String,
    pub(crate) object: O,
}

/// `uploads/ID/upload.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct UploadRecord {
    pub(crate) key: String,
    pub(crate) initiated: Moment,
    pub(crate) declared: Option<Declared>,
    pub(crate) attributes: Box<Attributes>,
}

/// `bucket.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BucketRecord {
    pub(crate) created: Moment,
}

/// `layout.json`, at the root.
#[derive(Serialize, Deserialize)]
pub(crate) struct LayoutRecord {
    pub(crate) layout: u32,
}
