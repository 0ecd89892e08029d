//! Parts of an upload: each is sent until it is proven that the store has it as it was made, or the upload's patience ends.
//!
//! The proof is one of three, the cheapest that the store gives: its own CRC32 in the answer, its refusal to take a body with another
//! Content-MD5, or an ETag that is the part's MD5. Which one is learned from the first parts (`profile`): a store that refuses the
//! CRC32 header, or takes it and says nothing, gets Content-MD5 from then on. MD5 costs more than a CPU-second a GiB, so it is never computed
//! where a CRC32 does.

use std::time::Instant;

use aws_sdk_s3::operation::upload_part::UploadPartOutput;
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use md5::{Digest as _, Md5};
use tokio_util::sync::CancellationToken;

use super::{Store, UploadId, protocol};
use crate::link::{Link, PacedBody};
use crate::profile::{Checksum, Etag};
use crate::retry::{Patience, Question, ask, ask_once, pause_after};
use crate::{ObjectError, Verb};

/// What remains of a part that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartSent {
    pub(crate) etag: Box<str>,
    pub(crate) crc32: u32,
    pub(crate) len: u64,
    /// Known where the CRC32 proved nothing.
    pub(crate) md5: Option<[u8; 16]>,
}

/// A part as a store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedPart {
    pub(crate) number: u32,
    pub(crate) etag: Box<str>,
    pub(crate) size: u64,
    pub(crate) crc32: Option<u32>,
}

/// How one attempt guards its bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guard {
    pub(super) checksum: Checksum,
    pub(super) unsigned: bool,
}

/// What an answer proves.
enum Verdict {
    Arrived {
        md5: Option<[u8; 16]>,
    },
    /// Nothing: to be sent again with a Content-MD5.
    Unproven,
}

impl Store {
    /// Sends part `number`, from 1, as soon as the link has room for it.
    pub(crate) async fn send_part(
        &self,
        upload: &UploadId,
        number: u32,
        body: Bytes,
        crc32: u32,
        link: &Link,
        cancel: &CancellationToken,
    ) -> Result<PartSent, ObjectError> {
        let place = upload.place();
        let len = body.len() as u64;
        let slot = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(ObjectError::Cancelled),
            slot = link.slot() => slot,
        };
        let mut patience = Patience::of_upload(link);
        let checksum = self.0.profile.get().checksum.unwrap_or(Checksum::Crc32);
        let mut guard = Guard { checksum, unsigned: self.unsigned() };
        let mut md5 = None;
        loop {
            if guard.checksum == Checksum::Md5 && md5.is_none() {
                md5 = Some(md5_of(&body).await);
            }
            let question = Question { verb: Verb::Upload, place: &place, timeout: link.timeout(len), cancel };
            let began = Instant::now();
            let attempt = self.try_part(question, upload, number, &body, crc32, md5, guard, link).await;
            let error = match attempt {
                Ok(answer) => {
                    let etag: Box<str> = answer.e_tag().ok_or_else(|| protocol(Verb::Upload, &place))?.into();
                    match self.judge(&place, guard, &answer, &body, crc32, md5).await {
                        Ok(Verdict::Arrived { md5 }) => {
                            slot.arrived(len, began);
                            self.learn_guard(guard);
                            return Ok(PartSent { etag, crc32, len, md5 });
                        }
                        Ok(Verdict::Unproven) => {
                            guard.checksum = Checksum::Md5;
                            continue;
                        }
                        Err(error) => error,
                    }
                }
                Err(error) if self.may_drop_crc32(guard.checksum, &error) => {
                    guard.checksum = Checksum::Md5;
                    continue;
                }
                Err(error) if guard.unsigned && self.refuses_unsigned(&error) => {
                    guard.unsigned = false;
                    continue;
                }
                Err(error) => error,
            };
            pause_after(question, &mut patience, error).await?;
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one request")]
    pub(super) async fn try_part(
        &self,
        question: Question<'_>,
        upload: &UploadId,
        number: u32,
        body: &Bytes,
        crc32: u32,
        md5: Option<[u8; 16]>,
        guard: Guard,
        link: &Link,
    ) -> Result<UploadPartOutput, ObjectError> {
        let Question { verb, place, cancel, .. } = question;
        let number = i32::try_from(number).map_err(|_| protocol(verb, place))?;
        let len = i64::try_from(body.len()).map_err(|_| protocol(verb, place))?;
        let content = match link.limit() {
            None => ByteStream::from(body.clone()),
            Some(limit) if guard.unsigned => {
                ByteStream::new(SdkBody::from_body_1_x(PacedBody::new(body.clone(), limit.clone())))
            }
            // A signature over the body wants it whole: the limit then holds between parts.
            Some(limit) => {
                let at = limit.take(body.len() as u64);
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => return Err(ObjectError::Cancelled),
                    () = tokio::time::sleep_until(at.into()) => ByteStream::from(body.clone()),
                }
            }
        };
        let request = self.0.client.upload_part();
        let request = request.bucket(&*upload.bucket).key(&*upload.key).upload_id(&*upload.id);
        let request = request
            .part_number(number)
            .content_length(len)
            .set_checksum_crc32((guard.checksum == Checksum::Crc32).then(|| base64_crc32(crc32)))
            .set_content_md5(
                md5.filter(|_| guard.checksum == Checksum::Md5).map(|md5| BASE64_STANDARD.encode(md5)),
            )
            .body(content)
            .customize();
        let request = if guard.unsigned { request.disable_payload_signing() } else { request };
        ask_once(question, request.send()).await
    }

    /// What the answer proves about the part.
    async fn judge(
        &self,
        place: &str,
        guard: Guard,
        answer: &UploadPartOutput,
        body: &Bytes,
        crc32: u32,
        md5: Option<[u8; 16]>,
    ) -> Result<Verdict, ObjectError> {
        let damaged = || ObjectError::Checksum { place: place.into(), source: None };
        let etag = answer.e_tag().and_then(etag_md5);
        match guard.checksum {
            Checksum::None => Ok(Verdict::Arrived { md5: None }),
            Checksum::Crc32 => match answer.checksum_crc32() {
                Some(found) if found == base64_crc32(crc32) => Ok(Verdict::Arrived { md5: None }),
                Some(_) => Err(damaged()),
                None if self.0.profile.is_told_checksum() => Ok(Verdict::Arrived { md5: None }),
                // The store may not know the header. Then its ETag may be a proof.
                None => {
                    let md5 = md5_of(body).await;
                    if etag != Some(md5) {
                        return Ok(Verdict::Unproven);
                    }
                    self.0.profile.learn("the store does not confirm CRC32", |profile| {
                        profile.checksum = Some(Checksum::Md5);
                        profile.etag = Some(Etag::Md5);
                    });
                    Ok(Verdict::Arrived { md5: Some(md5) })
                }
            },
            Checksum::Md5 if etag == md5 => {
                self.0.profile.learn("ETags are MD5s", |profile| profile.etag = Some(Etag::Md5));
                Ok(Verdict::Arrived { md5 })
            }
            Checksum::Md5 if self.0.profile.get().etag == Some(Etag::Md5) => Err(damaged()),
            Checksum::Md5 => {
                self.0.profile.learn("ETags are no MD5s", |profile| profile.etag = Some(Etag::Opaque));
                Ok(Verdict::Arrived { md5 })
            }
        }
    }

    /// A part arrived so: others will.
    fn learn_guard(&self, guard: Guard) {
        let unsigned = self.unsigned();
        self.0.profile.learn("parts are guarded so", |profile| {
            // A part that was begun before may still have gone with what was refused since.
            if profile.checksum.is_none() || guard.checksum == Checksum::Md5 {
                profile.checksum = Some(guard.checksum);
            }
            if unsigned && !guard.unsigned {
                profile.payload = Some(crate::Payload::Signed);
            }
        });
    }

    /// Lists the parts that the store has of an upload, in the order of their numbers.
    pub(crate) async fn list_parts<'a>(
        &self,
        upload: &UploadId,
        patience: impl Fn() -> Patience<'a>,
        cancel: &CancellationToken,
    ) -> Result<Vec<ListedPart>, ObjectError> {
        let place = upload.place();
        let question =
            Question { verb: Verb::List, place: &place, timeout: self.0.retry.attempt_timeout, cancel };
        let mut parts: Vec<ListedPart> = Vec::new();
        let mut marker = None;
        loop {
            let request = self.0.client.list_parts();
            let request = request.bucket(&*upload.bucket).key(&*upload.key).upload_id(&*upload.id);
            let request = request.set_part_number_marker(marker.clone());
            let answer = ask(question, patience(), || request.clone().send()).await?;
            for part in answer.parts() {
                let size = part.size().and_then(|size| u64::try_from(size).ok());
                let number = part.part_number().and_then(|number| u32::try_from(number).ok());
                let (Some(etag), Some(size), Some(number)) = (part.e_tag(), size, number) else {
                    return Err(protocol(Verb::List, &place));
                };
                let crc32 = part.checksum_crc32().and_then(parse_crc32);
                parts.push(ListedPart { number, etag: etag.into(), size, crc32 });
            }
            if !answer.is_truncated().unwrap_or(false) {
                break;
            }
            let next = answer.next_part_number_marker;
            // A marker that does not move would give the same page for ever.
            if next.is_none() || next == marker {
                return Err(protocol(Verb::List, &place));
            }
            marker = next;
        }
        if !parts.is_sorted_by(|a, b| a.number < b.number) {
            return Err(protocol(Verb::List, &place));
        }
        Ok(parts)
    }

    /// True if `error` may mean that the store does not know CRC32 headers, and nobody has said that it does.
    pub(crate) fn may_drop_crc32(&self, checksum: Checksum, error: &ObjectError) -> bool {
        checksum == Checksum::Crc32 && !self.0.profile.is_told_checksum() && refuses_checksums(error)
    }

    /// True if `error` means that bodies must be signed, and nobody has said otherwise.
    pub(crate) fn refuses_unsigned(&self, error: &ObjectError) -> bool {
        let code = error.answer().and_then(|answer| answer.code.as_deref());
        code == Some("XAmzContentSHA256Mismatch") && !self.0.profile.is_told_payload()
    }
}

/// True if a store's refusal may be about checksums: codes that stores without them are known to answer.
fn refuses_checksums(error: &ObjectError) -> bool {
    let Some(answer) = error.answer() else { return false };
    let codes = ["", "NotImplemented", "InvalidRequest", "InvalidArgument", "UnsupportedArgument"];
    matches!(answer.status, 400 | 501) && codes.contains(&answer.code.as_deref().unwrap_or_default())
}

/// The MD5 that an ETag is; `None` where it has not the form of one.
pub(crate) fn etag_md5(etag: &str) -> Option<[u8; 16]> {
    hex::decode(etag.trim_matches('"')).ok()?.try_into().ok()
}

/// Off the I/O threads: 16 MiB take 25 ms.
pub(crate) async fn md5_of(body: &Bytes) -> [u8; 16] {
    let body = body.clone();
    let hashed = tokio::task::spawn_blocking({
        let body = body.clone();
        move || Md5::digest(&body).into()
    });
    // Only a runtime that is ending does not run it.
    hashed.await.unwrap_or_else(|_| Md5::digest(&body).into())
}

/// As `x-amz-checksum-crc32` has it: big endian, base64.
pub(crate) fn base64_crc32(crc32: u32) -> String {
    BASE64_STANDARD.encode(crc32.to_be_bytes())
}

/// The CRC32 of a header; `None` for that of a composite, which ends in the number of parts.
pub(crate) fn parse_crc32(text: &str) -> Option<u32> {
    Some(u32::from_be_bytes(BASE64_STANDARD.decode(text).ok()?.try_into().ok()?))
}
