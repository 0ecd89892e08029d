//! Buckets, and the pages of what is in them.

use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration, Delete, ObjectIdentifier};

use crate::harness::{BUCKET, REGION, Server, assert_refused};

#[tokio::test]
async fn a_bucket_from_birth_to_death() {
    let (server, _dir) = Server::with_bucket().await;
    let client = &server.client;
    let head = client.head_bucket().bucket(BUCKET).send().await.unwrap();
    assert_eq!(head.bucket_region(), Some(REGION));
    let location = client.get_bucket_location().bucket(BUCKET).send().await.unwrap();
    assert_eq!(location.location_constraint().unwrap().as_str(), REGION);
    assert_refused(client.create_bucket().bucket(BUCKET).send().await, 409, "BucketAlreadyOwnedByYou");

    let here = CreateBucketConfiguration::builder()
        .location_constraint(BucketLocationConstraint::from(REGION))
        .build();
    client.create_bucket().bucket("another").create_bucket_configuration(here).send().await.unwrap();
    let listed = client.list_buckets().send().await.unwrap();
    let names: Vec<_> = listed.buckets().iter().filter_map(|bucket| bucket.name()).collect();
    assert_eq!(names, ["another", BUCKET]);

    server.put("key", "x").await;
    assert_refused(client.delete_bucket().bucket(BUCKET).send().await, 409, "BucketNotEmpty");
    client.delete_object().bucket(BUCKET).key("key").send().await.unwrap();
    // An upload in progress does not hold a bucket.
    let id = server.create_upload("key").await;
    client.delete_bucket().bucket(BUCKET).send().await.unwrap();
    assert_refused(client.head_bucket().bucket(BUCKET).send().await, 404, "NotFound");
    assert_refused(client.delete_bucket().bucket(BUCKET).send().await, 404, "NoSuchBucket");
    assert_refused(client.list_objects_v2().bucket(BUCKET).send().await, 404, "NoSuchBucket");
    assert_refused(client.get_object().bucket(BUCKET).key("key").send().await, 404, "NoSuchBucket");
    assert_refused(client.put_object().bucket(BUCKET).key("key").send().await, 404, "NoSuchBucket");
    client.create_bucket().bucket(BUCKET).send().await.unwrap();
    let parts = client.list_parts().bucket(BUCKET).key("key").upload_id(id).send().await;
    assert_refused(parts, 404, "NoSuchUpload");
    server.stop().await;
}

#[tokio::test]
async fn names_and_places_that_cannot_be() {
    let (server, _dir) = Server::with_bucket().await;
    for name in ["UPPER", "a", "under_score"] {
        assert_refused(server.client.create_bucket().bucket(name).send().await, 400, "InvalidBucketName");
    }
    let far =
        CreateBucketConfiguration::builder().location_constraint(BucketLocationConstraint::EuWest1).build();
    let create = server.client.create_bucket().bucket("elsewhere").create_bucket_configuration(far);
    assert_refused(create.send().await, 400, "IllegalLocationConstraintException");
    server.stop().await;
}

#[tokio::test]
async fn pages_of_keys() {
    let (server, _dir) = Server::with_bucket().await;
    // Includes what URL encoding, XML and byte order could break.
    let mut keys =
        vec!["a", "a b+c%20", "dir/1", "dir/2", "dir/sub/3", "dir0", "z&<>\"'", "\u{e9}t\u{e9}", "\u{1f600}"];
    for key in &keys {
        server.put(key, *key).await;
    }
    keys.sort_unstable();
    for size in [1, 2, 4, 1000] {
        let mut found = Vec::new();
        let mut token = None;
        loop {
            let page = server
                .client
                .list_objects_v2()
                .bucket(BUCKET)
                .max_keys(size)
                .set_continuation_token(token)
                .send()
                .await
                .unwrap();
            assert_eq!(page.key_count(), Some(i32::try_from(page.contents().len()).unwrap()));
            assert!(page.contents().len() <= usize::try_from(size).unwrap());
            found.extend(page.contents().iter().map(|object| object.key().unwrap().to_owned()));
            token = page.next_continuation_token().map(str::to_owned);
            assert_eq!(page.is_truncated(), Some(token.is_some()));
            if token.is_none() {
                break;
            }
        }
        assert_eq!(found, keys);
    }

    let page =
        server.client.list_objects_v2().bucket(BUCKET).prefix("dir/").delimiter("/").send().await.unwrap();
    assert_eq!(
        page.contents().iter().filter_map(|object| object.key()).collect::<Vec<_>>(),
        ["dir/1", "dir/2"]
    );
    assert_eq!(
        page.common_prefixes().iter().filter_map(|prefix| prefix.prefix()).collect::<Vec<_>>(),
        ["dir/sub/"]
    );
    assert_eq!(page.key_count(), Some(3));
    assert_eq!(page.contents()[0].size(), Some(5));
    let page =
        server.client.list_objects_v2().bucket(BUCKET).start_after("dir/2").max_keys(2).send().await.unwrap();
    assert_eq!(
        page.contents().iter().filter_map(|object| object.key()).collect::<Vec<_>>(),
        ["dir/sub/3", "dir0"]
    );
    let page = server
        .client
        .list_objects()
        .bucket(BUCKET)
        .delimiter("/")
        .marker("dir/")
        .max_keys(1)
        .send()
        .await
        .unwrap();
    assert_eq!(page.contents().iter().filter_map(|object| object.key()).collect::<Vec<_>>(), ["dir0"]);
    let page = server.client.list_objects_v2().bucket(BUCKET).max_keys(0).send().await.unwrap();
    assert_eq!((page.key_count(), page.is_truncated()), (Some(0), Some(false)));
    let page = server.client.list_objects_v2().bucket(BUCKET).continuation_token("!").send().await;
    assert_refused(page, 400, "InvalidArgument");
    server.stop().await;
}

#[tokio::test]
async fn many_deleted_at_once() {
    let (server, dir) = Server::with_bucket().await;
    for key in ["a", "b", "c/../d"] {
        server.put(key, key).await;
    }
    let named = |key: &str| ObjectIdentifier::builder().key(key).build().unwrap();
    let stale =
        ObjectIdentifier::builder().key("b").e_tag("\"00000000000000000000000000000000\"").build().unwrap();
    let list = Delete::builder()
        .objects(named("a"))
        .objects(named("never was"))
        .objects(named("c/../d"))
        .objects(stale)
        .build()
        .unwrap();
    let output = server.client.delete_objects().bucket(BUCKET).delete(list).send().await.unwrap();
    let deleted: Vec<_> = output.deleted().iter().filter_map(|object| object.key()).collect();
    assert_eq!(deleted, ["a", "never was", "c/../d"]);
    assert_eq!(
        (output.errors()[0].key(), output.errors()[0].code()),
        (Some("b"), Some("PreconditionFailed"))
    );
    assert_eq!(server.get("b").await, b"b");
    crate::harness::assert_data_files(dir.path(), 1).await;
    server.stop().await;
}
