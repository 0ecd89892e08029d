//! Parts that a store copies from an object that it has.
//!
//! "UploadPartCopy", Amazon S3 API Reference. No byte travels; what was copied is proven like a part that was sent, by the CRC32 or the
//! MD5 in the answer: gateways exist that ignore the source and store an empty part.

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::upload_part_copy::{UploadPartCopyError, UploadPartCopyOutput};
use tokio_util::sync::CancellationToken;

use super::{PartSent, Store, UploadId, base64_crc32, etag_md5};
use crate::link::Link;
use crate::profile::Checksum;
use crate::retry::{Patience, Question, ask};
use crate::{ObjectError, Verb};

/// What a copied part has to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) len: u64,
    pub(crate) crc32: u32,
    pub(crate) md5: [u8; 16],
}

impl Store {
    /// Has the store make part `number`, from 1, of the first bytes of the object `source` of the same bucket. `None` if it answers
    /// with success and does not prove that the part is what is wanted.
    pub(crate) async fn copy_part(
        &self,
        upload: &UploadId,
        number: u32,
        source: &str,
        wanted: Wanted,
        link: &Link,
        cancel: &CancellationToken,
    ) -> Result<Option<PartSent>, ObjectError> {
        let place = upload.place();
        let _slot = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(ObjectError::Cancelled),
            slot = link.slot() => slot,
        };
        // The store has as much to write as for a part that it is sent.
        let question =
            Question { verb: Verb::Upload, place: &place, timeout: link.timeout(wanted.len), cancel };
        let range = format!("bytes=0-{}", wanted.len.saturating_sub(1));
        let attempt = || self.try_copy(upload, number, source, Some(range.clone()));
        let answer = ask(question, Patience::of_upload(link), attempt).await?;
        let Some(copied) = answer.copy_part_result() else { return Ok(None) };
        let Some(etag) = copied.e_tag() else { return Ok(None) };
        let right = match copied.checksum_crc32() {
            Some(found) => found == base64_crc32(wanted.crc32),
            None => etag_md5(etag) == Some(wanted.md5),
        };
        // Where parts are proven by MD5, the list of them is held against it.
        let md5 = (self.profile().checksum == Some(Checksum::Md5)).then_some(wanted.md5);
        let Wanted { len, crc32, .. } = wanted;
        Ok(right.then(|| PartSent { etag: etag.into(), crc32, len, md5 }))
    }

    /// One attempt to copy.
    pub(super) async fn try_copy(
        &self,
        upload: &UploadId,
        number: u32,
        source: &str,
        range: Option<String>,
    ) -> Result<UploadPartCopyOutput, SdkError<UploadPartCopyError, HttpResponse>> {
        let request = self.0.client.upload_part_copy();
        let request = request.bucket(&*upload.bucket).key(&*upload.key).upload_id(&*upload.id);
        let request = request.part_number(i32::try_from(number).unwrap_or(i32::MAX));
        let request = request.copy_source(format!("{}/{source}", upload.bucket));
        // Ceph wants to be told that there is no body, which the SDK does not say of itself.
        let request = request.set_copy_source_range(range).customize().mutate_request(|request| {
            request.headers_mut().insert("content-length", "0");
        });
        request.send().await
    }
}
