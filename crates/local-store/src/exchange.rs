//! One request and its response: s3s answers, and what it left of the request's body is seen to.
//!
//! A request can be refused before its body is read. To close the connection then would reset it under a
//! client that is still sending, which loses the response; and a client that does not know of the close would
//! send its next request into it. So the rest of the body is read first, up to a bound; and a client that
//! waits for `100 Continue` is told that the connection ends here (RFC 9110 section 10.1.1), for reading
//! would ask it to send.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT};
use http::{HeaderValue, Request, Response};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use s3s::HttpError;
use s3s::service::S3Service;

use crate::limits::{DRAIN, DRAIN_TIME};

pub(crate) async fn answer(
    service: S3Service,
    request: Request<Incoming>,
) -> Result<Response<s3s::Body>, HttpError> {
    let waits = request.headers().contains_key(EXPECT);
    let home = Home::default();
    let request = request.map(|body| {
        let lent = Lent { body: Some(body), home: Arc::clone(&home) };
        s3s::Body::http_body(lent)
    });
    let mut response = service.call(request).await?;
    let left = home.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(body) = left
        && (waits || !drain(body).await)
    {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Reads to the end, if it comes soon enough.
async fn drain(mut body: Incoming) -> bool {
    let read = async {
        let mut size = 0;
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let Ok(frame) = frame else { return false };
            size += frame.data_ref().map_or(0, |data| data.len() as u64);
            if size > DRAIN {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(DRAIN_TIME, read).await.unwrap_or(false)
}

type Home = Arc<Mutex<Option<Incoming>>>;

/// A body that comes home when it is dropped before its end.
struct Lent {
    body: Option<Incoming>,
    home: Home,
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            *self.home.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}
