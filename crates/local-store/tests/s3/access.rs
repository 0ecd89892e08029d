//! Signatures, pre-signed URLs, and what is refused before any verb.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;

use crate::harness::{BUCKET, REGION, SECRET, Server, assert_refused, client, raw};

async fn presigned(server: &Server, start: SystemTime, life: u64) -> String {
    let config =
        PresigningConfig::builder().start_time(start).expires_in(Duration::from_secs(life)).build().unwrap();
    server.client.get_object().bucket(BUCKET).key("k").presigned(config).await.unwrap().uri().to_owned()
}

#[tokio::test]
async fn a_signed_url_opens_one_object_for_one_method_for_its_time() {
    let (server, _dir) = Server::with_bucket().await;
    let etag = server.put("k", "0123456789").await;
    let now = SystemTime::now();
    let url = presigned(&server, now, 600).await;

    let answer = raw(server.addr, "GET", &url, &[], "").await;
    assert_eq!((answer.status, &*answer.body), (200, "0123456789"));
    // A range needs no signature, nor does a condition.
    let answer = raw(server.addr, "GET", &url, &[("range", "bytes=0-0"), ("if-match", &etag)], "").await;
    assert_eq!((answer.status, &*answer.body), (206, "0"));
    assert!(answer.head.contains("content-range: bytes 0-0/10\r\n"), "{}", answer.head);
    assert!(answer.head.contains(&format!("etag: {etag}\r\n")), "{}", answer.head);
    let answer = raw(server.addr, "GET", &url, &[("range", "bytes=10-")], "").await;
    assert!(answer.status == 416 && answer.head.contains("content-range: bytes */10"), "{}", answer.head);
    let answer = raw(server.addr, "GET", &url, &[("if-match", "\"0\"")], "").await;
    assert!(
        answer.status == 412 && answer.body.contains("<Code>PreconditionFailed</Code>"),
        "{}",
        answer.body
    );
    let answer = raw(server.addr, "GET", &url, &[("if-none-match", &etag)], "").await;
    assert!(answer.status == 304 && answer.body.is_empty(), "{}", answer.body);

    for (method, uri) in [
        ("HEAD", url.clone()),
        ("DELETE", url.clone()),
        ("GET", url.replace("/k?", "/other?")),
        ("GET", url.replace("=600", "=601")),
    ] {
        let answer = raw(server.addr, method, &uri, &[], "").await;
        assert_eq!(answer.status, 403, "{method} {}", answer.body);
        assert!(
            method == "HEAD" || answer.body.contains("<Code>SignatureDoesNotMatch</Code>"),
            "{}",
            answer.body
        );
    }

    let old = presigned(&server, now - Duration::from_secs(601), 600).await;
    let answer = raw(server.addr, "GET", &old, &[], "").await;
    assert_eq!(answer.status, 403);
    assert!(
        answer.body.contains("<Code>AccessDenied</Code><Message>Request has expired</Message>"),
        "{}",
        answer.body
    );
    let early = presigned(&server, now + Duration::from_secs(3600), 600).await;
    let answer = raw(server.addr, "GET", &early, &[], "").await;
    assert_eq!(answer.status, 403, "{}", answer.body);
    // Signed for longer than S3 allows: the SDK refuses to, so the URL is as another tool would make it.
    let long = url.replace("X-Amz-Expires=600", "X-Amz-Expires=604801");
    assert_eq!(raw(server.addr, "GET", &long, &[], "").await.status, 403);
    server.stop().await;
}

#[tokio::test]
async fn a_signed_put() {
    let (server, _dir) = Server::with_bucket().await;
    let config = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
    let put = crate::harness::plain_client(server.addr)
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .presigned(config)
        .await
        .unwrap();
    let answer = raw(server.addr, "PUT", put.uri(), &[], "hello").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(server.get("k").await, b"hello");
    let unsized_body = raw(server.addr, "PUT", put.uri(), &[("transfer-encoding", "chunked")], "").await;
    assert!(unsized_body.status == 411 || unsized_body.status == 400, "{}", unsized_body.head);
    server.stop().await;
}

#[tokio::test]
async fn strangers() {
    let (server, dir) = Server::with_bucket().await;
    server.put("k", "x").await;
    let get =
        |client: aws_sdk_s3::Client| async move { client.get_object().bucket(BUCKET).key("k").send().await };
    assert_refused(get(client(server.addr, "wrong", REGION)).await, 403, "SignatureDoesNotMatch");
    assert_refused(get(client(server.addr, SECRET, "elsewhere")).await, 400, "AuthorizationHeaderMalformed");
    let other = client(server.addr, SECRET, REGION).config().to_builder();
    let other = other
        .credentials_provider(aws_sdk_s3::config::Credentials::new("nobody", SECRET, None, None, "test"));
    assert_refused(get(aws_sdk_s3::Client::from_conf(other.build())).await, 403, "InvalidAccessKeyId");

    let anonymous = raw(server.addr, "GET", "/bucket/k", &[], "").await;
    assert!(
        anonymous.status == 403 && anonymous.body.contains("<Code>AccessDenied</Code>"),
        "{}",
        anonymous.body
    );
    let form = "--b\r\ncontent-disposition: form-data; name=\"key\"\r\n\r\nk\r\n--b\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\nx\r\n--b--\r\n";
    let posted =
        raw(server.addr, "POST", "/bucket", &[("content-type", "multipart/form-data; boundary=b")], form)
            .await;
    assert!(posted.status >= 400, "{}", posted.head);
    let skewed = raw(
        server.addr,
        "GET",
        "/bucket/k",
        &[("authorization", "AWS local-access:c2ln"), ("date", "Thu, 01 Jan 1970 00:00:00 GMT")],
        "",
    )
    .await;
    assert!(skewed.status >= 400, "{}", skewed.head);

    // A body that is not the one that was signed.
    let put = server.client.put_object().bucket(BUCKET).key("k").body(ByteStream::from_static(b"signed"));
    let put = put.customize().mutate_request(|request| {
        request.headers_mut().insert(
            "x-amz-content-sha256",
            "0000000000000000000000000000000000000000000000000000000000000000",
        );
    });
    assert_refused(put.send().await, 403, "SignatureDoesNotMatch");
    crate::harness::assert_data_files(dir.path(), 1).await;
    server.stop().await;
}

#[test]
fn the_secret_does_not_print() {
    let config = crate::harness::config(std::path::Path::new("/tmp"));
    let printed = format!("{config:?}");
    assert!(!printed.contains(SECRET) && printed.contains("local-access"), "{printed}");
}
