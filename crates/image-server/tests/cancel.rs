//! A cancel at each stage of a creation: queued, probing, reading, storing, publishing, and after it.
//!
//! Each ends with exactly one of CANCELLED and READY. Where it is CANCELLED the download has stopped within a second, there is no
//! image, and what was stored is freed; where it is READY the image is whole.

// Clippy takes only `#[test]` functions for tests.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use image_api::{Code, Operation, OperationOutcome, Uuid};
use support::{Fixture, SlowSource, disk, failure, image_id, request};

const MIB: usize = 1 << 20;
/// A second, and what a busy machine may add; none of these sources would end within it.
const SOON: Duration = Duration::from_secs(10);
const STORED: &str = ".blocks/";

/// Cancelled, no image, nothing in the store.
async fn assert_cancelled(fixture: &Fixture, operation: &Operation) {
    let status = failure(&fixture.wait(operation).await);
    assert_eq!(status.canonical_code(), Code::Cancelled);
    let gone = fixture.client.get_image(&image_id(operation), &fixture.cancel).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    fixture.until_object_count(STORED, 0).await;
    let after = fixture.client.get_operation(&operation.id, &fixture.cancel).await.unwrap();
    assert!(matches!(after.outcome(), OperationOutcome::Failed(_)), "once ended, it stays so: {after:?}");
}

async fn delete(fixture: &Fixture, operation: &Operation) {
    let delete = fixture.client.delete_image(&image_id(operation), Uuid::new_v4(), &fixture.cancel).await;
    fixture.wait(&delete.unwrap()).await;
    fixture.until_object_count(STORED, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queued() {
    let content = disk(64 * MIB, &[(0, 64 * MIB)]);
    let (busy, waiting) = (SlowSource::start(content.clone()).await, SlowSource::start(content).await);
    let fixture = Fixture::start_with(|config| {
        config.allowed_uri_hosts.extend([busy.rule(), waiting.rule()]);
        config.limits.running_ingests = 1;
    })
    .await;
    let first = fixture.create(&request("first", &busy.url())).await;
    busy.until_reading().await;
    let second = fixture.create(&request("second", &waiting.url())).await;
    fixture.client.cancel_operation(&second.id, &fixture.cancel).await.unwrap();
    // It needs no place to end.
    let status = failure(&fixture.wait(&second).await);
    assert_eq!(status.canonical_code(), Code::Cancelled);
    fixture.client.cancel_operation(&first.id, &fixture.cancel).await.unwrap();
    assert_cancelled(&fixture, &first).await;
    assert_cancelled(&fixture, &second).await;
    assert_eq!(waiting.served(), 0);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_is_read_slowly() {
    let slow = SlowSource::start(disk(64 * MIB, &[(0, 64 * MIB)])).await;
    let fixture = Fixture::start_with(|config| config.allowed_uri_hosts.push(slow.rule())).await;
    let operation = fixture.create(&request("web", &slow.url())).await;
    slow.until_reading().await;
    let asked = Instant::now();
    fixture.client.cancel_operation(&operation.id, &fixture.cancel).await.unwrap();
    fixture.wait(&operation).await;
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    let served = slow.served();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(slow.served(), served, "nothing is downloaded any more");
    assert_cancelled(&fixture, &operation).await;
    fixture.stop().await;
}

/// While the source is asked what it is, while its head is read, while blocks are read and stored.
#[tokio::test(flavor = "multi_thread")]
async fn probing_reading_storing() {
    let runs: Vec<_> = (0..40).map(|block| (block * 4 * MIB + 512, 512)).collect();
    let content = disk(160 * MIB, &runs);
    for stall_at in [0, 64 << 10, 80 * MIB] {
        let slow = SlowSource::start(content.clone()).await;
        let fixture = Fixture::start_with(|config| config.allowed_uri_hosts.push(slow.rule())).await;
        slow.stall_at(stall_at);
        let operation = fixture.create(&request("web", &slow.url())).await;
        while slow.served() < stall_at.max(1) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let asked = Instant::now();
        fixture.client.cancel_operation(&operation.id, &fixture.cancel).await.unwrap();
        fixture.wait(&operation).await;
        assert!(asked.elapsed() < SOON, "{stall_at}: {:?}", asked.elapsed());
        slow.stall_at(usize::MAX);
        let served = slow.served();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(slow.served() <= served + MIB, "{stall_at}: what was on its way, and nothing more");
        assert_cancelled(&fixture, &operation).await;
        fixture.stop().await;
    }
}

/// Everything is stored, blocks and manifest, and the commit that makes the Image READY has not come through.
#[tokio::test(flavor = "multi_thread")]
async fn publishing() {
    let fixture = Fixture::start().await;
    let url = fixture.upload("raw", &disk(12 * MIB, &[(0, 12 * MIB)])).await;
    let path = fixture.dir().join("catalog.sqlite");
    let database = sqlx::SqlitePool::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    let held = "CREATE TRIGGER held BEFORE UPDATE ON images WHEN NEW.status = 2 \
                BEGIN SELECT RAISE(FAIL, 'not yet'); END";
    sqlx::query(held).execute(&database).await.unwrap();
    let operation = fixture.create(&request("web", &url)).await;
    fixture.until_object_count(".blocks/manifests/", 1).await;
    assert_eq!(fixture.block_count().await, 3);
    fixture.client.cancel_operation(&operation.id, &fixture.cancel).await.unwrap();
    assert_cancelled(&fixture, &operation).await;
    database.close().await;
    fixture.stop().await;
}

/// Whenever it comes, one of the two wins, and all of it.
#[tokio::test(flavor = "multi_thread")]
async fn at_any_moment_it_is_either_or() {
    let fixture = Fixture::start().await;
    let content = disk(12 * MIB, &[(0, 12 * MIB)]);
    let url = fixture.upload("raw", &content).await;
    let whole = Instant::now();
    let image = fixture.wait(&fixture.create(&request("first", &url)).await).await;
    let whole = whole.elapsed();
    delete(&fixture, &image).await;
    for step in 0..10 {
        let operation = fixture.create(&request("web", &url)).await;
        tokio::time::sleep(whole * step / 8).await;
        let asked = fixture.client.cancel_operation(&operation.id, &fixture.cancel).await.unwrap();
        let ended = fixture.wait(&operation).await;
        match ended.outcome() {
            OperationOutcome::Succeeded(_) => {
                assert!(asked.done, "a cancel that was accepted is kept");
                assert_eq!(fixture.read_back(&image_id(&operation)).await, content);
                delete(&fixture, &operation).await;
            }
            _ => assert_cancelled(&fixture, &operation).await,
        }
    }
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn afterwards_it_changes_nothing() {
    let fixture = Fixture::start().await;
    let content = disk(5 * MIB, &[(0, MIB)]);
    let url = fixture.upload("raw", &content).await;
    let done = fixture.wait(&fixture.create(&request("web", &url)).await).await;
    let asked = fixture.client.cancel_operation(&done.id, &fixture.cancel).await.unwrap();
    assert_eq!(asked, done);
    assert_eq!(fixture.read_back(&image_id(&done)).await, content);
    fixture.stop().await;
}
