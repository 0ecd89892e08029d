//! Uploads in parts: what is stored, and what is left behind.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use disk_convert::{Part, PartSize, Payload, Sink, SinkFault};
use object_io::{MultipartOptions, MultipartSink, ObjectError, RetryOptions, Store, StoreConfig};
use tokio_util::sync::CancellationToken;

use crate::hostile::{Answer, Hostile};
use crate::local::{BUCKET, Local, config_for, metadata, noise};

const PART: u64 = 16 << 20;

/// Cuts `object` into parts as an engine would; parts that are zero throughout are sent as such.
pub(crate) fn parts(object: &Bytes) -> Vec<Part> {
    let mut parts = Vec::new();
    for offset in (0..object.len()).step_by(usize::try_from(PART).unwrap()) {
        let bytes = object.slice(offset..object.len().min(offset + usize::try_from(PART).unwrap()));
        let number = u32::try_from(parts.len()).unwrap();
        let zero = bytes.iter().all(|byte| *byte == 0);
        let payload = if zero { Payload::Zero(bytes.len() as u64) } else { Payload::Data(bytes) };
        parts.push(Part { number, offset: offset as u64, payload });
    }
    parts
}

async fn create(local: &Local, len: u64) -> MultipartSink {
    let options = MultipartOptions { metadata: metadata(), ..MultipartOptions::default() };
    MultipartSink::create(&local.store, BUCKET, "disk", len, options, &local.never).await.unwrap()
}

pub(crate) async fn uploads(store: &Store) -> usize {
    store.list_uploads(BUCKET, "", &CancellationToken::new()).await.unwrap().len()
}

#[tokio::test]
async fn parts_in_any_order_make_the_object() {
    let local = Local::start().await;
    let mut object = noise(40_000_003);
    object[(16 << 20)..(32 << 20)].fill(0);
    let object = Bytes::from(object);
    let sink = create(&local, object.len() as u64).await;
    assert_eq!(sink.rules().size, PartSize::Exactly(PART));
    let puts = parts(&object).into_iter().rev().map(|part| sink.put(part));
    futures_util::future::try_join_all(puts).await.unwrap();
    let done = sink.finish(object.len() as u64).await.unwrap();

    assert_eq!((done.size, done.crc32), (object.len() as u64, crc32fast::hash(&object)));
    let info = local.store.head(BUCKET, "disk", &local.never).await.unwrap();
    assert_eq!((info.etag, info.metadata), (Some(done.etag), metadata()));
    assert_eq!(local.store.get(BUCKET, "disk", None, &local.never).await.unwrap(), object);
    assert_eq!(uploads(&local.store).await, 0);
    local.stop().await;
}

#[tokio::test]
async fn an_object_may_end_before_the_length_that_was_told() {
    let local = Local::start().await;
    let object = Bytes::from(noise(20_000_003));
    let begin = |may_be_shorter| {
        let options = MultipartOptions { may_be_shorter, ..MultipartOptions::default() };
        MultipartSink::create(&local.store, BUCKET, "disk", 160_000 << 20, options, &local.never)
    };
    let sink = begin(true).await.unwrap();
    // The length that is told decides the size of the parts: 10,000 of them are enough for all of it.
    assert_eq!(sink.rules().size, PartSize::Exactly(PART));
    for part in parts(&object).into_iter().rev() {
        sink.put(part).await.unwrap();
    }
    let done = sink.finish(object.len() as u64).await.unwrap();
    assert_eq!((done.size, done.crc32), (object.len() as u64, crc32fast::hash(&object)));
    assert_eq!(local.store.get(BUCKET, "disk", None, &local.never).await.unwrap(), object);

    // A part that is missing, one that is short in the middle, and a length that was to be kept.
    let [first, second] = <[Part; 2]>::try_from(parts(&object)).unwrap();
    let missing = begin(true).await.unwrap();
    missing.put(second.clone()).await.unwrap();
    assert_eq!(missing.finish(second.payload.len()).await.unwrap_err().fault, SinkFault::Protocol);
    let short = begin(true).await.unwrap();
    let cut = Part { payload: Payload::Data(object.slice(..1 << 20)), ..first.clone() };
    short.put(cut).await.unwrap();
    short.put(second.clone()).await.unwrap();
    assert_eq!(short.finish((1 << 20) + second.payload.len()).await.unwrap_err().fault, SinkFault::Protocol);
    let exact = begin(false).await.unwrap();
    exact.put(first).await.unwrap();
    assert_eq!(exact.put(second).await.unwrap_err().fault, SinkFault::Protocol);
    assert_eq!(exact.finish(PART).await.unwrap_err().fault, SinkFault::Protocol);
    assert_eq!(uploads(&local.store).await, 0);
    local.stop().await;
}

#[tokio::test]
async fn an_object_without_bytes_is_one_empty_part() {
    let local = Local::start().await;
    let sink = create(&local, 0).await;
    let done = sink.finish(0).await.unwrap();
    assert_eq!((done.size, done.crc32), (0, 0));
    assert_eq!(local.store.get(BUCKET, "disk", None, &local.never).await.unwrap(), "");
    local.stop().await;
}

#[tokio::test]
async fn an_object_with_a_hole_is_not_completed() {
    let local = Local::start().await;
    let object = Bytes::from(noise(40_000_000));
    let sink = create(&local, object.len() as u64).await;
    for part in parts(&object).into_iter().skip(1) {
        sink.put(part).await.unwrap();
    }
    let error = sink.finish(object.len() as u64).await.unwrap_err();
    assert_eq!(error.fault, SinkFault::Protocol, "{error:?}");
    assert_eq!(uploads(&local.store).await, 0);
    assert!(local.store.head(BUCKET, "disk", &local.never).await.unwrap_err().is_not_found());
    local.stop().await;
}

#[tokio::test]
async fn a_part_of_the_wrong_size_is_refused() {
    let local = Local::start().await;
    let sink = create(&local, 2 * PART).await;
    for (number, offset, len) in [(0, 0, PART - 1), (0, 1, PART), (1, 0, PART), (2, 2 * PART, 1)] {
        let error = sink.put(Part { number, offset, payload: Payload::Zero(len) }).await.unwrap_err();
        assert_eq!(error.fault, SinkFault::Protocol, "{number} {offset} {len}");
    }
    sink.abort().await;
    local.stop().await;
}

#[tokio::test]
async fn nothing_is_left_of_an_abort() {
    let local = Local::start().await;
    // Aborted.
    let sink = create(&local, PART).await;
    sink.put(Part { number: 0, offset: 0, payload: Payload::Zero(PART) }).await.unwrap();
    assert_eq!(uploads(&local.store).await, 1);
    sink.abort().await;
    assert_eq!(uploads(&local.store).await, 0);
    // Cancelled, then aborted.
    let cancel = CancellationToken::new();
    let options = MultipartOptions::default();
    let sink = MultipartSink::create(&local.store, BUCKET, "disk", PART, options, &cancel).await.unwrap();
    cancel.cancel();
    let put = sink.put(Part { number: 0, offset: 0, payload: Payload::Zero(PART) }).await;
    assert_eq!(put.unwrap_err().fault, SinkFault::Cancelled);
    sink.abort().await;
    assert_eq!(uploads(&local.store).await, 0);
    // Dropped.
    drop(create(&local, PART).await);
    for _ in 0..500 {
        if uploads(&local.store).await == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(uploads(&local.store).await, 0);
    local.stop().await;
}

#[tokio::test]
async fn an_abort_that_nobody_waits_for_is_not_lost() {
    let local = Local::start().await;
    let sink = create(&local, PART).await;
    assert!(futures_util::future::poll_immediate(sink.abort()).await.is_none());
    drop(sink);
    for _ in 0..500 {
        if uploads(&local.store).await == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(uploads(&local.store).await, 0);
    local.stop().await;
}

#[tokio::test]
async fn a_creation_that_is_cancelled_leaves_no_upload() {
    let local = Local::start().await;
    // The cancel comes before, between and after the request and its answer, as the scheduler has it.
    for pause in 0..60 {
        let cancel = CancellationToken::new();
        let options = MultipartOptions::default();
        let create = MultipartSink::create(&local.store, BUCKET, "disk", PART, options, &cancel);
        let soon = async {
            tokio::time::sleep(Duration::from_micros(pause * 100)).await;
            cancel.cancel();
        };
        let (created, ()) = tokio::join!(create, soon);
        match created {
            Ok(sink) => sink.abort().await,
            Err(error) => assert!(matches!(error, ObjectError::Cancelled), "{error:?}"),
        }
        assert_eq!(uploads(&local.store).await, 0, "{pause}");
    }
    local.stop().await;
}

#[tokio::test]
async fn a_cancel_that_meets_the_answer_is_waited_for() {
    let server = Hostile::start(|request, _| match request.method() {
        "POST" => Answer::new(200).body(CREATED),
        _ => Answer::new(204),
    })
    .await;
    let store = Store::connect(config_for(&server.origin)).await.unwrap();
    let cancel = CancellationToken::new();
    let options = MultipartOptions::default();
    let mut create = Box::pin(MultipartSink::create(&store, BUCKET, "disk", 1, options, &cancel));
    assert!(futures_util::future::poll_immediate(&mut create).await.is_none());
    // The answer comes while nobody looks; then the cancel, which is looked at first.
    while server.count(|request| request.method() == "POST") == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    cancel.cancel();
    assert!(matches!(create.await, Err(ObjectError::Cancelled)));
    assert_eq!(server.count(|request| request.method() == "DELETE"), 1);
}

#[tokio::test]
async fn an_object_is_not_overwritten_where_that_is_forbidden() {
    let local = Local::start().await;
    let once = || MultipartOptions { if_none_match: true, ..MultipartOptions::default() };
    let (store, never) = (&local.store, &local.never);
    // Both pass the first check; the second to complete is refused by the store.
    let first = MultipartSink::create(store, BUCKET, "disk", 0, once(), never).await.unwrap();
    let second = MultipartSink::create(store, BUCKET, "disk", 3, once(), never).await.unwrap();
    first.finish(0).await.unwrap();
    second.put(Part { number: 0, offset: 0, payload: Payload::Data("abc".into()) }).await.unwrap();
    second.finish(3).await.unwrap_err();
    assert_eq!(store.head(BUCKET, "disk", never).await.unwrap().size, 0);
    assert_eq!(uploads(store).await, 0);
    let third = MultipartSink::create(store, BUCKET, "disk", 0, once(), never).await.unwrap_err();
    assert!(matches!(third, ObjectError::PreconditionFailed { .. }), "{third:?}");
    local.stop().await;
}

#[tokio::test]
async fn limits_and_missing_buckets_are_named() {
    let local = Local::start().await;
    let (store, never) = (&local.store, &local.never);
    let options = MultipartOptions::default;
    let long = MultipartSink::create(store, BUCKET, "k", u64::MAX, options(), never).await.unwrap_err();
    assert!(matches!(long, ObjectError::TooLong { .. }), "{long:?}");
    let missing = MultipartSink::create(store, "nowhere", "k", 1, options(), never).await.unwrap_err();
    assert!(matches!(missing, ObjectError::NoSuchBucket { .. }), "{missing:?}");
    local.stop().await;
}

const CREATED: &str = "<InitiateMultipartUploadResult><Bucket>images</Bucket><Key>disk</Key><UploadId>u1</UploadId></InitiateMultipartUploadResult>";
const COMPLETED: &str =
    "<CompleteMultipartUploadResult><ETag>\"done\"</ETag></CompleteMultipartUploadResult>";

fn s3_error(status: u16, code: &str) -> Answer {
    Answer::new(status).body(format!("<Error><Code>{code}</Code><Message>no</Message></Error>"))
}

#[tokio::test]
async fn a_store_that_refuses_checksums_gets_none() {
    let server = Hostile::start(|request, _| {
        let checksummed = request.head.contains("x-amz-checksum-");
        match (request.method(), request.target()) {
            _ if checksummed => s3_error(501, "NotImplemented"),
            ("POST", target) if target.contains("uploads") => Answer::new(200).body(CREATED),
            ("PUT", _) => Answer::new(200).header("ETag", "\"part\""),
            ("POST", _) => Answer::new(200).body(COMPLETED),
            ("HEAD", _) => {
                Answer::new(200).header("Content-Length", "3").header("ETag", "\"done\"").no_length()
            }
            _ => s3_error(405, "MethodNotAllowed"),
        }
    })
    .await;
    let never = CancellationToken::new();
    let store = Store::connect(config_for(&server.origin)).await.unwrap();
    let sink =
        MultipartSink::create(&store, BUCKET, "disk", 3, MultipartOptions::default(), &never).await.unwrap();
    sink.put(Part { number: 0, offset: 0, payload: Payload::Data("abc".into()) }).await.unwrap();
    let done = sink.finish(3).await.unwrap();
    assert_eq!((done.etag.as_str(), done.crc32), ("\"done\"", crc32fast::hash(b"abc")));
    // Asked once with, then without for good.
    assert_eq!(server.count(|request| request.head.contains("x-amz-checksum-")), 1);
}

#[tokio::test]
async fn a_completion_whose_answer_was_lost_is_recognised() {
    // MD5 of "abc" is 900150983cd24fb0d6963f7d28e17f72; the object's ETag is the MD5 of those 16 bytes (computed with md5sum).
    const PART_ETAG: &str = "\"900150983cd24fb0d6963f7d28e17f72\"";
    for (etag, recognised) in [("\"af5da9f45af7a300e3aded972f8ff687-1\"", true), ("\"another-1\"", false)] {
        let server = Hostile::start(move |request, _| match (request.method(), request.target()) {
            ("POST", target) if target.contains("uploads") => Answer::new(200).body(CREATED),
            ("PUT", _) => Answer::new(200).header("ETag", PART_ETAG),
            ("POST", _) => s3_error(404, "NoSuchUpload"),
            ("HEAD", _) => Answer::new(200).header("Content-Length", "3").header("ETag", etag).no_length(),
            _ => Answer::new(204),
        })
        .await;
        let never = CancellationToken::new();
        let store = Store::connect(config_for(&server.origin)).await.unwrap();
        let options = MultipartOptions::default();
        let sink = MultipartSink::create(&store, BUCKET, "disk", 3, options, &never).await.unwrap();
        sink.put(Part { number: 0, offset: 0, payload: Payload::Data("abc".into()) }).await.unwrap();
        assert_eq!(sink.finish(3).await.is_ok(), recognised, "{etag}");
        assert_eq!(server.count(|request| request.method() == "DELETE"), usize::from(!recognised));
    }
}

/// Complete fails in all attempts. What the store then shows decides: the object is there, or it is not and cannot come to be, or
/// nobody knows, which is said.
#[tokio::test]
async fn a_completion_that_is_never_answered_is_looked_for() {
    const PART_ETAG: &str = "\"900150983cd24fb0d6963f7d28e17f72\"";
    const OURS: Option<&str> = Some("\"af5da9f45af7a300e3aded972f8ff687-1\"");
    const OTHER: Option<&str> = Some("\"another-1\"");
    for (before_abort, abort, after_abort, expected) in [
        (None, 204, None, Err("the store failed")),
        (OTHER, 204, OTHER, Err("the store failed")),
        (OURS, 204, OURS, Ok(())),
        (None, 404, OURS, Ok(())),
        (None, 404, None, Err("the store failed")),
        (None, 404, OTHER, Err("not known whether")),
        (None, 503, None, Err("not known whether")),
    ] {
        let aborted = AtomicBool::new(false);
        let server = Hostile::start(move |request, _| match (request.method(), request.target()) {
            ("POST", target) if target.contains("uploads") => Answer::new(200).body(CREATED),
            ("PUT", _) => {
                let crc32 = request.header("x-amz-checksum-crc32").unwrap();
                Answer::new(200).header("ETag", PART_ETAG).header("x-amz-checksum-crc32", crc32)
            }
            ("POST", _) => s3_error(500, "InternalError"),
            ("DELETE", target) if target.contains("uploadId") => {
                aborted.store(true, Ordering::Relaxed);
                match abort {
                    204 => Answer::new(204),
                    404 => s3_error(404, "NoSuchUpload"),
                    status => s3_error(status, "SlowDown"),
                }
            }
            ("HEAD", _) => {
                let etag = if aborted.load(Ordering::Relaxed) { after_abort } else { before_abort };
                let head =
                    |etag| Answer::new(200).header("Content-Length", "3").header("ETag", etag).no_length();
                etag.map_or_else(|| Answer::new(404), head)
            }
            _ => s3_error(405, "MethodNotAllowed"),
        })
        .await;
        let never = CancellationToken::new();
        let retry = RetryOptions {
            first_pause: Duration::from_millis(1),
            outage: Duration::from_millis(100),
            ..RetryOptions::default()
        };
        let config = StoreConfig { retry, ..config_for(&server.origin) };
        let store = Store::connect(config).await.unwrap();
        let options = MultipartOptions::default();
        let sink = MultipartSink::create(&store, BUCKET, "disk", 3, options, &never).await.unwrap();
        sink.put(Part { number: 0, offset: 0, payload: Payload::Data("abc".into()) }).await.unwrap();
        let done = sink.finish(3).await.map(drop).map_err(|error| chain(&error));
        match (&done, expected) {
            (Ok(()), Ok(())) => {}
            (Err(said), Err(expected)) => assert!(said.contains(expected), "{said}"),
            _ => panic!("{before_abort:?} {abort} {after_abort:?}: {done:?}"),
        }
        // Whatever was found there, it is not ours to remove.
        assert_eq!(server.count(is_removal), 0);
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(|error| format!("{error}; ")).collect()
}

/// A store that makes the object, slowly, and then gives `head` to whoever asks for it.
async fn slow_to_complete(head: u16) -> (Hostile, Store) {
    let server = Hostile::start(move |request, _| match (request.method(), request.target()) {
        ("POST", target) if target.contains("uploads") => Answer::new(200).body(CREATED),
        ("PUT", _) => Answer::new(200).header("ETag", "\"p\""),
        ("POST", _) => Answer::new(200).body(COMPLETED).slowly(10, Duration::from_millis(30)),
        ("HEAD", _) => Answer::new(head).header("Content-Length", "3").header("ETag", "\"done\"").no_length(),
        _ => Answer::new(204),
    })
    .await;
    let store = Store::connect(config_for(&server.origin)).await.unwrap();
    (server, store)
}

fn is_removal(request: &crate::hostile::Request) -> bool {
    request.method() == "DELETE" && !request.target().contains("uploadId")
}

#[tokio::test]
async fn an_object_that_a_cancel_finds_being_completed_is_removed() {
    let (server, store) = slow_to_complete(200).await;
    let cancel = CancellationToken::new();
    let options = MultipartOptions::default();
    let sink = MultipartSink::create(&store, BUCKET, "disk", 3, options, &cancel).await.unwrap();
    sink.put(Part { number: 0, offset: 0, payload: Payload::Data("abc".into()) }).await.unwrap();
    let is_complete = |request: &crate::hostile::Request| {
        request.method() == "POST" && request.target().contains("uploadId")
    };
    let soon = async {
        while server.count(is_complete) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancel.cancel();
    };
    let (finished, ()) = tokio::join!(sink.finish(3), soon);
    assert_eq!(finished.unwrap_err().fault, SinkFault::Cancelled);
    assert_eq!(server.count(is_removal), 1);
}

#[tokio::test]
async fn an_object_that_cannot_be_checked_is_removed() {
    let (server, store) = slow_to_complete(403).await;
    let never = CancellationToken::new();
    let options = MultipartOptions::default();
    let sink = MultipartSink::create(&store, BUCKET, "disk", 3, options, &never).await.unwrap();
    sink.put(Part { number: 0, offset: 0, payload: Payload::Data("abc".into()) }).await.unwrap();
    assert_eq!(sink.finish(3).await.unwrap_err().fault, SinkFault::Denied);
    assert_eq!(server.count(is_removal), 1);
}

#[tokio::test]
async fn a_part_is_sent_again_after_503_and_aborted_after_403() {
    let server = Hostile::start(|request, seen| match (request.method(), request.target()) {
        ("POST", target) if target.contains("uploads") => Answer::new(200).body(CREATED),
        ("PUT", target) if target.contains("partNumber=1&") && seen < 3 => s3_error(503, "SlowDown"),
        ("PUT", target) if target.contains("partNumber=1&") => {
            let crc32 = request.header("x-amz-checksum-crc32").unwrap();
            Answer::new(200).header("ETag", "\"p\"").header("x-amz-checksum-crc32", crc32)
        }
        ("PUT", _) => s3_error(403, "AccessDenied"),
        _ => Answer::new(204),
    })
    .await;
    let never = CancellationToken::new();
    let store = Store::connect(config_for(&server.origin)).await.unwrap();
    let options = MultipartOptions::default();
    let sink = MultipartSink::create(&store, BUCKET, "disk", PART + 1, options, &never).await.unwrap();
    sink.put(Part { number: 0, offset: 0, payload: Payload::Zero(PART) }).await.unwrap();
    let denied = sink.put(Part { number: 1, offset: PART, payload: Payload::Zero(1) }).await.unwrap_err();
    assert_eq!((denied.fault, denied.offset), (SinkFault::Denied, Some(PART)));
    sink.abort().await;
    sink.abort().await;
    assert_eq!(server.count(|request| request.method() == "DELETE"), 1);
    assert_eq!(server.count(|request| request.method() == "PUT"), 4);
    // Loopback needs no hash of the body in the signature, and no trailer is ever sent.
    assert_eq!(
        server.count(|request| request.method() == "PUT" && request.head.contains("UNSIGNED-PAYLOAD")),
        4
    );
    assert_eq!(
        server.count(|request| request.head.contains("aws-chunked") || request.head.contains("TRAILER")),
        0
    );
}
