//! Verbs of multipart uploads.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};
use tokio_util::sync::CancellationToken;

use super::{PartSent, Store, base64_crc32, protocol, system_time};
use crate::limits::{ABORT_TIMEOUT, COMPLETE_TIMEOUT};
use crate::link::Link;
use crate::profile::Checksum;
use crate::retry::{Patience, Question, ask};
use crate::{ObjectError, Scheme, Verb};

/// An upload that was begun and neither completed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The key it will have.
    pub key: String,
    /// Names the upload, beside the key.
    pub id: String,
    /// When it was begun.
    pub initiated: Option<SystemTime>,
}

/// Names an upload.
#[derive(Debug, Clone)]
pub(crate) struct UploadId {
    pub(crate) scheme: Scheme,
    pub(crate) bucket: Box<str>,
    pub(crate) key: Box<str>,
    pub(crate) id: Box<str>,
}

impl UploadId {
    pub(crate) fn place(&self) -> String {
        self.scheme.place(&self.bucket, &self.key)
    }
}

/// How to begin an upload.
#[derive(Debug, Clone)]
pub(crate) struct NewUpload {
    pub(crate) bucket: Box<str>,
    pub(crate) key: Box<str>,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// How to complete an upload.
#[derive(Debug, Clone)]
pub(crate) struct CompleteUpload<'a> {
    /// By part number, from 1.
    pub(crate) parts: &'a BTreeMap<u32, PartSent>,
    /// The CRC32 of the whole object, for the store to compare.
    pub(crate) crc32: Option<u32>,
    pub(crate) if_none_match: bool,
}

impl Store {
    /// Lists the uploads to keys that begin with `prefix`. Their parts take room until they are aborted.
    ///
    /// # Errors
    ///
    /// If the store refuses or cannot be reached.
    pub async fn list_uploads(
        &self,
        bucket: &str,
        prefix: &str,
        cancel: &CancellationToken,
    ) -> Result<Vec<Upload>, ObjectError> {
        self.list_uploads_within(|| Patience::of_verb(&self.0.retry), bucket, prefix, cancel).await
    }

    async fn list_uploads_within<'a>(
        &self,
        patience: impl Fn() -> Patience<'a>,
        bucket: &str,
        prefix: &str,
        cancel: &CancellationToken,
    ) -> Result<Vec<Upload>, ObjectError> {
        let place = self.place(bucket, prefix);
        let question =
            Question { verb: Verb::List, place: &place, timeout: self.0.retry.attempt_timeout, cancel };
        let mut uploads = Vec::new();
        let (mut key, mut id) = (None, None);
        loop {
            let request = self.0.client.list_multipart_uploads().bucket(bucket).prefix(prefix);
            let request = request.set_key_marker(key.clone()).set_upload_id_marker(id.clone());
            let answer = ask(question, patience(), || request.clone().send()).await?;
            for upload in answer.uploads.unwrap_or_default() {
                let initiated = upload.initiated.and_then(system_time);
                let (Some(key), Some(id)) = (upload.key, upload.upload_id) else {
                    return Err(protocol(Verb::List, &place));
                };
                uploads.push(Upload { key, id, initiated });
            }
            if !answer.is_truncated.unwrap_or(false) {
                return Ok(uploads);
            }
            let next = (answer.next_key_marker, answer.next_upload_id_marker);
            // Markers that do not move would give the same page for ever.
            if next.0.is_none() || next == (key, id) {
                return Err(protocol(Verb::List, &place));
            }
            (key, id) = next;
        }
    }

    /// Aborts an upload: its parts are removed. That there is none is no error.
    ///
    /// # Errors
    ///
    /// If the store refuses or cannot be reached.
    pub async fn abort_upload(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
        cancel: &CancellationToken,
    ) -> Result<(), ObjectError> {
        self.abort_if_there(bucket, key, upload_id, cancel).await.map(drop)
    }

    /// As [`Store::abort_upload`]; `false` if there was none.
    pub(crate) async fn abort_if_there(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
        cancel: &CancellationToken,
    ) -> Result<bool, ObjectError> {
        let request = self.0.client.abort_multipart_upload().bucket(bucket).key(key).upload_id(upload_id);
        let place = self.place(bucket, key);
        let timeout = self.0.retry.attempt_timeout;
        let question = Question { verb: Verb::AbortUpload, place: &place, timeout, cancel };
        match ask(question, Patience::of_removal(&self.0.retry), || request.clone().send()).await {
            Ok(_) => Ok(true),
            Err(ObjectError::NoSuchUpload { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Begins an upload; with a CRC32 of the whole object where the store takes it.
    pub(crate) async fn create_upload(
        &self,
        new: &NewUpload,
        cancel: &CancellationToken,
    ) -> Result<UploadId, ObjectError> {
        let checksum = self.0.profile.get().checksum.unwrap_or(Checksum::Crc32);
        match self.create_upload_with(new, checksum, cancel).await {
            Err(error) if self.may_drop_crc32(checksum, &error) => {
                let id = self.create_upload_with(new, Checksum::Md5, cancel).await?;
                self.0.profile.learn("the store refuses CRC32", |profile| {
                    profile.checksum = Some(Checksum::Md5);
                });
                Ok(id)
            }
            answer => answer,
        }
    }

    async fn create_upload_with(
        &self,
        new: &NewUpload,
        checksum: Checksum,
        cancel: &CancellationToken,
    ) -> Result<UploadId, ObjectError> {
        let place = self.place(&new.bucket, &new.key);
        let crc32 = checksum == Checksum::Crc32;
        let request = self.0.client.create_multipart_upload().bucket(&*new.bucket).key(&*new.key);
        let request = request
            .set_checksum_algorithm(crc32.then_some(ChecksumAlgorithm::Crc32))
            .set_checksum_type(crc32.then_some(ChecksumType::FullObject))
            .set_metadata((!new.metadata.is_empty()).then(|| new.metadata.clone().into_iter().collect()));
        let (mut attempts, began) = (0, Instant::now());
        let attempt = || {
            attempts += 1;
            request.clone().send()
        };
        let answer = self.ask(Verb::Upload, &place, cancel, attempt).await;
        if attempts > 1 {
            let ours = answer.as_ref().ok().and_then(|answer| answer.upload_id());
            self.abort_lost(new, ours, began.elapsed(), cancel).await;
        }
        let id = answer?.upload_id.ok_or_else(|| protocol(Verb::Upload, &place))?;
        let (bucket, key) = (new.bucket.clone(), new.key.clone());
        Ok(UploadId { scheme: self.0.scheme, bucket, key, id: id.into() })
    }

    /// Aborts uploads to this key that an attempt began whose answer was lost: begun in the `time` before `ours`, by the store's clock.
    /// A failure is told, and no more: the upload itself can go on.
    async fn abort_lost(
        &self,
        new: &NewUpload,
        ours: Option<&str>,
        time: Duration,
        cancel: &CancellationToken,
    ) {
        // Stores tell the second, and round it as they like.
        let time = time + Duration::from_secs(2);
        let aborted = async {
            let patience = || Patience::of_removal(&self.0.retry);
            let mut begun = self.list_uploads_within(patience, &new.bucket, &new.key, cancel).await?;
            begun.retain(|upload| upload.key == *new.key);
            let end = match ours {
                Some(id) => begun.iter().find(|upload| upload.id == id).and_then(|upload| upload.initiated),
                None => Some(SystemTime::now()),
            };
            let Some(end) = end else { return Ok(()) };
            for upload in begun.iter().filter(|upload| Some(&*upload.id) != ours) {
                let is_lost = upload.initiated.is_some_and(|at| {
                    let apart = end.duration_since(at).unwrap_or_else(|before| before.duration());
                    apart <= time
                });
                if is_lost {
                    self.abort_upload(&new.bucket, &new.key, &upload.id, cancel).await?;
                }
            }
            Ok::<(), ObjectError>(())
        };
        let object = self.place(&new.bucket, &new.key);
        match tokio::time::timeout(ABORT_TIMEOUT, aborted).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%object, %error, "an upload that was begun twice may be left"),
            Err(_) => {
                tracing::warn!(%object, "an upload that was begun twice may be left: no answer in time")
            }
        }
    }

    /// Asks the store to make the object of its parts. Asked until it answers, or the upload's patience ends.
    pub(crate) async fn complete_upload(
        &self,
        upload: &UploadId,
        complete: &CompleteUpload<'_>,
        link: &Link,
        cancel: &CancellationToken,
    ) -> Result<(), ObjectError> {
        let place = upload.place();
        let mut parts = Vec::with_capacity(complete.parts.len());
        for (number, part) in complete.parts {
            let number = i32::try_from(*number).map_err(|_| protocol(Verb::Upload, &place))?;
            let crc32 = complete.crc32.map(|_| base64_crc32(part.crc32));
            parts.push(
                CompletedPart::builder()
                    .part_number(number)
                    .e_tag(&*part.etag)
                    .set_checksum_crc32(crc32)
                    .build(),
            );
        }
        let request = self.0.client.complete_multipart_upload();
        let request = request
            .bucket(&*upload.bucket)
            .key(&*upload.key)
            .upload_id(&*upload.id)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build())
            .set_checksum_crc32(complete.crc32.map(base64_crc32))
            .set_checksum_type(complete.crc32.map(|_| ChecksumType::FullObject))
            .set_if_none_match(complete.if_none_match.then(|| "*".to_owned()));
        // As patient as the rest, but a store that makes the object says nothing for minutes.
        let timeout = self.0.retry.attempt_timeout.max(COMPLETE_TIMEOUT.min(self.0.retry.outage));
        let question = Question { verb: Verb::Upload, place: &place, timeout, cancel };
        ask(question, Patience::of_upload(link), || request.clone().send()).await.map(drop)
    }
}
