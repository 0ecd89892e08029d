//! The verbs, through the real SDK.

use std::time::Duration;

use bytes::Bytes;
use disk_image::Span;
use futures_util::{StreamExt as _, stream};
use object_io::{Checksum, Credentials, ObjectError, PutOptions, Store, StoreConfig, StoreProfile};
use tokio_util::sync::CancellationToken;

use crate::hostile::{Answer, Hostile};
use crate::local::{BUCKET, Local, config_for, metadata, noise};

#[tokio::test]
async fn an_object_comes_back_as_it_was_put() {
    let local = Local::start().await;
    let (store, never) = (&local.store, &local.never);
    let body = Bytes::from(noise(100_001));
    let options = PutOptions { metadata: metadata(), ..PutOptions::default() };
    let put = store.put(BUCKET, "a/b c+ü.img", body.clone(), &options, never).await.unwrap();

    let info = store.head(BUCKET, "a/b c+ü.img", never).await.unwrap();
    assert_eq!((info.size, info.etag), (body.len() as u64, Some(put.etag)));
    assert_eq!(info.metadata, metadata());
    assert!(info.last_modified.is_some());
    assert_eq!(store.get(BUCKET, "a/b c+ü.img", None, never).await.unwrap(), body);
    let range = store.get(BUCKET, "a/b c+ü.img", Some(Span::new(1000, 17)), never).await.unwrap();
    assert_eq!(range, body[1000..1017]);

    let past = store.get(BUCKET, "a/b c+ü.img", Some(Span::new(100_000, 2)), never).await;
    assert!(matches!(past, Err(ObjectError::Length { found: 1, expected: 2, .. })), "{past:?}");
    store.delete(BUCKET, "a/b c+ü.img", never).await.unwrap();
    store.delete(BUCKET, "a/b c+ü.img", never).await.unwrap();
    let gone = store.get(BUCKET, "a/b c+ü.img", None, never).await.unwrap_err();
    assert!(matches!(gone, ObjectError::NoSuchKey { .. }) && gone.is_not_found(), "{gone:?}");
    local.stop().await;
}

#[tokio::test]
async fn the_store_compares_checksums_and_conditions() {
    let local = Local::start().await;
    let (store, never) = (&local.store, &local.never);
    let body = Bytes::from_static(b"content");
    let wrong = PutOptions { checksum_sha256: Some([7; 32]), ..PutOptions::default() };
    let refused = store.put(BUCKET, "k", body.clone(), &wrong, never).await.unwrap_err();
    assert!(matches!(refused, ObjectError::Checksum { .. }), "{refused:?}");
    assert!(store.head(BUCKET, "k", never).await.unwrap_err().is_not_found());

    let once = PutOptions { if_none_match: true, ..PutOptions::default() };
    store.put(BUCKET, "k", body.clone(), &once, never).await.unwrap();
    let again = store.put(BUCKET, "k", body, &once, never).await.unwrap_err();
    assert!(matches!(again, ObjectError::PreconditionFailed { .. }), "{again:?}");
    assert_eq!(again.to_string(), "`s3://images/k` exists already");
    local.stop().await;
}

#[tokio::test]
async fn listing_goes_page_by_page() {
    let local = Local::start().await;
    let (store, never) = (&local.store, &local.never);
    let puts = stream::iter(0..1003).for_each_concurrent(16, async |n| {
        let key = format!("many/{n:04}");
        store.put(BUCKET, &key, Bytes::from_static(b"x"), &PutOptions::default(), never).await.unwrap();
    });
    puts.await;
    store.put(BUCKET, "other", Bytes::new(), &PutOptions::default(), never).await.unwrap();
    let (mut keys, mut pages, mut next) = (Vec::new(), 0, None);
    loop {
        let page = store.list(BUCKET, "many/", next.as_ref(), never).await.unwrap();
        pages += 1;
        keys.extend(page.objects.into_iter().map(|object| object.key));
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(pages, 2);
    assert_eq!(keys, (0..1003).map(|n| format!("many/{n:04}")).collect::<Vec<_>>());
    local.stop().await;
}

#[tokio::test]
async fn a_bucket_is_created_once() {
    let local = Local::start().await;
    let (store, never) = (&local.store, &local.never);
    let missing = store.head_bucket("missing-bucket", never).await.unwrap_err();
    assert!(matches!(missing, ObjectError::NoSuchBucket { .. }), "{missing:?}");
    let put =
        store.put("missing-bucket", "k", Bytes::new(), &PutOptions::default(), never).await.unwrap_err();
    assert!(matches!(put, ObjectError::NoSuchBucket { .. }), "{put:?}");
    store.create_bucket_if_missing("missing-bucket", never).await.unwrap();
    store.create_bucket_if_missing("missing-bucket", never).await.unwrap();
    store.create_bucket("missing-bucket", never).await.unwrap();
    store.head_bucket("missing-bucket", never).await.unwrap();
    local.stop().await;
}

#[tokio::test]
async fn wrong_keys_are_denied_and_not_shown() {
    let local = Local::start().await;
    let credentials = Some(Credentials::new("test-access-key", "not-the-secret"));
    let config = StoreConfig { credentials, ..config_for(&local.endpoint) };
    let store = Store::connect(config).await.unwrap();
    let denied = store.get(BUCKET, "k", None, &local.never).await.unwrap_err();
    assert!(matches!(denied, ObjectError::AccessDenied { .. }), "{denied:?}");
    assert!(!denied.is_retryable());
    assert!(!format!("{denied:?} {denied}").contains("not-the-secret"));
    assert!(!format!("{store:?}").contains("not-the-secret"));
    local.stop().await;
}

#[tokio::test]
async fn an_unreachable_store_is_reported_soon() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let store = Store::connect(config_for(&endpoint)).await.unwrap();
    let never = CancellationToken::new();
    let head = tokio::time::timeout(Duration::from_secs(20), store.head(BUCKET, "k", &never)).await;
    let error = head.expect("an answer within 20 s").unwrap_err();
    assert!(matches!(error, ObjectError::Unreachable { .. }) && error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn a_cancelled_verb_ends_at_once() {
    let local = Local::start().await;
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    let error = local.store.head(BUCKET, "k", &cancelled).await.unwrap_err();
    assert!(matches!(error, ObjectError::Cancelled), "{error:?}");
    local.stop().await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_asked_for_again() {
    let server = Hostile::start(|_, seen| match seen {
        0 => Answer::new(200).header("ETag", "\"v\"").body("abcdef").cut(3),
        _ => Answer::new(200).header("ETag", "\"v\"").body("abcdef"),
    })
    .await;
    let store = Store::connect(config_for(&server.origin)).await.unwrap();
    let got = store.get(BUCKET, "k", None, &CancellationToken::new()).await.unwrap();
    assert_eq!((&got[..], server.count(|_| true)), (&b"abcdef"[..], 2));
}

#[tokio::test]
async fn an_object_above_the_limit_is_not_read() {
    let server =
        Hostile::start(|_, _| Answer::new(200).header("Content-Length", "99999999999").no_length().cut(0))
            .await;
    let store = Store::connect(config_for(&server.origin)).await.unwrap();
    let error = store.get(BUCKET, "k", None, &CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, ObjectError::TooLong { found: 99_999_999_999, .. }), "{error:?}");
}

#[tokio::test]
async fn a_plain_server_is_no_tls_server() {
    let local = Local::start().await;
    let store = Store::connect(config_for(&local.endpoint.replace("http:", "https:"))).await.unwrap();
    let error = store.head(BUCKET, "k", &local.never).await.unwrap_err();
    assert!(matches!(error, ObjectError::Unreachable { .. }), "{error:?}");
    local.stop().await;
}

#[tokio::test]
async fn another_region_is_named() {
    let server = Hostile::start(|_, _| {
        let body = "<Error><Code>PermanentRedirect</Code><Message>elsewhere</Message></Error>";
        Answer::new(301).header("x-amz-bucket-region", "eu-north-1").body(body)
    })
    .await;
    let store = Store::connect(config_for(&server.origin)).await.unwrap();
    let error = store.get(BUCKET, "k", None, &CancellationToken::new()).await.unwrap_err();
    let ObjectError::WrongRegion { source, .. } = &error else { panic!("{error:?}") };
    assert!(source.to_string().contains("eu-north-1"), "{source}");
}

#[tokio::test]
async fn a_probe_finds_out_what_the_store_can_do_and_leaves_nothing() {
    let local = Local::start().await;
    let profile = local.store.probe(BUCKET, "probe", &local.never).await.unwrap();
    // As local-store's own documentation has it.
    let told =
        "checksum=crc32,payload=unsigned,etag=md5,part-copy=yes,conditional-put=yes,conditional-complete=yes";
    assert_eq!(profile, told.parse().unwrap());
    assert_eq!(local.store.profile(), profile);
    assert!(local.store.head(BUCKET, "probe", &local.never).await.unwrap_err().is_not_found());
    assert_eq!(local.store.list_uploads(BUCKET, "", &local.never).await.unwrap(), []);
    local.stop().await;
}

#[tokio::test]
async fn what_was_learned_is_remembered_for_the_endpoint() {
    let local = Local::start().await;
    let memory = tempfile::tempdir().unwrap();
    let config = || StoreConfig { memory: Some(memory.path().join("stores")), ..config_for(&local.endpoint) };
    let store = Store::connect(config()).await.unwrap();
    assert_eq!(store.profile(), StoreProfile::default());
    let profile = store.probe(BUCKET, "probe", &local.never).await.unwrap();
    assert_eq!(Store::connect(config()).await.unwrap().profile(), profile);
    // What the command says comes first.
    let store_profile = "checksum=md5".parse().unwrap();
    let told = Store::connect(StoreConfig { store_profile, ..config() }).await.unwrap();
    assert_eq!(told.profile().checksum, Some(Checksum::Md5));
    drop((store, told));
    local.stop().await;
}
