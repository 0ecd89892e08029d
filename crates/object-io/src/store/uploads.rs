//! Verbs of multipart uploads.

use std::collections::BTreeMap;
use std::time::SystemTime;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{Store, attempt_timeout, body_timeout, call, place, protocol, system_time};
use crate::limits::COMPLETE_TIMEOUT;
use crate::{ObjectError, Verb};

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
    pub(crate) bucket: Box<str>,
    pub(crate) key: Box<str>,
    pub(crate) id: Box<str>,
}

impl UploadId {
    pub(crate) fn place(&self) -> String {
        place(&self.bucket, &self.key)
    }
}

/// How to begin an upload.
#[derive(Debug, Clone)]
pub(crate) struct NewUpload {
    pub(crate) bucket: Box<str>,
    pub(crate) key: Box<str>,
    pub(crate) metadata: BTreeMap<String, String>,
    /// Ask the store to keep a CRC32 of the whole object.
    pub(crate) checksummed: bool,
}

/// What remains of a part that was sent.
#[derive(Debug, Clone)]
pub(crate) struct PartSent {
    pub(crate) etag: Box<str>,
    pub(crate) crc32: u32,
    pub(crate) len: u64,
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
        let place = place(bucket, prefix);
        let mut uploads = Vec::new();
        let (mut key, mut id) = (None, None);
        loop {
            let request = self.0.client.list_multipart_uploads().bucket(bucket).prefix(prefix);
            let request = request.set_key_marker(key.clone()).set_upload_id_marker(id.clone());
            let answer = call(Verb::List, &place, cancel, request.send()).await?;
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
        let request = self.0.client.abort_multipart_upload().bucket(bucket).key(key).upload_id(upload_id);
        match call(Verb::AbortUpload, &place(bucket, key), cancel, request.send()).await {
            Ok(_) | Err(ObjectError::NoSuchUpload { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn create_upload(
        &self,
        new: &NewUpload,
        cancel: &CancellationToken,
    ) -> Result<UploadId, ObjectError> {
        let place = place(&new.bucket, &new.key);
        let request = self.0.client.create_multipart_upload().bucket(&*new.bucket).key(&*new.key);
        let request = request
            .set_checksum_algorithm(new.checksummed.then_some(ChecksumAlgorithm::Crc32))
            .set_checksum_type(new.checksummed.then_some(ChecksumType::FullObject))
            .set_metadata((!new.metadata.is_empty()).then(|| new.metadata.clone().into_iter().collect()));
        let answer = call(Verb::Upload, &place, cancel, request.send()).await?;
        let id = answer.upload_id.ok_or_else(|| protocol(Verb::Upload, &place))?;
        Ok(UploadId { bucket: new.bucket.clone(), key: new.key.clone(), id: id.into() })
    }

    /// Sends part `number`, from 1; `crc32` goes along where the store is known to take it.
    pub(crate) async fn send_part(
        &self,
        upload: &UploadId,
        number: u32,
        body: Bytes,
        crc32: Option<u32>,
        cancel: &CancellationToken,
    ) -> Result<String, ObjectError> {
        let place = upload.place();
        let timeout = body_timeout(body.len() as u64);
        let number = i32::try_from(number).map_err(|_| protocol(Verb::Upload, &place))?;
        let request =
            self.0.client.upload_part().bucket(&*upload.bucket).key(&*upload.key).upload_id(&*upload.id);
        let request = request
            .part_number(number)
            .set_checksum_crc32(crc32.map(base64_crc32))
            .body(ByteStream::from(body))
            .customize()
            .config_override(aws_sdk_s3::Config::builder().timeout_config(timeout));
        let request = if self.0.unsigned { request.disable_payload_signing() } else { request };
        let answer = call(Verb::Upload, &place, cancel, request.send()).await?;
        answer.e_tag.ok_or_else(|| protocol(Verb::Upload, &place))
    }

    pub(crate) async fn complete_upload(
        &self,
        upload: &UploadId,
        complete: &CompleteUpload<'_>,
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
            .set_if_none_match(complete.if_none_match.then(|| "*".to_owned()))
            .customize()
            .config_override(aws_sdk_s3::Config::builder().timeout_config(attempt_timeout(COMPLETE_TIMEOUT)));
        call(Verb::Upload, &place, cancel, request.send()).await.map(drop)
    }
}

/// As `x-amz-checksum-crc32` has it: big endian, base64.
pub(crate) fn base64_crc32(crc32: u32) -> String {
    BASE64_STANDARD.encode(crc32.to_be_bytes())
}
