//! A network that is gone for a while, and clocks that differ. What is lost is counted, so nothing waits.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use disk_convert::{Sink as _, SinkFault};
use local_store::testing::{Cut, FaultPlan, FaultProxy, Moment};
use object_io::{
    Journal, MultipartOptions, MultipartSink, ObjectError, Resumed, RetryOptions, Store, StoreConfig,
    UploadOf,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use time::macros::format_description;
use tokio_util::sync::CancellationToken;

use crate::hostile::{Answer, Hostile, Request};
use crate::local::{BUCKET, Local, config_for, noise};
use crate::multipart::{parts, uploads};

/// Three parts.
const LEN: usize = (32 << 20) + 1;

/// What an upload asks in a minute at most, as patient as it is with people: 16 parts in flight, and some 12 attempts of each.
const A_MINUTE: u64 = 200;

/// As patient as with people, counted in attempts, and a thousand times quicker.
fn patient() -> RetryOptions {
    RetryOptions {
        first_pause: Duration::from_millis(1),
        max_pause: Duration::from_millis(5),
        ..RetryOptions::default()
    }
}

/// Of little patience.
fn hasty() -> RetryOptions {
    RetryOptions { budget: 10, ..patient() }
}

async fn line(local: &Local) -> FaultProxy {
    let plan = FaultPlan { seed: 0, per_mille: 0, faults: Vec::new(), delay: Duration::ZERO };
    FaultProxy::start(local.address(), plan).await.unwrap()
}

async fn through(local: &Local, proxy: &FaultProxy, retry: RetryOptions) -> Store {
    Store::connect(StoreConfig { retry, ..local.config_by(proxy.endpoint()) }).await.unwrap()
}

async fn create(store: &Store, never: &CancellationToken) -> MultipartSink {
    let options = MultipartOptions::default();
    MultipartSink::create(store, BUCKET, "disk", LEN as u64, options, never).await.unwrap()
}

async fn is_whole(local: &Local, object: &Bytes) {
    assert!(local.store.get(BUCKET, "disk", None, &local.never).await.unwrap() == object);
    assert_eq!(uploads(&local.store).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_is_gone_for_a_minute_costs_nothing_but_the_minute() {
    let local = Local::start().await;
    let object = Bytes::from(noise(LEN));
    let [first, second, last] = <[_; 3]>::try_from(parts(&object)).unwrap();
    let proxy = line(&local).await;
    let store = through(&local, &proxy, patient()).await;
    let sink = create(&store, &local.never).await;
    sink.put(first).await.unwrap();
    // Two parts are on their way when it goes.
    proxy.cut(Moment::Now, Cut::Reset, A_MINUTE);
    let (second, last) = tokio::join!(sink.put(second), sink.put(last));
    second.unwrap();
    last.unwrap();
    assert_eq!(proxy.to_be_lost(), 0);
    sink.finish(LEN as u64).await.unwrap();
    // Each reached the store once.
    assert_eq!(proxy.parts_sent(), [1, 2, 3]);
    is_whole(&local, &object).await;
    local.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_an_outage_too() {
    let local = Local::start().await;
    let object = Bytes::from(noise(LEN));
    let proxy = line(&local).await;
    // Longer than any answer takes on a busy machine.
    let attempt_timeout = Duration::from_secs(1);
    let store = through(&local, &proxy, RetryOptions { attempt_timeout, ..patient() }).await;
    let sink = create(&store, &local.never).await;
    for part in parts(&object) {
        sink.put(part).await.unwrap();
    }
    // The list of parts, which has no body, and Complete.
    proxy.cut(Moment::Now, Cut::Silent(Duration::from_secs(60)), 3);
    sink.finish(LEN as u64).await.unwrap();
    assert_eq!(proxy.to_be_lost(), 0);
    is_whole(&local, &object).await;
    local.stop().await;
}

/// Whether the store has carried it out or not: who asks again after a while has the object.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_goes_during_complete_and_comes_back() {
    let local = Local::start().await;
    let object = Bytes::from(noise(LEN));
    for carried_out in [false, true] {
        let proxy = line(&local).await;
        let store = through(&local, &proxy, patient()).await;
        let sink = create(&store, &local.never).await;
        for part in parts(&object) {
            sink.put(part).await.unwrap();
        }
        proxy.cut(Moment::Complete { carried_out }, Cut::Reset, A_MINUTE);
        sink.finish(LEN as u64).await.unwrap();
        assert_eq!(proxy.to_be_lost(), 0, "{carried_out}");
        assert_eq!(proxy.parts_sent(), [1, 2, 3], "{carried_out}");
        is_whole(&local, &object).await;
        local.store.delete(BUCKET, "disk", &local.never).await.unwrap();
    }
    local.stop().await;
}

fn of() -> UploadOf {
    UploadOf { form: "raw".into(), layout: 1, guest_digest: None, sources: Vec::new(), temporary: false }
}

async fn resume(store: &Store, dir: &Path, never: &CancellationToken) -> (Arc<Journal>, Resumed) {
    let journal = Journal::open(dir, &store.endpoint(), BUCKET, "disk").unwrap();
    let options = MultipartOptions::default();
    let resumed = MultipartSink::resume(store, BUCKET, "disk", LEN as u64, options, &journal, of(), never)
        .await
        .unwrap();
    (journal, resumed)
}

/// It does not come back in time: the command fails, and the next one finds what there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_goes_during_complete_and_stays_away() {
    let local = Local::start().await;
    let object = Bytes::from(noise(LEN));
    for carried_out in [false, true] {
        let (proxy, dir) = (line(&local).await, tempfile::tempdir().unwrap());
        let store = through(&local, &proxy, hasty()).await;
        let (journal, resumed) = resume(&store, dir.path(), &local.never).await;
        let Resumed::Sink(sink, _) = resumed else { panic!("{resumed:?}") };
        for part in parts(&object) {
            sink.put(part).await.unwrap();
        }
        proxy.cut(Moment::Complete { carried_out }, Cut::Reset, u64::MAX);
        let error = sink.finish(LEN as u64).await.unwrap_err();
        assert_eq!(error.fault, SinkFault::Unavailable, "{error:?}");
        sink.abort().await;
        drop((sink, journal));

        proxy.cut(Moment::Now, Cut::Reset, 0);
        let (_journal, resumed) = resume(&store, dir.path(), &local.never).await;
        match resumed {
            Resumed::Done(_) => assert!(carried_out),
            Resumed::Sink(sink, _) => {
                assert!(!carried_out);
                for part in parts(&object) {
                    sink.put(part).await.unwrap();
                }
                sink.finish(LEN as u64).await.unwrap();
            }
        }
        assert_eq!(proxy.parts_sent(), [1, 2, 3], "no part went twice");
        is_whole(&local, &object).await;
        local.store.delete(BUCKET, "disk", &local.never).await.unwrap();
    }
    local.stop().await;
}

/// Minutes that the clock of a store is ahead of this one, and what it does about that.
#[derive(Clone, Copy)]
struct Clock {
    minutes: i64,
    status: u16,
    code: &'static str,
}

impl Clock {
    fn now(self) -> OffsetDateTime {
        OffsetDateTime::from(SystemTime::now()) + time::Duration::minutes(self.minutes)
    }

    /// Whether the signature is of about now.
    fn likes(self, request: &Request) -> bool {
        let format = format_description!("[year][month][day]T[hour][minute][second]Z");
        let date = request.header("x-amz-date").unwrap_or_default();
        let signed = time::PrimitiveDateTime::parse(date, format).unwrap().assume_utc();
        (signed - self.now()).abs() < time::Duration::minutes(15)
    }

    fn date(self) -> String {
        // RFC 9110 wants another name for the zone than RFC 2822.
        self.now().format(&Rfc2822).unwrap().replace("+0000", "GMT")
    }

    fn refusal(self, request: &Request) -> Answer {
        let answer = Answer::new(self.status).header("Date", self.date());
        if request.method() == "HEAD" {
            return answer;
        }
        let body = format!("<Error><Code>{}</Code><Message>no</Message></Error>", self.code);
        answer.body(body)
    }
}

const AWS: (u16, &str) = (403, "RequestTimeTooSkewed");
const GARAGE: (u16, &str) = (400, "InvalidRequest");

/// Only the first request is refused; whatever comes after it, URLs too, is signed by the store's clock.
#[tokio::test]
async fn an_upload_goes_by_the_clock_of_the_store() {
    for (minutes, (status, code)) in [(60, AWS), (-60, AWS), (-60, GARAGE)] {
        let clock = Clock { minutes, status, code };
        let server = Hostile::start(move |request, _| {
            let answer = match (request.method(), request.target()) {
                _ if !clock.likes(request) => return clock.refusal(request),
                ("HEAD", "/images" | "/images/") => Answer::new(200),
                ("POST", target) if target.contains("uploads") => Answer::new(200).body(
                    "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>",
                ),
                ("PUT", _) => {
                    let crc32 = request.header("x-amz-checksum-crc32").unwrap();
                    Answer::new(200).header("ETag", "\"p\"").header("x-amz-checksum-crc32", crc32)
                }
                ("GET", _) => Answer::new(405).body("<Error><Code>MethodNotAllowed</Code></Error>"),
                ("POST", _) => Answer::new(200).body(
                    "<CompleteMultipartUploadResult><ETag>\"done\"</ETag></CompleteMultipartUploadResult>",
                ),
                _ => Answer::new(200).header("Content-Length", "3").header("ETag", "\"done\"").no_length(),
            };
            answer.header("Date", clock.date())
        })
        .await;
        let never = CancellationToken::new();
        let store = Store::connect(config_for(&server.origin)).await.unwrap();
        store.head_bucket(BUCKET, &never).await.unwrap();
        let options = MultipartOptions::default();
        let sink = MultipartSink::create(&store, BUCKET, "disk", 3, options, &never).await.unwrap();
        sink.put(parts(&Bytes::from_static(b"abc")).remove(0)).await.unwrap();
        sink.finish(3).await.unwrap();
        assert_eq!(server.count(|request| !clock.likes(request)), 1, "{minutes} {code}");
        let hour = Duration::from_secs(3600);
        let url = store.presign_get(BUCKET, "disk", hour, &never).await.unwrap();
        let ends = OffsetDateTime::from(url.expires_at()) - clock.now();
        assert!((ends - time::Duration::HOUR).abs() < time::Duration::MINUTE, "{ends}");
    }
}

/// One that it does not help to go by: it is asked twice, and the error says how the clocks differ.
#[tokio::test]
async fn a_clock_that_cannot_be_followed_is_told() {
    for (minutes, said) in [(60, "60 min behind the store's"), (-60, "60 min ahead of the store's")] {
        let clock = Clock { minutes, status: AWS.0, code: AWS.1 };
        let server = Hostile::start(move |request, _| clock.refusal(request)).await;
        let store = Store::connect(config_for(&server.origin)).await.unwrap();
        let never = CancellationToken::new();
        let error = store.list_uploads(BUCKET, "", &never).await.unwrap_err();
        let text = error.to_string();
        // Minutes may be one short: a Date has whole seconds.
        let text = text.replace("59 min", "60 min");
        assert!(matches!(error, ObjectError::Clock { .. }), "{error:?}");
        let year_and_month = clock.now().date().to_string();
        assert!(text.contains(said) && text.contains(&year_and_month), "{text}");
        assert!(error.hint().unwrap().contains("clock"), "{error:?}");
        assert_eq!(server.count(|_| true), 2);
    }
    // Where the clocks agree it is another matter.
    let clock = Clock { minutes: 10, status: 403, code: "AccessDenied" };
    let server = Hostile::start(move |request, _| clock.refusal(request)).await;
    let store = Store::connect(config_for(&server.origin)).await.unwrap();
    let error = store.list_uploads(BUCKET, "", &CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, ObjectError::AccessDenied { .. }), "{error:?}");
    assert_eq!(server.count(|_| true), 1);
}
