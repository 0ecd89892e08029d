//! What callers and sources are held to: each limit is met, named, and leaves nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use image_api::{Code, OperationOutcome};
use support::{Fixture, SlowSource, disk, failure, request};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_name_of_this_machine_is_read_where_that_is_said() {
    let slow = SlowSource::start(disk(MIB, &[])).await;
    slow.hurry();
    let by_name = slow.url().replace("127.0.0.1", "localhost");
    let rule: image_server::HostRule = slow.host().replace("127.0.0.1", "localhost").parse().unwrap();
    for private in [false, true] {
        let fixture = Fixture::start_with(|config| {
            config.allowed_uri_hosts.push(rule.clone());
            config.allow_private_hosts = private;
        })
        .await;
        let done = fixture.wait(&fixture.create(&request("web", &by_name)).await).await;
        if private {
            assert!(matches!(done.outcome(), OperationOutcome::Succeeded(_)), "{done:?}");
        } else {
            let status = failure(&done);
            assert_eq!(status.canonical_code(), Code::FailedPrecondition);
            assert!(status.message.contains("no address that is allowed"), "{}", status.message);
            assert!(!status.message.contains("secret"), "{}", status.message);
            assert_eq!(slow.served(), 0);
        }
        fixture.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_stores_no_more_than_its_quota() {
    let fixture = Fixture::start_with(|config| config.limits.folder_quota = Some(8 << 20)).await;
    // One block of the quota's two.
    fixture.ready("first", &disk(8 * MIB, &[(0, MIB)])).await;
    let url = fixture.upload("large", &disk(8 * MIB, &[(0, MIB), (5 * MIB, MIB)])).await;
    let status = failure(&fixture.wait(&fixture.create(&request("second", &url)).await).await);
    assert_eq!(status.canonical_code(), Code::ResourceExhausted, "{}", status.message);
    assert!(status.message.ends_with("(limit folder-quota)"), "{}", status.message);
    assert_eq!(fixture.object_count(".blocks/").await, 2, "the first one's block and manifest");
    // Another folder has a quota of its own, and what was refused has freed its own.
    let mut elsewhere = request("second", &url);
    elsewhere.folder_id = "elsewhere".to_owned();
    let done = fixture.wait(&fixture.create(&elsewhere).await).await;
    assert!(matches!(done.outcome(), OperationOutcome::Succeeded(_)), "{done:?}");
    fixture.ready("third", &disk(4 * MIB, &[(0, 100)])).await;
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_have_an_end() {
    let fixture = Fixture::start_with(|config| config.limits.max_virtual_size = 4 << 20).await;
    fixture.ready("exact", &disk(4 * MIB, &[])).await;
    let url = fixture.upload("large", &disk(4 * MIB + 512, &[])).await;
    let status = failure(&fixture.wait(&fixture.create(&request("large", &url)).await).await);
    assert_eq!(status.canonical_code(), Code::InvalidArgument);
    let expected = "the virtual size is 4194816 bytes, expected at most 4194304 (limit max-virtual-size)";
    assert_eq!(status.message, expected);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_given_up_when_its_time_is_over() {
    let slow = SlowSource::start(disk(64 * MIB, &[(0, 64 * MIB)])).await;
    let fixture = Fixture::start_with(|config| {
        config.allowed_uri_hosts.push(slow.rule());
        config.limits.ingest_time = Duration::from_millis(1500);
    })
    .await;
    let status = failure(&fixture.wait(&fixture.create(&request("web", &slow.url())).await).await);
    assert_eq!(status.canonical_code(), Code::DeadlineExceeded);
    assert_eq!(status.message, "the ingest took longer than 1.5 seconds (limit ingest-time)");
    let served = slow.served();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(slow.served(), served, "nothing is downloaded any more");
    fixture.until_object_count(".blocks/", 0).await;
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_must_not_fall_silent() {
    let slow = SlowSource::start(disk(64 * MIB, &[(0, 64 * MIB)])).await;
    let fixture = Fixture::start_with(|config| {
        config.allowed_uri_hosts.push(slow.rule());
        config.limits.http.idle = Duration::from_millis(10);
    })
    .await;
    let status = failure(&fixture.wait(&fixture.create(&request("web", &slow.url())).await).await);
    assert_eq!(status.canonical_code(), Code::Unavailable, "{}", status.message);
    assert!(status.message.ends_with("(limit http-idle-timeout)"), "{}", status.message);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_is_full_when_it_is() {
    let slow = SlowSource::start(disk(64 * MIB, &[(0, 64 * MIB)])).await;
    let fixture = Fixture::start_with(|config| {
        config.allowed_uri_hosts.push(slow.rule());
        config.limits.running_ingests = 1;
        config.limits.queued_operations = 1;
    })
    .await;
    let running = fixture.create(&request("running", &slow.url())).await;
    slow.until_reading().await;
    let queued = fixture.create(&request("queued", &slow.url())).await;
    // By hand: our own client would wait and try again.
    let more = image_api::to_json(&request("more", &slow.url())).unwrap();
    let create = format!("{}/compute/v1/images", fixture.endpoint());
    let refused = reqwest::Client::new().post(create).body(more).send().await.unwrap();
    assert_eq!(refused.status().as_u16(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    let text = refused.text().await.unwrap();
    assert!(text.contains("(limit queued-operations)"), "{text}");
    for operation in [&queued, &running] {
        fixture.client.cancel_operation(&operation.id, &fixture.cancel).await.unwrap();
        assert_eq!(failure(&fixture.wait(operation).await).canonical_code(), Code::Cancelled);
    }
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_for_one_is_enough_for_all_one_after_the_other() {
    let fixture = Fixture::start_with(|config| {
        config.memory = 64 << 20;
        config.limits.total_memory = Some(64 << 20);
    })
    .await;
    let content = disk(12 * MIB, &[(0, 12 * MIB)]);
    let url = fixture.upload("raw", &content).await;
    let mut operations = Vec::new();
    for name in ["a", "b", "c"] {
        operations.push(fixture.create(&request(name, &url)).await);
    }
    for operation in &operations {
        let done = fixture.wait(operation).await;
        assert!(matches!(done.outcome(), OperationOutcome::Succeeded(_)), "{done:?}");
    }
    assert_eq!(fixture.block_count().await, 3, "the same disk is stored once");
    fixture.stop().await;
}
