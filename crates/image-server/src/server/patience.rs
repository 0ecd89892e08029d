//! Connections on which nothing happens.
//!
//! The time for the head of a request begins when the version of HTTP is known, and that takes the first bytes: up to the 24 of
//! the preface of HTTP/2 (RFC 9113, section 3.4). A caller that never sends them would be waited for without end. So would one
//! that does not take what it asked for: what was made for it would stay in memory.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum_server::accept::Accept;
use futures_util::{FutureExt as _, TryFutureExt as _, future::BoxFuture};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use crate::limits;

/// Length of the preface of HTTP/2.
const PREFACE: usize = 24;

/// Accepts what another one accepts, TLS or not; wants the first bytes of it soon, and its own taken.
#[derive(Clone, Debug)]
pub(crate) struct Patience<A>(pub(crate) A);

impl<A, I, S> Accept<I, S> for Patience<A>
where
    A: Accept<I, S, Future: Send + 'static>,
{
    type Stream = Impatient<A::Stream>;
    type Service = A::Service;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        let accepted = self.0.accept(stream, service);
        accepted.map_ok(|(stream, service)| (Impatient::new(stream), service)).boxed()
    }
}

/// A connection that fails unless its first bytes come soon, and when it takes none for a while.
#[derive(Debug)]
pub(crate) struct Impatient<I> {
    inner: I,
    /// Bytes that came, counted up to the length of the preface.
    found: usize,
    /// `None` when they have come.
    late: Option<Pin<Box<Sleep>>>,
    /// Runs while bytes wait to be taken.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<I> Impatient<I> {
    fn new(inner: I) -> Self {
        Self { inner, found: 0, late: Some(Box::pin(sleep(limits::REQUEST_HEAD))), stalled: None }
    }

    /// What a write came to, unless it has waited for too long.
    fn in_time<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limits::READER_IDLE)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Impatient<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, into);
        let Some(late) = &mut self.late else { return read };
        if read.is_pending() {
            ready!(late.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.found += into.filled().len() - before;
        if self.found >= PREFACE {
            self.late = None;
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Impatient<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // What is answered was asked: from here on the limits of HTTP hold.
        self.late = None;
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.in_time(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.in_time(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_bytes_must_come_soon() {
        for start in [&b""[..], b"PRI * HTTP"] {
            let (mut caller, server) = duplex(64);
            caller.write_all(start).await.unwrap();
            let error = Impatient::new(server).read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_sent_must_be_taken() {
        let (mut caller, server) = duplex(4);
        let mut server = Impatient::new(server);
        // Slowly is fine.
        let sent = server.write_all(b"123456789");
        let taken = async {
            for _ in 0..9 {
                sleep(limits::READER_IDLE / 2).await;
                caller.read_u8().await.unwrap();
            }
        };
        let (sent, ()) = tokio::join!(sent, taken);
        sent.unwrap();
        let error = server.write_all(b"123456789").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_later_has_other_limits() {
        let (mut caller, server) = duplex(64);
        let mut server = Impatient::new(server);
        caller.write_all(&[b'x'; PREFACE]).await.unwrap();
        server.read_exact(&mut [0; PREFACE]).await.unwrap();
        let later = async {
            sleep(2 * limits::REQUEST_HEAD).await;
            caller.write_all(b"y").await.unwrap();
        };
        let (read, ()) = tokio::join!(server.read_u8(), later);
        assert_eq!(read.unwrap(), b'y');
    }
}
