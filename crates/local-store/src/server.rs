//! The server: HTTP/1.1 on a listening socket, until told to stop.

use std::pin::pin;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::access::{Gate, KeyPair};
use crate::error::Error;
use crate::exchange;
use crate::store::LocalStore;
use crate::{Config, Listener};

/// How long requests in flight may take to end after the word to stop.
const GRACE: Duration = Duration::from_secs(5);

/// How long to wait after that for jobs that the file system holds up, and with them the lock.
const RELEASE: Duration = Duration::from_secs(5);

/// How long a connection may take to send a request's headers, from its first byte or the end of the request
/// before.
const HEADER_TIMEOUT: Duration = Duration::from_secs(300);

/// How long to wait where the system has no file descriptors left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the store in `config.dir` on `listener` until `shutdown` is cancelled.
///
/// Then it takes no more connections, gives requests in flight five seconds, and returns when the folder can
/// be opened again. Dropped instead, it ends at once; the store is whole after that too, as after a kill.
///
/// # Errors
/// Those of [`LocalStore::open`], and [`Error::Listen`].
pub async fn serve(
    listener: impl Into<Listener>,
    config: Config,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let listener = listener.into().into_tokio().map_err(|source| Error::Listen { source })?;
    let Config { dir, region, credentials } = config;
    let opened = {
        let region = region.clone();
        tokio::task::spawn_blocking(move || LocalStore::open(&dir, &region)).await
    };
    let store = match opened {
        Ok(opened) => opened?,
        Err(panicked) => return Err(Error::Listen { source: panicked.into() }),
    };
    let released = store.released();
    let mut builder = S3ServiceBuilder::new(store);
    builder.set_auth(KeyPair(credentials));
    builder.set_access(Gate { region });
    builder
        .set_config(std::sync::Arc::new(StaticConfigProvider::new(std::sync::Arc::new(protocol_config()))));
    accept(listener, builder.build(), shutdown).await;

    if tokio::time::timeout(RELEASE, released.cancelled()).await.is_err() {
        tracing::warn!("a request still holds the store");
    }
    Ok(())
}

/// Browser forms (POST Object) are buffered whole by s3s, before it has checked who asks: refuse all but
/// empty ones.
fn protocol_config() -> S3Config {
    let mut config = S3Config::default();
    config.post_object_max_file_size = 0;
    config.form_max_field_size = 64 << 10;
    config.form_max_fields_size = 64 << 10;
    config
}

async fn accept(listener: TcpListener, service: S3Service, shutdown: CancellationToken) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).keep_alive(true);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut stop = pin!(shutdown.cancelled());
    loop {
        let stream = tokio::select! {
            () = &mut stop => break,
            // Ended connections are let go as they end.
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let service = service.clone();
        let answer = service_fn(move |request| exchange::answer(service.clone(), request));
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), answer));
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection broke");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections still busy are cut");
    }
    // Aborts what is left, and waits for it.
    connections.shutdown().await;
}
