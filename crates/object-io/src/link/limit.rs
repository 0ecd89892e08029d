//! A limit on bytes a second, shared by all parts of an upload.
//!
//! Each piece takes its time from one clock: what is held back at one moment is not made up for later. A body is handed to the socket
//! in pieces of a tenth of a second, so that a line shared with others stays usable.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep_until};

/// The smallest and the largest piece: below, the pieces cost more than they carry; above, nothing is gained.
const PIECE: (u64, u64) = (1 << 10, 256 << 10);

/// Bytes a second. Clones share the clock.
#[derive(Debug, Clone)]
pub(crate) struct RateLimit {
    bytes_per_second: u64,
    free: Arc<Mutex<Instant>>,
}

impl RateLimit {
    /// At least one byte a second.
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), free: Arc::new(Mutex::new(Instant::now())) }
    }

    pub(crate) fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }

    /// When `len` bytes may go.
    pub(crate) fn take(&self, len: u64) -> Instant {
        #[allow(clippy::cast_precision_loss, reason = "a time of milliseconds")]
        let time = Duration::from_secs_f64(len as f64 / self.bytes_per_second as f64);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let at = (*free).max(Instant::now());
        *free = at + time;
        at
    }

    fn piece(&self) -> usize {
        let piece = (self.bytes_per_second / 10).clamp(PIECE.0, PIECE.1);
        usize::try_from(piece).unwrap_or(usize::MAX)
    }
}

/// A body that goes out as fast as its limit allows.
pub(crate) struct PacedBody {
    rest: Bytes,
    limit: RateLimit,
    wait: Option<Pin<Box<Sleep>>>,
}

impl PacedBody {
    pub(crate) fn new(bytes: Bytes, limit: RateLimit) -> Self {
        Self { rest: bytes, limit, wait: None }
    }
}

impl Body for PacedBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let piece = self.rest.len().min(self.limit.piece());
        let this = &mut *self;
        let wait =
            this.wait.get_or_insert_with(|| Box::pin(sleep_until(this.limit.take(piece as u64).into())));
        ready!(wait.as_mut().poll(cx));
        self.wait = None;
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_each_other_at_the_rate() {
        let limit = RateLimit::new(1000);
        let first = limit.take(500);
        // Clones share the clock.
        assert_eq!(limit.clone().take(250) - first, Duration::from_millis(500));
        assert_eq!(limit.take(1) - first, Duration::from_millis(750));
    }
}
