//! Objects: what goes in comes out, in every shape of request.

use std::collections::HashMap;

use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, MetadataDirective, Tagging};

use crate::harness::{BUCKET, MIB, Server, assert_data_files, assert_refused, files, noise, plain_client};

#[tokio::test]
async fn bodies_of_every_size_come_back() {
    let (server, dir) = Server::with_bucket().await;
    let sizes = [0, 1, 4095, 512 * 1024, 512 * 1024 + 1, MIB - 1, MIB, 3 * MIB + 17, 9 * MIB];
    for (seed, size) in sizes.into_iter().enumerate() {
        let body = noise(size, seed as u64);
        let key = format!("size/{size}");
        server.put(&key, body.clone()).await;
        assert!(server.get(&key).await == body, "{size} bytes");
        let head = server.client.head_object().bucket(BUCKET).key(&key).send().await.unwrap();
        assert_eq!(head.content_length(), Some(i64::try_from(size).unwrap()));
    }
    assert_data_files(dir.path(), sizes.len()).await;
    server.stop().await;
}

#[tokio::test]
async fn what_the_client_said_is_kept() {
    let (server, _dir) = Server::with_bucket().await;
    let metadata = HashMap::from([
        ("guest-digest".to_owned(), "abc".to_owned()),
        ("name".to_owned(), "disk one".to_owned()),
    ]);
    let put = server.client.put_object().bucket(BUCKET).key("k").body(ByteStream::from_static(b"hello"));
    let put =
        put.content_type("application/x-qcow2").content_disposition("attachment").cache_control("no-store");
    let put = put.content_encoding("zstd").content_language("en").expires(DateTime::from_secs(2_000_000_000));
    let put = put.set_metadata(Some(metadata.clone())).send().await.unwrap();
    assert_eq!(put.e_tag(), Some("\"5d41402abc4b2a76b9719d911017c592\""));

    let got = server.client.get_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(got.e_tag(), put.e_tag());
    assert_eq!(got.content_type(), Some("application/x-qcow2"));
    assert_eq!(got.content_encoding(), Some("zstd"));
    assert_eq!(
        (got.content_disposition(), got.cache_control(), got.content_language()),
        (Some("attachment"), Some("no-store"), Some("en"))
    );
    assert_eq!(got.expires_string(), Some("Wed, 18 May 2033 03:33:20 GMT"));
    assert_eq!(got.metadata(), Some(&metadata));
    assert_eq!(got.accept_ranges(), Some("bytes"));
    server.put("untyped", "x").await;
    let head = server.client.head_object().bucket(BUCKET).key("untyped").send().await.unwrap();
    assert!(head.content_type().is_some());
    let got = server
        .client
        .get_object()
        .bucket(BUCKET)
        .key("k")
        .response_content_type("text/plain")
        .send()
        .await
        .unwrap();
    assert_eq!(got.content_type(), Some("text/plain"));

    let large = HashMap::from([("m".to_owned(), "x".repeat(2048))]);
    let put = server.client.put_object().bucket(BUCKET).key("m").set_metadata(Some(large));
    assert_refused(put.send().await, 400, "MetadataTooLarge");
    let tagged = server.client.put_object().bucket(BUCKET).key("m").tagging("a=b");
    assert_refused(tagged.send().await, 501, "NotImplemented");
    let tagging = Tagging::builder().set_tag_set(Some(Vec::new())).build().unwrap();
    assert_refused(
        server.client.put_object_tagging().bucket(BUCKET).key("k").tagging(tagging).send().await,
        501,
        "NotImplemented",
    );
    server.stop().await;
}

#[tokio::test]
async fn ranges() {
    let (server, _dir) = Server::with_bucket().await;
    let body = noise(3 * MIB, 1);
    let size = body.len();
    server.put("k", body.clone()).await;
    let cases = [
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 5),
        ("bytes=1048570-2097160", 1_048_570, 1_048_591),
        ("bytes=-10", size - 10, 10),
        ("bytes=-99999999", 0, size),
        ("bytes=3145727-", size - 1, 1),
        ("bytes=10-99999999", 10, size - 10),
    ];
    for (range, start, len) in cases {
        let got = server.client.get_object().bucket(BUCKET).key("k").range(range).send().await.unwrap();
        assert_eq!(
            got.content_range(),
            Some(&*format!("bytes {start}-{}/{size}", start + len - 1)),
            "{range}"
        );
        assert_eq!(got.content_length(), Some(i64::try_from(len).unwrap()), "{range}");
        assert!(got.body.collect().await.unwrap().to_vec() == body[start..start + len], "{range}");
        let head = server.client.head_object().bucket(BUCKET).key("k").range(range).send().await.unwrap();
        assert_eq!(head.content_length(), Some(i64::try_from(len).unwrap()), "{range}");
    }
    server.put("empty", "").await;
    for (key, range) in
        [("k", "bytes=3145728-"), ("k", "bytes=-0"), ("empty", "bytes=0-0"), ("empty", "bytes=-1")]
    {
        let got = server.client.get_object().bucket(BUCKET).key(key).range(range).send().await;
        assert_refused(got, 416, "InvalidRange");
    }
    // The checksum of the whole is no checksum of a range: with it, the SDK would find every range broken.
    let got = server
        .client
        .get_object()
        .bucket(BUCKET)
        .key("k")
        .range("bytes=0-9")
        .checksum_mode(ChecksumMode::Enabled);
    let got = got.send().await.unwrap();
    assert!(got.checksum_crc32().is_none());
    assert_eq!(got.body.collect().await.unwrap().to_vec(), body[..10]);
    server.stop().await;
}

#[tokio::test]
async fn keys_cannot_lead_astray() {
    let (server, dir) = Server::with_bucket().await;
    let long = "\u{1f600}".repeat(256);
    let keys = [
        "../../../escape",
        "..",
        ".",
        "/",
        "//",
        "/etc/passwd",
        "a/./b",
        "nul\u{1}",
        "a\\b",
        "lock",
        "K",
        "k",
        &long,
    ];
    for key in keys {
        server.put(key, key).await;
    }
    for key in keys {
        assert_eq!(server.get(key).await, key.as_bytes(), "{key:?}");
    }
    let listed =
        server.client.list_objects_v2().bucket(BUCKET).encoding_type("url".into()).send().await.unwrap();
    assert_eq!(listed.key_count(), Some(i32::try_from(keys.len()).unwrap()));
    let outside: Vec<_> =
        files(dir.path()).into_iter().filter(|path| path.to_string_lossy().contains("escape")).collect();
    assert!(outside.is_empty(), "{outside:?}");

    let too_long = format!("{long}x");
    let put = server.client.put_object().bucket(BUCKET).key(&too_long).send().await;
    assert_refused(put, 400, "KeyTooLongError");
    server.stop().await;
}

#[tokio::test]
async fn absent_things() {
    let (server, _dir) = Server::with_bucket().await;
    assert_refused(server.client.get_object().bucket(BUCKET).key("k").send().await, 404, "NoSuchKey");
    assert_refused(server.client.head_object().bucket(BUCKET).key("k").send().await, 404, "NotFound");
    server.client.delete_object().bucket(BUCKET).key("k").send().await.unwrap();
    server.put("k", "x").await;
    let versioned = server.client.get_object().bucket(BUCKET).key("k").version_id("v1").send().await;
    assert_refused(versioned, 400, "InvalidArgument");
    server.stop().await;
}

#[tokio::test]
async fn copies() {
    let (server, dir) = Server::with_bucket().await;
    let client = &server.client;
    let body = noise(2 * MIB, 3);
    let put =
        client.put_object().bucket(BUCKET).key("a b/\u{e9}").body(body.clone().into()).metadata("m", "1");
    let etag = put.content_type("x/y").send().await.unwrap().e_tag.unwrap();
    let source = "bucket/a%20b/%C3%A9";
    let copy = client.copy_object().bucket(BUCKET).key("copy").copy_source(source).send().await.unwrap();
    assert_eq!(copy.copy_object_result().unwrap().e_tag(), Some(&*etag));
    assert!(copy.copy_object_result().unwrap().checksum_crc32().is_some());
    let head = client.head_object().bucket(BUCKET).key("copy").send().await.unwrap();
    assert_eq!(
        (head.content_type(), head.metadata().unwrap().get("m").map(String::as_str)),
        (Some("x/y"), Some("1"))
    );
    assert_data_files(dir.path(), 2).await;

    // The copy stands alone.
    client.delete_object().bucket(BUCKET).key("a b/\u{e9}").send().await.unwrap();
    assert_data_files(dir.path(), 1).await;
    assert!(server.get("copy").await == body);

    let replaced = client.copy_object().bucket(BUCKET).key("copy").copy_source("bucket/copy");
    assert_refused(replaced.clone().send().await, 400, "InvalidRequest");
    let replaced = replaced
        .metadata_directive(MetadataDirective::Replace)
        .metadata("n", "2")
        .checksum_algorithm(ChecksumAlgorithm::Sha256);
    let result = replaced.send().await.unwrap().copy_object_result.unwrap();
    assert_eq!(result.e_tag(), Some(&*etag));
    assert!(result.checksum_sha256().is_some() && result.checksum_crc32().is_none());
    let head = client.head_object().bucket(BUCKET).key("copy").send().await.unwrap();
    assert_eq!(head.metadata().unwrap().keys().collect::<Vec<_>>(), ["n"]);
    assert!(server.get("copy").await == body);
    assert_data_files(dir.path(), 1).await;

    let absent = client.copy_object().bucket(BUCKET).key("x").copy_source("bucket/absent").send().await;
    assert_refused(absent, 404, "NoSuchKey");
    let absent = client.copy_object().bucket(BUCKET).key("x").copy_source("nowhere/absent").send().await;
    assert_refused(absent, 404, "NoSuchBucket");
    server.stop().await;
}

#[tokio::test]
async fn a_reader_outlives_the_object() {
    let (server, dir) = Server::with_bucket().await;
    let body = noise(40 * MIB, 5);
    server.put("k", body.clone()).await;
    // More than the socket and the read-ahead can hold, so most of the file is still unread.
    let got = server.client.get_object().bucket(BUCKET).key("k").send().await.unwrap();
    server.put("k", "replaced").await;
    server.client.delete_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert!(got.body.collect().await.unwrap().to_vec() == body);
    assert_data_files(dir.path(), 0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_body_without_any_checksum_gets_one() {
    let (server, _dir) = Server::with_bucket().await;
    let put = plain_client(server.addr)
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .body(ByteStream::from_static(b"123456789"));
    let output = put.send().await.unwrap();
    assert_eq!(output.checksum_crc64_nvme(), Some("rosUhgp5mIg="));
    server.stop().await;
}
