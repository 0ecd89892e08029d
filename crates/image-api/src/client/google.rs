//! Compute Engine's calls for images, of one project.
//!
//! Source: <https://cloud.google.com/compute/docs/reference/rest/v1/images> and `.../globalOperations`; which verb, path and body a call
//! has the descriptors say, as for all others. A changing call carries a `requestId`, by which Google knows a repetition for an hour at
//! least. REST only: Google offers nothing else. Errors have Google's shape ([`read_error`]).
//!
//! There is no way to cancel an operation, and none to rename an image.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{ApiError, Call, Client, StatusError, Uuid, WaitOptions, retry};
use crate::{
    Code, from_json_lenient,
    google::{
        DeleteImageRequest, ErrorReply, GetGlobalOperationRequest, GetImageRequest, Image, ImageList,
        InsertImageRequest, ListImagesRequest, Operation, WaitGlobalOperationRequest,
    },
};

/// The images of a project; a clone shares its connections.
#[derive(Clone, Debug)]
pub struct ComputeEngine {
    client: Client,
    project: String,
}

impl ComputeEngine {
    /// Over a client of the service, such as `https://compute.googleapis.com`, that speaks REST.
    pub fn new(client: Client, project: &str) -> Self {
        Self { client, project: project.to_owned() }
    }

    /// Asks for a new image. The same `request_id` with the same request gives the same operation, so a call may be repeated after a
    /// crash by whoever kept it.
    pub async fn insert(
        &self,
        request: &InsertImageRequest,
        request_id: Uuid,
        cancel: &CancellationToken,
    ) -> Result<Operation, ApiError> {
        let request = InsertImageRequest {
            project: self.project.clone(),
            request_id: request_id.to_string(),
            ..request.clone()
        };
        self.client.send(&INSERT_IMAGE, &request, None, cancel).await
    }

    /// Shows an image.
    pub async fn get(&self, name: &str, cancel: &CancellationToken) -> Result<Image, ApiError> {
        let request = GetImageRequest { project: self.project.clone(), image: name.to_owned() };
        self.client.send(&GET_IMAGE, &request, None, cancel).await
    }

    /// Lists images, at most `max_results`.
    pub async fn list(&self, max_results: i64, cancel: &CancellationToken) -> Result<ImageList, ApiError> {
        let request =
            ListImagesRequest { project: self.project.clone(), max_results, ..ListImagesRequest::default() };
        self.client.send(&LIST_IMAGES, &request, None, cancel).await
    }

    /// Asks for the removal of an image.
    pub async fn delete(
        &self,
        name: &str,
        request_id: Uuid,
        cancel: &CancellationToken,
    ) -> Result<Operation, ApiError> {
        let request = DeleteImageRequest {
            project: self.project.clone(),
            image: name.to_owned(),
            request_id: request_id.to_string(),
        };
        self.client.send(&DELETE_IMAGE, &request, None, cancel).await
    }

    /// Shows an operation.
    pub async fn operation(&self, name: &str, cancel: &CancellationToken) -> Result<Operation, ApiError> {
        self.client.send(&GET_OPERATION, &self.named(name), None, cancel).await
    }

    /// Waits until an operation is done and returns it, whether it succeeded or failed; `on_progress` sees every answer, the last one
    /// included. When `cancel` fires only the waiting ends: the operation goes on.
    pub async fn wait(
        &self,
        name: &str,
        options: &WaitOptions,
        mut on_progress: impl FnMut(&Operation),
        cancel: &CancellationToken,
    ) -> Result<Operation, ApiError> {
        let mut interval = options.first_interval;
        let mut last_answer = Instant::now();
        loop {
            let began = Instant::now();
            let mut on_look = |seen: &Operation| {
                last_answer = Instant::now();
                on_progress(seen);
            };
            let pause = match self.wait_once(name, options.max_interval, &mut on_look, cancel).await {
                Ok(operation) => {
                    on_progress(&operation);
                    if operation.is_done() {
                        return Ok(operation);
                    }
                    last_answer = Instant::now();
                    // An answer may come at once, where many wait already.
                    interval.saturating_sub(began.elapsed())
                }
                Err(error) if error.is_retryable() && last_answer.elapsed() < options.patience => {
                    error.retry_after().unwrap_or_default().max(interval)
                }
                Err(error) => return Err(error),
            };
            retry::pause(retry::jittered(pause), cancel).await?;
            interval = options.next_interval(interval);
        }
    }

    /// One call of `wait`, which the server answers when the operation is done or after two minutes. Meanwhile the operation is looked at
    /// for its progress.
    async fn wait_once(
        &self,
        name: &str,
        interval: Duration,
        on_look: &mut impl FnMut(&Operation),
        cancel: &CancellationToken,
    ) -> Result<Operation, ApiError> {
        let named = self.named(name);
        let request =
            WaitGlobalOperationRequest { project: named.project.clone(), operation: name.to_owned() };
        let mut answer = Box::pin(self.client.attempt(&WAIT_OPERATION, &request, None, cancel));
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                () = tokio::time::sleep(interval) => {}
            }
            // What goes wrong with a look goes wrong with the call too, which says so.
            if let Ok(seen) = self.client.attempt::<_, Operation>(&GET_OPERATION, &named, None, cancel).await
            {
                on_look(&seen);
                if seen.is_done() {
                    return Ok(seen);
                }
            }
        }
    }

    fn named(&self, operation: &str) -> GetGlobalOperationRequest {
        GetGlobalOperationRequest { project: self.project.clone(), operation: operation.to_owned() }
    }
}

const INSERT_IMAGE: Call = Call::new("insert image", "/google.cloud.compute.v1.Images/Insert");
const GET_IMAGE: Call = Call::new("get image", "/google.cloud.compute.v1.Images/Get");
const LIST_IMAGES: Call = Call::new("list images", "/google.cloud.compute.v1.Images/List");
const DELETE_IMAGE: Call = Call::new("delete image", "/google.cloud.compute.v1.Images/Delete");
const GET_OPERATION: Call = Call::new("get operation", "/google.cloud.compute.v1.GlobalOperations/Get");
const WAIT_OPERATION: Call =
    Call::long("wait for operation", "/google.cloud.compute.v1.GlobalOperations/Wait");

/// All of them, for a test.
#[cfg(test)]
pub(super) const CALLS: [Call; 6] =
    [INSERT_IMAGE, GET_IMAGE, LIST_IMAGES, DELETE_IMAGE, GET_OPERATION, WAIT_OPERATION];

pub(super) fn is_of_google(call: &Call) -> bool {
    call.path.starts_with("/google.")
}

/// A refusal: `{"error": {"code", "message", "errors": [{"message", "domain", "reason"}], "status"}}`, of which Google leaves out what it
/// likes. What is not of that shape comes from a gateway.
pub(super) fn read_error(http_status: u16, body: &[u8], retry_after: Option<Duration>) -> StatusError {
    let reply = from_json_lenient::<ErrorReply>(body).ok().and_then(|reply| reply.error);
    let Some(error) = reply.filter(|error| error.code != 0) else {
        return StatusError::read(http_status, body, None, retry_after);
    };
    let reason = error.errors.first().map(|fault| fault.reason.as_str()).unwrap_or_default();
    let code = code_of(http_status, &error.status, reason);
    let message = error.message;
    StatusError { code, message, details: Vec::new(), http_status, request_id: None, retry_after }
}

/// What Google's words come to; the most exact one counts.
fn code_of(http_status: u16, word: &str, reason: &str) -> Code {
    match reason {
        "rateLimitExceeded" | "userRateLimitExceeded" => return Code::ResourceExhausted,
        "alreadyExists" => return Code::AlreadyExists,
        "conditionNotMet" | "resourceNotReady" => return Code::FailedPrecondition,
        _ => {}
    }
    Code::of_name(word).unwrap_or(match http_status {
        412 => Code::FailedPrecondition,
        status => Code::from_http_status(status),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_google_have_our_codes() {
        for (status, body, code, message) in [
            (
                409,
                r#"{"error":{"code":409,"message":"taken","errors":[{"message":"taken","domain":"global","reason":"alreadyExists"}]}}"#,
                Code::AlreadyExists,
                "taken",
            ),
            (
                404,
                r#"{"error":{"code":404,"message":"gone","errors":[{"reason":"notFound","debugInfo":"x"}],"details":[{"@type":"x.y/Z"}]}}"#,
                Code::NotFound,
                "gone",
            ),
            (
                401,
                r#"{"error":{"code":401,"message":"who","errors":[{"reason":"required"}],"status":"UNAUTHENTICATED"}}"#,
                Code::Unauthenticated,
                "who",
            ),
            (400, r#"{"error":{"code":400,"message":"bad"}}"#, Code::InvalidArgument, "bad"),
            (412, r#"{"error":{"code":412,"message":"stale"}}"#, Code::FailedPrecondition, "stale"),
            (502, "<html>Bad Gateway</html>", Code::Unavailable, "<html>Bad Gateway</html>"),
            (403, r#"{"error":"invalid_grant"}"#, Code::PermissionDenied, r#"{"error":"invalid_grant"}"#),
        ] {
            let error = read_error(status, body.as_bytes(), None);
            assert_eq!((error.code, error.message.as_str(), error.http_status), (code, message, status));
        }
    }

    #[test]
    fn too_many_calls_are_tried_again() {
        let body = br#"{"error":{"code":403,"message":"slow","errors":[{"reason":"rateLimitExceeded"}]}}"#;
        let error = |body| ApiError::Status(Box::new(read_error(403, body, None)));
        assert!(error(&body[..]).is_retryable());
        assert!(!error(br#"{"error":{"code":403,"message":"no"}}"#).is_retryable());
    }
}
