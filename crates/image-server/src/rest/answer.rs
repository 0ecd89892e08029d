//! Messages and errors as HTTP answers.

use std::time::Duration;

use axum::{
    extract::{FromRequestParts, Path},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use image_api::{Code, JsonError, Violations, rpc::Status, to_json};
use prost::Name;
use tracing::error;

use crate::{catalog::CatalogError, limits, operation::Refused};

/// A message as the body of an answer.
pub(super) struct Json<M>(pub(super) M);

impl<M: Name> IntoResponse for Json<M> {
    fn into_response(self) -> Response {
        match to_json(&self.0) {
            Ok(body) => (StatusCode::OK, [JSON], body).into_response(),
            Err(error) => Refusal::from(error).into_response(),
        }
    }
}

const JSON: (header::HeaderName, HeaderValue) =
    (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));

/// The identifier in a path, and the verb behind it.
pub(super) struct Id(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(error) => Err(Status::new(Code::InvalidArgument, error.body_text()).into()),
        }
    }
}

/// A refused call.
#[derive(Debug)]
pub(super) struct Refusal {
    status: Box<Status>,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// A call that may be made again soon.
    pub(super) fn busy(status: Status) -> Self {
        Self { retry_after: Some(limits::QUEUE_RETRY_AFTER), ..Self::from(status) }
    }

    /// A call that is well-formed, and asks for what this version cannot do; names the field.
    pub(super) fn unimplemented(field: &str) -> Self {
        let description = "this server does not serve this field yet";
        let details = Violations::one(field, description).into_status().details;
        let message = format!("{field}: {description}");
        Self::from(Status { details, ..Status::new(Code::Unimplemented, message) })
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self { status: Box::new(status), retry_after: None }
    }
}

impl From<Violations> for Refusal {
    fn from(violations: Violations) -> Self {
        Self::from(violations.into_status())
    }
}

/// Of our own making: what we wrote has no JSON form.
impl From<JsonError> for Refusal {
    fn from(error: JsonError) -> Self {
        error!(error = &error as &dyn std::error::Error, "an answer cannot be written");
        Self::from(internal())
    }
}

impl From<CatalogError> for Refusal {
    fn from(error: CatalogError) -> Self {
        let code = match &error {
            CatalogError::NoImage { .. } | CatalogError::NoOperation { .. } => Code::NotFound,
            CatalogError::NameTaken { .. } | CatalogError::KeyReused => Code::AlreadyExists,
            CatalogError::QueueFull { .. } | CatalogError::TooFast { .. } => Code::ResourceExhausted,
            CatalogError::NotDeletable { .. } => Code::FailedPrecondition,
            CatalogError::Refused(Refused { .. }) => Code::FailedPrecondition,
            CatalogError::Database { .. }
            | CatalogError::Migration { .. }
            | CatalogError::UnsupportedUrl
            | CatalogError::Json { .. }
            | CatalogError::Word { .. } => {
                error!(error = &error as &dyn std::error::Error, "the catalog failed");
                return Self::from(internal());
            }
        };
        let retry_after = (code == Code::ResourceExhausted).then_some(limits::QUEUE_RETRY_AFTER);
        Self { retry_after, ..Self::from(Status::new(code, error.to_string())) }
    }
}

/// What broke stands in the log, under the request's id.
fn internal() -> Status {
    Status::new(Code::Internal, "internal error")
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let http = self.status.canonical_code().http_status();
        let http = StatusCode::from_u16(http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // A Status without JSON form would be one with a detail that we did not make.
        let body = to_json(&*self.status).unwrap_or_default();
        let mut response = (http, [JSON], body).into_response();
        if let Some(pause) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(pause.as_secs()));
        }
        if http == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
