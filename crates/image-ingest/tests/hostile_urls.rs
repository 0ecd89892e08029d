//! What a URL may lead to, one test for each: nothing of it is taken, nothing is left, and the error says why.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../object-io/tests/it/hostile.rs"]
#[allow(dead_code, reason = "each user takes a part of it")]
mod hostile;

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use disk_convert::{ConvertError, Digested, Digesting, FileSink, MemorySink, SourceFault};
use image_ingest::{IngestError, Ingested, Policy, UriPolicy, ingest};
use object_io::{HttpFault, Resolver, TimeLimits};
use tokio_util::sync::CancellationToken;

use hostile::{Answer, Hostile, Request};

/// Two blocks, and a little more.
const LEN: usize = (8 << 20) + 4096;

/// A raw disk of noise.
fn disk() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut disk: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    })
    .take(LEN)
    .collect();
    // Noise must not look like another format.
    disk[..510].fill(0);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

fn right(request: &Request, disk: &[u8]) -> Answer {
    let (first, last) = request.range();
    let last = last.min(disk.len() - 1);
    Answer::new(206)
        .header("ETag", "\"v1\"")
        .header("Content-Range", format!("bytes {first}-{last}/{}", disk.len()))
        .body(&disk[first..=last])
}

/// True of requests for whole blocks of guest content: those before are for the length and for the format.
fn is_content(request: &Request) -> bool {
    let (first, last) = request.range();
    last - first >= 1 << 20
}

/// Reads from this server alone, by http, with the patience that a busy machine needs.
fn policy(server: &Hostile) -> Policy {
    let hosts = vec![server.origin.strip_prefix("http://").unwrap().parse().unwrap()];
    let patience = Duration::from_secs(60);
    let http = TimeLimits {
        connect: patience,
        first_byte: patience,
        idle: patience,
        min_rate: 1 << 10,
        rate_window: Duration::from_secs(1),
    };
    Policy { http, ..Policy::new(UriPolicy { hosts, allow_http: true, ..UriPolicy::default() }) }
}

fn url(server: &Hostile) -> String {
    format!("{}/disk?X-Amz-Signature=secret", server.origin)
}

/// Ingests into a file of which nothing may be left. Gives the error, and how many sinks were made.
async fn failure(url: &str, policy: &Policy) -> (IngestError, usize) {
    let (dir, sinks) = (tempfile::tempdir().unwrap(), AtomicUsize::new(0));
    let never = CancellationToken::new();
    let result = ingest(
        url,
        policy,
        |found| {
            sinks.fetch_add(1, Ordering::SeqCst);
            let file = FileSink::create(&dir.path().join("disk.raw"), found.virtual_size())?;
            Ok(Digesting::new(file, &policy.options.workers))
        },
        &never,
    );
    let error = result.await.map(|_| ()).unwrap_err();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left of {error:?}");
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("secret"), "{shown}");
    (error, sinks.into_inner())
}

/// What the source did, and what of the protocol was wrong with that.
fn fault(error: &IngestError) -> (SourceFault, Option<&HttpFault>) {
    match error.convert_error() {
        Some(ConvertError::Source(error)) => {
            (error.fault, error.cause.as_ref().and_then(|cause| cause.downcast_ref()))
        }
        _ => panic!("expected the source to fail, found {error:?}"),
    }
}

async fn in_memory(url: &str, policy: &Policy) -> Result<Ingested<Digested<Vec<u8>>>, IngestError> {
    let sink = |_: &_| Ok(Digesting::new(MemorySink::default(), &policy.options.workers));
    ingest(url, policy, sink, &CancellationToken::new()).await
}

#[tokio::test]
async fn what_is_right_arrives_and_sums_up() {
    let content = disk();
    let served = content.clone();
    let server = Hostile::start(move |request, _| right(request, &served)).await;
    let ingested = in_memory(&url(&server), &policy(&server)).await.unwrap();
    assert!(ingested.output.output == content);
    assert_eq!((ingested.virtual_size, ingested.storage_size), (LEN as u64, LEN as u64));
    assert_eq!(ingested.min_disk_size, 12 << 20);
    assert_eq!(ingested.guest_digest, ingested.output.summary.guest_digest);
}

#[tokio::test]
async fn redirect() {
    let secrets = Hostile::start(|request, _| right(request, &disk())).await;
    let to = secrets.origin.clone();
    let server = Hostile::start(move |_, _| Answer::new(302).header("Location", to.clone())).await;
    // Even where both hosts are listed.
    let mut policy = policy(&server);
    policy.uris.hosts.push(secrets.origin.strip_prefix("http://").unwrap().parse().unwrap());
    let (error, sinks) = failure(&url(&server), &policy).await;
    assert!(matches!(fault(&error), (SourceFault::Forbidden, Some(HttpFault::Redirect { .. }))), "{error:?}");
    assert_eq!((sinks, secrets.count(|_| true)), (0, 0));
}

#[tokio::test]
async fn redirect_of_a_range() {
    let content = disk();
    let server = Hostile::start(move |request, _| match is_content(request) {
        true => Answer::new(307).header("Location", "http://169.254.169.254/latest/meta-data"),
        false => right(request, &content),
    })
    .await;
    let (error, _) = failure(&url(&server), &policy(&server)).await;
    assert_eq!(fault(&error).0, SourceFault::Forbidden);
}

/// Gives one address after the other, the last one again and again.
#[derive(Debug)]
struct Script(Mutex<VecDeque<IpAddr>>);

#[async_trait]
impl Resolver for Script {
    async fn resolve(&self, _host: &str) -> io::Result<Vec<IpAddr>> {
        let mut answers = self.0.lock().unwrap();
        let now = *answers.front().unwrap();
        if answers.len() > 1 {
            answers.pop_front();
        }
        Ok(vec![now])
    }
}

/// The policy and the URL where the server is known by a name that leads to these addresses.
fn by_name(server: &Hostile, addresses: &[&str]) -> (Policy, String) {
    let port = server.origin.rsplit(':').next().unwrap();
    let mut policy = policy(server);
    policy.uris.hosts = vec![format!("store.example:{port}").parse().unwrap()];
    policy.uris.resolver =
        Arc::new(Script(Mutex::new(addresses.iter().map(|address| address.parse().unwrap()).collect())));
    (policy, format!("http://store.example:{port}/disk?X-Amz-Signature=secret"))
}

#[tokio::test]
async fn link_local() {
    let server = Hostile::start(|request, _| right(request, &disk())).await;
    for (address, private) in
        [("169.254.169.254", false), ("169.254.169.254", true), ("10.0.0.1", false), ("127.0.0.1", false)]
    {
        let (mut policy, url) = by_name(&server, &[address]);
        policy.uris.allow_private = private;
        let (error, sinks) = failure(&url, &policy).await;
        assert!(matches!(fault(&error), (SourceFault::Forbidden, Some(HttpFault::Address))), "{error:?}");
        assert_eq!((sinks, server.count(|_| true)), (0, 0), "{address}");
    }
    let (mut policy, url) = by_name(&server, &["127.0.0.1"]);
    policy.uris.allow_private = true;
    in_memory(&url, &policy).await.unwrap();
}

#[tokio::test]
async fn rebinding() {
    let content = disk();
    // Each request needs a connection of its own, and so an address.
    let server = Hostile::start(move |request, _| {
        let (first, last) = request.range();
        let len = last.min(LEN - 1) + 1 - first;
        right(request, &content).header("Connection", "close").cut(len)
    })
    .await;
    let (mut policy, url) = by_name(&server, &["127.0.0.1", "127.0.0.1", "169.254.169.254"]);
    policy.uris.allow_private = true;
    let (error, _) = failure(&url, &policy).await;
    assert!(matches!(fault(&error), (SourceFault::Forbidden, Some(HttpFault::Address))), "{error:?}");
    assert_eq!(server.count(|_| true), 2);
}

#[tokio::test]
async fn object_swapped_while_it_is_read() {
    let content = disk();
    for obedient in [true, false] {
        let content = content.clone();
        let server = Hostile::start(move |request, _| match is_content(request) {
            false => right(request, &content),
            true if obedient => Answer::new(412),
            // A store that does not know If-Match.
            true => {
                let (first, last) = request.range();
                let last = last.min(LEN - 1);
                Answer::new(206)
                    .header("ETag", "\"v2\"")
                    .header("Content-Range", format!("bytes {first}-{last}/{LEN}"))
                    .body(vec![1; last + 1 - first])
            }
        })
        .await;
        let (error, _) = failure(&url(&server), &policy(&server)).await;
        assert_eq!(fault(&error).0, SourceFault::Changed, "{error:?}");
        assert!(
            server.count(|request| is_content(request) && request.header("if-match") == Some("\"v1\"")) > 0
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stalled_bodies_and_heads() {
    let (never, content) = (Duration::from_secs(3600), disk());
    let served = content.clone();
    let body = Hostile::start(move |request, _| match is_content(request) {
        true => right(request, &served).slowly(1000, never),
        false => right(request, &served),
    })
    .await;
    let served = content.clone();
    let drip = Hostile::start(move |request, _| match is_content(request) {
        true => right(request, &served).slowly(1000, Duration::from_millis(50)),
        false => right(request, &served),
    })
    .await;
    let head = Hostile::start(move |_, _| Answer::new(500).held(never)).await;
    let soon = Duration::from_millis(500);
    let ask = async |server: &Hostile, change: fn(&mut TimeLimits, Duration)| {
        let mut policy = policy(server);
        change(&mut policy.http, soon);
        let (error, _) = failure(&url(server), &policy).await;
        (fault(&error).0, error.limit())
    };
    let (body, drip, head) = tokio::join!(
        ask(&body, |http, soon| http.idle = soon),
        ask(&drip, |http, _| http.min_rate = 1 << 20),
        ask(&head, |http, soon| http.first_byte = soon),
    );
    assert_eq!(body, (SourceFault::Stalled, Some("http-idle-timeout")));
    assert_eq!(drip, (SourceFault::Stalled, Some("http-min-rate")));
    assert_eq!(head, (SourceFault::Stalled, Some("http-first-byte-timeout")));
}

#[tokio::test]
async fn endless_bodies() {
    let content = disk();
    // Longer than its range, and without a length.
    let served = content.clone();
    let server = Hostile::start(move |request, _| match is_content(request) {
        true => right(request, &served).no_length().endless(),
        false => right(request, &served),
    })
    .await;
    let (error, _) = failure(&url(&server), &policy(&server)).await;
    assert!(matches!(fault(&error), (SourceFault::Protocol, Some(HttpFault::LongBody { .. }))), "{error:?}");
    // An answer that says that it is an error, and never ends.
    let server =
        Hostile::start(|_, _| Answer::new(403).body("<Error>".repeat(1000)).no_length().endless()).await;
    let (error, _) = failure(&url(&server), &policy(&server)).await;
    assert_eq!(fault(&error).0, SourceFault::Denied);
    // Fast enough for the rate, and too long for an ingest.
    let server = Hostile::start(move |request, _| match is_content(request) {
        true => right(request, &content).slowly(64 << 10, Duration::from_millis(40)),
        false => right(request, &content),
    })
    .await;
    let short = Policy { time: Duration::from_millis(1500), ..policy(&server) };
    let (error, _) = failure(&url(&server), &short).await;
    assert!(matches!(error, IngestError::TooLong { .. }), "{error:?}");
    assert_eq!(error.limit(), Some("ingest-time"));
    // What was under way arrives.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let asked = server.count(|_| true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.count(|_| true), asked, "nothing is asked for any more");
}

#[tokio::test]
async fn expired_url() {
    const EXPIRED: &str = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>";
    let content = disk();
    let server = Hostile::start(move |request, _| match is_content(request) {
        true => Answer::new(403).body(EXPIRED),
        false => right(request, &content),
    })
    .await;
    let (error, sinks) = failure(&url(&server), &policy(&server)).await;
    assert_eq!((fault(&error).0, sinks), (SourceFault::Expired, 1), "while it is read");
    let before = format!("{}/disk?X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400", server.origin);
    let asked = server.count(|_| true);
    let (error, sinks) = failure(&before, &policy(&server)).await;
    assert_eq!((fault(&error).0, sinks), (SourceFault::Expired, 0));
    assert_eq!(server.count(|_| true), asked, "what says itself that it is over is not asked");
}

#[tokio::test]
async fn wrong_length() {
    let content = disk();
    for (total, fault_of) in [(LEN - 1, SourceFault::Shrunk), (LEN + 1, SourceFault::Changed)] {
        let content = content.clone();
        let server = Hostile::start(move |request, _| match is_content(request) {
            false => right(request, &content),
            true => {
                let (first, last) = request.range();
                let last = last.min(LEN - 1);
                Answer::new(206)
                    .header("ETag", "\"v1\"")
                    .header("Content-Range", format!("bytes {first}-{last}/{total}"))
                    .body(&content[first..=last])
            }
        })
        .await;
        let (error, _) = failure(&url(&server), &policy(&server)).await;
        assert_eq!(fault(&error).0, fault_of, "{total}");
    }
    // A body that always ends early.
    let server = Hostile::start(move |request, _| match is_content(request) {
        true => right(request, &content).cut(0),
        false => right(request, &content),
    })
    .await;
    let (error, _) = failure(&url(&server), &policy(&server)).await;
    assert!(matches!(fault(&error), (SourceFault::Unavailable, _)), "{error:?}");
}

#[tokio::test]
async fn by_default_nothing_and_then_only_https() {
    let server = Hostile::start(|request, _| right(request, &disk())).await;
    let nothing = Policy::new(UriPolicy::default());
    assert!(matches!(failure(&url(&server), &nothing).await, (IngestError::Uri(_), 0)));
    let mut https = policy(&server);
    https.uris.allow_http = false;
    assert!(matches!(failure(&url(&server), &https).await, (IngestError::Uri(_), 0)));
    assert_eq!(server.count(|_| true), 0);
}

#[tokio::test]
async fn sizes_are_checked_before_a_sink_is_made() {
    let content = disk();
    let server = Hostile::start(move |request, _| right(request, &content)).await;
    let policy = policy(&server);
    for (policy, limit) in [
        (Policy { max_virtual_size: LEN as u64 - 1, ..policy.clone() }, Some("max-virtual-size")),
        (Policy { max_storage_size: LEN as u64 - 1, ..policy.clone() }, Some("max-storage-size")),
        (Policy { max_metadata: 1, ..policy.clone() }, Some("max-metadata")),
        (Policy { wanted_disk_size: 8 << 20, ..policy.clone() }, None),
    ] {
        let (error, sinks) = failure(&url(&server), &policy).await;
        assert_eq!((error.limit(), sinks), (limit, 0), "{error:?}");
        assert!(error.is_refusal() && !error.may_have_written());
    }
    let exactly = Policy {
        max_virtual_size: LEN as u64,
        max_storage_size: LEN as u64,
        wanted_disk_size: 12 << 20,
        ..policy
    };
    assert!(failure_of_file(&url(&server), &exactly).await.is_none());
}

async fn failure_of_file(url: &str, policy: &Policy) -> Option<IngestError> {
    let dir = tempfile::tempdir().unwrap();
    let path: &Path = &dir.path().join("disk.raw");
    let sink = |found: &image_ingest::Found| {
        let file = FileSink::create(path, found.virtual_size())?;
        Ok(Digesting::new(file, &policy.options.workers))
    };
    let failed = ingest(url, policy, sink, &CancellationToken::new()).await.err();
    assert!(failed.is_some() || std::fs::read(path).unwrap() == disk());
    failed
}
