//! The bytes behind a URL, read by ranges, all of one version of the object.
//!
//! RFC 9110, section 14 (ranges) and 13.1.1 (`If-Match`); `object-store.md`, "Reading through a pre-signed URL". A signature covers the method,
//! so even the size is asked for by GET: `bytes=0-0`. Each range carries `If-Match`, and each answer's ETag, `Content-Range` and length
//! are compared, since stores exist that ignore the condition.
//!
//! Refused: servers without ranges, encoded answers, redirects (unless asked for), and whatever [`HttpOptions`] does not
//! allow. No proxy is used, whatever the environment says.
//!
//! Cost: a read of `n` bytes holds `n` bytes; requests of 8 MiB, eight in flight over all reads of a source. A read that breaks
//! off is continued where it broke.

mod answer;
mod bearer;
mod expiry;
mod fault;
mod options;
mod policy;
mod resolver;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use disk_convert::{ByteSource, SourceError, SourceFault, SourceShape};
use disk_image::{ReadShape, Span};
use futures_util::future::try_join_all;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, IF_MATCH, IF_UNMODIFIED_SINCE, LOCATION,
    RANGE,
};
use reqwest::{Client, Response, StatusCode, redirect, retry};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::presign::without_query;
use crate::retry::Backoff;
use crate::trust;
use answer::{ContentRange, Identity};
use fault::Failure;

pub use bearer::Bearer;
pub use fault::HttpFault;
pub use options::{AddressPolicy, HostRule, HostRuleError, HttpOptions, TimeLimits};
pub use resolver::{Resolver, SystemResolver};

/// The object behind a URL, as it was when it was opened.
pub struct HttpSource {
    client: HttpClient,
    url: Url,
    identity: Identity,
    metadata: BTreeMap<String, String>,
    slots: Semaphore,
}

/// What reading has cost so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Requests that were sent, repeated ones included.
    pub requests: u64,
    /// Bytes of the object that arrived.
    pub bytes: u64,
}

impl HttpSource {
    /// Opens the object behind `url`: asks for its length and version.
    ///
    /// # Errors
    ///
    /// If the policy forbids the URL ([`SourceFault::Forbidden`]), its signature has ended, or the server refuses, does not serve
    /// ranges, or fails for good. When cancelled: [`SourceFault::Io`] because of [`HttpFault::Cancelled`].
    pub async fn open(
        url: &str,
        options: &HttpOptions,
        cancel: &CancellationToken,
    ) -> Result<Self, SourceError> {
        let parsed = Url::parse(url).map_err(|_| {
            // What stands before an `@` or after a `?` may be a secret.
            let shown =
                url.split(['?', '#']).next().and_then(|url| url.rsplit('@').next()).unwrap_or_default();
            SourceError::new(crate::error::printable(shown), NOTHING, SourceFault::Protocol)
                .because(HttpFault::Url)
        })?;
        let name: Box<str> = without_query(&parsed).into();
        let opening = async {
            let client = HttpClient::new(&name, &parsed, options)?;
            client.open(parsed).await
        };
        let opened = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Failure::new(SourceFault::Io, HttpFault::Cancelled)),
            opened = opening => opened,
        };
        opened.map_err(|failure| SourceError::new(name, NOTHING, failure.fault).because(failure.cause))
    }

    /// What reading has cost so far, opening included.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            requests: self.client.requests.load(Ordering::Relaxed),
            bytes: self.client.bytes.load(Ordering::Relaxed),
        }
    }

    /// What the object says about itself, as a store gives it with the object: names in lower case. It is as true as whoever wrote the
    /// object, and whoever serves it, are honest.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// When the URL's signature ends, if it says so.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.client.expires_at
    }

    /// Fills `into`, which is empty and has room for `span`; takes up where an attempt broke off.
    async fn fill(&self, span: Span, mut into: BytesMut) -> Result<BytesMut, SourceError> {
        let failed =
            |failure: Failure| SourceError::new(self.name(), span, failure.fault).because(failure.cause);
        let mut backoff = Backoff::new(self.client.options.attempts);
        loop {
            let attempt = {
                // Nothing closes it.
                let _slot = self.slots.acquire().await;
                let got = into.len() as u64;
                let rest = Span::new(span.start + got, span.len - got);
                self.client.fetch(&self.url, rest, &self.identity, &mut into).await
            };
            let failure = match attempt {
                Ok(()) => return Ok(into),
                // Only the end of the answer failed, or its pace: there is no byte left to ask for.
                Err(failure) if failure.is_retryable() && into.len() as u64 == span.len => return Ok(into),
                Err(failure) if failure.is_retryable() => failure,
                Err(failure) => return Err(failed(failure)),
            };
            let Some(pause) = backoff.next_pause() else { return Err(failed(failure)) };
            tracing::debug!(name = self.name(), start = span.start, cause = %failure.cause, "range failed; trying again");
            tokio::time::sleep(failure.retry_after.unwrap_or_default().max(pause)).await;
        }
    }
}

#[async_trait]
impl ByteSource for HttpSource {
    fn len(&self) -> u64 {
        self.identity.len
    }

    fn name(&self) -> &str {
        &self.client.name
    }

    async fn read(&self, span: Span) -> Result<Bytes, SourceError> {
        if span.is_empty() {
            return Ok(Bytes::new());
        }
        let whole = Span::new(0, self.identity.len);
        let len = usize::try_from(span.len).ok().filter(|_| whole.covers(span));
        let Some(len) = len else {
            return Err(SourceError::new(self.name(), span, SourceFault::Shrunk));
        };
        // One buffer, cut into the requests' shares, which go back together without a copy.
        let mut rest = BytesMut::with_capacity(len);
        let mut shares = Vec::new();
        let mut start = span.start;
        while start < span.end() {
            let share = Span::new(start, self.client.options.part.max(1).min(span.end() - start));
            start = share.end();
            let tail = match usize::try_from(share.len) {
                Ok(len) if len < rest.capacity() && start < span.end() => rest.split_off(len),
                _ => BytesMut::new(),
            };
            shares.push(self.fill(share, std::mem::replace(&mut rest, tail)));
        }
        let mut filled = try_join_all(shares).await?.into_iter();
        let mut all = filled.next().unwrap_or_default();
        filled.for_each(|share| all.unsplit(share));
        Ok(all.freeze())
    }

    fn version(&self) -> String {
        self.identity.version()
    }

    fn is_pinned(&self) -> bool {
        self.identity.if_match().is_some()
    }

    fn shape(&self) -> SourceShape {
        let options = &self.client.options;
        SourceShape {
            // A gap of 256 KiB costs less than the 20 ms or so that a request of its own would.
            reads: ReadShape { max_gap: 256 << 10, max_len: options.part.saturating_mul(2) },
            part: options.part,
            in_flight: options.in_flight,
        }
    }
}

impl fmt::Debug for HttpSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpSource")
            .field("name", &self.client.name)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

const NOTHING: Span = Span::new(0, 0);

/// Sends requests, one attempt each, and checks the answers.
struct HttpClient {
    client: Client,
    name: Box<str>,
    options: HttpOptions,
    expires_at: Option<SystemTime>,
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl HttpClient {
    fn new(name: &str, url: &Url, options: &HttpOptions) -> Result<Self, Failure> {
        policy::check(url, options).map_err(|cause| Failure::new(SourceFault::Forbidden, cause))?;
        let expires_at = expiry::expires_at(url);
        if let Some(ago) = expires_at.and_then(|end| SystemTime::now().duration_since(end).ok()) {
            return Err(Failure::new(SourceFault::Expired, HttpFault::Expired { ago }));
        }
        // The process may have chosen a provider before us; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = trust::of_system(Client::builder())
            .no_proxy()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .http1_only()
            .referer(false)
            .connect_timeout(options.limits.connect)
            .pool_max_idle_per_host(options.in_flight)
            .dns_resolver(policy::CheckedResolver::new(options))
            .user_agent(concat!("image-prep/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Failure::new(SourceFault::Io, HttpFault::Client { source: Box::new(error) }))?;
        Ok(Self {
            client,
            name: name.into(),
            options: options.clone(),
            expires_at,
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        })
    }

    async fn open(self, url: Url) -> Result<HttpSource, Failure> {
        let mut backoff = Backoff::new(self.options.attempts);
        let (url, identity, metadata) = loop {
            let failure = match self.probe(url.clone()).await {
                Ok(opened) => break opened,
                Err(failure) if failure.is_retryable() => failure,
                Err(failure) => return Err(failure),
            };
            let Some(pause) = backoff.next_pause() else { return Err(failure) };
            tokio::time::sleep(failure.retry_after.unwrap_or_default().max(pause)).await;
        };
        let slots = Semaphore::new(self.options.in_flight.max(1));
        Ok(HttpSource { client: self, url, identity, metadata, slots })
    }

    /// Asks for the first byte, following as many redirects as are allowed; gives the URL that answered, and what it said.
    async fn probe(&self, mut url: Url) -> Result<(Url, Identity, BTreeMap<String, String>), Failure> {
        // Who asks is nobody's business but the URL's own host's.
        let mut redirects = if self.options.bearer.is_some() { 0 } else { self.options.redirects };
        loop {
            let response = self.send(&url, Span::new(0, 1), None).await?;
            if !response.status().is_redirection() {
                let metadata = answer::metadata(response.headers());
                let identity = self.identify(response).await?;
                return Ok((url, identity, metadata));
            }
            let to = response
                .headers()
                .get(LOCATION)
                .and_then(|to| to.to_str().ok())
                .and_then(|to| url.join(to).ok());
            let to = to.ok_or_else(|| {
                Failure::new(SourceFault::Protocol, HttpFault::Redirect { to: "nowhere".into() })
            })?;
            let forbidden = |cause| Failure::new(SourceFault::Forbidden, cause);
            redirects = redirects
                .checked_sub(1)
                .ok_or_else(|| forbidden(HttpFault::Redirect { to: without_query(&to).into() }))?;
            policy::check(&to, &self.options).map_err(forbidden)?;
            url = to;
        }
    }

    async fn identify(&self, response: Response) -> Result<Identity, Failure> {
        let headers = response.headers();
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                answer::check_plain(headers)?;
                let header = answer::text(headers, CONTENT_RANGE).unwrap_or_default();
                match ContentRange::parse(&header) {
                    Some(range) if range.span == Span::new(0, 1) => {
                        let identity = Identity::of(range.len, headers);
                        // One byte; read, so that the connection can be used again.
                        self.receive(response, 1, &mut BytesMut::with_capacity(1)).await?;
                        Ok(identity)
                    }
                    _ => Err(answer::wrong_range(&header, Span::new(0, 1), 1)),
                }
            }
            // Some servers answer so for an object without bytes, of which there is no range.
            StatusCode::OK if answer::text(headers, CONTENT_LENGTH).as_deref() == Some("0") => {
                Ok(Identity::of(0, headers))
            }
            StatusCode::OK => Err(Failure::new(SourceFault::NoRanges, status_only(StatusCode::OK))),
            StatusCode::RANGE_NOT_SATISFIABLE if answer::unsatisfied_len(headers) == Some(0) => {
                Ok(Identity::of(0, headers))
            }
            _ => Err(self.refused(response).await),
        }
    }

    /// Adds the bytes `span` to `into`.
    async fn fetch(
        &self,
        url: &Url,
        span: Span,
        opened: &Identity,
        into: &mut BytesMut,
    ) -> Result<(), Failure> {
        let response = self.send(url, span, Some(opened)).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                answer::check_part(response.headers(), span, opened)?;
                self.receive(response, span.len, into).await
            }
            status @ StatusCode::RANGE_NOT_SATISFIABLE => {
                Err(Failure::new(SourceFault::Shrunk, status_only(status)))
            }
            status @ StatusCode::OK => Err(Failure::new(SourceFault::NoRanges, status_only(status))),
            status if status.is_redirection() => {
                Err(Failure::new(SourceFault::Forbidden, status_only(status)))
            }
            _ => Err(self.refused(response).await),
        }
    }

    async fn send(&self, url: &Url, span: Span, opened: Option<&Identity>) -> Result<Response, Failure> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let range = format!("bytes={}-{}", span.start, span.end() - 1);
        let mut request =
            self.client.get(url.clone()).header(RANGE, range).header(ACCEPT_ENCODING, "identity");
        if let Some(bearer) = &self.options.bearer {
            request = request.header(AUTHORIZATION, bearer.header());
        }
        if let Some(etag) = opened.and_then(Identity::if_match) {
            request = request.header(IF_MATCH, etag);
        }
        if let Some(date) = opened.and_then(Identity::if_unmodified_since) {
            request = request.header(IF_UNMODIFIED_SINCE, date);
        }
        let patience = self.options.limits.first_byte;
        match timeout(patience, request.send()).await {
            Ok(answer) => answer.map_err(Failure::of_client),
            Err(_) => Err(Failure::new(SourceFault::Stalled, HttpFault::NoAnswer { after: patience })),
        }
    }

    /// Adds a body of exactly `expected` bytes to `into`, which has room for it.
    async fn receive(
        &self,
        mut response: Response,
        expected: u64,
        into: &mut BytesMut,
    ) -> Result<(), Failure> {
        let limits = &self.options.limits;
        let mut found = 0;
        let mut pace = Pace::new(limits);
        loop {
            let chunk = match timeout(limits.idle, response.chunk()).await {
                Ok(chunk) => chunk.map_err(Failure::of_client)?,
                Err(_) => return Err(silent(limits.idle)),
            };
            let Some(chunk) = chunk else { break };
            found += chunk.len() as u64;
            if found > expected {
                return Err(Failure::new(SourceFault::Protocol, HttpFault::LongBody { expected }));
            }
            into.extend_from_slice(&chunk);
            self.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            pace.arrived(chunk.len() as u64)?;
        }
        if found < expected {
            return Err(Failure::new(SourceFault::Unavailable, HttpFault::ShortBody { found, expected }));
        }
        Ok(())
    }

    async fn refused(&self, response: Response) -> Failure {
        let status = response.status();
        match timeout(self.options.limits.idle, answer::refusal(response, self.expires_at)).await {
            Ok(failure) => failure,
            Err(_) => Failure::new(SourceFault::Stalled, status_only(status)),
        }
    }
}

/// Measures whether bytes arrive fast enough.
struct Pace<'a> {
    limits: &'a TimeLimits,
    since: Instant,
    bytes: u64,
}

impl<'a> Pace<'a> {
    fn new(limits: &'a TimeLimits) -> Self {
        Self { limits, since: Instant::now(), bytes: 0 }
    }

    fn arrived(&mut self, bytes: u64) -> Result<(), Failure> {
        self.bytes += bytes;
        let window = self.since.elapsed();
        if window < self.limits.rate_window {
            return Ok(());
        }
        let expected = self.limits.min_rate.saturating_mul(self.limits.rate_window.as_secs());
        if self.bytes < expected {
            let slow = HttpFault::Slow { found: self.bytes, expected, window };
            return Err(Failure::new(SourceFault::Stalled, slow));
        }
        (self.since, self.bytes) = (Instant::now(), 0);
        Ok(())
    }
}

fn silent(after: Duration) -> Failure {
    Failure::new(SourceFault::Stalled, HttpFault::Silent { after })
}

fn status_only(status: StatusCode) -> HttpFault {
    HttpFault::Status { status: status.as_u16(), code: "".into(), message: "".into() }
}
