//! `gc` and `fsck` beside a server that runs: what they find, what they remove, and what they leave alone.

// Clippy takes only `#[test]` functions for tests.
#![allow(clippy::unwrap_used)]

mod support;

use image_server::{Config, Depth, Report, Server, ServerError, Storage, Upkeep};
use object_io::PutOptions;
use support::{Fixture, SlowSource, disk, image_id, request};

const MIB: usize = 1 << 20;
const BUCKET: &str = "images";
const BLOCKS: &str = ".blocks/blocks/";

async fn fsck(upkeep: &Upkeep, fixture: &Fixture, depth: Depth) -> Report {
    upkeep.fsck(depth, &fixture.cancel).await.unwrap()
}

async fn keys(fixture: &Fixture, prefix: &str) -> Vec<String> {
    let page = fixture.store.list(BUCKET, prefix, None, &fixture.cancel).await.unwrap();
    page.objects.into_iter().map(|object| object.key).collect()
}

async fn put(fixture: &Fixture, key: &str, content: Vec<u8>) {
    fixture.store.put(BUCKET, key, content.into(), &PutOptions::default(), &fixture.cancel).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_uses_goes_and_what_is_used_stays() {
    let fixture = Fixture::start().await;
    let content = disk(20 * MIB, &[(0, MIB), (9 * MIB, MIB)]);
    let image = fixture.ready("web", &content).await;
    let upkeep = Upkeep::open(fixture.config()).await.unwrap();
    let sound = fsck(&upkeep, &fixture, Depth::Content).await;
    assert_eq!((sound.images, sound.referenced.blocks, &sound.faults[..]), (1, 2, &[][..]));
    assert_eq!((sound.stored, sound.claimed.blocks, sound.unused.blocks), (sound.referenced, 0, 0));

    // Of an ingest that died, and of one that wrote its manifest after it had lost its lease.
    let stray = format!("{BLOCKS}00/{}", "00".repeat(32));
    put(&fixture, &stray, vec![1; 1000]).await;
    let manifest = keys(&fixture, ".blocks/manifests/").await;
    let late = fixture.store.get(BUCKET, &manifest[0], None, &fixture.cancel).await.unwrap();
    put(&fixture, &format!(".blocks/manifests/{image}.7"), late.to_vec()).await;
    let found = fsck(&upkeep, &fixture, Depth::Lengths).await;
    assert_eq!((found.unused.blocks, found.unused.bytes, found.faults.len()), (1, 1000, 0));
    let collected = upkeep.gc(&fixture.cancel).await.unwrap();
    assert_eq!((collected.kept, collected.removed, collected.bytes, collected.left), (2, 1, 1000, 0));
    assert_eq!(keys(&fixture, ".blocks/manifests/").await, manifest);
    assert_eq!(fsck(&upkeep, &fixture, Depth::Content).await, sound);
    assert_eq!(fixture.read_back(&image).await, content);
    upkeep.close().await;
    fixture.stop().await;
}

/// A collection with another catalog would find that nobody uses anything.
#[tokio::test(flavor = "multi_thread")]
async fn the_blocks_of_another_catalog_are_left_alone() {
    let fixture = Fixture::start().await;
    let content = disk(5 * MIB, &[(0, MIB)]);
    let image = fixture.ready("web", &content).await;
    let uri = "s3://images/.blocks".parse().unwrap();
    let storage = Storage::Connected { store: fixture.store.clone(), uri };
    let elsewhere = Config { storage, ..fixture.config_elsewhere() };
    for _ in 0..2 {
        let refused = Upkeep::open(elsewhere.clone()).await;
        assert!(matches!(refused.err(), Some(ServerError::ForeignStore { .. })));
        let refused = Server::start(elsewhere.clone()).await;
        assert!(matches!(refused.err(), Some(ServerError::ForeignStore { .. })));
        // A store of before there were owners is whose manifests the catalog knows.
        fixture.store.delete(BUCKET, ".blocks/owner", &fixture.cancel).await.unwrap();
    }
    let fixture = fixture.restart().await;
    assert_eq!(
        fixture.store.list(BUCKET, ".blocks/owner", None, &fixture.cancel).await.unwrap().objects.len(),
        1
    );
    assert_eq!(fixture.read_back(&image).await, content);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingest_that_runs_keeps_its_blocks() {
    let blocks = 40;
    let runs: Vec<_> = (0..blocks).map(|block| (block * 4 * MIB + 512, 512)).collect();
    let content = disk(blocks * 4 * MIB, &runs);
    let slow = SlowSource::start(content.clone()).await;
    let fixture = Fixture::start_with(|config| config.allowed_uri_hosts.push(slow.rule())).await;
    slow.stall_at(100 * MIB);
    let operation = fixture.create(&request("web", &slow.url())).await;
    while slow.served() < 100 * MIB || keys(&fixture, BLOCKS).await.is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let upkeep = Upkeep::open(fixture.config()).await.unwrap();
    let before = keys(&fixture, BLOCKS).await;
    let collected = upkeep.gc(&fixture.cancel).await.unwrap();
    assert_eq!(collected.removed, 0);
    assert!(keys(&fixture, BLOCKS).await.len() >= before.len());
    assert!(fsck(&upkeep, &fixture, Depth::Lengths).await.claimed.blocks >= before.len() as u64);
    slow.stall_at(usize::MAX);
    let done = fixture.wait(&operation).await;
    assert!(fixture.read_back(&image_id(&done)).await == content);
    let report = fsck(&upkeep, &fixture, Depth::Content).await;
    assert_eq!((report.referenced, report.claimed.blocks, report.faults.len()), (report.stored, 0, 0));
    upkeep.close().await;
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_has_its_sentence() {
    let fixture = Fixture::start().await;
    let content = disk(20 * MIB, &[(0, MIB), (9 * MIB, MIB)]);
    fixture.ready("web", &content).await;
    let upkeep = Upkeep::open(fixture.config()).await.unwrap();
    let key = keys(&fixture, BLOCKS).await.remove(0);
    let good = fixture.store.get(BUCKET, &key, None, &fixture.cancel).await.unwrap().to_vec();
    let mut flipped = good.clone();
    flipped[0] ^= 1;
    for (bad, by_length, by_content) in
        [(flipped, 0, "holds other bytes"), (good[1..].to_vec(), 1, "has 4194303 bytes, expected 4194304")]
    {
        put(&fixture, &key, bad).await;
        assert_eq!(fsck(&upkeep, &fixture, Depth::Lengths).await.faults.len(), by_length);
        let faults = fsck(&upkeep, &fixture, Depth::Content).await.faults;
        assert!(faults.iter().any(|fault| fault.contains(by_content)), "{faults:?}");
    }
    fixture.store.delete(BUCKET, &key, &fixture.cancel).await.unwrap();
    let faults = fsck(&upkeep, &fixture, Depth::Lengths).await.faults;
    assert!(faults.len() == 1 && faults[0].contains("is missing"), "{faults:?}");
    put(&fixture, &key, good).await;
    assert!(fsck(&upkeep, &fixture, Depth::Content).await.faults.is_empty());

    let manifest = keys(&fixture, ".blocks/manifests/").await.remove(0);
    put(&fixture, &manifest, vec![0; 100]).await;
    let faults = fsck(&upkeep, &fixture, Depth::Lengths).await.faults;
    assert!(faults.len() == 1 && faults[0].ends_with("is damaged"), "{faults:?}");
    assert!(upkeep.gc(&fixture.cancel).await.is_err(), "it may list anything");
    assert_eq!(keys(&fixture, BLOCKS).await.len(), 2);
    fixture.store.delete(BUCKET, &manifest, &fixture.cancel).await.unwrap();
    let report = fsck(&upkeep, &fixture, Depth::Lengths).await;
    assert!(report.to_string().contains("is missing"), "{report}");
    upkeep.close().await;
    fixture.stop().await;
}
