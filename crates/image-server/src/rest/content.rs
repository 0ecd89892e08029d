//! `/images/{id}/disk.raw` and `/images/{id}/disk.qcow2`: the content of an Image, by ranges.
//!
//! Beside the cloud's contract, for whoever may see the Image. The ETag follows from the guest digest, so the same disk has the same
//! one under every id. Both are made as they are sent: raw from the blocks, qcow2 (clusters of 2 MiB, as `image-prep convert` lays them
//! out) from the map of what is stored. Memory: three pieces of 4 MiB for each answer, of which a bounded number is given at a time.

use std::{io, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use disk_convert::ByteSource;
use disk_image::Span;
use futures_util::stream;
use image_api::{Code, compute::image, rpc::Status};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    App, AppState,
    answer::Refusal,
    range::{Wanted, wanted},
};
use crate::{
    limits,
    worker::{Form, Readable},
};

pub(super) async fn serve(
    State(app): AppState,
    Path((id, file)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let form = match file.as_str() {
        "disk.raw" => Form::Raw,
        "disk.qcow2" => Form::Qcow2,
        _ => return Err(super::unknown_path().await),
    };
    let image = app.catalog.image(&id).await?;
    if image.status() != image::Status::Ready {
        let status = image.status().as_str_name();
        let message = format!("image {id} is {status}, expected READY");
        return Err(Status::new(Code::FailedPrecondition, message).into());
    }
    let permit = timeout(limits::READER_PATIENCE, Arc::clone(&app.readers).acquire_owned()).await;
    // Nobody closes it.
    let Ok(Ok(permit)) = permit else { return Err(busy()) };
    let Readable { source, etag } = open(&app, &id, form).await?;
    let (status, span) = match wanted(&headers, &etag, source.len()) {
        Wanted::Whole => (StatusCode::OK, Span::new(0, source.len())),
        Wanted::Part(span) => (StatusCode::PARTIAL_CONTENT, span),
        Wanted::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, Span::new(0, 0)),
        Wanted::NotModified => (StatusCode::NOT_MODIFIED, Span::new(0, 0)),
        Wanted::Changed => (StatusCode::PRECONDITION_FAILED, Span::new(0, 0)),
    };
    let range = match status {
        StatusCode::PARTIAL_CONTENT => {
            Some(format!("bytes {}-{}/{}", span.start, span.end() - 1, source.len()))
        }
        StatusCode::RANGE_NOT_SATISFIABLE => Some(format!("bytes */{}", source.len())),
        _ => None,
    };
    let mut answer = match method == Method::HEAD || span.is_empty() {
        true => Body::empty(),
        false => body(source, span, permit),
    }
    .into_response();
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if status != StatusCode::NOT_MODIFIED {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(span.len));
    }
    for (name, value) in [(header::ETAG, Some(etag)), (header::CONTENT_RANGE, range)] {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
    }
    Ok(answer)
}

async fn open(app: &App, id: &str, form: Form) -> Result<Readable, Refusal> {
    // Dropping the handler stops the read; there is nothing else to cancel.
    app.content.open(id, form, &CancellationToken::new()).await.map_err(|error| {
        warn!(
            image_id = id,
            error = &error as &dyn std::error::Error,
            "the content of an image cannot be read"
        );
        Status::new(Code::Unavailable, "the content of the image cannot be read at the moment").into()
    })
}

fn busy() -> Refusal {
    let message = "too many read the content of images at the moment (limit content-readers)";
    Refusal::busy(Status::new(Code::ResourceExhausted, message))
}

/// The bytes `span`, as they are read; one piece is sent while the next one is fetched.
///
/// Read by a task of its own: a caller that takes nothing any more would otherwise keep its place for as long as it likes.
fn body(source: Arc<dyn ByteSource>, span: Span, permit: OwnedSemaphorePermit) -> Body {
    let (give, take) = mpsc::channel::<io::Result<Bytes>>(1);
    tokio::spawn(async move {
        let _permit = permit;
        let mut at = span.start;
        while at < span.end() {
            let piece = Span::between(at, span.end().min((at / PIECE + 1) * PIECE));
            let read = tokio::select! {
                biased;
                () = give.closed() => return,
                read = source.read(piece) => read.map_err(io::Error::other),
            };
            if let Err(error) = &read {
                warn!(error = error as &dyn std::error::Error, "an answer breaks off");
            }
            let last = read.is_err();
            // One that is gone, or asleep: the answer is shorter than it said, which no client takes for whole.
            let given = timeout(limits::READER_IDLE, give.send(read)).await;
            if last || !matches!(given, Ok(Ok(()))) {
                return;
            }
            at = piece.end();
        }
    });
    Body::from_stream(stream::unfold(take, |mut take| async move { Some((take.recv().await?, take)) }))
}

/// Bytes read at a time, from multiples of it on: blocks of the store.
const PIECE: u64 = disk_convert::BLOCK_SIZE;
