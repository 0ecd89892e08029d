//! Checksums: verified on the way in, combined at Complete, given back when asked.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedPart};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::harness::{
    BUCKET, MIB, REGION, SECRET, Server, assert_data_files, assert_refused, client, noise, plain_client,
    tamper,
};
use crate::signing;

/// Of "123456789".
const CRC32: &str = "y/Q5Jg==";
const CRC32C: &str = "4waSgw==";
const CRC64NVME: &str = "rosUhgp5mIg=";
const SHA1: &str = "98O8HYCOBHMq32eZZczDTKeuNEE=";
const SHA256: &str = "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=";
const MD5: &str = "JfnnlDI7RTiF9RgfG2JNCw==";

#[tokio::test]
async fn a_value_in_the_header_is_verified_and_kept() {
    let (server, dir) = Server::with_bucket().await;
    let client = plain_client(server.addr);
    let put = || client.put_object().bucket(BUCKET).key("k").body(ByteStream::from_static(b"123456789"));
    let head = || client.head_object().bucket(BUCKET).key("k").checksum_mode(ChecksumMode::Enabled);

    put().checksum_crc32(CRC32).send().await.unwrap();
    assert_eq!(head().send().await.unwrap().checksum_crc32(), Some(CRC32));
    put().checksum_crc32_c(CRC32C).send().await.unwrap();
    assert_eq!(head().send().await.unwrap().checksum_crc32_c(), Some(CRC32C));
    put().checksum_crc64_nvme(CRC64NVME).send().await.unwrap();
    assert_eq!(head().send().await.unwrap().checksum_crc64_nvme(), Some(CRC64NVME));
    put().checksum_sha1(SHA1).send().await.unwrap();
    assert_eq!(head().send().await.unwrap().checksum_sha1(), Some(SHA1));
    put().checksum_sha256(SHA256).send().await.unwrap();
    let kept = head().send().await.unwrap();
    assert_eq!(kept.checksum_sha256(), Some(SHA256));
    assert_eq!(kept.checksum_type(), Some(&ChecksumType::FullObject));
    let unasked = client.head_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert!(unasked.checksum_sha256().is_none() && unasked.checksum_type().is_none());
    put().content_md5(MD5).send().await.unwrap();

    assert_refused(put().checksum_crc32(swap(CRC32)).send().await, 400, "BadDigest");
    assert_refused(put().checksum_crc32_c(swap(CRC32C)).send().await, 400, "BadDigest");
    assert_refused(put().checksum_crc64_nvme(swap(CRC64NVME)).send().await, 400, "BadDigest");
    assert_refused(put().checksum_sha1(swap(SHA1)).send().await, 400, "BadDigest");
    assert_refused(put().checksum_sha256(swap(SHA256)).send().await, 400, "BadDigest");
    assert_refused(put().content_md5(swap(MD5)).send().await, 400, "BadDigest");
    assert_refused(put().content_md5("nonsense").send().await, 400, "InvalidDigest");
    assert_refused(put().checksum_crc32(CRC64NVME).send().await, 400, "InvalidRequest");
    assert_refused(put().checksum_crc32(CRC32).checksum_sha1(SHA1).send().await, 400, "InvalidRequest");
    assert_data_files(dir.path(), 1).await;
    server.stop().await;
}

#[tokio::test]
async fn a_trailer_is_verified() {
    let (server, dir) = Server::with_bucket().await;
    for algorithm in [
        ChecksumAlgorithm::Crc32,
        ChecksumAlgorithm::Crc32C,
        ChecksumAlgorithm::Crc64Nvme,
        ChecksumAlgorithm::Sha1,
        ChecksumAlgorithm::Sha256,
    ] {
        // A body of unknown content makes the SDK send aws-chunked with a trailer.
        let path = dir.path().join("body");
        std::fs::write(&path, noise(3 * MIB, 1)).unwrap();
        let body = ByteStream::from_path(&path).await.unwrap();
        let put = server
            .client
            .put_object()
            .bucket(BUCKET)
            .key("k")
            .checksum_algorithm(algorithm.clone())
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(put.checksum_type(), Some(&ChecksumType::FullObject), "{algorithm}");
        // The SDK verifies what it gets back.
        let get = server
            .client
            .get_object()
            .bucket(BUCKET)
            .key("k")
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await
            .unwrap();
        assert_eq!(get.content_encoding(), None);
        assert!(get.body.collect().await.unwrap().to_vec() == noise(3 * MIB, 1));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_trailer_is_refused() {
    let (server, dir) = Server::with_bucket().await;
    let good = "9\r\n123456789\r\n0\r\nx-amz-checksum-crc32:y/Q5Jg==\r\n\r\n";
    let cases = [
        (good.to_owned(), None),
        (good.replace("Jg==", "Jw=="), Some("BadDigest")),
        (good.replace("789", "780"), Some("BadDigest")),
        (good.replace("y/Q5Jg==", "nonsense"), Some("InvalidRequest")),
        (good.replace("crc32", "sha256"), Some("MalformedTrailerError")),
        ("9\r\n123456789\r\n0\r\n\r\n".to_owned(), Some("MalformedTrailerError")),
        (good.replace("9\r\n123456789", "8\r\n12345678"), Some("IncompleteBody")),
        (good.replace("9\r\n123456789", "a\r\n123456789a"), Some("IncompleteBody")),
    ];
    let headers = [
        ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
        ("x-amz-decoded-content-length", "9"),
        ("x-amz-trailer", "x-amz-checksum-crc32"),
    ];
    for (body, code) in cases {
        let now = std::time::SystemTime::now();
        let answer = signing::send(server.addr, now, ("PUT", "/bucket/k"), &headers, &body).await;
        match code {
            None => assert_eq!(answer.status, 200, "{}", answer.body),
            Some(code) => assert!(
                answer.status == 400 && answer.body.contains(&format!("<Code>{code}</Code>")),
                "{code}: {}",
                answer.body
            ),
        }
    }
    assert_data_files(dir.path(), 1).await;
    server.stop().await;
}

#[tokio::test]
async fn a_signed_trailer_cannot_be_changed_on_the_way() {
    let (server, dir) = Server::with_bucket().await;
    let path = dir.path().join("body");
    std::fs::write(&path, "123456789").unwrap();
    // Over plain HTTP the SDK signs chunks and trailers.
    for (from, to) in [("y/Q5Jg==", "y/Q5Jg=="), ("y/Q5Jg==", "y/Q5Jw=="), ("\n123456789", "\n123456780")] {
        let addr = tamper(server.addr, from, to).await;
        let client = client(addr, SECRET, REGION);
        let body = ByteStream::from_path(&path).await.unwrap();
        let put = client.put_object().bucket(BUCKET).key("k").body(body);
        let put = put.checksum_algorithm(ChecksumAlgorithm::Crc32).send().await;
        if from == to {
            assert_eq!(put.unwrap().checksum_crc32(), Some(CRC32));
        } else {
            assert_refused(put, 403, "SignatureDoesNotMatch");
        }
    }
    assert_data_files(dir.path(), 1).await;
    server.stop().await;
}

#[tokio::test]
async fn crcs_of_the_full_object_are_combined_and_compared() {
    let (server, _dir) = Server::with_bucket().await;
    let client = plain_client(server.addr);
    let (one, two) = (noise(5 * MIB, 1), noise(100, 2));
    let whole = crc32(&[&one[..], &two].concat());
    let create = client.create_multipart_upload().bucket(BUCKET).key("k");
    let create = create
        .checksum_algorithm(ChecksumAlgorithm::Crc32)
        .checksum_type(ChecksumType::FullObject)
        .send()
        .await
        .unwrap();
    assert_eq!(create.checksum_type(), Some(&ChecksumType::FullObject));
    let id = create.upload_id.unwrap();
    let part = |number, body: &[u8]| {
        client
            .upload_part()
            .bucket(BUCKET)
            .key("k")
            .upload_id(&id)
            .part_number(number)
            .body(body.to_vec().into())
    };

    assert_refused(part(1, &one).checksum_crc32(CRC32).send().await, 400, "BadDigest");
    assert_refused(part(1, &one).checksum_sha1(SHA1).send().await, 400, "InvalidRequest");
    let first = part(1, &one).checksum_crc32(crc32(&one)).send().await.unwrap();
    assert_eq!(first.checksum_crc32(), Some(&*crc32(&one)));
    // Of a full object a part may come without its checksum; it is computed.
    let second = part(2, &two).send().await.unwrap();
    let parts: Vec<_> = [(1, first.e_tag), (2, second.e_tag)]
        .into_iter()
        .map(|(number, tag)| CompletedPart::builder().part_number(number).set_e_tag(tag).build())
        .collect();

    let complete = || server.complete("k", &id, &parts);
    assert_refused(complete().checksum_crc32(CRC32).send().await, 400, "BadDigest");
    assert_refused(complete().checksum_sha256(SHA256).send().await, 400, "InvalidRequest");
    assert_refused(complete().checksum_type(ChecksumType::Composite).send().await, 400, "InvalidRequest");
    let done =
        complete().checksum_crc32(&whole).checksum_type(ChecksumType::FullObject).send().await.unwrap();
    assert_eq!(
        (done.checksum_crc32(), done.checksum_type()),
        (Some(&*whole), Some(&ChecksumType::FullObject))
    );
    let head = client
        .head_object()
        .bucket(BUCKET)
        .key("k")
        .checksum_mode(ChecksumMode::Enabled)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (head.checksum_crc32(), head.checksum_type()),
        (Some(&*whole), Some(&ChecksumType::FullObject))
    );
    // The SDK verifies the bytes against it.
    assert_eq!(server.get("k").await.len(), one.len() + two.len());
    server.stop().await;
}

#[tokio::test]
async fn a_composite_is_the_checksum_of_the_parts_checksums() {
    let (server, _dir) = Server::with_bucket().await;
    let client = plain_client(server.addr);
    let create = client
        .create_multipart_upload()
        .bucket(BUCKET)
        .key("k")
        .checksum_algorithm(ChecksumAlgorithm::Sha256);
    let create = create.send().await.unwrap();
    assert_eq!(create.checksum_type(), Some(&ChecksumType::Composite));
    let id = create.upload_id.unwrap();
    let bodies = [noise(5 * MIB, 1), noise(9, 2)];
    let part = |number| client.upload_part().bucket(BUCKET).key("k").upload_id(&id).part_number(number);
    assert_refused(part(1).body(bodies[0].clone().into()).send().await, 400, "InvalidRequest");
    let (mut parts, mut bare, mut sums) = (Vec::new(), Vec::new(), Vec::new());
    for (number, body) in (1..).zip(&bodies) {
        let sum = sha256_of(body);
        let tag =
            part(number).body(body.clone().into()).checksum_sha256(&sum).send().await.unwrap().e_tag.unwrap();
        let done = CompletedPart::builder().part_number(number).e_tag(tag);
        bare.push(done.clone().build());
        parts.push(done.checksum_sha256(&sum).build());
        sums.extend(BASE64.decode(sum).unwrap());
    }
    assert_refused(server.complete("k", &id, &bare).send().await, 400, "InvalidRequest");
    let whole = sha256_of(&sums);
    assert_refused(server.complete("k", &id, &parts).checksum_sha256(SHA256).send().await, 400, "BadDigest");
    server.complete("k", &id, &parts).checksum_sha256(&whole).send().await.unwrap();
    let head = client
        .head_object()
        .bucket(BUCKET)
        .key("k")
        .checksum_mode(ChecksumMode::Enabled)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (head.checksum_sha256(), head.checksum_type()),
        (Some(&*format!("{whole}-2")), Some(&ChecksumType::Composite))
    );
    server.stop().await;
}

#[tokio::test]
async fn pairs_that_aws_does_not_know() {
    let (server, _dir) = Server::with_bucket().await;
    for (algorithm, kind) in [
        (ChecksumAlgorithm::Sha256, ChecksumType::FullObject),
        (ChecksumAlgorithm::Crc64Nvme, ChecksumType::Composite),
    ] {
        let create = server
            .client
            .create_multipart_upload()
            .bucket(BUCKET)
            .key("k")
            .checksum_algorithm(algorithm)
            .checksum_type(kind);
        assert_refused(create.send().await, 400, "InvalidRequest");
    }
    server.stop().await;
}

/// Another value of the same length.
fn swap(base64: &str) -> String {
    let mut bytes = BASE64.decode(base64).unwrap();
    bytes[0] ^= 1;
    BASE64.encode(bytes)
}

fn crc32(data: &[u8]) -> String {
    let value = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, data);
    BASE64.encode(u32::try_from(value).unwrap().to_be_bytes())
}

fn sha256_of(data: &[u8]) -> String {
    use s3s::crypto::Checksum as _;
    BASE64.encode(s3s::crypto::Sha256::checksum(data))
}
