//! Why a call is refused, as `google.rpc.Status` with its details.

use std::time::Duration;

use image_api::{
    Code, JsonError, Violations, any_of,
    rpc::{RequestInfo, RetryInfo, Status},
    unpack,
};
use tracing::{error, warn};

use crate::{catalog::CatalogError, limits, operation::Refused};

/// A refused call.
#[derive(Debug)]
pub(crate) struct Refusal(Box<Status>);

impl Refusal {
    /// A call that is well-formed, and asks for what this version cannot do; names the field.
    pub(crate) fn unimplemented(field: &str) -> Self {
        let description = "this server does not serve this field yet";
        let details = Violations::one(field, description).into_status().details;
        let message = format!("{field}: {description}");
        Self::from(Status { details, ..Status::new(Code::Unimplemented, message) })
    }

    /// A call that may be made again when there is room.
    pub(crate) fn busy(message: &str) -> Self {
        Self::for_now(Code::ResourceExhausted, message, limits::QUEUE_RETRY_AFTER)
    }

    /// A call that may be made again soon: what it needs is away.
    pub(crate) fn unavailable(message: &str) -> Self {
        Self::for_now(Code::Unavailable, message, limits::OUTAGE_RETRY_AFTER)
    }

    fn for_now(code: Code, message: &str, pause: Duration) -> Self {
        let mut status = Status::new(code, message);
        let retry_delay = image_api::Duration::try_from(pause).ok();
        status.details.push(any_of(&RetryInfo { retry_delay }));
        Self::from(status)
    }

    pub(crate) fn no_such_path() -> Self {
        Status::new(Code::NotFound, "no such path").into()
    }

    pub(crate) fn no_such_method() -> Self {
        Status::new(Code::Unimplemented, "this server does not serve that method here").into()
    }

    /// What broke stands in the log, under the request's id.
    pub(crate) fn internal() -> Self {
        Status::new(Code::Internal, "internal error").into()
    }

    /// Whether what was asked for is not there, as far as the caller may know.
    pub(crate) fn is_not_found(&self) -> bool {
        self.0.canonical_code() == Code::NotFound
    }

    /// The status of the call that the log has under `request_id`.
    pub(crate) fn into_status(self, request_id: &str) -> Status {
        let mut status = *self.0;
        let info = RequestInfo { request_id: request_id.to_owned(), serving_data: String::new() };
        status.details.push(any_of(&info));
        status
    }
}

/// Whole seconds after which a refused call may be repeated, where the status says so.
pub(crate) fn retry_after(status: &Status) -> Option<u64> {
    let delay = status.details.iter().find_map(|any| unpack::<RetryInfo>(any).ok())?.retry_delay?;
    u64::try_from(delay.seconds).ok()
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self(Box::new(status))
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
        Self::internal()
    }
}

impl From<CatalogError> for Refusal {
    fn from(error: CatalogError) -> Self {
        if error.is_outage() {
            warn!(error = &error as &dyn std::error::Error, "the catalog is away");
            return Self::unavailable("the catalog does not answer at the moment");
        }
        let code = match &error {
            CatalogError::NoImage { .. }
            | CatalogError::NoOperation { .. }
            | CatalogError::ContentGone { .. } => Code::NotFound,
            CatalogError::NameTaken { .. } | CatalogError::KeyReused => Code::AlreadyExists,
            CatalogError::Changed { .. } => Code::Aborted,
            CatalogError::QueueFull { .. } | CatalogError::TooFast { .. } => Code::ResourceExhausted,
            CatalogError::NotDeletable { .. }
            | CatalogError::NotChangeable { .. }
            | CatalogError::TooManyBindings { .. } => Code::FailedPrecondition,
            CatalogError::Refused(Refused::State { .. } | Refused::LeaseLost { .. }) => {
                Code::FailedPrecondition
            }
            CatalogError::Database { .. }
            | CatalogError::Migration { .. }
            | CatalogError::UnsupportedUrl
            | CatalogError::Json { .. }
            | CatalogError::Word { .. } => {
                error!(error = &error as &dyn std::error::Error, "the catalog failed");
                return Self::internal();
            }
        };
        match code {
            Code::ResourceExhausted => Self::busy(&error.to_string()),
            code => Status::new(code, error.to_string()).into(),
        }
    }
}
