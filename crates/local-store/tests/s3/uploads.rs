//! Multipart uploads.

use std::sync::Arc;

use aws_sdk_s3::types::CompletedPart;

use crate::harness::{BUCKET, MIB, Server, assert_data_files, assert_refused, noise};

#[tokio::test]
async fn parts_in_any_order_at_once_make_the_object() {
    let (server, dir) = Server::with_bucket().await;
    let server = Arc::new(server);
    let create = server
        .client
        .create_multipart_upload()
        .bucket(BUCKET)
        .key("k")
        .metadata("m", "1")
        .content_type("x/y");
    let id = create.send().await.unwrap().upload_id.unwrap();
    let bodies: Vec<Vec<u8>> = (0..6).map(|i| noise(5 * MIB + i, i as u64)).chain([noise(7, 99)]).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for (index, body) in bodies.iter().cloned().enumerate().rev() {
        let (server, id) = (Arc::clone(&server), id.clone());
        // Numbers need not be without gaps.
        let number = i32::try_from(index * 3 + 2).unwrap();
        tasks.spawn(async move { server.put_part("k", &id, number, body).await });
    }
    let mut parts = tasks.join_all().await;
    parts.sort_by_key(CompletedPart::part_number);
    assert_data_files(dir.path(), 7).await;
    let done = server.complete("k", &id, &parts).send().await.unwrap();
    assert!(done.e_tag().unwrap().ends_with("-7\""));
    assert_data_files(dir.path(), 7).await;

    let whole = bodies.concat();
    assert!(server.get("k").await == whole);
    let head = server.client.head_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!((head.content_type(), head.metadata().unwrap().len()), (Some("x/y"), 1));
    // A range over the seam of three parts.
    let (from, to) = (5 * MIB - 3, 10 * MIB + 20);
    let got = server
        .client
        .get_object()
        .bucket(BUCKET)
        .key("k")
        .range(format!("bytes={from}-{to}"))
        .send()
        .await
        .unwrap();
    assert!(got.body.collect().await.unwrap().to_vec() == whole[from..=to]);
    // One part by its number.
    let got = server.client.get_object().bucket(BUCKET).key("k").part_number(2).send().await.unwrap();
    assert_eq!(got.parts_count(), Some(7));
    assert!(got.body.collect().await.unwrap().to_vec() == bodies[1]);
    let got = server.client.get_object().bucket(BUCKET).key("k").part_number(8).send().await;
    assert_refused(got, 416, "InvalidRange");

    // The same question, the same answer; and the upload is gone.
    let again = server.complete("k", &id, &parts).send().await.unwrap();
    assert_eq!(again.e_tag(), done.e_tag());
    let listed = server.client.list_parts().bucket(BUCKET).key("k").upload_id(&id).send().await;
    assert_refused(listed, 404, "NoSuchUpload");
    server.put("k", "over it").await;
    assert_refused(server.complete("k", &id, &parts).send().await, 404, "NoSuchUpload");
    assert_data_files(dir.path(), 1).await;
    Arc::into_inner(server).unwrap().stop().await;
}

#[tokio::test]
async fn the_etag_is_that_of_s3() {
    let (server, _dir) = Server::with_bucket().await;
    let id = server.create_upload("k").await;
    let parts =
        [server.put_part("k", &id, 1, vec![0; 5 * MIB]).await, server.put_part("k", &id, 2, "abc").await];
    let done = server.complete("k", &id, &parts).send().await.unwrap();
    // md5(md5(5 MiB of zero) + md5("abc")), by Python's hashlib.
    assert_eq!(done.e_tag(), Some("\"6f6da174a7cb6de11e28d4dd2f9bcfe9-2\""));
    server.stop().await;
}

#[tokio::test]
async fn a_failed_complete_keeps_the_upload() {
    let (server, _dir) = Server::with_bucket().await;
    let id = server.create_upload("k").await;
    let one = server.put_part("k", &id, 1, vec![1; 5 * MIB]).await;
    let two = server.put_part("k", &id, 2, vec![2; 5 * MIB]).await;
    let small = server.put_part("k", &id, 3, "small").await;
    let four = server.put_part("k", &id, 4, "last").await;
    let never = CompletedPart::builder()
        .part_number(9)
        .e_tag(two.e_tag().unwrap())
        .set_checksum_crc32(two.checksum_crc32.clone())
        .build();
    let wrong_tag = CompletedPart::builder()
        .part_number(2)
        .e_tag(one.e_tag().unwrap())
        .set_checksum_crc32(two.checksum_crc32.clone())
        .build();
    let wrong_sum = CompletedPart::builder()
        .part_number(2)
        .e_tag(two.e_tag().unwrap())
        .set_checksum_crc32(one.checksum_crc32.clone())
        .build();

    let refused: [(&[CompletedPart], &str); 7] = [
        (&[], "MalformedXML"),
        (&[two.clone(), one.clone()], "InvalidPartOrder"),
        (&[one.clone(), one.clone()], "InvalidPartOrder"),
        (&[one.clone(), never], "InvalidPart"),
        (&[one.clone(), wrong_tag], "InvalidPart"),
        (&[one.clone(), wrong_sum], "InvalidPart"),
        (&[one.clone(), small.clone(), four.clone()], "EntityTooSmall"),
    ];
    for (parts, code) in refused {
        assert_refused(server.complete("k", &id, parts).send().await, 400, code);
    }
    let size = server.complete("k", &id, &[one.clone(), four.clone()]).mpu_object_size(1).send().await;
    assert_refused(size, 400, "InvalidRequest");
    assert_refused(
        server.complete("other", &id, std::slice::from_ref(&one)).send().await,
        404,
        "NoSuchUpload",
    );
    assert_refused(
        server.complete("k", "0123", std::slice::from_ref(&one)).send().await,
        404,
        "NoSuchUpload",
    );
    assert_refused(server.client.get_object().bucket(BUCKET).key("k").send().await, 404, "NoSuchKey");

    let listed = server.client.list_parts().bucket(BUCKET).key("k").upload_id(&id).send().await.unwrap();
    assert_eq!(listed.parts().len(), 4);
    server.complete("k", &id, &[one, two, four]).mpu_object_size(10 * 1024 * 1024 + 4).send().await.unwrap();
    assert_eq!(server.get("k").await.len(), 10 * MIB + 4);
    server.stop().await;
}

#[tokio::test]
async fn parts_left_out_or_replaced_are_freed() {
    let (server, dir) = Server::with_bucket().await;
    let id = server.create_upload("k").await;
    server.put_part("k", &id, 1, "first").await;
    let one = server.put_part("k", &id, 1, "second").await;
    server.put_part("k", &id, 2, "left out").await;
    assert_data_files(dir.path(), 2).await;
    server.complete("k", &id, &[one]).send().await.unwrap();
    assert_eq!(server.get("k").await, b"second");
    assert_data_files(dir.path(), 1).await;

    let id = server.create_upload("gone").await;
    server.put_part("gone", &id, 1, "x").await;
    let abort = || server.client.abort_multipart_upload().bucket(BUCKET).key("gone").upload_id(&id);
    abort().send().await.unwrap();
    assert_refused(abort().send().await, 404, "NoSuchUpload");
    let late = server
        .client
        .upload_part()
        .bucket(BUCKET)
        .key("gone")
        .upload_id(&id)
        .part_number(1)
        .body(vec![1].into());
    assert_refused(late.send().await, 404, "NoSuchUpload");
    assert_data_files(dir.path(), 1).await;
    server.stop().await;
}

#[tokio::test]
async fn numbers_out_of_range() {
    let (server, _dir) = Server::with_bucket().await;
    let id = server.create_upload("k").await;
    for number in [-1, 0, 10_001, 70_000] {
        let part = server
            .client
            .upload_part()
            .bucket(BUCKET)
            .key("k")
            .upload_id(&id)
            .part_number(number)
            .body(vec![1].into());
        assert_refused(part.send().await, 400, "InvalidArgument");
    }
    server.put_part("k", &id, 10_000, "x").await;
    server.stop().await;
}

#[tokio::test]
async fn parts_copied_whole_and_by_range() {
    let (server, dir) = Server::with_bucket().await;
    let source = noise(12 * MIB, 8);
    server.put("source", source.clone()).await;
    let id = server.create_upload("k").await;
    let copy = |number: i32, range: Option<&str>| {
        let copy =
            server.client.upload_part_copy().bucket(BUCKET).key("k").upload_id(&id).part_number(number);
        copy.copy_source("/bucket/source").set_copy_source_range(range.map(str::to_owned)).send()
    };
    let mut parts = Vec::new();
    for (number, range) in [(1, None), (2, Some("bytes=1000-6000000")), (3, Some("bytes=12582911-12582911"))]
    {
        let result = copy(number, range).await.unwrap().copy_part_result.unwrap();
        let part = CompletedPart::builder()
            .part_number(number)
            .set_e_tag(result.e_tag)
            .set_checksum_crc32(result.checksum_crc32);
        parts.push(part.build());
    }
    for range in ["bytes=0-12582912", "bytes=0-", "bytes=-5", "0-5"] {
        assert_refused(copy(4, Some(range)).await, 400, "InvalidArgument");
    }
    server.client.delete_object().bucket(BUCKET).key("source").send().await.unwrap();
    server.complete("k", &id, &parts).send().await.unwrap();
    let expected = [&source[..], &source[1000..=6_000_000], &source[12 * MIB - 1..]].concat();
    assert!(server.get("k").await == expected);
    assert_data_files(dir.path(), 3).await;

    // A copy of a completed upload is one part, with the ETag of its bytes.
    let copied =
        server.client.copy_object().bucket(BUCKET).key("flat").copy_source("bucket/k").send().await.unwrap();
    let put = server.put("put", expected.clone()).await;
    assert_eq!(copied.copy_object_result().unwrap().e_tag(), Some(&*put));
    assert!(server.get("flat").await == expected);
    server.stop().await;
}

#[tokio::test]
async fn pages_of_parts() {
    let (server, _dir) = Server::with_bucket().await;
    let id = server.create_upload("k").await;
    let mut put = Vec::new();
    for number in [1, 2, 5, 10_000] {
        put.push(server.put_part("k", &id, number, vec![0; usize::try_from(number).unwrap()]).await);
    }
    let list = || server.client.list_parts().bucket(BUCKET).key("k").upload_id(&id);
    let first = list().max_parts(3).send().await.unwrap();
    assert_eq!(
        (first.is_truncated(), first.next_part_number_marker(), first.max_parts()),
        (Some(true), Some("5"), Some(3))
    );
    let second = list().max_parts(3).part_number_marker("5").send().await.unwrap();
    assert_eq!((second.is_truncated(), second.next_part_number_marker()), (Some(false), None));
    let listed: Vec<_> = first.parts().iter().chain(second.parts()).collect();
    assert_eq!(listed.len(), put.len());
    for (listed, put) in listed.into_iter().zip(&put) {
        assert_eq!(
            (listed.part_number(), listed.e_tag(), listed.checksum_crc32()),
            (put.part_number(), put.e_tag(), put.checksum_crc32())
        );
        assert_eq!(listed.size(), put.part_number().map(i64::from));
    }
    assert!(list().part_number_marker("10000").send().await.unwrap().parts().is_empty());
    server.stop().await;
}

#[tokio::test]
async fn pages_of_uploads() {
    let (server, _dir) = Server::with_bucket().await;
    let mut made = Vec::new();
    for key in ["a", "a", "dir/1", "dir/2", "z"] {
        made.push((key.to_owned(), server.create_upload(key).await));
    }
    let list = || server.client.list_multipart_uploads().bucket(BUCKET);
    for size in [1, 2, 3, 1000] {
        let (mut found, mut key, mut id) = (Vec::new(), None, None);
        loop {
            let page =
                list().max_uploads(size).set_key_marker(key).set_upload_id_marker(id).send().await.unwrap();
            found.extend(
                page.uploads()
                    .iter()
                    .map(|upload| (upload.key().unwrap().to_owned(), upload.upload_id().unwrap().to_owned())),
            );
            (key, id) = (page.next_key_marker, page.next_upload_id_marker);
            if page.is_truncated != Some(true) {
                break;
            }
        }
        assert_eq!(found, made);
    }
    let (mut names, mut key) = (Vec::new(), None);
    loop {
        let page = list().delimiter("/").prefix("").max_uploads(2).set_key_marker(key).send().await.unwrap();
        names.extend(page.uploads().iter().map(|upload| upload.key().unwrap().to_owned()));
        names.extend(page.common_prefixes().iter().map(|prefix| prefix.prefix().unwrap().to_owned()));
        key = page.next_key_marker;
        if page.is_truncated != Some(true) {
            break;
        }
    }
    // Each page lists its uploads before its prefixes.
    names.sort();
    assert_eq!(names, ["a", "a", "dir/", "z"]);
    assert_eq!(list().prefix("dir/").send().await.unwrap().uploads().len(), 2);
    server.stop().await;
}
