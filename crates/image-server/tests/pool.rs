//! Pooled Images: a copy under the quota, gone with the Image, told by fsck.

// Clippy takes only `#[test]` functions for tests.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;

use image_api::{
    Code, CreateImageRequest, Operation, OperationOutcome, Uuid, compute::create_image_request::Source,
};
use image_server::{Depth, Pooled, Server, ServerError, Upkeep};
use support::{Fixture, disk, failure, image_id, request};

const MIB: usize = 1 << 20;

async fn start(quota: u64) -> Fixture {
    Fixture::start_with(|config| {
        config.pool = Some(config.data_dir.with_file_name("pool"));
        config.limits.pool_quota = quota;
    })
    .await
}

fn pooled(name: &str, uri: &str) -> CreateImageRequest {
    CreateImageRequest { pooled: true, ..request(name, uri) }
}

/// What is in the pool, but for the lock and the owner.
fn copies(fixture: &Fixture) -> Vec<PathBuf> {
    let pool = fixture.dir().with_file_name("pool");
    let files = std::fs::read_dir(pool).unwrap().map(|entry| entry.unwrap().path());
    let own = ["lock", "owner"].map(std::ffi::OsStr::new);
    let mut files: Vec<_> = files.filter(|path| !own.contains(&path.file_name().unwrap())).collect();
    files.sort();
    files
}

async fn done(fixture: &Fixture, request: &CreateImageRequest) -> Operation {
    let done = fixture.wait(&fixture.create(request).await).await;
    assert!(matches!(done.outcome(), OperationOutcome::Succeeded(_)), "{done:?}");
    done
}

async fn until_copies(fixture: &Fixture, count: usize) {
    for _ in 0..1500 {
        if copies(fixture).len() == count {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{:?}", copies(fixture));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooled_image_has_a_copy_as_long_as_it_lives() {
    let fixture = start(64 << 20).await;
    let content = disk(40 * MIB, &[(0, MIB), (30 * MIB, 3000)]);
    let url = fixture.upload("raw", &content).await;
    done(&fixture, &request("plain", &url)).await;
    assert!(copies(&fixture).is_empty());
    let first = image_id(&done(&fixture, &pooled("first", &url)).await);
    assert!(fixture.client.get_image(&first, &fixture.cancel).await.unwrap().pooled);
    // Of an image too, whose blocks are there.
    let source = Some(Source::ImageId(first.clone()));
    let second = image_id(&done(&fixture, &CreateImageRequest { source, ..pooled("second", "") }).await);
    let found = copies(&fixture);
    assert_eq!(found.len(), 2);
    for copy in &found {
        assert!(std::fs::read(copy).unwrap() == content);
    }
    let blocks = std::os::unix::fs::MetadataExt::blocks(&found[0].metadata().unwrap());
    assert!(blocks * 512 <= 8 << 20, "holes take no room: {blocks} blocks of 512 bytes");

    let config =
        image_server::Config { pool: Some(fixture.dir().with_file_name("pool")), ..fixture.config() };
    let upkeep = Upkeep::open(config).await.unwrap();
    let sound = upkeep.fsck(Depth::Content, &fixture.cancel).await.unwrap();
    assert_eq!(sound.faults, [""; 0]);
    let Some(Pooled { copies: 2, strays: 0, .. }) = sound.pooled else { panic!("{:?}", sound.pooled) };
    // A copy that somebody wrote into, one that somebody cut, and one of nothing.
    let stray = fixture.dir().with_file_name("pool").join("fd8nothing.raw");
    std::fs::write(&stray, b"x").unwrap();
    let mut wrong = content.clone();
    wrong[5 * MIB] ^= 1;
    std::fs::write(&found[0], wrong).unwrap();
    std::fs::File::options().write(true).open(&found[1]).unwrap().set_len(1 << 20).unwrap();
    let found = upkeep.fsck(Depth::Content, &fixture.cancel).await.unwrap();
    assert_eq!((found.faults.len(), found.pooled.unwrap().strays), (2, 1), "{:?}", found.faults);
    upkeep.gc(&fixture.cancel).await.unwrap();
    assert!(!stray.exists());
    upkeep.close().await;

    for id in [&first, &second] {
        let delete = fixture.client.delete_image(id, Uuid::new_v4(), &fixture.cancel).await.unwrap();
        fixture.wait(&delete).await;
        assert!(!copies(&fixture).iter().any(|copy| copy.file_stem().unwrap() == id.as_str()), "{id}");
    }
    assert!(copies(&fixture).is_empty());
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_stores_no_more_than_its_quota() {
    // A raw source counts whole until it is stored.
    let fixture = start(20 << 20).await;
    let url = fixture.upload("raw", &disk(16 * MIB, &[(0, 8 * MIB)])).await;
    done(&fixture, &pooled("first", &url)).await;
    let before = fixture.object_count(".blocks/").await;
    let other = fixture.upload("other", &disk(16 * MIB, &[(0, 8 * MIB), (9 * MIB, 100)])).await;
    let status = failure(&fixture.wait(&fixture.create(&pooled("second", &other)).await).await);
    assert_eq!(status.canonical_code(), Code::ResourceExhausted);
    assert!(status.message.ends_with("(limit pool-quota)"), "{}", status.message);
    assert_eq!(fixture.object_count(".blocks/").await, before, "refused before anything is stored");
    done(&fixture, &request("second", &other)).await;
    assert_eq!(copies(&fixture).len(), 1);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_without_a_quota_is_none() {
    let fixture = start(0).await;
    let url = fixture.upload("raw", &disk(MIB, &[])).await;
    let create = format!("{}/compute/v1/images", fixture.endpoint());
    let body = image_api::to_json(&pooled("web", &url)).unwrap();
    let refused = reqwest::Client::new().post(create).body(body).send().await.unwrap();
    assert_eq!(refused.status().as_u16(), 429);
    assert!(refused.text().await.unwrap().contains("its quota is 0"));
    fixture.stop().await;
}

/// A sweep with another catalog would find that no image needs anything.
#[tokio::test(flavor = "multi_thread")]
async fn the_pool_of_another_catalog_is_left_alone() {
    let fixture = start(64 << 20).await;
    let url = fixture.upload("raw", &disk(4 * MIB, &[(0, MIB)])).await;
    done(&fixture, &pooled("first", &url)).await;
    let pool = fixture.dir().with_file_name("pool");
    let found = copies(&fixture);
    let away = fixture.dir().with_file_name("away");
    std::fs::create_dir(&away).unwrap();
    for name in ["owner", found[0].file_name().unwrap().to_str().unwrap()] {
        std::fs::copy(pool.join(name), away.join(name)).unwrap();
    }
    let elsewhere = image_server::Config { pool: Some(away.clone()), ..fixture.config_elsewhere() };
    let refused = Upkeep::open(elsewhere.clone()).await.err();
    assert!(matches!(refused, Some(ServerError::ForeignPool { .. })), "{refused:?}");
    let refused = Server::start(elsewhere).await.err();
    assert!(matches!(refused, Some(ServerError::ForeignPool { .. })), "{refused:?}");
    assert!(away.join(found[0].file_name().unwrap()).exists());
    // Its own catalog goes on with it.
    let fixture = fixture.restart().await;
    assert_eq!(copies(&fixture), found);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cancelled_or_lost_leaves_no_copy() {
    let fixture = start(64 << 20).await;
    let url = fixture.upload("raw", &disk(12 * MIB, &[(0, 12 * MIB)])).await;
    let path = fixture.dir().join("catalog.sqlite");
    let database = sqlx::SqlitePool::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    // Stored and copied, and not published.
    let held = "CREATE TRIGGER held BEFORE UPDATE ON images WHEN NEW.status = 2 \
                BEGIN SELECT RAISE(FAIL, 'not yet'); END";
    sqlx::query(held).execute(&database).await.unwrap();
    let operation = fixture.create(&pooled("web", &url)).await;
    until_copies(&fixture, 1).await;
    // Another server must not have this pool.
    let pool = fixture.dir().with_file_name("pool");
    let config = image_server::Config { pool: Some(pool.clone()), ..fixture.config_elsewhere() };
    assert!(matches!(Server::start(config).await.err(), Some(ServerError::Locked { .. })));
    // What a server had begun to copy when it died, beside a copy whose operation goes on.
    let unfinished = pool.join(".image-prep-x.part");
    std::fs::write(&unfinished, b"x").unwrap();
    let fixture = fixture.restart().await;
    assert!(!unfinished.exists());
    fixture.client.cancel_operation(&operation.id, &fixture.cancel).await.unwrap();
    assert_eq!(failure(&fixture.wait(&operation).await).canonical_code(), Code::Cancelled);
    until_copies(&fixture, 0).await;
    fixture.until_object_count(".blocks/", 0).await;
    sqlx::query("DROP TRIGGER held").execute(&database).await.unwrap();
    database.close().await;
    fixture.stop().await;
}
