//! The end of an upload: parts become an object, and it is the right one, or there is none.
//!
//! 1. The store's list of parts is held against what was sent. A listing may be cut short on its way, so it is asked for again before a
//!    part counts as lost; an ETag that arrived wrong is put right from the list where checksums agree.
//! 2. Complete, asked until it is answered. Where no attempt is, the object may be there nonetheless: it is looked for, and if it is not
//!    there the upload is aborted, after which it cannot come to be. If the store says that there is no upload to abort, it
//!    is looked for once more. What cannot be seen either way is [`ObjectError::Unknown`], never silence.
//! 3. Size and checksum are read back: the CRC32 of the whole object where the store keeps one, else its ETag where those are MD5s. An
//!    object that fails there is removed: who hears of a failure takes it for absent.

use std::collections::BTreeMap;

use md5::{Digest as _, Md5};
use tokio_util::sync::CancellationToken;

use super::{MultipartSink, OpenUpload, UploadedObject, crc};
use crate::limits::{ABORT_TIMEOUT, LISTINGS};
use crate::profile::{Checksum, Etag};
use crate::retry::Patience;
use crate::store::{CompleteUpload, ListedPart, PartSent, etag_md5};
use crate::{ObjectError, ObjectInfo};

impl MultipartSink {
    /// Makes the object, and proves it. After an error the upload may still be open.
    pub(super) async fn complete(&self, len: u64) -> Result<UploadedObject, ObjectError> {
        // An upload has at least one part, an empty object too.
        if len == 0 {
            self.send(1, bytes::Bytes::new(), 0).await?;
        }
        let mut parts = self.sent().clone();
        let found = parts.values().map(|part| part.len).sum();
        let is_planned = len == self.len || (self.options.may_be_shorter && len < self.len);
        if found != len || !is_planned || !self.is_gapless(&parts) {
            let expected = if is_planned { len } else { self.len };
            return Err(ObjectError::Length { place: self.name.clone(), found, expected });
        }
        self.remove_zeroes().await;
        self.check_list(&mut parts).await?;
        let expected = Expected { size: len, crc32: crc::of_object(&parts), etag: etag_of_object(&parts) };
        match self.ask_to_complete(&parts, expected.crc32).await {
            Ok(()) => {
                self.upload.close();
                self.read_back(&expected).await
            }
            // A cancel that found it being made, and nobody left to wait for the answer.
            Err(ObjectError::Cancelled) => {
                self.undo(&expected).await;
                Err(ObjectError::Cancelled)
            }
            Err(error) => self.look_for(&expected, error).await,
        }
    }

    /// Holds the store's list of the upload's parts against `parts`.
    async fn check_list(&self, parts: &mut BTreeMap<u32, PartSent>) -> Result<(), ObjectError> {
        let OpenUpload { store, id, .. } = &self.upload;
        let mut left = LISTINGS;
        loop {
            let listed = store.list_parts(id, || Patience::of_upload(&self.link), &self.cancel).await;
            let listed = match listed {
                Ok(listed) => listed,
                // Who may upload need not be allowed to list, and some stores cannot. Complete compares the ETags itself.
                Err(ObjectError::AccessDenied { .. } | ObjectError::Refused { .. }) => return Ok(()),
                Err(error) => return Err(error),
            };
            left -= 1;
            match compare(parts, &listed) {
                Ok(()) => return Ok(()),
                Err(number) if left == 0 => {
                    return Err(ObjectError::PartLost { place: self.name.clone(), number });
                }
                Err(number) => {
                    tracing::debug!(object = %self.name, number, "a part is not listed as sent; listing again")
                }
            }
        }
    }

    /// Asks the store to make the object. A cancel waits for the answer, though not for long: only who knows it can tell whether
    /// there is an object to remove.
    async fn ask_to_complete(&self, parts: &BTreeMap<u32, PartSent>, crc32: u32) -> Result<(), ObjectError> {
        if self.cancel.is_cancelled() {
            return Err(ObjectError::Cancelled);
        }
        let OpenUpload { store, id, .. } = &self.upload;
        // Only where every part was proven by its own.
        let checksum = store.profile().checksum.unwrap_or(Checksum::Md5);
        let proven = checksum == Checksum::Crc32 && parts.values().all(|part| part.md5.is_none());
        let if_none_match = self.options.if_none_match;
        let mut complete = CompleteUpload { parts, crc32: proven.then_some(crc32), if_none_match };
        let (cancel, never) = (&self.cancel, CancellationToken::new());
        let late = async {
            cancel.cancelled().await;
            tokio::time::sleep(ABORT_TIMEOUT).await;
        };
        let asked = async {
            match store.complete_upload(id, &complete, &self.link, &never).await {
                Err(error) if proven && store.may_drop_crc32(checksum, &error) => {
                    complete.crc32 = None;
                    store.complete_upload(id, &complete, &self.link, &never).await
                }
                answer => answer,
            }
        };
        tokio::select! {
            answer = asked => answer,
            () = late => Err(ObjectError::Cancelled),
        }
    }

    /// The object was made, says the store: it must have the right size and checksum.
    async fn read_back(&self, expected: &Expected) -> Result<UploadedObject, ObjectError> {
        let failure = match self.head(&self.cancel).await {
            Ok(stored) => match expected.check(&stored, self.etag_kind()) {
                Ok(()) => return Ok(expected.uploaded(stored)),
                Err(Wrong::Size) => ObjectError::Length {
                    place: self.name.clone(),
                    found: stored.size,
                    expected: expected.size,
                },
                Err(Wrong::Bytes) => ObjectError::Checksum { place: self.name.clone(), source: None },
            },
            Err(error) => error,
        };
        // The next process will look for it.
        if self.is_kept() && failure.is_retryable() {
            return Err(failure);
        }
        if self.remove_object().await { Err(failure) } else { Err(self.unknown(failure)) }
    }

    /// The object was not made, or nobody knows: looks for it. `error` is what the last attempt met.
    async fn look_for(&self, expected: &Expected, error: ObjectError) -> Result<UploadedObject, ObjectError> {
        // Where the answer to an attempt before the last was lost, the upload is gone and the object is there.
        let lost = matches!(error, ObjectError::NoSuchUpload { .. } | ObjectError::PreconditionFailed { .. });
        let open = error.is_retryable() || matches!(error, ObjectError::Protocol { .. });
        if !lost && !open {
            return Err(error);
        }
        if let Ok(stored) = self.head(&self.cancel).await
            && expected.is(&stored)
        {
            if matches!(error, ObjectError::NoSuchUpload { .. }) {
                self.upload.close();
            } else {
                // If it was another that made the same object, ours is still there.
                let _ = self.upload.abort().await;
            }
            return Ok(expected.uploaded(stored));
        }
        if lost {
            return Err(error);
        }
        // The next process will look for it, and go on with the parts if it is not there.
        if self.is_kept() {
            return Err(error);
        }
        let OpenUpload { store, id, .. } = &self.upload;
        let never = CancellationToken::new();
        match store.abort_if_there(&id.bucket, &id.key, &id.id, &never).await {
            Ok(true) => {
                self.upload.close();
                // An abort that met the object being made: stores exist that then do both.
                match self.head(&never).await {
                    Ok(stored) if expected.is(&stored) => Ok(expected.uploaded(stored)),
                    _ => Err(error),
                }
            }
            Ok(false) => {
                self.upload.close();
                match self.head(&never).await {
                    Ok(stored) if expected.is(&stored) => Ok(expected.uploaded(stored)),
                    Err(absent) if absent.is_not_found() => Err(error),
                    _ => Err(self.unknown(error)),
                }
            }
            Err(_) => Err(self.unknown(error)),
        }
    }

    /// After a cancel: the upload goes, or what it has become.
    async fn undo(&self, expected: &Expected) {
        let OpenUpload { store, id, .. } = &self.upload;
        let never = CancellationToken::new();
        let undone = async {
            if store.abort_if_there(&id.bucket, &id.key, &id.id, &never).await.is_ok_and(|there| !there)
                && self.head(&never).await.is_ok_and(|stored| expected.is(&stored))
            {
                self.remove_object().await;
            }
            self.upload.close();
        };
        // Else the sink's own abort has its turn.
        let _ = tokio::time::timeout(ABORT_TIMEOUT, undone).await;
    }

    fn unknown(&self, source: ObjectError) -> ObjectError {
        ObjectError::Unknown { place: self.name.clone(), source: Box::new(source) }
    }

    fn etag_kind(&self) -> Option<Etag> {
        self.upload.store.profile().etag
    }

    async fn head(&self, cancel: &CancellationToken) -> Result<ObjectInfo, ObjectError> {
        let OpenUpload { store, id, .. } = &self.upload;
        store.head_within(Patience::of_upload(&self.link), &id.bucket, &id.key, cancel).await
    }

    /// Removes what the upload has become; `false` if it may still be there.
    async fn remove_object(&self) -> bool {
        let OpenUpload { store, id, .. } = &self.upload;
        let never = CancellationToken::new();
        let removal = store.delete(&id.bucket, &id.key, &never);
        match tokio::time::timeout(ABORT_TIMEOUT, removal).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => tracing::warn!(object = %self.name, %error, "object not removed"),
            Err(_) => tracing::warn!(object = %self.name, "object not removed in time"),
        }
        false
    }
}

/// What the object must be.
struct Expected {
    size: u64,
    crc32: u32,
    /// Where the parts' ETags are MD5s, or look like it.
    etag: Option<String>,
}

enum Wrong {
    Size,
    Bytes,
}

impl Expected {
    /// Whether what was made is right, as far as the store lets it be seen.
    fn check(&self, stored: &ObjectInfo, kind: Option<Etag>) -> Result<(), Wrong> {
        // Some gateways report success before, or without, having all parts.
        if stored.size != self.size {
            return Err(Wrong::Size);
        }
        let right = match (stored.crc32, kind) {
            (Some(crc32), _) => crc32 == self.crc32,
            // Without that word even an ETag of the right form may be no MD5 (R2; KMS on AWS).
            (None, Some(Etag::Md5)) => self.etag.is_none() || stored.etag == self.etag,
            (None, _) => true,
        };
        if right { Ok(()) } else { Err(Wrong::Bytes) }
    }

    /// Whether an object whose origin is not known is this one: by a checksum, nothing less.
    fn is(&self, stored: &ObjectInfo) -> bool {
        let by_etag = stored.etag.is_some() && stored.etag == self.etag;
        stored.size == self.size && stored.crc32.map_or(by_etag, |crc32| crc32 == self.crc32)
    }

    fn uploaded(&self, stored: ObjectInfo) -> UploadedObject {
        UploadedObject { etag: stored.etag.unwrap_or_default(), size: stored.size, crc32: self.crc32 }
    }
}

/// Holds a listing against what was sent, and puts ETags right that the list knows better; the number of a part that is not there as
/// it was sent.
fn compare(parts: &mut BTreeMap<u32, PartSent>, listed: &[ListedPart]) -> Result<(), u32> {
    for (number, part) in parts {
        let found = listed.binary_search_by_key(number, |listed| listed.number).ok();
        let found = found.and_then(|index| listed.get(index)).ok_or(*number)?;
        let same_crc32 = found.crc32.map(|crc32| crc32 == part.crc32);
        if found.size != part.len || same_crc32 == Some(false) {
            return Err(*number);
        }
        if found.etag.trim_matches('"') != part.etag.trim_matches('"') {
            let same_md5 = part.md5.is_some() && etag_md5(&found.etag) == part.md5;
            if same_crc32 != Some(true) && !same_md5 {
                return Err(*number);
            }
            part.etag.clone_from(&found.etag);
        }
    }
    Ok(())
}

/// The ETag that most stores give an object of these parts: the MD5 of their MD5s, and their number. `None` where the parts' ETags are no MD5s.
pub(super) fn etag_of_object(parts: &BTreeMap<u32, PartSent>) -> Option<String> {
    let mut sums = Md5::new();
    for part in parts.values() {
        sums.update(etag_md5(&part.etag)?);
    }
    Some(format!("\"{}-{}\"", hex::encode(sums.finalize()), parts.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MD5: [u8; 16] = [0x11; 16];

    fn sent(etag: &str, md5: Option<[u8; 16]>) -> BTreeMap<u32, PartSent> {
        BTreeMap::from([(1, PartSent { etag: etag.into(), crc32: 7, len: 3, md5 })])
    }

    fn listed(etag: &str, size: u64, crc32: Option<u32>) -> Vec<ListedPart> {
        vec![ListedPart { number: 1, etag: etag.into(), size, crc32 }]
    }

    #[test]
    fn a_list_is_held_against_what_was_sent() {
        let md5 = format!("\"{}\"", hex::encode(MD5));
        assert_eq!(compare(&mut sent("\"a\"", None), &listed("\"a\"", 3, None)), Ok(()));
        // Quotes are not part of it.
        assert_eq!(compare(&mut sent("a", None), &listed("\"a\"", 3, Some(7))), Ok(()));
        assert_eq!(compare(&mut sent("\"a\"", None), &listed("\"a\"", 2, Some(7))), Err(1));
        assert_eq!(compare(&mut sent("\"a\"", None), &listed("\"a\"", 3, Some(8))), Err(1));
        assert_eq!(compare(&mut sent("\"a\"", None), &[]), Err(1));
        // Another ETag is believed where a checksum proves the part.
        for (md5_sent, etag, crc32, right) in [
            (None, "\"b\"", Some(7), true),
            (None, "\"b\"", None, false),
            (Some(MD5), md5.as_str(), None, true),
            (Some([0x22; 16]), md5.as_str(), None, false),
        ] {
            let mut parts = sent("\"a\"", md5_sent);
            assert_eq!(compare(&mut parts, &listed(etag, 3, crc32)).is_ok(), right, "{etag} {crc32:?}");
            assert_eq!(&*parts[&1].etag, if right { etag } else { "\"a\"" });
        }
    }
}
