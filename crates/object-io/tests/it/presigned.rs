//! Signed URLs, judged by a store that verifies them.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use disk_convert::{ByteSource as _, SourceFault};
use disk_image::Span;
use object_io::{Credentials, HttpOptions, HttpSource, ObjectError, PutOptions, Store, StoreConfig};
use tokio_util::sync::CancellationToken;

use crate::local::{BUCKET, Local, noise};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn a_signed_url_gives_the_object_and_nothing_else() {
    let local = Local::start().await;
    let (store, never) = (&local.store, &local.never);
    let body = Bytes::from(noise(3_000_000));
    let key = "a b/ü+&=?.img";
    let told = PutOptions { metadata: crate::local::metadata(), ..PutOptions::default() };
    store.put(BUCKET, key, body.clone(), &told, never).await.unwrap();
    let url = store.presign_get(BUCKET, key, Duration::from_secs(60), never).await.unwrap();

    let source = HttpSource::open(url.expose(), &HttpOptions::default(), never).await.unwrap();
    assert_eq!(source.len(), body.len() as u64);
    assert_eq!(source.metadata(), &told.metadata);
    assert_eq!(source.read(Span::new(1_000_000, 5)).await.unwrap(), body[1_000_000..1_000_005]);
    assert_eq!(source.read(Span::new(0, source.len())).await.unwrap(), body);

    // Another object under the same signature is refused.
    let other = url.expose().replace(".img", ".iso");
    let denied = HttpSource::open(&other, &HttpOptions::default(), never).await.unwrap_err();
    assert_eq!(denied.fault, SourceFault::Denied, "{denied:?}");
    // The object is replaced under the open source.
    store.put(BUCKET, key, Bytes::from(vec![1; 3_000_000]), &PutOptions::default(), never).await.unwrap();
    let changed = source.read(Span::new(0, 5)).await.unwrap_err();
    assert_eq!(changed.fault, SourceFault::Changed, "{changed:?}");
    local.stop().await;
}

#[tokio::test]
async fn an_object_without_bytes_is_empty() {
    let local = Local::start().await;
    let (store, never) = (&local.store, &local.never);
    store.put(BUCKET, "empty", Bytes::new(), &PutOptions::default(), never).await.unwrap();
    let url = store.presign_get(BUCKET, "empty", Duration::from_secs(60), never).await.unwrap();
    let source = HttpSource::open(url.expose(), &HttpOptions::default(), never).await.unwrap();
    assert!(source.is_empty());
    assert!(source.read(Span::new(0, 0)).await.unwrap().is_empty());
    assert_eq!(source.read(Span::new(0, 1)).await.unwrap_err().fault, SourceFault::Shrunk);
    local.stop().await;
}

#[tokio::test]
async fn an_url_expires() {
    let local = Local::start().await;
    let (store, never) = (&local.store, &local.never);
    store.put(BUCKET, "k", Bytes::from_static(b"abc"), &PutOptions::default(), never).await.unwrap();
    let before = SystemTime::now();
    let url = store.presign_get(BUCKET, "k", Duration::from_secs(3), never).await.unwrap();
    assert!(url.expires_at() >= before && url.expires_at() <= before + Duration::from_secs(6));
    let source = HttpSource::open(url.expose(), &HttpOptions::default(), never).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    // Known without asking, when it is opened; told by the store, when it happens on the way.
    let early = HttpSource::open(url.expose(), &HttpOptions::default(), never).await.unwrap_err();
    assert_eq!(early.fault, SourceFault::Expired, "{early:?}");
    let late = source.read(Span::new(0, 3)).await.unwrap_err();
    assert_eq!(late.fault, SourceFault::Expired, "{late:?}");
    local.stop().await;
}

#[tokio::test]
async fn the_limit_depends_on_the_store() {
    let never = CancellationToken::new();
    for (endpoint, most) in [("https://storage.yandexcloud.net", 30 * DAY), ("https://s3.example", 7 * DAY)] {
        let store = Store::connect(StoreConfig {
            endpoint_url: Some(endpoint.into()),
            credentials: Some(Credentials::new("AKID", "secret")),
            ..StoreConfig::default()
        })
        .await
        .unwrap();
        let url = store.presign_get(BUCKET, "k", most, &never).await.unwrap();
        assert!(url.expose().contains(&format!("X-Amz-Expires={}", most.as_secs())));
        let second = Duration::from_secs(1);
        let error = store.presign_get(BUCKET, "k", most + second, &never).await.unwrap_err();
        assert!(matches!(error, ObjectError::Expiry { limit, .. } if limit == most), "{error:?}");
        assert!(error.to_string().contains(&most.as_secs().to_string()), "{error}");
        assert!(store.presign_get(BUCKET, "k", Duration::ZERO, &never).await.is_err());
    }
}

#[tokio::test]
async fn a_signed_url_prints_without_its_query() {
    let local = Local::start().await;
    let url = local.store.presign_get(BUCKET, "k", DAY, &local.never).await.unwrap();
    assert!(url.expose().contains("X-Amz-Signature="));
    for shown in [format!("{url}"), format!("{url:?}")] {
        assert!(!shown.contains("X-Amz") && shown.contains("/images/k"), "{shown}");
    }
    local.stop().await;
}
