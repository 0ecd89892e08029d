//! Why a call failed.

use std::{fmt, time::Duration};

use prost_types::Any;

use crate::{
    Code, JsonError, KeyError, from_json_lenient,
    rpc::{RetryInfo, Status, bad_request::FieldViolation},
    unpack,
};

/// Most characters that are shown of an error page that is not JSON.
const EXCERPT_MAX: usize = 200;

/// Why a call failed. No variant holds a token or a request's URL.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The endpoint is not usable. Its text is not repeated: it may hold a password.
    #[error("the endpoint is not an http or https URL with a host, and nothing but a path after it")]
    Endpoint,
    /// The client cannot be made, for example without any root of trust.
    #[error("cannot set up the http client")]
    Setup {
        /// What is missing.
        source: TransportError,
    },
    /// The request has no JSON form.
    #[error("cannot write the request: {call}")]
    Request {
        /// What was tried.
        call: &'static str,
        /// What has no form.
        source: JsonError,
    },
    /// The server answered with an error.
    #[error(transparent)]
    Status(Box<StatusError>),
    /// There was no answer, or it broke off.
    #[error("no answer from {server}: {call}")]
    Transport {
        /// What was tried.
        call: &'static str,
        /// Host and port.
        server: String,
        /// What broke; holds no URL.
        source: TransportError,
    },
    /// The server reported success with something that is not the expected message.
    #[error("the answer with HTTP status {http_status} cannot be read: {call}")]
    Answer {
        /// What was tried.
        call: &'static str,
        /// Status of the answer.
        http_status: u16,
        /// What is wrong with it.
        source: JsonError,
    },
    /// The answer is longer than anything this service sends.
    #[error("the answer is longer than {limit} bytes: {call}")]
    AnswerTooLong {
        /// What was tried.
        call: &'static str,
        /// Most bytes that are read.
        limit: usize,
    },
    /// The credentials gave no token.
    #[error("no token for {whose}")]
    NoToken {
        /// Whose credentials.
        whose: String,
        /// Why not.
        source: Box<ApiError>,
    },
    /// What was to be a token is none. It is not repeated.
    #[error("the answer holds no token")]
    NotAToken,
    /// The key of a service account does not sign.
    #[error("the key of the service account is of no use")]
    Key {
        /// Why not.
        source: KeyError,
    },
    /// The caller's token fired. What the server does with the call is not known.
    #[error("cancelled")]
    Cancelled,
}

/// What broke beneath a call.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// HTTP.
    #[error(transparent)]
    Http(reqwest::Error),
    /// A connection for gRPC.
    #[error(transparent)]
    Grpc(tonic::transport::Error),
    /// A call over such a connection.
    #[error(transparent)]
    Call(Box<dyn std::error::Error + Send + Sync>),
    /// The time of an attempt is over.
    #[error("the time-out of {} s is over", after.as_secs_f32())]
    TimedOut {
        /// The time-out.
        after: Duration,
    },
}

impl ApiError {
    /// The canonical code that fits this error.
    pub fn code(&self) -> Code {
        match self {
            Self::Endpoint | Self::Request { .. } => Code::InvalidArgument,
            Self::Setup { .. } | Self::Answer { .. } | Self::AnswerTooLong { .. } => Code::Internal,
            Self::NotAToken => Code::Internal,
            Self::NoToken { source, .. } => source.code(),
            Self::Key { .. } => Code::Unauthenticated,
            Self::Status(error) => error.code,
            Self::Transport { .. } => Code::Unavailable,
            Self::Cancelled => Code::Cancelled,
        }
    }

    /// Whether the same call may work later: 429, 5xx except 501, and every failure of a connection. Google says too much with 403 as well.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Status(error) => {
                let is_too_much = error.http_status == 403 && error.code == Code::ResourceExhausted;
                is_too_much || matches!(error.http_status, 429 | 500 | 502..=504)
            }
            Self::Transport { source: TransportError::Http(source), .. } => !source.is_builder(),
            Self::Transport { .. } => true,
            Self::NoToken { source, .. } => source.is_retryable(),
            _ => false,
        }
    }

    /// What the server said about the error, if it was the server.
    pub fn status(&self) -> Option<&StatusError> {
        match self {
            Self::Status(error) => Some(error),
            _ => None,
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.status().and_then(|error| error.retry_after)
    }
}

/// An error that a server reported: `google.rpc.Status`, and what HTTP adds.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusError {
    /// Canonical code; derived from the HTTP status where the body has none.
    pub code: Code,
    /// The server's sentence; the beginning of the body where it is not a Status.
    pub message: String,
    /// Typed details of the kinds that are known here.
    pub details: Vec<Any>,
    /// Status line; over gRPC the one that stands for the code.
    pub http_status: u16,
    /// `x-request-id`, header or metadata, by which an operator finds the call.
    pub request_id: Option<String>,
    /// `Retry-After`; over gRPC the `RetryInfo` among the details.
    pub retry_after: Option<Duration>,
}

impl StatusError {
    pub(crate) fn read(
        http_status: u16,
        body: &[u8],
        request_id: Option<String>,
        retry_after: Option<Duration>,
    ) -> Self {
        // An empty object reads as a Status too, but says nothing.
        let status = from_json_lenient::<Status>(body).ok().filter(|status| status.code != 0);
        let Status { code, message, details } =
            status.unwrap_or_else(|| Status::new(Code::from_http_status(http_status), excerpt(body)));
        Self { code: Code::from(code), message, details, http_status, request_id, retry_after }
    }

    /// A Status as gRPC carries it.
    pub(super) fn of_status(status: Status, request_id: Option<String>) -> Self {
        let delay = status.details.iter().find_map(|any| unpack::<RetryInfo>(any).ok()?.retry_delay);
        let Status { code, message, details } = status;
        let code = Code::from(code);
        let retry_after = delay.and_then(|delay| delay.try_into().ok());
        Self { code, message, details, http_status: code.http_status(), request_id, retry_after }
    }

    /// The fields of the request that the server refused.
    pub fn field_violations(&self) -> Vec<FieldViolation> {
        Status { details: self.details.clone(), ..Status::default() }.field_violations()
    }
}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if self.message.is_empty() {
            write!(f, " (HTTP status {})", self.http_status)?;
        } else {
            write!(f, ": {}", self.message)?;
        }
        match &self.request_id {
            Some(id) => write!(f, " (request {id})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for StatusError {}

/// The beginning of a body as one printable line.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let line =
        text.chars().map(printable).collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(EXCERPT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_not_json() {
        let page = b"<html>\r\n<h1>Bad Gateway</h1>\x1b[31m</html>";
        let error = StatusError::read(502, page, Some("r1".to_owned()), None);
        assert_eq!(error.code, Code::Unavailable);
        assert_eq!(error.to_string(), "UNAVAILABLE: <html> <h1>Bad Gateway</h1> [31m</html> (request r1)");
        assert!(ApiError::Status(Box::new(error)).is_retryable());
        assert_eq!(StatusError::read(404, b"", None, None).to_string(), "NOT_FOUND (HTTP status 404)");
        assert_eq!(StatusError::read(403, b"{}", None, None).code, Code::PermissionDenied);
        assert_eq!(StatusError::read(500, &[b'x'; 5000], None, None).message.len(), EXCERPT_MAX);
    }

    #[test]
    fn details_of_unknown_kinds_are_skipped() {
        let body = br#"{"code":3,"message":"no","details":[
            {"@type":"type.googleapis.com/google.rpc.RequestInfo","requestId":"x"},
            {"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"name","description":"bad"}]}]}"#;
        let error = StatusError::read(400, body, None, None);
        assert_eq!((error.code, error.message.as_str()), (Code::InvalidArgument, "no"));
        assert_eq!(error.field_violations()[0].field, "name");
        assert!(!ApiError::Status(Box::new(error)).is_retryable());
    }
}
