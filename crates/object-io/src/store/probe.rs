//! Everything that a profile says, asked for at once: ten small requests, all of whose traces are removed.
//!
//! Uploads do not need it, they learn on their way. It proves more than they do, since it sends what a careful store must refuse:
//! another CRC32, another Content-MD5.

use std::collections::BTreeMap;

use aws_sdk_s3::types::CopyPartResult;
use bytes::Bytes;
use md5::{Digest as _, Md5};
use tokio_util::sync::CancellationToken;

use super::parts::Guard;
use super::{CompleteUpload, NewUpload, PartSent, PutOptions, Store, UploadId, etag_md5};
use crate::limits::ATTEMPT_TIMEOUT;
use crate::link::Link;
use crate::profile::{Checksum, Etag, Payload};
use crate::retry::{Question, ask_once};
use crate::{ObjectError, StoreProfile, Verb};

/// Garage copies no parts from objects that it keeps beside their metadata: those of up to 3 KiB.
static CONTENT: [u8; 4096] = [b'?'; 4096];

impl Store {
    /// Finds out what the store can do, by writing `key` in `bucket` and removing it again; remembers it. What the caller has set is
    /// not asked for.
    ///
    /// # Errors
    ///
    /// If the store refuses what every store must do, or cannot be reached. Objects or uploads may be left then.
    pub async fn probe(
        &self,
        bucket: &str,
        key: &str,
        cancel: &CancellationToken,
    ) -> Result<StoreProfile, ObjectError> {
        let mut found = StoreProfile::default();
        let body = Bytes::from_static(&CONTENT);
        let once = PutOptions { if_none_match: true, ..PutOptions::default() };
        match self.put(bucket, key, body.clone(), &PutOptions::default(), cancel).await {
            Err(error) if self.unsigned() && self.refuses_unsigned(&error) => {
                found.payload = Some(Payload::Signed);
                self.0.profile.learn("bodies must be signed", |profile| profile.payload = found.payload);
                self.put(bucket, key, body.clone(), &PutOptions::default(), cancel).await?;
            }
            answer => {
                answer?;
                // Where bodies are signed anyway, nothing was shown.
                found.payload = self.unsigned().then_some(Payload::Unsigned);
            }
        }
        found.conditional_put = Some(is_refused(self.put(bucket, key, body.clone(), &once, cancel).await)?);

        let new = NewUpload { bucket: bucket.into(), key: key.into(), metadata: BTreeMap::new() };
        let upload = self.create_upload(&new, cancel).await?;
        let link = Link::new(self.0.retry.clone(), body.len() as u64, 1, None);
        let asked = self.probe_upload(&upload, &body, &link, &mut found, cancel).await;
        let aborted = self.abort_upload(bucket, key, &upload.id, cancel).await;
        let deleted = self.delete(bucket, key, cancel).await;
        asked.and(aborted).and(deleted)?;
        self.0.profile.learn("probed", |profile| *profile = found.or(*profile));
        Ok(self.profile())
    }

    async fn probe_upload(
        &self,
        upload: &UploadId,
        body: &Bytes,
        link: &Link,
        found: &mut StoreProfile,
        cancel: &CancellationToken,
    ) -> Result<(), ObjectError> {
        let place = upload.place();
        let question = Question { verb: Verb::Upload, place: &place, timeout: ATTEMPT_TIMEOUT, cancel };
        let (crc32, md5): (u32, [u8; 16]) = (crc32fast::hash(body), Md5::digest(body).into());
        let guard = |checksum| Guard { checksum, unsigned: self.unsigned() };
        // A store that was told of a CRC32 and does not mind another one does not know them.
        let wrong =
            self.try_part(question, upload, 1, body, !crc32, None, guard(Checksum::Crc32), link).await;
        let verifies = matches!(wrong, Err(ObjectError::Checksum { .. }));
        if let Err(error) = wrong
            && !verifies
            && !self.may_drop_crc32(Checksum::Crc32, &error)
        {
            return Err(error);
        }
        let checksum = if verifies { Checksum::Crc32 } else { Checksum::Md5 };
        found.checksum = Some(checksum);
        let sent = self.try_part(question, upload, 1, body, crc32, Some(md5), guard(checksum), link).await?;
        let etag = sent.e_tag().unwrap_or_default();
        found.etag = Some(if etag_md5(etag) == Some(md5) { Etag::Md5 } else { Etag::Opaque });
        found.part_copy = Some(self.probe_copy(question, upload, md5, body.len() as u64).await?);

        let part = PartSent { etag: etag.into(), crc32, len: body.len() as u64, md5: Some(md5) };
        let parts = [(1, part)].into();
        let crc32 = verifies.then_some(crc32);
        let complete = CompleteUpload { parts: &parts, crc32, if_none_match: true };
        found.conditional_complete =
            Some(is_refused(self.complete_upload(upload, &complete, link, cancel).await)?);
        Ok(())
    }

    /// True if a copied part has the bytes of its source: gateways exist that store an empty one instead.
    async fn probe_copy(
        &self,
        question: Question<'_>,
        upload: &UploadId,
        md5: [u8; 16],
        len: u64,
    ) -> Result<bool, ObjectError> {
        let etag = |result: Option<&CopyPartResult>| result.and_then(|result| etag_md5(result.e_tag()?));
        // Some stores want a range (Yandex), others none of a small source (AWS).
        for range in [Some(format!("bytes=0-{}", len - 1)), None] {
            match ask_once(question, self.try_copy(upload, 2, &upload.key, range)).await {
                Ok(copied) if etag(copied.copy_part_result()) == Some(md5) => return Ok(true),
                Ok(_) | Err(ObjectError::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

/// Whether a condition that does not hold was honoured. Not to know conditions is no error.
fn is_refused<T>(answer: Result<T, ObjectError>) -> Result<bool, ObjectError> {
    match answer {
        Err(ObjectError::PreconditionFailed { .. }) => Ok(true),
        Ok(_) | Err(ObjectError::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
