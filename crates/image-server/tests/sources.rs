//! Images of what is here already: of other Images, of snapshots and of disks.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use image_api::{
    ApiError, Code, CreateImageRequest, OperationOutcome, Uuid, compute::create_image_request::Source,
};
use image_server::VolumeFolder;
use support::{Fixture, disk, failure, image_id, request};

const MIB: usize = 1 << 20;

fn of(name: &str, source: Source) -> CreateImageRequest {
    CreateImageRequest { source: Some(source), ..request(name, "") }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_an_image_moves_no_block_and_outlives_it() {
    let fixture = Fixture::start().await;
    let content = disk(10 * MIB, &[(0, MIB), (6 * MIB, 3000)]);
    let first = fixture.ready("first", &content).await;
    let before = fixture.large_files();
    assert_eq!(before.len(), 3, "two blocks, and the upload");
    let second = fixture.wait(&fixture.create(&of("second", Source::ImageId(first.clone()))).await).await;
    assert!(matches!(second.outcome(), OperationOutcome::Succeeded(_)), "{second:?}");
    let second = image_id(&second);
    // Neither written again nor copied: the same files, as old as they were.
    assert_eq!(fixture.large_files(), before);
    let (a, b) = tokio::join!(
        fixture.client.get_image(&first, &fixture.cancel),
        fixture.client.get_image(&second, &fixture.cancel)
    );
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!((a.storage_size, a.min_disk_size), (b.storage_size, b.min_disk_size));

    let delete = fixture.client.delete_image(&first, Uuid::new_v4(), &fixture.cancel).await.unwrap();
    assert!(matches!(fixture.wait(&delete).await.outcome(), OperationOutcome::Succeeded(_)));
    assert_eq!(fixture.read_back(&second).await, content);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_an_image_has_room_for_the_guest_or_is_refused() {
    let fixture = Fixture::start_with(|config| config.limits.folder_quota = Some(10 << 20)).await;
    let first = fixture.ready("first", &disk(10 * MIB, &[(0, MIB)])).await;
    let mut small = of("small", Source::ImageId(first.clone()));
    small.min_disk_size = 8 << 20;
    let status = failure(&fixture.wait(&fixture.create(&small).await).await);
    assert_eq!(status.message, "Minimal disk size should be greater or equal than 12582912");
    // Each stores one block, and a third one would be more than the quota.
    let another = of("second", Source::ImageId(first.clone()));
    let done = fixture.wait(&fixture.create(&another).await).await;
    assert!(matches!(done.outcome(), OperationOutcome::Succeeded(_)), "{done:?}");
    let status = failure(&fixture.wait(&fixture.create(&of("third", Source::ImageId(first))).await).await);
    assert_eq!(status.canonical_code(), Code::ResourceExhausted, "{}", status.message);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_what_their_operator_calls_them() {
    let dir = tempfile::tempdir().unwrap();
    let content = disk(5 * MIB, &[(0, MIB)]);
    std::fs::write(dir.path().join("plain.raw"), &content).unwrap();
    // A guest that writes the head of a qcow2 that names a file into its own disk has a disk that begins so.
    let mut confused = content.clone();
    confused[..104].copy_from_slice(&include_bytes!("../../../testdata/disk.qcow2")[..104]);
    std::fs::write(dir.path().join("confused.raw"), &confused).unwrap();
    std::fs::copy(
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/disk.qcow2"),
        dir.path().join("q.qcow2"),
    )
    .unwrap();
    std::fs::write(dir.path().join("bad.qcow2"), &content).unwrap();
    let fixture = Fixture::start_with(|config| {
        config.volumes.snapshots = Some(Arc::new(VolumeFolder::new(dir.path())));
        config.volumes.disks = Some(Arc::new(VolumeFolder::new(dir.path())));
    })
    .await;
    let snapshot = |id: &str| Source::SnapshotId(id.to_owned());
    for (name, source, expected) in [
        ("a", snapshot("plain"), &content),
        ("b", Source::DiskId("plain".to_owned()), &content),
        ("c", snapshot("confused"), &confused),
    ] {
        let done = fixture.wait(&fixture.create(&of(name, source)).await).await;
        assert!(matches!(done.outcome(), OperationOutcome::Succeeded(_)), "{done:?}");
        assert!(fixture.read_back(&image_id(&done)).await == *expected, "{name}");
    }
    let done = fixture.wait(&fixture.create(&of("d", snapshot("q"))).await).await;
    assert!(matches!(done.outcome(), OperationOutcome::Succeeded(_)), "{done:?}");
    let status = failure(&fixture.wait(&fixture.create(&of("e", snapshot("bad"))).await).await);
    assert_eq!(status.canonical_code(), Code::InvalidArgument);
    assert!(!status.message.contains(dir.path().to_str().unwrap()), "{}", status.message);
    for id in ["nothing", "../plain", "plain.raw"] {
        let refused =
            fixture.client.create_image(&of("f", snapshot(id)), Uuid::new_v4(), &fixture.cancel).await;
        let Err(ApiError::Status(error)) = refused else { panic!("{refused:?}") };
        assert_eq!(error.code, Code::NotFound, "{id}");
    }
    fixture.stop().await;
}
