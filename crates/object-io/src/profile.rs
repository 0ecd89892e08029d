//! What a store can do, where S3-compatible stores differ.
//!
//! Nothing is asked for its own sake: each switch is unknown until a request shows it, and an upload tries the best first. What was
//! learned is shared by the clones of a [`Store`](crate::Store) and remembered for its endpoint ([`memory`]); what the caller has set is never
//! learned anew. [`Store::probe`](crate::Store::probe) asks for everything at once.
//!
//! Not a switch: trailing checksums (aws-chunked). Too many stores refuse them, so they are never sent.

mod memory;
mod names;

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use url::Url;

pub use names::StoreKind;

use memory::Memory;

/// What is known of a store; `None` is not known yet.
///
/// As text: a [`StoreKind`], switches as in `checksum=md5`, or both, separated by commas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct StoreProfile {
    /// How it is made sure that bytes arrive as they were sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Checksum>,
    /// Whether signatures cover bodies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
    /// What an ETag is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<Etag>,
    /// Whether parts can be copied from objects, ranges of them too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part_copy: Option<bool>,
    /// Whether `If-None-Match: *` is honoured when an object is put.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conditional_put: Option<bool>,
    /// Whether it is when an upload is completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conditional_complete: Option<bool>,
    /// Where the bucket's name stands in URLs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
}

/// How it is made sure that bytes arrive as they were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Checksum {
    /// A CRC32 header with each part, and one of the whole object with the last request.
    Crc32,
    /// Content-MD5 with each part.
    Md5,
    /// Nothing but TLS and lengths. Never chosen unless told.
    None,
}

/// Whether signatures cover bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Payload {
    /// They do not, over TLS and on loopback; elsewhere they do.
    Unsigned,
    /// They do, at the cost of a SHA-256 of every byte.
    Signed,
}

/// What an ETag is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Etag {
    /// Of a part its MD5; of an uploaded object the MD5 of its parts' MD5s, and their number.
    Md5,
    /// Something else.
    Opaque,
}

/// Where the bucket's name stands in URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Address {
    /// `https://store/bucket/key`.
    Path,
    /// `https://bucket.store/key`.
    Host,
}

impl StoreProfile {
    /// Itself where it knows, else what `other` knows.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            checksum: self.checksum.or(other.checksum),
            payload: self.payload.or(other.payload),
            etag: self.etag.or(other.etag),
            part_copy: self.part_copy.or(other.part_copy),
            conditional_put: self.conditional_put.or(other.conditional_put),
            conditional_complete: self.conditional_complete.or(other.conditional_complete),
            address: self.address.or(other.address),
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        let yes = || match value {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        };
        match name {
            "checksum" => self.checksum = Some(word(value)?),
            "payload" => self.payload = Some(word(value)?),
            "etag" => self.etag = Some(word(value)?),
            "part-copy" => self.part_copy = Some(yes()?),
            "conditional-put" => self.conditional_put = Some(yes()?),
            "conditional-complete" => self.conditional_complete = Some(yes()?),
            "address" => self.address = Some(word(value)?),
            _ => return None,
        }
        Some(())
    }
}

/// A value by the name that records have for it.
fn word<T: for<'de> Deserialize<'de>>(text: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).ok()
}

impl FromStr for StoreProfile {
    type Err = StoreProfileError;

    fn from_str(text: &str) -> Result<Self, StoreProfileError> {
        let (mut kind, mut set) = (Self::default(), Self::default());
        for item in text.split(',').map(str::trim) {
            let refused = || StoreProfileError { item: item.into() };
            match item.split_once('=') {
                Some((name, value)) => set.set(name, value).ok_or_else(refused)?,
                None => kind = StoreKind::from_name(item).ok_or_else(refused)?.profile(),
            }
        }
        Ok(set.or(kind))
    }
}

/// The switches that are known, as [`FromStr`] takes them.
impl fmt::Display for StoreProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = serde_json::to_value(self).map_err(|_| fmt::Error)?;
        let mut sep = "";
        for (name, value) in value.as_object().into_iter().flatten() {
            let value = match value {
                serde_json::Value::Bool(true) => "yes",
                serde_json::Value::Bool(false) => "no",
                value => value.as_str().unwrap_or_default(),
            };
            write!(f, "{sep}{name}={value}")?;
            sep = ",";
        }
        if sep.is_empty() { f.write_str("generic") } else { Ok(()) }
    }
}

/// Not a profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{item}` is neither a store ({}) nor a switch (checksum=crc32|md5|none, payload=unsigned|signed, etag=md5|opaque, \
     part-copy=yes|no, conditional-put=yes|no, conditional-complete=yes|no, address=path|host)",
    StoreKind::names()
)]
pub struct StoreProfileError {
    item: Box<str>,
}

/// The profile of a store in use: what the caller set, and what is learned.
#[derive(Debug)]
pub(crate) struct Known {
    /// Set by the caller: never learned anew.
    told: StoreProfile,
    learned: Mutex<StoreProfile>,
    memory: Option<Memory>,
}

impl Known {
    /// What is known before the first request: what the caller says, then what is remembered, then what the host's name tells.
    pub(crate) fn new(told: StoreProfile, endpoint: Option<&Url>, cache: Option<&Path>) -> Self {
        let memory = cache.map(|folder| Memory::new(folder, endpoint));
        let remembered = memory.as_ref().and_then(Memory::read).unwrap_or_default();
        let by_host = StoreKind::of_endpoint(endpoint).map(StoreKind::profile).unwrap_or_default();
        Self { told, learned: Mutex::new(remembered.or(by_host)), memory }
    }

    fn learned(&self) -> MutexGuard<'_, StoreProfile> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self) -> StoreProfile {
        self.told.or(*self.learned())
    }

    /// Takes note of what a request has shown, here and for the next process.
    pub(crate) fn learn(&self, what: &str, change: impl FnOnce(&mut StoreProfile)) {
        let profile = {
            let mut learned = self.learned();
            let before = *learned;
            change(&mut learned);
            if *learned == before {
                return;
            }
            *learned
        };
        tracing::debug!(%profile, "{what}");
        if let Some(memory) = &self.memory {
            memory.write(profile);
        }
    }

    /// True if the caller has chosen how bytes are guarded: then a refusal is an error, not a lesson.
    pub(crate) fn is_told_checksum(&self) -> bool {
        self.told.checksum.is_some()
    }

    /// The same for signatures.
    pub(crate) fn is_told_payload(&self) -> bool {
        self.told.payload.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_a_store_and_switches() {
        let profile: StoreProfile = "ceph,checksum=crc32, address=host".parse().unwrap();
        let ceph = StoreKind::Ceph.profile();
        assert_eq!(profile.checksum, Some(Checksum::Crc32));
        assert_eq!(profile.address, Some(Address::Host));
        assert_eq!(profile.etag, ceph.etag);
        // A switch wins wherever it stands.
        assert_eq!("checksum=none,ceph".parse::<StoreProfile>().unwrap().checksum, Some(Checksum::None));
        for text in ["", "nobody", "checksum", "checksum=sha1", "part-copy=true", "=", "aws;ceph"] {
            let error = text.parse::<StoreProfile>().unwrap_err().to_string();
            assert!(error.contains("garage") && error.contains("checksum=crc32"), "{error}");
        }
    }

    #[test]
    fn a_profile_prints_as_it_is_typed() {
        for name in StoreKind::names().split(", ") {
            let profile: StoreProfile = name.parse().unwrap();
            assert_eq!(profile.to_string().parse::<StoreProfile>().unwrap(), profile, "{name}");
        }
    }

    #[test]
    fn what_is_told_is_not_learned_anew() {
        let told = StoreProfile { checksum: Some(Checksum::Crc32), ..StoreProfile::default() };
        let known = Known::new(told, None, None);
        known.learn("test", |profile| {
            profile.checksum = Some(Checksum::Md5);
            profile.etag = Some(Etag::Opaque);
        });
        assert_eq!((known.get().checksum, known.get().etag), (Some(Checksum::Crc32), Some(Etag::Opaque)));
    }
}
