//! Ranges of an object behind a URL: what a server may do wrong, and what becomes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use disk_convert::{ByteSource as _, SourceError, SourceFault};
use disk_image::Span;
use object_io::{AddressPolicy, HttpOptions, HttpSource, TimeLimits};
use tokio_util::sync::CancellationToken;

use crate::hostile::{Answer, Hostile, Request};
use crate::local::noise;

const LEN: usize = 100_000;
const ETAG: &str = "\"v1\"";
const SECRET: &str = "?X-Amz-Signature=secret";

/// The right answer.
fn right(request: &Request, object: &[u8]) -> Answer {
    let (first, last) = request.range();
    let last = last.min(object.len() - 1);
    Answer::new(206)
        .header("ETag", ETAG)
        .header("Content-Range", format!("bytes {first}-{last}/{}", object.len()))
        .body(&object[first..=last])
}

/// Small requests, and the patience that a busy machine needs, but for a slow body.
fn options() -> HttpOptions {
    let limits = TimeLimits {
        connect: Duration::from_secs(60),
        first_byte: Duration::from_secs(60),
        idle: Duration::from_secs(60),
        min_rate: 64 << 10,
        rate_window: Duration::from_secs(1),
    };
    HttpOptions { part: 16 << 10, in_flight: 4, attempts: 3, limits, ..HttpOptions::default() }
}

/// The same with short patience.
fn impatient() -> HttpOptions {
    let soon = Duration::from_millis(400);
    let options = options();
    HttpOptions { limits: TimeLimits { first_byte: soon, idle: soon, ..options.limits }, ..options }
}

async fn open(server: &Hostile, options: &HttpOptions) -> Result<HttpSource, SourceError> {
    HttpSource::open(&format!("{}/disk.img{SECRET}", server.origin), options, &CancellationToken::new()).await
}

/// Opens against a right server, which then answers all else like `wrong`; reads some bytes in the middle.
async fn read_from(
    wrong: impl Fn(&Request, &[u8], usize) -> Answer + Send + Sync + 'static,
) -> (Result<bytes::Bytes, SourceError>, usize, Vec<u8>) {
    read_by(&options(), wrong).await
}

async fn read_by(
    options: &HttpOptions,
    wrong: impl Fn(&Request, &[u8], usize) -> Answer + Send + Sync + 'static,
) -> (Result<bytes::Bytes, SourceError>, usize, Vec<u8>) {
    let object = noise(LEN);
    let served = object.clone();
    let server = Hostile::start(move |request, seen| match seen {
        0 => right(request, &served),
        seen => wrong(request, &served, seen),
    })
    .await;
    let source = open(&server, options).await.unwrap();
    let read = source.read(Span::new(10_000, 5000)).await;
    if let Err(error) = &read {
        let mut shown = format!("{error} {error:?} {source:?}");
        shown += &error.cause.as_ref().map(ToString::to_string).unwrap_or_default();
        assert!(!shown.contains("secret") && !shown.contains("Signature"), "{shown}");
        assert_eq!(&*error.name, format!("{}/disk.img", server.origin));
    }
    (read, server.count(|_| true) - 1, object[10_000..15_000].to_vec())
}

#[tokio::test]
async fn large_reads_are_split_and_pinned() {
    let object = noise(LEN);
    let served = object.clone();
    let server = Hostile::start(move |request, _| right(request, &served)).await;
    let source = open(&server, &options()).await.unwrap();
    assert_eq!(source.len(), LEN as u64);
    assert_eq!(source.read(Span::new(0, LEN as u64)).await.unwrap(), object);
    // 100,000 bytes in requests of 16 KiB are 7, and one opened it.
    assert_eq!(server.count(|_| true), 8);
    assert_eq!(server.count(|request| request.header("if-match") == Some(ETAG)), 7);
    let traffic = source.traffic();
    assert_eq!((traffic.requests, traffic.bytes), (8, LEN as u64 + 1));
    for span in
        [Span::new(0, 1), Span::new(LEN as u64 - 1, 1), Span::new(16 << 10, 16 << 10), Span::new(1, 32 << 10)]
    {
        let from = usize::try_from(span.start).unwrap();
        let to = usize::try_from(span.end()).unwrap();
        assert_eq!(source.read(span).await.unwrap(), object[from..to], "{span:?}");
    }
    assert_eq!(source.read(Span::new(LEN as u64, 1)).await.unwrap_err().fault, SourceFault::Shrunk);
    assert_eq!(source.read(Span::new(u64::MAX, u64::MAX)).await.unwrap_err().fault, SourceFault::Shrunk);
}

#[tokio::test]
async fn never_more_requests_in_flight_than_allowed() {
    let most = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let now = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (peak, object) = (most.clone(), noise(LEN));
    let server = Hostile::start(move |request, _| {
        peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(5));
        now.fetch_sub(1, Ordering::SeqCst);
        right(request, &object)
    })
    .await;
    let source = open(&server, &HttpOptions { in_flight: 2, ..options() }).await.unwrap();
    let reads = (0..4).map(|_| source.read(Span::new(0, LEN as u64)));
    futures_util::future::try_join_all(reads).await.unwrap();
    assert!(most.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn bytes_that_all_arrived_are_enough() {
    // Too slow, which is noticed with the last piece only.
    let slow = |request: &Request, object: &[u8], _| {
        right(request, object).slowly(4000, Duration::from_millis(1500))
    };
    // No end of the body after its last byte.
    let open = |request: &Request, object: &[u8], _| {
        let (first, last) = request.range();
        let mut body = format!("{:x}\r\n", last + 1 - first).into_bytes();
        body.extend_from_slice(&object[first..=last]);
        let len = body.len();
        Answer::new(206)
            .header("ETag", ETAG)
            .header("Content-Range", format!("bytes {first}-{last}/{LEN}"))
            .header("Transfer-Encoding", "chunked")
            .no_length()
            .body(body)
            .cut(len)
    };
    for (read, requests, expected) in [read_from(slow).await, read_from(open).await] {
        assert_eq!(read.unwrap(), expected);
        assert_eq!(requests, 1);
    }
}

#[tokio::test]
async fn an_answer_about_another_version_is_refused() {
    // A store that ignores If-Match, and one that does not.
    let (read, requests, _) = read_from(|request, object, _| {
        let (first, last) = request.range();
        let range = format!("bytes {first}-{last}/{}", object.len());
        Answer::new(206)
            .header("ETag", "\"v2\"")
            .header("Content-Range", range)
            .body(vec![1; last - first + 1])
    })
    .await;
    assert_eq!((read.unwrap_err().fault, requests), (SourceFault::Changed, 1));
    let (read, requests, _) = read_from(|_, _, _| Answer::new(412)).await;
    assert_eq!((read.unwrap_err().fault, requests), (SourceFault::Changed, 1));
    let (read, ..) = read_from(|request, object, _| {
        let (first, last) = request.range();
        let range = format!("bytes {first}-{last}/{}", object.len() + 1);
        Answer::new(206).header("ETag", ETAG).header("Content-Range", range).body(&object[first..=last])
    })
    .await;
    assert_eq!(read.unwrap_err().fault, SourceFault::Changed);
}

#[tokio::test]
async fn an_answer_about_other_bytes_is_refused() {
    for (range, len, fault) in [
        ("bytes 10001-15000/100000", 5000, SourceFault::Protocol),
        ("bytes 10000-14998/100000", 4999, SourceFault::Protocol),
        ("bytes 10000-14999/*", 5000, SourceFault::Protocol),
        ("", 5000, SourceFault::Protocol),
        ("bytes 10000-14999/20000", 5000, SourceFault::Shrunk),
    ] {
        let (read, requests, _) = read_from(move |_, _, _| {
            Answer::new(206).header("ETag", ETAG).header("Content-Range", range).body(vec![0; len])
        })
        .await;
        assert_eq!((read.unwrap_err().fault, requests), (fault, 1), "{range}");
    }
    let (read, ..) = read_from(|request, object, _| right(request, object).body(vec![0; 5001])).await;
    assert_eq!(read.unwrap_err().fault, SourceFault::Protocol);
    let (read, requests, _) =
        read_from(|request, object, _| right(request, object).no_length().endless()).await;
    assert_eq!((read.unwrap_err().fault, requests), (SourceFault::Protocol, 1), "a body without an end");
    let (read, ..) =
        read_from(|request, object, _| right(request, object).header("Content-Encoding", "gzip")).await;
    assert_eq!(read.unwrap_err().fault, SourceFault::Protocol);
    let (read, ..) = read_from(|_, object, _| Answer::new(200).header("ETag", ETAG).body(object)).await;
    assert_eq!(read.unwrap_err().fault, SourceFault::NoRanges);
    let (read, ..) = read_from(|_, _, _| Answer::new(416)).await;
    assert_eq!(read.unwrap_err().fault, SourceFault::Shrunk);
}

#[tokio::test]
async fn what_breaks_off_is_continued_where_it_broke() {
    let (read, requests, expected) = read_from(|request, object, seen| match seen {
        1 => right(request, object).cut(2000),
        _ => {
            assert_eq!(request.range(), (12_000, 14_999));
            right(request, object)
        }
    })
    .await;
    assert_eq!(read.unwrap(), expected);
    assert_eq!(requests, 2);
    // An object that is replaced between the two is noticed.
    let (read, ..) = read_from(|request, object, seen| match seen {
        1 => right(request, object).cut(2000),
        _ => Answer::new(412),
    })
    .await;
    assert_eq!(read.unwrap_err().fault, SourceFault::Changed);
}

#[tokio::test]
async fn a_body_that_is_always_short_is_given_up() {
    let (read, requests, _) = read_from(|request, object, _| right(request, object).cut(10)).await;
    let error = read.unwrap_err();
    assert_eq!((error.fault, requests), (SourceFault::Unavailable, 3));
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_busy_server_is_asked_again() {
    for status in [429, 500, 502, 503, 504, 408] {
        let (read, requests, expected) = read_from(move |request, object, seen| match seen {
            1 => Answer::new(status),
            _ => right(request, object),
        })
        .await;
        assert_eq!(read.unwrap(), expected, "{status}");
        assert_eq!(requests, 2, "{status}");
    }
    let (read, requests, _) = read_from(|_, _, _| Answer::new(503)).await;
    assert_eq!((read.unwrap_err().fault, requests), (SourceFault::Unavailable, 3));
}

#[tokio::test]
async fn a_server_that_asks_for_a_pause_gets_it() {
    let begun = Instant::now();
    let (read, ..) = read_from(|request, object, seen| match seen {
        1 => Answer::new(503).header("Retry-After", "1"),
        _ => right(request, object),
    })
    .await;
    read.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn silence_and_dripping_are_given_up() {
    // Silence before the answer, silence inside it, and bytes that come too slowly though never late.
    let (never, drip) = (Duration::from_secs(3600), Duration::from_millis(50));
    for (options, step, pause) in [(impatient(), 100, never), (options(), 10, drip)] {
        let (read, requests, _) =
            read_by(&options, move |request, object, _| right(request, object).slowly(step, pause)).await;
        assert_eq!((read.unwrap_err().fault, requests), (SourceFault::Stalled, 3));
    }
    let (read, requests, _) =
        read_by(&impatient(), move |request, object, _| right(request, object).held(never)).await;
    assert_eq!((read.unwrap_err().fault, requests), (SourceFault::Stalled, 3));
}

#[tokio::test]
async fn refusals_while_opening_have_their_names() {
    let xml =
        |code: &str, message: &str| format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    let expired = xml("AccessDenied", "Request has expired");
    let object = noise(10);
    for (answer, fault) in [
        (Answer::new(403).body(xml("AccessDenied", "Access Denied")), SourceFault::Denied),
        (Answer::new(403).body(xml("SignatureDoesNotMatch", "no")), SourceFault::Denied),
        (Answer::new(403).body(expired.clone()), SourceFault::Expired),
        (Answer::new(400).body(xml("ExpiredToken", "The provided token has expired.")), SourceFault::Expired),
        (Answer::new(400).body(xml("InvalidRequest", "Date is too old")), SourceFault::Expired),
        (Answer::new(401), SourceFault::Denied),
        (Answer::new(404).body(xml("NoSuchKey", "no")), SourceFault::NotFound),
        (Answer::new(400), SourceFault::Protocol),
        (Answer::new(503), SourceFault::Unavailable),
        (Answer::new(200).body(object.clone()), SourceFault::NoRanges),
        (Answer::new(206).body("x"), SourceFault::Protocol),
        (Answer::new(206).header("Content-Range", "bytes 0-0/*").body("x"), SourceFault::Protocol),
        (Answer::new(206).header("Content-Range", "bytes 0-9/10").body(object), SourceFault::Protocol),
        (Answer::new(416).header("Content-Range", "bytes */10"), SourceFault::Protocol),
        (Answer::new(302).header("Location", "http://169.254.169.254/latest"), SourceFault::Forbidden),
    ] {
        let shown = format!("{answer:?}");
        let server = Hostile::start(move |_, _| answer.clone()).await;
        let error = open(&server, &options()).await.unwrap_err();
        assert_eq!(error.fault, fault, "{shown}: {error:?}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}

#[tokio::test]
async fn an_object_without_bytes_is_empty_however_that_is_said() {
    for answer in [Answer::new(416), Answer::new(416).header("Content-Range", "bytes */0"), Answer::new(200)]
    {
        let server = Hostile::start(move |_, _| answer.clone()).await;
        assert_eq!(open(&server, &options()).await.unwrap().len(), 0);
    }
}

#[tokio::test]
async fn an_expired_url_is_not_asked() {
    let server = Hostile::start(|_, _| Answer::new(500)).await;
    let url = format!("{}/x?X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400", server.origin);
    let error = HttpSource::open(&url, &options(), &CancellationToken::new()).await.unwrap_err();
    assert_eq!((error.fault, server.count(|_| true)), (SourceFault::Expired, 0));
}

#[tokio::test]
async fn without_an_etag_the_date_is_held_on_to() {
    const THEN: &str = "Fri, 24 May 2013 00:00:00 GMT";
    let object = noise(LEN);
    let replaced = Arc::new(AtomicBool::new(false));
    let now = replaced.clone();
    let server = Hostile::start(move |request, _| {
        let date = if now.load(Ordering::SeqCst) { "Sat, 25 May 2013 00:00:00 GMT" } else { THEN };
        let (first, last) = request.range();
        let range = format!("bytes {first}-{last}/{LEN}");
        Answer::new(206)
            .header("Last-Modified", date)
            .header("Content-Range", range)
            .body(&object[first..=last])
    })
    .await;
    let source = open(&server, &options()).await.unwrap();
    source.read(Span::new(0, 10)).await.unwrap();
    assert_eq!(server.count(|request| request.header("if-unmodified-since") == Some(THEN)), 1);
    replaced.store(true, Ordering::SeqCst);
    assert_eq!(source.read(Span::new(0, 10)).await.unwrap_err().fault, SourceFault::Changed);
}

#[tokio::test]
async fn redirects_are_followed_only_where_asked_for_and_then_remembered() {
    let object = noise(LEN);
    let served = object.clone();
    let server = Hostile::start(move |request, _| match request.target() {
        target if target.starts_with("/disk.img") => Answer::new(307).header("Location", "/mirror?sig=x"),
        _ => right(request, &served),
    })
    .await;
    assert_eq!(open(&server, &options()).await.unwrap_err().fault, SourceFault::Forbidden);
    let source = open(&server, &HttpOptions { redirects: 1, ..options() }).await.unwrap();
    assert_eq!(source.read(Span::new(0, 100)).await.unwrap(), object[..100]);
    assert_eq!(server.count(|request| request.target().starts_with("/disk.img")), 2);
    assert_eq!(server.count(|request| request.target() == "/mirror?sig=x"), 2);

    let round = Hostile::start(|_, _| Answer::new(307).header("Location", "/again")).await;
    let error = open(&round, &HttpOptions { redirects: 3, ..options() }).await.unwrap_err();
    assert_eq!((error.fault, round.count(|_| true)), (SourceFault::Forbidden, 4));
}

#[tokio::test]
async fn names_of_this_machine_are_not_public() {
    let server = Hostile::start(|_, _| Answer::new(500)).await;
    let public = HttpOptions { addresses: AddressPolicy::Public, ..options() };
    let never = CancellationToken::new();
    for host in ["localhost", "127.0.0.1"] {
        let url = server.origin.replace("127.0.0.1", host);
        let error = HttpSource::open(&url, &public, &never).await.unwrap_err();
        assert_eq!((error.fault, server.count(|_| true)), (SourceFault::Forbidden, 0), "{host}: {error:?}");
    }
    // Unless they are named: then the operator meant them.
    let named = server.origin.strip_prefix("http://").unwrap().parse().unwrap();
    let listed = HttpOptions { allowed_hosts: Some(vec![named]), attempts: 1, ..public };
    assert_eq!(open(&server, &listed).await.unwrap_err().fault, SourceFault::Unavailable);
    let plain = HttpOptions { allow_http: false, ..listed };
    assert_eq!(open(&server, &plain).await.unwrap_err().fault, SourceFault::Forbidden);
}

#[tokio::test]
async fn what_is_cancelled_or_dropped_asks_no_more() {
    let server = Hostile::start(|request, seen| match seen {
        0 => right(request, &noise(LEN)),
        _ => Answer::new(503),
    })
    .await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    let url = format!("{}/disk.img", server.origin);
    let error = HttpSource::open(&url, &options(), &cancel).await.unwrap_err();
    assert_eq!((error.fault, server.count(|_| true)), (SourceFault::Io, 0));

    let source = open(&server, &HttpOptions { attempts: 100, ..options() }).await.unwrap();
    let asked_again = async {
        while server.count(|_| true) < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        read = source.read(Span::new(0, 10)) => panic!("{read:?}"),
        () = asked_again => {}
    }
    // What was under way arrives; each attempt pauses longer than the one before.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let asked = server.count(|_| true);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(server.count(|_| true), asked);
}

#[tokio::test]
async fn a_url_that_is_none_shows_no_secret() {
    let error =
        HttpSource::open("http://user:hunter2@[bad/x?key=hunter2", &options(), &CancellationToken::new())
            .await
            .unwrap_err();
    assert!(!format!("{error:?} {error}").contains("hunter2"), "{error:?}");
    let error = HttpSource::open("http://user:hunter2@127.0.0.1/x", &options(), &CancellationToken::new())
        .await
        .unwrap_err();
    assert_eq!(error.fault, SourceFault::Forbidden);
    assert!(!format!("{error:?} {error}").contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn a_version_is_length_and_etag_and_no_secret() {
    let object = noise(LEN);
    let server = Hostile::start(move |request, _| right(request, &object)).await;
    let source = open(&server, &options()).await.unwrap();
    assert_eq!(source.version(), format!("{LEN} bytes, {ETAG}"));
}

/// Where a server says nothing of versions, none is taken for that of another time.
#[tokio::test]
async fn without_a_version_each_opening_is_another() {
    let object = noise(LEN);
    let server = Hostile::start(move |request, _| {
        let (first, last) = request.range();
        let last = last.min(object.len() - 1);
        let range = format!("bytes {first}-{last}/{}", object.len());
        Answer::new(206).header("Content-Range", range).body(&object[first..=last])
    })
    .await;
    let (one, two) = (open(&server, &options()).await.unwrap(), open(&server, &options()).await.unwrap());
    assert_eq!(one.version(), one.version());
    assert_ne!(one.version(), two.version());
}
