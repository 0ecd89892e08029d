//! The verbs of one store.

mod buckets;
mod uploads;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use disk_image::Span;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::http::Backoff;
use crate::limits::{ATTEMPT_TIMEOUT, CONNECT_TIMEOUT, MAX_ATTEMPTS, MAX_GET_LEN, MIN_RATE};
use crate::{ObjectError, Verb};

pub use uploads::Upload;
pub(crate) use uploads::{CompleteUpload, NewUpload, PartSent, UploadId, base64_crc32};

/// One S3-compatible store, with the credentials to speak to it. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Store(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) client: aws_sdk_s3::Client,
    pub(crate) credentials: SharedCredentialsProvider,
    pub(crate) region: Box<str>,
    /// Bodies need no hash in the signature: TLS, or a wire that nobody else is on, guards them.
    pub(crate) unsigned: bool,
    pub(crate) endpoint: Option<Url>,
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
}

/// Where a next page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageToken(String);

impl Store {
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
        let timeout = body_timeout(body.len() as u64);
        let request = self.0.client.put_object().bucket(bucket).key(key);
        let request = request
            .set_if_none_match(options.if_none_match.then(|| "*".to_owned()))
            .set_checksum_sha256(options.checksum_sha256.map(|sum| BASE64_STANDARD.encode(sum)))
            .set_metadata(
                (!options.metadata.is_empty()).then(|| options.metadata.clone().into_iter().collect()),
            )
            .body(ByteStream::from(body))
            .customize()
            .config_override(aws_sdk_s3::Config::builder().timeout_config(timeout));
        let request = if self.0.unsigned { request.disable_payload_signing() } else { request };
        let place = place(bucket, key);
        let answer = call(Verb::Put, &place, cancel, request.send()).await?;
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
        let place = place(bucket, key);
        // The SDK retries until an answer begins; a body that breaks off is ours to ask for again.
        let mut backoff = Backoff::new(MAX_ATTEMPTS);
        loop {
            let broken = match self.get_once(bucket, key, range, &place, cancel).await {
                Err(error @ ObjectError::Unreachable { .. }) => error,
                done => return done,
            };
            let Some(pause) = backoff.next_pause() else { return Err(broken) };
            tokio::select! {
                () = cancel.cancelled() => return Err(ObjectError::Cancelled),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn get_once(
        &self,
        bucket: &str,
        key: &str,
        range: Option<Span>,
        place: &str,
        cancel: &CancellationToken,
    ) -> Result<Bytes, ObjectError> {
        let header = range.map(|span| format!("bytes={}-{}", span.start, span.end() - 1));
        let request = self.0.client.get_object().bucket(bucket).key(key).set_range(header);
        let mut answer = call(Verb::Get, place, cancel, request.send()).await?;
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
        let place = place(bucket, key);
        let request = self.0.client.head_object().bucket(bucket).key(key);
        let answer = call(Verb::Head, &place, cancel, request.send()).await?;
        let size = answer.content_length.and_then(|len| u64::try_from(len).ok());
        Ok(ObjectInfo {
            size: size.ok_or_else(|| protocol(Verb::Head, &place))?,
            etag: answer.e_tag,
            last_modified: answer.last_modified.and_then(system_time),
            metadata: answer.metadata.unwrap_or_default().into_iter().collect(),
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
        match call(Verb::Delete, &place(bucket, key), cancel, request.send()).await {
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
        let place = place(bucket, prefix);
        let request = self.0.client.list_objects_v2().bucket(bucket).prefix(prefix);
        let request = request.set_continuation_token(from.map(|token| token.0.clone()));
        let answer = call(Verb::List, &place, cancel, request.send()).await?;
        let mut objects = Vec::new();
        for object in answer.contents.unwrap_or_default() {
            let size = object.size.and_then(|size| u64::try_from(size).ok());
            let (Some(key), Some(size)) = (object.key, size) else {
                return Err(protocol(Verb::List, &place));
            };
            objects.push(Listed { key, size });
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

/// `s3://BUCKET/KEY`, for errors.
pub(crate) fn place(bucket: &str, key: &str) -> String {
    if key.is_empty() { format!("s3://{bucket}") } else { format!("s3://{bucket}/{key}") }
}

/// Sends a request, unless the caller cancels first.
pub(crate) async fn call<T, E>(
    verb: Verb,
    place: &str,
    cancel: &CancellationToken,
    request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
) -> Result<T, ObjectError>
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(ObjectError::Cancelled),
        answer = request => answer.map_err(|error| ObjectError::from_sdk(verb, place, error)),
    }
}

pub(crate) fn protocol(verb: Verb, place: &str) -> ObjectError {
    ObjectError::Protocol { verb, place: place.into(), source: None }
}

/// How long one attempt to send `len` bytes may take: what the slowest link that is worth using needs.
pub(crate) fn body_timeout(len: u64) -> TimeoutConfig {
    attempt_timeout(ATTEMPT_TIMEOUT + Duration::from_secs(len / MIN_RATE))
}

pub(crate) fn attempt_timeout(timeout: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_attempt_timeout(timeout).build()
}

pub(crate) fn system_time(time: DateTime) -> Option<SystemTime> {
    SystemTime::try_from(time).ok()
}
