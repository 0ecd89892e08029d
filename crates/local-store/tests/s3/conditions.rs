//! Conditional requests, on reads, writes, completions and copies.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::primitives::{ByteStream, DateTime};

use crate::harness::{BUCKET, Server, assert_refused, refusal};

const OTHER: &str = "\"00000000000000000000000000000000\"";

#[tokio::test]
async fn reads() {
    let (server, _dir) = Server::with_bucket().await;
    let etag = server.put("k", "x").await;
    let get = || server.client.get_object().bucket(BUCKET).key("k");
    let head = || server.client.head_object().bucket(BUCKET).key("k");

    get().if_match(&etag).send().await.unwrap();
    get().if_match("*").send().await.unwrap();
    get().if_none_match(OTHER).send().await.unwrap();
    assert_refused(get().if_match(OTHER).send().await, 412, "PreconditionFailed");
    assert_eq!(refusal(head().if_match(OTHER).send().await).0, 412);
    assert_eq!(refusal(get().if_none_match(&etag).send().await).0, 304);
    assert_eq!(refusal(get().if_none_match("*").send().await).0, 304);
    assert_eq!(refusal(head().if_none_match(&etag).send().await).0, 304);
    let unchanged = get().if_none_match(&etag).send().await.unwrap_err();
    assert_eq!(unchanged.raw_response().unwrap().headers().get("etag"), Some(&*etag));
    assert!(unchanged.raw_response().unwrap().headers().get("last-modified").is_some());

    let past = DateTime::from(SystemTime::now() - Duration::from_secs(3600));
    let future = DateTime::from(SystemTime::now() + Duration::from_secs(3600));
    get().if_modified_since(past).send().await.unwrap();
    get().if_unmodified_since(future).send().await.unwrap();
    assert_eq!(refusal(get().if_modified_since(future).send().await).0, 304);
    assert_eq!(refusal(get().if_unmodified_since(past).send().await).0, 412);
    // The tag overrules the date.
    get().if_match(&etag).if_unmodified_since(past).send().await.unwrap();
    get().if_none_match(OTHER).if_modified_since(future).send().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn writes() {
    let (server, _dir) = Server::with_bucket().await;
    let put = |body: &'static str| {
        server.client.put_object().bucket(BUCKET).key("k").body(ByteStream::from_static(body.as_bytes()))
    };

    assert_refused(put("0").if_match(OTHER).send().await, 404, "NoSuchKey");
    let first = put("1").if_none_match("*").send().await.unwrap().e_tag.unwrap();
    assert_refused(put("2").if_none_match("*").send().await, 412, "PreconditionFailed");
    assert_refused(put("2").if_match(OTHER).send().await, 412, "PreconditionFailed");
    assert_refused(put("2").if_none_match(OTHER).send().await, 501, "NotImplemented");
    assert_eq!(server.get("k").await, b"1");
    put("3").if_match(&first).send().await.unwrap();
    assert_eq!(server.get("k").await, b"3");

    let delete = || server.client.delete_object().bucket(BUCKET).key("k");
    assert_refused(delete().if_match(&first).send().await, 412, "PreconditionFailed");
    delete().if_match("*").send().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn of_many_creators_one_wins() {
    let (server, _dir) = Server::with_bucket().await;
    let mut tasks = tokio::task::JoinSet::new();
    for body in 0..16 {
        let put = server
            .client
            .put_object()
            .bucket(BUCKET)
            .key("k")
            .if_none_match("*")
            .body(vec![body; 100_000].into());
        tasks.spawn(async move { put.send().await.is_ok().then_some(body) });
    }
    let winners: Vec<u8> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(server.get("k").await, vec![winners[0]; 100_000]);
    server.stop().await;
}

#[tokio::test]
async fn completions() {
    let (server, _dir) = Server::with_bucket().await;
    let old = server.put("k", "old").await;
    let id = server.create_upload("k").await;
    let parts = [server.put_part("k", &id, 1, "new").await];
    assert_refused(
        server.complete("k", &id, &parts).if_none_match("*").send().await,
        412,
        "PreconditionFailed",
    );
    assert_refused(server.complete("k", &id, &parts).if_match(OTHER).send().await, 412, "PreconditionFailed");
    assert_eq!(server.get("k").await, b"old");
    server.complete("k", &id, &parts).if_match(old).send().await.unwrap();
    assert_eq!(server.get("k").await, b"new");

    let id = server.create_upload("fresh").await;
    let parts = [server.put_part("fresh", &id, 1, "x").await];
    assert_refused(server.complete("fresh", &id, &parts).if_match(OTHER).send().await, 404, "NoSuchKey");
    server.complete("fresh", &id, &parts).if_none_match("*").send().await.unwrap();
    // A repeated question about the same upload gets the same answer, though the object now exists.
    server.complete("fresh", &id, &parts).if_none_match("*").send().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn copy_sources() {
    let (server, _dir) = Server::with_bucket().await;
    let etag = server.put("k", "x").await;
    let copy = || server.client.copy_object().bucket(BUCKET).key("copy").copy_source("bucket/k");
    copy().copy_source_if_match(&etag).send().await.unwrap();
    assert_refused(copy().copy_source_if_match(OTHER).send().await, 412, "PreconditionFailed");
    assert_refused(copy().copy_source_if_none_match(&etag).send().await, 412, "PreconditionFailed");
    let future = DateTime::from(SystemTime::now() + Duration::from_secs(3600));
    assert_refused(copy().copy_source_if_modified_since(future).send().await, 412, "PreconditionFailed");
    // On the destination.
    assert_refused(copy().if_none_match("*").send().await, 412, "PreconditionFailed");
    copy().if_match(&etag).send().await.unwrap();

    let id = server.create_upload("up").await;
    let part = || {
        server
            .client
            .upload_part_copy()
            .bucket(BUCKET)
            .key("up")
            .upload_id(&id)
            .part_number(1)
            .copy_source("bucket/k")
    };
    part().copy_source_if_match(&etag).send().await.unwrap();
    assert_refused(part().copy_source_if_match(OTHER).send().await, 412, "PreconditionFailed");
    server.stop().await;
}
