//! Signatures, pre-signed URLs, and what is refused before any verb.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::presigning::PresigningConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{BUCKET, REGION, SECRET, Server, assert_refused, client, raw};
use crate::signing;

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

    // A body that is not the one whose hash was sent.
    let config = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
    let put = crate::harness::plain_client(server.addr)
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .presigned(config)
        .await
        .unwrap();
    let hash = "0".repeat(64);
    let answer = raw(server.addr, "PUT", put.uri(), &[("x-amz-content-sha256", &hash)], "hello").await;
    assert!(
        answer.status == 400 && answer.body.contains("<Code>XAmzContentSHA256Mismatch</Code>"),
        "{}",
        answer.body
    );
    crate::harness::assert_data_files(dir.path(), 1).await;
    server.stop().await;
}

#[tokio::test]
async fn clocks_may_differ_by_a_quarter_of_an_hour() {
    let (server, _dir) = Server::with_bucket().await;
    server.put("k", "x").await;
    let headers = [("x-amz-content-sha256", "UNSIGNED-PAYLOAD")];
    for (minutes, status) in [(0, 200), (14, 200), (16, 403)] {
        let off = Duration::from_secs(60 * minutes);
        for time in [SystemTime::now() - off, SystemTime::now() + off] {
            let answer = signing::send(server.addr, time, ("GET", "/bucket/k"), &headers, "").await;
            assert_eq!(answer.status, status, "{minutes} {}", answer.body);
            assert!(
                status == 200 || answer.body.contains("<Code>RequestTimeTooSkewed</Code>"),
                "{}",
                answer.body
            );
        }
    }
    server.stop().await;
}

#[test]
fn the_secret_does_not_print() {
    let config = crate::harness::config(std::path::Path::new("/tmp"));
    let printed = format!("{config:?}");
    assert!(!printed.contains(SECRET) && printed.contains("local-access"), "{printed}");
}

#[tokio::test]
async fn a_refusal_does_not_cost_the_connection() {
    let (server, _dir) = Server::with_bucket().await;
    server.put("k", "x").await;
    let config = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
    let put =
        crate::harness::plain_client(server.addr).put_object().bucket(BUCKET).key("k").if_none_match("*");
    let put = put.presigned(config).await.unwrap();
    let target = put.uri().split_once(&server.addr.to_string()).unwrap().1;
    let head = |len: usize, more: &str| {
        format!(
            "PUT {target} HTTP/1.1\r\nhost: {}\r\nif-none-match: *\r\n{more}content-length: {len}\r\n\r\n",
            server.addr
        )
    };
    let body = vec![1; 6 << 20];
    let mut stream = tokio::net::TcpStream::connect(server.addr).await.unwrap();
    let mut answer = vec![0; 4096];
    for _ in 0..3 {
        // All of it is sent, though it was refused at the first byte, and the next request goes through.
        stream.write_all(head(body.len(), "").as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        let len = stream.read(&mut answer).await.unwrap();
        assert!(answer[..len].starts_with(b"HTTP/1.1 412 "));
    }
    // Who asks first hears at once, and that the connection is over.
    stream.write_all(head(body.len(), "expect: 100-continue\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 412 ") && answer.contains("connection: close"), "{answer}");
    server.stop().await;
}
