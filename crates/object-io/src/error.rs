//! What a store refused or failed to do.

use std::error::Error as StdError;
use std::fmt;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use disk_convert::{SinkError, SinkFault};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::UriError;
use crate::clock::parse_date;
use crate::limits::{MAX_MESSAGE_CHARS, MAX_SKEW};
use crate::retry::parse_retry_after;

type Cause = Box<dyn StdError + Send + Sync>;

/// A verb that a store did not carry out, or may not have.
///
/// `place` is `s3://BUCKET` or `s3://BUCKET/KEY`. No variant holds a URL with its query, a key or a token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// Neither options, environment nor profiles hold credentials.
    #[error("no credentials for the object store")]
    NoCredentials,
    /// What should give credentials failed.
    #[error("cannot load the credentials for the object store")]
    Credentials {
        /// Why.
        source: Cause,
    },
    /// The endpoint is not a URL that could be one.
    #[error("the endpoint `{endpoint}` is not an http or https URL")]
    Endpoint {
        /// What was given.
        endpoint: Box<str>,
    },
    /// Not the name of an object.
    #[error("not the address of an object")]
    Uri(#[from] UriError),
    /// There is no such bucket.
    #[error("bucket of `{place}` not found")]
    NoSuchBucket {
        /// What was asked for.
        place: Box<str>,
        /// What the store said.
        source: Answer,
    },
    /// There is no such object.
    #[error("`{place}` not found")]
    NoSuchKey {
        /// What was asked for.
        place: Box<str>,
        /// What the store said.
        source: Answer,
    },
    /// There is no such multipart upload: completed, aborted, or never begun.
    #[error("no such upload to `{place}`")]
    NoSuchUpload {
        /// Where to.
        place: Box<str>,
        /// What the store said.
        source: Answer,
    },
    /// The credentials do not allow it, or are wrong.
    #[error("access denied: cannot {verb} `{place}`")]
    AccessDenied {
        /// What was tried.
        verb: Verb,
        /// On what.
        place: Box<str>,
        /// What the store said.
        source: Answer,
    },
    /// This machine's clock, or the store's, is wrong: signatures carry the time.
    #[error(
        "cannot {verb} `{place}`: this machine's clock is {} min {} the store's, which says {}",
        off.as_secs() / 60,
        if *is_ahead { "ahead of" } else { "behind" },
        rfc3339(*store_time)
    )]
    Clock {
        /// What was tried.
        verb: Verb,
        /// On what.
        place: Box<str>,
        /// By how much.
        off: Duration,
        /// Whether this machine's clock is ahead.
        is_ahead: bool,
        /// The store's time, when it answered.
        store_time: SystemTime,
        /// What the store said.
        source: Box<Answer>,
    },
    /// It exists, and should not have.
    #[error("`{place}` exists already")]
    PreconditionFailed {
        /// What exists.
        place: Box<str>,
    },
    /// The bucket belongs to somebody else.
    #[error("the name of `{place}` is taken by another account")]
    BucketTaken {
        /// The bucket.
        place: Box<str>,
    },
    /// The bucket is in another region than the one that was asked.
    #[error("the bucket of `{place}` is in another region")]
    WrongRegion {
        /// What was asked for.
        place: Box<str>,
        /// What the store said.
        source: Answer,
    },
    /// The store received, or holds, other bytes than were sent.
    #[error("the bytes of `{place}` did not arrive as they were sent")]
    Checksum {
        /// What was sent.
        place: Box<str>,
        /// What the store said, where it was the one to notice.
        source: Option<Answer>,
    },
    /// An object is not as long as it should be.
    #[error("`{place}` has {found} bytes, expected {expected}")]
    Length {
        /// The object.
        place: Box<str>,
        /// Its length.
        found: u64,
        /// The length that was expected.
        expected: u64,
    },
    /// An object is longer than the limit for its kind.
    #[error("`{place}` has {found} bytes, the limit is {limit}")]
    TooLong {
        /// The object.
        place: Box<str>,
        /// Its length.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// A URL cannot be signed for so long.
    #[error("a URL cannot be signed for {} s, the limit of this store is {} s", asked.as_secs(), limit.as_secs())]
    Expiry {
        /// What was asked for.
        asked: Duration,
        /// The limit.
        limit: Duration,
    },
    /// A bearer token signs nothing.
    #[error("no URL can be signed for `{place}` without a key pair")]
    CannotSign {
        /// The object.
        place: Box<str>,
    },
    /// The store refused for another reason.
    #[error("the store refused to {verb} `{place}`")]
    Refused {
        /// What was tried.
        verb: Verb,
        /// On what.
        place: Box<str>,
        /// What the store said.
        source: Answer,
    },
    /// The store failed, or has too much to do, after all retries.
    #[error("the store failed to {verb} `{place}`")]
    Failed {
        /// What was tried.
        verb: Verb,
        /// On what.
        place: Box<str>,
        /// What the store said.
        source: Answer,
    },
    /// No connection, or it broke, after all retries.
    #[error("cannot reach the object store to {verb} `{place}`")]
    Unreachable {
        /// What was tried.
        verb: Verb,
        /// On what.
        place: Box<str>,
        /// Why.
        source: Cause,
    },
    /// No answer in time, after all retries.
    #[error("no answer in time: cannot {verb} `{place}`")]
    TimedOut {
        /// What was tried.
        verb: Verb,
        /// On what.
        place: Box<str>,
    },
    /// The request could not be made, or the answer not be understood.
    #[error("the store's answer does not fit the request to {verb} `{place}`")]
    Protocol {
        /// What was tried.
        verb: Verb,
        /// On what.
        place: Box<str>,
        /// What does not fit, where it is known.
        source: Option<Cause>,
    },
    /// The last request of an upload came to no answer, and what became of it could not be seen.
    #[error("it is not known whether `{place}` was made")]
    Unknown {
        /// The object.
        place: Box<str>,
        /// Why there was no answer.
        source: Box<ObjectError>,
    },
    /// The store lacks a part that it took, or holds another.
    #[error("the store does not hold part {number} of `{place}` as it was sent")]
    PartLost {
        /// The object.
        place: Box<str>,
        /// The part, from 1.
        number: u32,
    },
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl ObjectError {
    /// True if the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Failed { .. } | Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Checksum { .. }
        )
    }

    /// True if the bucket, object or upload is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NoSuchBucket { .. } | Self::NoSuchKey { .. } | Self::NoSuchUpload { .. })
    }

    /// What would help, where something would.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoCredentials => Some(
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or YC_STORAGE_ACCESS_KEY and YC_STORAGE_SECRET_KEY",
            ),
            Self::NoSuchBucket { .. } => Some("check its name and the endpoint, or create it first"),
            Self::AccessDenied { .. } => {
                Some("check the credentials, the bucket's policy and the system's clock")
            }
            Self::CannotSign { .. } => {
                Some("an HMAC key signs: put it into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
            }
            Self::Clock { .. } => Some("set the clock; stores put up with a quarter of an hour"),
            Self::WrongRegion { .. } => Some("set the bucket's region, for instance with AWS_REGION"),
            Self::Unreachable { .. } => Some("check the endpoint and the network"),
            Self::Unknown { .. } => {
                Some("look for the object when the store answers again; it is whole if it is there")
            }
            Self::PartLost { .. } => {
                Some("try again; if it stays so, the store or a proxy before it loses parts")
            }
            _ => None,
        }
    }

    /// As a sink's failure, at `offset` of the output.
    pub fn into_sink_error(self, offset: Option<u64>) -> SinkError {
        let fault = match &self {
            Self::NoSuchBucket { .. } | Self::NoSuchKey { .. } | Self::NoSuchUpload { .. } => {
                SinkFault::NotFound
            }
            Self::NoCredentials
            | Self::Credentials { .. }
            | Self::AccessDenied { .. }
            | Self::Clock { .. } => SinkFault::Denied,
            Self::Checksum { .. } | Self::PartLost { .. } => SinkFault::Checksum,
            Self::Failed { .. } | Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Unknown { .. } => {
                SinkFault::Unavailable
            }
            Self::Cancelled => SinkFault::Cancelled,
            _ => SinkFault::Protocol,
        };
        let name = self.place().unwrap_or("object store").to_owned();
        let error = SinkError::new(name, offset, fault);
        if fault == SinkFault::Cancelled { error } else { error.because(self) }
    }

    fn place(&self) -> Option<&str> {
        match self {
            Self::NoSuchBucket { place, .. }
            | Self::NoSuchKey { place, .. }
            | Self::NoSuchUpload { place, .. }
            | Self::AccessDenied { place, .. }
            | Self::Clock { place, .. }
            | Self::PreconditionFailed { place }
            | Self::BucketTaken { place }
            | Self::WrongRegion { place, .. }
            | Self::Checksum { place, .. }
            | Self::Length { place, .. }
            | Self::TooLong { place, .. }
            | Self::Refused { place, .. }
            | Self::Failed { place, .. }
            | Self::Unreachable { place, .. }
            | Self::TimedOut { place, .. }
            | Self::Unknown { place, .. }
            | Self::PartLost { place, .. }
            | Self::CannotSign { place }
            | Self::Protocol { place, .. } => Some(place),
            Self::NoCredentials
            | Self::Credentials { .. }
            | Self::Endpoint { .. }
            | Self::Uri(_)
            | Self::Expiry { .. }
            | Self::Cancelled => None,
        }
    }

    /// What the store said, where it said something.
    pub(crate) fn answer(&self) -> Option<&Answer> {
        match self {
            Self::NoSuchBucket { source, .. }
            | Self::NoSuchKey { source, .. }
            | Self::NoSuchUpload { source, .. }
            | Self::AccessDenied { source, .. }
            | Self::WrongRegion { source, .. }
            | Self::Refused { source, .. }
            | Self::Failed { source, .. } => Some(source),
            Self::Clock { source, .. } => Some(source),
            Self::Checksum { source, .. } => source.as_ref(),
            _ => None,
        }
    }

    /// What an SDK call's failure means.
    pub(crate) fn from_sdk<E>(verb: Verb, place: &str, error: SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        let place: Box<str> = place.into();
        match error {
            SdkError::TimeoutError(_) => Self::TimedOut { verb, place },
            SdkError::DispatchFailure(ref failure) if failure.is_timeout() => Self::TimedOut { verb, place },
            SdkError::DispatchFailure(_) => match error.into_source() {
                Ok(source) => Self::Unreachable { verb, place, source },
                Err(_) => Self::TimedOut { verb, place },
            },
            SdkError::ServiceError(service) => {
                Self::from_answer(verb, place, Answer::new(service.err(), service.raw()))
            }
            // The answer began, and broke off.
            SdkError::ResponseError(_) => match error.into_source() {
                Ok(source) => Self::Unreachable { verb, place, source },
                Err(_) => Self::Protocol { verb, place, source: None },
            },
            other => Self::Protocol { verb, place, source: other.into_source().ok() },
        }
    }

    fn from_answer(verb: Verb, place: Box<str>, source: Answer) -> Self {
        if let Some(error) = Self::of_clocks(verb, &place, &source, SystemTime::now()) {
            return error;
        }
        let code = source.code.as_deref().unwrap_or_default();
        match (source.status, code) {
            (_, "NoSuchBucket") => Self::NoSuchBucket { place, source },
            (_, "NoSuchKey") => Self::NoSuchKey { place, source },
            (_, "NoSuchUpload") => Self::NoSuchUpload { place, source },
            // The last is garage's word for it.
            (
                _,
                "BadDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" | "InvalidDigest",
            ) => Self::Checksum { place, source: Some(source) },
            // Whatever the status: RequestTimeout comes with 400, and a Complete that fails late with 200.
            (_, code) if TRY_AGAIN.contains(&code) => Self::Failed { verb, place, source },
            (_, "BucketAlreadyExists") => Self::BucketTaken { place },
            (412, _) => Self::PreconditionFailed { place },
            (301 | 307 | 308, _) | (400, "AuthorizationHeaderMalformed") => {
                Self::WrongRegion { place, source }
            }
            (401 | 403, _) | (400, "ExpiredToken" | "InvalidToken" | "InvalidAccessKeyId") => {
                Self::AccessDenied { verb, place, source }
            }
            (404, _) if verb.is_of_bucket() => Self::NoSuchBucket { place, source },
            (404, _) => Self::NoSuchKey { place, source },
            // A conditional request that met another one: the other may still fail.
            (409, "ConditionalRequestConflict" | "OperationAborted") => Self::Failed { verb, place, source },
            (408 | 429 | 500.., "NotImplemented") => Self::Refused { verb, place, source },
            (408 | 429 | 500.., _) => Self::Failed { verb, place, source },
            _ => Self::Refused { verb, place, source },
        }
    }
}

impl ObjectError {
    /// A refusal that comes of clocks which differ. A store that says nothing of them, as in the answer to a HEAD, or has another word
    /// for it (garage: 400 InvalidRequest), refuses whoever signs with such a clock nonetheless.
    fn of_clocks(verb: Verb, place: &str, source: &Answer, now: SystemTime) -> Option<Self> {
        let store_time = source.time.filter(|_| matches!(source.status, 400 | 401 | 403))?;
        let (off, is_ahead) = match now.duration_since(store_time) {
            Ok(ahead) => (ahead, true),
            Err(behind) => (behind.duration(), false),
        };
        let source = Box::new(source.clone());
        (off > MAX_SKEW).then(|| Self::Clock { verb, place: place.into(), off, is_ahead, store_time, source })
    }
}

fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}

/// Codes by which stores ask for patience ("Error responses", Amazon S3 API, and what its kin add).
const TRY_AGAIN: [&str; 9] = [
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
    "RequestTimeout",
    "InternalError",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
];

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verb {
    /// Write an object.
    Put,
    /// Read an object.
    Get,
    /// Ask for an object's size.
    Head,
    /// Remove an object.
    Delete,
    /// List objects or uploads.
    List,
    /// Create a bucket.
    CreateBucket,
    /// Ask whether a bucket is there.
    HeadBucket,
    /// Begin, feed or complete an upload.
    Upload,
    /// Abort an upload.
    AbortUpload,
    /// Sign a URL.
    Sign,
}

impl Verb {
    fn is_of_bucket(self) -> bool {
        matches!(self, Self::List | Self::CreateBucket | Self::HeadBucket | Self::Put | Self::Upload)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put => "write",
            Self::Get | Self::Head => "read",
            Self::Delete => "delete",
            Self::List => "list",
            Self::CreateBucket => "create",
            Self::HeadBucket => "find",
            Self::Upload => "upload to",
            Self::AbortUpload => "abort the upload to",
            Self::Sign => "sign a URL for",
        })
    }
}

/// A store's answer that reports an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The S3 error code, where the store gave one.
    pub code: Option<Box<str>>,
    /// The store's message, shortened, without control characters.
    pub message: Option<Box<str>>,
    /// What the store's operators may look it up by.
    pub request_id: Option<Box<str>>,
    /// How long the store asks to be left alone.
    pub retry_after: Option<Duration>,
    /// The time by the store's clock.
    pub time: Option<SystemTime>,
}

impl Answer {
    fn new(error: &impl ProvideErrorMetadata, raw: &HttpResponse) -> Self {
        let header = |name| raw.headers().get(name).map(printable);
        // Only this header says which region it is; the message often does not.
        let region =
            header("x-amz-bucket-region").map(|region| format!("the bucket's region is {region}").into());
        Self {
            status: raw.status().as_u16(),
            code: error.code().map(printable),
            message: region.or_else(|| error.message().map(printable)),
            request_id: header("x-amz-request-id"),
            retry_after: raw.headers().get("retry-after").and_then(parse_retry_after),
            // What a cache answers has the time of another answer (RFC 9111, section 5.1).
            time: header("age").is_none().then(|| raw.headers().get("date").and_then(parse_date)).flatten(),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it answered {}", self.status)?;
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        if let Some(message) = &self.message {
            write!(f, ": {message}")?;
        }
        match &self.request_id {
            Some(id) => write!(f, " (request {id})"),
            None => Ok(()),
        }
    }
}

impl StdError for Answer {}

/// Text from outside, fit for a terminal and a log.
pub(crate) fn printable(text: &str) -> Box<str> {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).take(MAX_MESSAGE_CHARS).collect()
}
