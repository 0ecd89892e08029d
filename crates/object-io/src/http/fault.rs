//! What lies beneath a failed read of a URL. Nothing here holds the URL's query.

use std::error::Error as StdError;
use std::time::Duration;

use disk_convert::SourceFault;

use crate::limits::MAX_RETRY_AFTER;

/// What a server, or the way to it, did wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpFault {
    /// The text is not a URL.
    #[error("not a URL")]
    Url,
    /// Another scheme than those that are allowed.
    #[error("the scheme of the URL is not allowed")]
    Scheme,
    /// The URL holds a user name or a password.
    #[error("the URL holds a user name or a password")]
    User,
    /// The host is not one of those that are allowed.
    #[error("the host of the URL is not allowed")]
    Host,
    /// The host has no address that is allowed.
    #[error("the host of the URL has no address that is allowed")]
    Address,
    /// The server sends elsewhere.
    #[error("the server redirects to `{to}`")]
    Redirect {
        /// Where to, without a query.
        to: Box<str>,
    },
    /// The signature ended before anything was asked.
    #[error("the signature of the URL ended {} s ago", ago.as_secs())]
    Expired {
        /// How long ago.
        ago: Duration,
    },
    /// The server refused or failed.
    #[error("the server answered {status}{}{code}{}{message}", sep(" ", code), sep(": ", message))]
    Status {
        /// HTTP status.
        status: u16,
        /// S3 error code, empty where there is none.
        code: Box<str>,
        /// The server's message, shortened; empty where there is none.
        message: Box<str>,
    },
    /// The answer names another range than was asked for, or none.
    #[error("the server sent range `{found}`, expected `{expected}`")]
    Range {
        /// The header, shortened.
        found: Box<str>,
        /// What it should say.
        expected: Box<str>,
    },
    /// The object has another version than the one that was opened.
    #[error("the server sent version {found}, expected {expected}")]
    Version {
        /// The answer's ETag or date.
        found: Box<str>,
        /// The one that was opened.
        expected: Box<str>,
    },
    /// The object has another length than the one that was opened.
    #[error("the object has {found} bytes, expected {expected}")]
    Size {
        /// Its length now.
        found: u64,
        /// Its length when it was opened.
        expected: u64,
    },
    /// The answer is compressed or otherwise encoded, though that was not asked for.
    #[error("the answer is encoded, expected plain bytes")]
    Encoded,
    /// The body is longer than the range.
    #[error("the body is longer than the range of {expected} bytes")]
    LongBody {
        /// Bytes that were asked for.
        expected: u64,
    },
    /// The body ended too soon.
    #[error("the body ended after {found} bytes, expected {expected}")]
    ShortBody {
        /// Bytes that came.
        found: u64,
        /// Bytes that were asked for.
        expected: u64,
    },
    /// Too long without the head of an answer.
    #[error("no answer came within {} s", after.as_secs_f32())]
    NoAnswer {
        /// How long it was waited for.
        after: Duration,
    },
    /// Too long between two pieces of an answer.
    #[error("nothing arrived for {} s", after.as_secs_f32())]
    Silent {
        /// How long.
        after: Duration,
    },
    /// Too few bytes over the window.
    #[error("{found} bytes arrived in {} s, expected {expected}", window.as_secs_f32())]
    Slow {
        /// Bytes that came.
        found: u64,
        /// Bytes that should have come.
        expected: u64,
        /// In which time.
        window: Duration,
    },
    /// The connection failed.
    #[error("the connection failed")]
    Connection {
        /// How, without the URL.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The HTTP client could not be made.
    #[error("cannot set up HTTP")]
    Client {
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl HttpFault {
    /// The field of [`TimeLimits`](crate::TimeLimits) that ended the attempt, if one did.
    pub fn time_limit(&self) -> Option<&'static str> {
        match self {
            Self::NoAnswer { .. } => Some("first_byte"),
            Self::Silent { .. } => Some("idle"),
            Self::Slow { .. } => Some("min_rate"),
            Self::Connection { source } => {
                let timed_out =
                    source.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout);
                timed_out.then_some("connect")
            }
            _ => None,
        }
    }
}

/// An attempt that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) fault: SourceFault,
    pub(super) cause: HttpFault,
    /// The pause that the server asked for.
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    pub(super) fn new(fault: SourceFault, cause: HttpFault) -> Self {
        Self { fault, cause, retry_after: None }
    }

    /// Not longer than patience lasts.
    pub(super) fn retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait.map(|wait| wait.min(MAX_RETRY_AFTER));
        self
    }

    pub(super) fn is_retryable(&self) -> bool {
        matches!(self.fault, SourceFault::Stalled | SourceFault::Unavailable)
    }

    /// A client's error. The policy's refusals come back through it, from the resolver.
    pub(super) fn of_client(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let mut beneath: Option<&(dyn StdError + 'static)> = error.source();
        while let Some(cause) = beneath {
            if let Some(HttpFault::Address) = cause.downcast_ref() {
                return Self::new(SourceFault::Forbidden, HttpFault::Address);
            }
            beneath = cause.source();
        }
        let fault = if error.is_timeout() { SourceFault::Stalled } else { SourceFault::Unavailable };
        Self::new(fault, HttpFault::Connection { source: Box::new(error) })
    }
}

/// `text` where something follows it.
fn sep(text: &'static str, next: &str) -> &'static str {
    if next.is_empty() { "" } else { text }
}
