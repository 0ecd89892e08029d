//! `/images/{id}/disk.raw` and `/images/{id}/disk.qcow2`: the content of an Image, by ranges.
//!
//! Beside the cloud's contract, for whoever may use the Image as a source. The ETag follows from the guest digest, so the same disk has the same
//! one under every id. Both are made as they are sent: raw from the blocks, qcow2 (clusters of 2 MiB, as `image-prep convert` lays them
//! out) from the map of what is stored. Memory: three pieces of 4 MiB for each answer, of which a bounded number is given at a time.

use std::{io, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use disk_convert::ByteSource;
use disk_image::Span;
use futures_util::stream;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::timeout,
};
use tracing::warn;

use super::{
    RequestId,
    range::{Wanted, wanted},
};
use crate::{
    content::{Form, Readable},
    limits, rest,
    service::{Origin, Refusal, Service},
};

/// What a caller is told who has waited for a place.
const BUSY: &str = "too many read the content of images at the moment (limit content-readers)";

pub(super) async fn serve(
    State(service): State<Arc<Service>>,
    RequestId(request_id): RequestId,
    Path((id, file)): Path<(String, String)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let origin = Origin { headers: &headers, uri: &uri };
    let answered = answer(&service, &origin, &id, &file, &method).await;
    answered.unwrap_or_else(|refusal| rest::refuse(&refusal.into_status(&request_id)))
}

async fn answer(
    service: &Service,
    origin: &Origin<'_>,
    id: &str,
    file: &str,
    method: &Method,
) -> Result<Response, Refusal> {
    let form = match file {
        "disk.raw" => Form::Raw,
        "disk.qcow2" => Form::Qcow2,
        _ => return Err(Refusal::no_such_path()),
    };
    service.readable_image(origin, id).await?;
    let permit = timeout(limits::READER_PATIENCE, Arc::clone(&service.readers).acquire_owned()).await;
    // Nobody closes it.
    let Ok(Ok(permit)) = permit else { return Err(Refusal::busy(BUSY)) };
    let Readable { source, etag } = service.open_content(id, form).await?;
    let (status, span) = match wanted(origin.headers, &etag, source.len()) {
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
    let mut answer = match *method == Method::HEAD || span.is_empty() {
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

/// The bytes `span`, as they are read; one piece is sent while the next one is fetched.
///
/// Read by a task of its own, which ends with a caller that takes nothing any more. The place is kept until the last byte has left
/// or the connection is gone, as what was read is kept so long: over HTTP/1 a caller that stands still is cut off (`server/patience.rs`).
fn body(source: Arc<dyn ByteSource>, span: Span, permit: OwnedSemaphorePermit) -> Body {
    let (give, take) = mpsc::channel::<io::Result<Bytes>>(1);
    tokio::spawn(async move {
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
    Body::from_stream(stream::unfold((take, permit), |(mut take, permit)| async move {
        Some((take.recv().await?, (take, permit)))
    }))
}

/// Bytes read at a time, from multiples of it on: blocks of the store.
const PIECE: u64 = disk_convert::BLOCK_SIZE;
