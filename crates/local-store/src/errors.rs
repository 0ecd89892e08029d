//! Errors of single requests, with the codes and messages of "Error responses" in the S3 API reference.

use std::io;

use http::StatusCode;
use s3s::{S3Error, S3ErrorCode, StdError, s3_error};
use tokio::task::JoinError;

pub(crate) fn no_such_bucket() -> S3Error {
    s3_error!(NoSuchBucket, "The specified bucket does not exist")
}

pub(crate) fn no_such_key() -> S3Error {
    s3_error!(NoSuchKey, "The specified key does not exist.")
}

pub(crate) fn no_such_upload() -> S3Error {
    let message = "The specified upload does not exist. The upload ID may be invalid, or the upload may have been \
                   aborted or completed.";
    s3_error!(NoSuchUpload, "{message}")
}

pub(crate) fn precondition_failed() -> S3Error {
    s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold")
}

pub(crate) fn idle() -> S3Error {
    let message = "Your socket connection to the server was not read from or written to within the timeout \
                   period. Idle connections will be closed.";
    s3_error!(RequestTimeout, "{message}")
}

/// What the file system refused, as the client sees it: 507 when it is full, which clients do not retry, else
/// 500.
pub(crate) fn internal(error: io::Error) -> S3Error {
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        let code = S3ErrorCode::Custom("InsufficientStorage".into());
        let mut full = S3Error::with_message(code, "There is no space left in the store.");
        full.set_status_code(StatusCode::INSUFFICIENT_STORAGE);
        full.set_source(Box::new(error));
        return full;
    }
    tracing::error!(%error, "a request failed");
    S3Error::with_source(S3ErrorCode::InternalError, Box::new(error))
}

/// A job on the blocking pool that panicked, or was dropped with its runtime.
pub(crate) fn join(error: JoinError) -> S3Error {
    S3Error::internal_error(error)
}

/// A request body that broke off or that s3s found to be other than signed.
pub(crate) fn body_error(error: StdError) -> S3Error {
    // The types of s3s's body errors are private to it; their texts are all that can be told apart.
    let text = error.to_string();
    let mut found = if text.contains("Sha256Mismatch") {
        let message = "The provided 'x-amz-content-sha256' header does not match what was computed.";
        let mut mismatch =
            S3Error::with_message(S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into()), message);
        mismatch.set_status_code(StatusCode::BAD_REQUEST);
        mismatch
    } else if text.contains("SignatureMismatch") {
        s3_error!(SignatureDoesNotMatch, "The signature of a chunk does not match what was computed.")
    } else {
        s3_error!(IncompleteBody, "The request body terminated unexpectedly")
    };
    found.set_source(error);
    found
}
