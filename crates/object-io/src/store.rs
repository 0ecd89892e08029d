//! The verbs of one store.

mod buckets;
mod copy;
mod parts;
mod probe;
mod uploads;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{ChecksumMode, ChecksumType};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use disk_image::Span;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::clock::StoreClock;
use crate::limits::{ATTEMPT_TIMEOUT, MAX_GET_LEN, MIN_RATE};
use crate::link::RateLimit;
use crate::profile::{Checksum, Known, Payload};
use crate::retry::{Patience, Question, ask, ask_once, pause_after};
use crate::{Bearer, ObjectError, RetryOptions, Scheme, StoreProfile, Verb};

pub(crate) use copy::Wanted;
pub(crate) use parts::{ListedPart, PartSent, base64_crc32, etag_md5, md5_of, parse_crc32};
pub use uploads::Upload;
pub(crate) use uploads::{CompleteUpload, NewUpload, UploadId};

/// One S3-compatible store, with the credentials to speak to it. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Store(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) client: aws_sdk_s3::Client,
    /// What the names of its objects begin with.
    pub(crate) scheme: Scheme,
    /// Tokens take the place of signatures.
    pub(crate) is_bearer: bool,
    pub(crate) credentials: SharedCredentialsProvider,
    pub(crate) clock: StoreClock,
    pub(crate) region: Box<str>,
    /// Bodies need no hash in the signature: TLS, or a wire that nobody else is on, guards them.
    pub(crate) guarded: bool,
    pub(crate) endpoint: Option<Url>,
    pub(crate) profile: Known,
    pub(crate) retry: RetryOptions,
    pub(crate) limit: Option<RateLimit>,
}

/// How to write an object.
#[derive(Debug, Clone, Default)]
pub struct PutOptions {
    /// Only where there is none yet. Stores that ignore the condition exist (garage 2.5).
    pub if_none_match: bool,
    /// The SHA-256 of the bytes, for the store to compare.
    pub checksum_sha256: Option<[u8; 32]>,
    /// What the object says about itself; keys in lower case, values in ASCII.
    pub metadata: BTreeMap<String, String>,
}

/// An object that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its version, quotes included.
    pub etag: String,
}

/// What a store says about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Length in bytes.
    pub size: u64,
    /// Its version, quotes included.
    pub etag: Option<String>,
    /// When it was written.
    pub last_modified: Option<SystemTime>,
    /// What the object says about itself.
    pub metadata: BTreeMap<String, String>,
    /// The CRC32 of all its bytes, where the store keeps it.
    pub crc32: Option<u32>,
}

/// Some of the objects of a bucket, in the order of their keys.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// At most 1000.
    pub objects: Vec<Listed>,
    /// Where the next page begins, if there is one.
    pub next: Option<PageToken>,
}

/// One object of a [`Page`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Length in bytes.
    pub size: u64,
    /// When it was written.
    pub last_modified: Option<SystemTime>,
}

/// Where a next page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageToken(String);

impl Store {
    /// The name of an object, or of a bucket where the key is empty: for messages.
    pub fn place(&self, bucket: &str, key: &str) -> String {
        self.0.scheme.place(bucket, key)
    }

    /// Whether tokens take the place of signatures: then no URL can be signed.
    pub fn is_bearer(&self) -> bool {
        self.0.is_bearer
    }

    /// The token that it is spoken to with; `None` where requests are signed.
    ///
    /// # Errors
    ///
    /// [`ObjectError::Credentials`] if none comes.
    pub async fn bearer(&self) -> Result<Option<Bearer>, ObjectError> {
        if !self.0.is_bearer {
            return Ok(None);
        }
        let credentials = self.0.credentials.provide_credentials().await;
        let credentials =
            credentials.map_err(|error| ObjectError::Credentials { source: Box::new(error) })?;
        Ok(credentials.session_token().and_then(Bearer::new))
    }

    /// What is known of the store by now.
    pub fn profile(&self) -> StoreProfile {
        self.0.profile.get()
    }

    /// True if signatures need not cover bodies.
    pub(crate) fn unsigned(&self) -> bool {
        self.0.guarded && self.0.profile.get().payload != Some(Payload::Signed)
    }

    /// Sends the request of a verb on its own until it is answered for good.
    pub(crate) async fn ask<T, E, F>(
        &self,
        verb: Verb,
        place: &str,
        cancel: &CancellationToken,
        attempt: impl FnMut() -> F,
    ) -> Result<T, ObjectError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let question = Question { verb, place, timeout: self.0.retry.attempt_timeout, cancel };
        ask(question, Patience::of_verb(&self.0.retry), attempt).await
    }

    /// Writes an object in one request.
    ///
    /// # Errors
    ///
    /// [`ObjectError::PreconditionFailed`] if it exists and should not. A retry after a lost answer meets its own object.
    pub async fn put(
        &self,
        bucket: &str,
        key: &str,
        body: Bytes,
        options: &PutOptions,
        cancel: &CancellationToken,
    ) -> Result<Stored, ObjectError> {
        let place = self.place(bucket, key);
        let question =
            Question { verb: Verb::Put, place: &place, timeout: body_timeout(body.len() as u64), cancel };
        let answer = ask(question, Patience::of_verb(&self.0.retry), || {
            let request = self.0.client.put_object().bucket(bucket).key(key);
            let request = request
                .set_if_none_match(options.if_none_match.then(|| "*".to_owned()))
                .set_checksum_sha256(options.checksum_sha256.map(|sum| BASE64_STANDARD.encode(sum)))
                .set_metadata(
                    (!options.metadata.is_empty()).then(|| options.metadata.clone().into_iter().collect()),
                )
                .body(ByteStream::from(body.clone()))
                .customize();
            if self.unsigned() { request.disable_payload_signing() } else { request }.send()
        });
        let answer = answer.await?;
        let etag = answer.e_tag.ok_or_else(|| protocol(Verb::Put, &place))?;
        Ok(Stored { etag })
    }

    /// Reads an object, or a range of it, into memory.
    ///
    /// # Errors
    ///
    /// [`ObjectError::TooLong`] above [`MAX_GET_LEN`]; [`ObjectError::Length`] if the range does not lie inside the object.
    pub async fn get(
        &self,
        bucket: &str,
        key: &str,
        range: Option<Span>,
        cancel: &CancellationToken,
    ) -> Result<Bytes, ObjectError> {
        if range.is_some_and(|span| span.is_empty()) {
            return Ok(Bytes::new());
        }
        let place = self.place(bucket, key);
        let question =
            Question { verb: Verb::Get, place: &place, timeout: self.0.retry.attempt_timeout, cancel };
        let mut patience = Patience::of_verb(&self.0.retry);
        loop {
            match self.get_once(bucket, key, range, question).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => pause_after(question, &mut patience, error).await?,
            }
        }
    }

    async fn get_once(
        &self,
        bucket: &str,
        key: &str,
        range: Option<Span>,
        question: Question<'_>,
    ) -> Result<Bytes, ObjectError> {
        let Question { place, cancel, .. } = question;
        let header = range.map(|span| format!("bytes={}-{}", span.start, span.end() - 1));
        let request = self.0.client.get_object().bucket(bucket).key(key).set_range(header);
        let mut answer = ask_once(question, request.send()).await?;
        let found = answer
            .content_length
            .and_then(|len| u64::try_from(len).ok())
            .ok_or_else(|| protocol(Verb::Get, place))?;
        if found > MAX_GET_LEN {
            return Err(ObjectError::TooLong { place: place.into(), found, limit: MAX_GET_LEN });
        }
        if let Some(span) = range.filter(|span| span.len != found) {
            return Err(ObjectError::Length { place: place.into(), found, expected: span.len });
        }
        let len = usize::try_from(found).map_err(|_| protocol(Verb::Get, place))?;
        let mut body = BytesMut::with_capacity(len);
        loop {
            let chunk = tokio::select! {
                () = cancel.cancelled() => return Err(ObjectError::Cancelled),
                chunk = answer.body.try_next() => chunk,
            };
            let unreachable =
                |source| ObjectError::Unreachable { verb: Verb::Get, place: place.into(), source };
            match chunk.map_err(|error| unreachable(Box::new(error)))? {
                Some(chunk) if body.len() + chunk.len() <= len => body.extend_from_slice(&chunk),
                Some(_) => return Err(protocol(Verb::Get, place)),
                None if body.len() == len => return Ok(body.freeze()),
                None => {
                    return Err(unreachable(Box::new(std::io::Error::from(
                        std::io::ErrorKind::UnexpectedEof,
                    ))));
                }
            }
        }
    }

    /// Asks for an object's size, version and metadata.
    ///
    /// # Errors
    ///
    /// [`ObjectError::NoSuchKey`] if there is none; a missing bucket cannot be told from it, the answer has no body.
    pub async fn head(
        &self,
        bucket: &str,
        key: &str,
        cancel: &CancellationToken,
    ) -> Result<ObjectInfo, ObjectError> {
        self.head_within(Patience::of_verb(&self.0.retry), bucket, key, cancel).await
    }

    /// As [`Store::head`], as patient as the caller.
    pub(crate) async fn head_within(
        &self,
        patience: Patience<'_>,
        bucket: &str,
        key: &str,
        cancel: &CancellationToken,
    ) -> Result<ObjectInfo, ObjectError> {
        let place = self.place(bucket, key);
        let question =
            Question { verb: Verb::Head, place: &place, timeout: self.0.retry.attempt_timeout, cancel };
        // Some stores take it amiss to be asked for what they do not know.
        let known = self.0.profile.get().checksum == Some(Checksum::Crc32);
        let request = self.0.client.head_object().bucket(bucket).key(key);
        let request = request.set_checksum_mode(known.then_some(ChecksumMode::Enabled));
        let answer = ask(question, patience, || request.clone().send()).await?;
        let size = answer.content_length.and_then(|len| u64::try_from(len).ok());
        let whole = answer.checksum_type().is_none_or(|kind| *kind == ChecksumType::FullObject);
        let crc32 = answer.checksum_crc32().filter(|_| whole).and_then(parse_crc32);
        Ok(ObjectInfo {
            size: size.ok_or_else(|| protocol(Verb::Head, &place))?,
            etag: answer.e_tag,
            last_modified: answer.last_modified.and_then(system_time),
            metadata: answer.metadata.unwrap_or_default().into_iter().collect(),
            crc32,
        })
    }

    /// Removes an object. That there is none is no error.
    ///
    /// # Errors
    ///
    /// If the store refuses or cannot be reached.
    pub async fn delete(
        &self,
        bucket: &str,
        key: &str,
        cancel: &CancellationToken,
    ) -> Result<(), ObjectError> {
        let request = self.0.client.delete_object().bucket(bucket).key(key);
        let place = self.place(bucket, key);
        let question =
            Question { verb: Verb::Delete, place: &place, timeout: self.0.retry.attempt_timeout, cancel };
        match ask(question, Patience::of_removal(&self.0.retry), || request.clone().send()).await {
            Ok(_) | Err(ObjectError::NoSuchKey { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Lists the objects whose keys begin with `prefix`, a page at a time.
    ///
    /// # Errors
    ///
    /// If the store refuses or cannot be reached.
    pub async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        from: Option<&PageToken>,
        cancel: &CancellationToken,
    ) -> Result<Page, ObjectError> {
        let place = self.place(bucket, prefix);
        let request = self.0.client.list_objects_v2().bucket(bucket).prefix(prefix);
        let request = request.set_continuation_token(from.map(|token| token.0.clone()));
        let answer = self.ask(Verb::List, &place, cancel, || request.clone().send()).await?;
        let mut objects = Vec::new();
        for object in answer.contents.unwrap_or_default() {
            let size = object.size.and_then(|size| u64::try_from(size).ok());
            let (Some(key), Some(size)) = (object.key, size) else {
                return Err(protocol(Verb::List, &place));
            };
            let last_modified = object.last_modified.and_then(system_time);
            objects.push(Listed { key, size, last_modified });
        }
        let more = answer.is_truncated.unwrap_or(false);
        let next = answer.next_continuation_token.filter(|_| more).map(PageToken);
        // Without a token, asking again would give the first page for ever.
        if more && (next.is_none() || next.as_ref() == from) {
            return Err(protocol(Verb::List, &place));
        }
        Ok(Page { objects, next })
    }
}

pub(crate) fn protocol(verb: Verb, place: &str) -> ObjectError {
    ObjectError::Protocol { verb, place: place.into(), source: None }
}

/// How long one attempt to send `len` bytes may take where nothing is known of the line: what the slowest one that is worth using
/// needs.
pub(crate) fn body_timeout(len: u64) -> Duration {
    ATTEMPT_TIMEOUT + Duration::from_secs(len / MIN_RATE)
}

pub(crate) fn system_time(time: DateTime) -> Option<SystemTime> {
    SystemTime::try_from(time).ok()
}
