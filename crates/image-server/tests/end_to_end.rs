//! The whole way: object in a store, pre-signed URL, REST call, ingest, blocks, and back to the same bytes.
//!
//! Everything runs in this process on loopback. qemu-img, where it is installed, makes the QCOW2 that is ingested.

mod support;

use std::time::Duration;

use image_api::{ApiError, Code, OperationOutcome, Transport, Uuid, compute::image, unpack};
use image_server::{Config, Server, ServerError, Storage};
use support::{Fixture, disk, failure, image_id, request};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_disk_becomes_an_image_and_comes_back() {
    let fixture = Fixture::start().await;
    let content = disk(10 * MIB, &[(0, MIB), (6 * MIB, 3000)]);
    let url = fixture.upload("raw", &content).await;
    let operation = fixture.create(&request("web", &url)).await;
    let done = fixture.wait(&operation).await;
    let OperationOutcome::Succeeded(Some(any)) = done.outcome() else { panic!("{done:?}") };
    let ready: image_api::Image = unpack(&any).unwrap();
    assert_eq!(ready.status(), image::Status::Ready);
    // Two blocks of 4 MiB hold data; 10 MiB are three units of 4 MiB.
    assert_eq!((ready.storage_size, ready.min_disk_size), (8 << 20, 12 << 20));
    assert_eq!(fixture.read_back(&ready.id).await, content);
    let manifest = fixture.manifest(&ready.id).await;
    assert_eq!(manifest.guest_digest(), support::digest(&content).await);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qcow2_of_qemu_img_is_the_same_disk() {
    let content = disk(10 * MIB, &[(0, MIB), (6 * MIB, 3000)]);
    let Some(qcow2) = support::qemu_convert(&content, &["-c", "-O", "qcow2"]) else { return };
    let fixture = Fixture::start().await;
    let url = fixture.upload("qcow2", &qcow2).await;
    let done = fixture.wait(&fixture.create(&request("web", &url)).await).await;
    assert!(matches!(done.outcome(), OperationOutcome::Succeeded(_)), "{done:?}");
    assert_eq!(fixture.read_back(&image_id(&done)).await, content);
    let manifest = fixture.manifest(&image_id(&done)).await;
    assert_eq!(manifest.guest_digest(), support::digest(&content).await);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_frees_what_no_other_image_has() {
    let fixture = Fixture::start().await;
    // The first block is common, the second one is not.
    let shared = disk(8 * MIB, &[(0, MIB)]);
    let own = disk(8 * MIB, &[(0, MIB), (5 * MIB, 100)]);
    let first = fixture.ready("first", &shared).await;
    let second = fixture.ready("second", &own).await;
    assert_eq!(fixture.block_count().await, 2);
    let delete = fixture.client.delete_image(&second, Uuid::new_v4(), &fixture.cancel).await.unwrap();
    assert!(matches!(fixture.wait(&delete).await.outcome(), OperationOutcome::Succeeded(_)));
    assert_eq!(fixture.block_count().await, 1);
    assert_eq!(fixture.read_back(&first).await, shared);
    let gone = fixture.client.get_image(&second, &fixture.cancel).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_images_are_refused_and_leave_nothing() {
    let fixture = Fixture::start().await;
    let mut qed = disk(MIB, &[]);
    qed[..4].copy_from_slice(b"QED\0");
    // A good image, made to name a file of this machine as its backing file.
    let mut overlay = include_bytes!("../../../testdata/disk.qcow2").to_vec();
    overlay[8..20].copy_from_slice(&[0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 11]);
    overlay[512..523].copy_from_slice(b"/etc/passwd");
    let header_len = usize::from(overlay[103]);
    overlay[header_len..][..24].copy_from_slice(b"\xe2\x79\x2a\xca\0\0\0\x03raw\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let mut qcow2 = vec![0_u8; 4096];
    qcow2[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    for (name, content, words) in [
        ("empty", Vec::new(), "empty"),
        ("text", b"to whom it may concern".repeat(100), "no known disk image format"),
        ("qed", qed, "QED"),
        ("overlay", overlay, "names the backing file `/etc/passwd`"),
        ("qcow2", qcow2, "cannot open"),
    ] {
        let url = fixture.upload(name, &content).await;
        let status = failure(&fixture.wait(&fixture.create(&request("web", &url)).await).await);
        assert_eq!(status.canonical_code(), Code::InvalidArgument, "{name}: {}", status.message);
        assert!(status.message.contains(words), "{name}: {}", status.message);
        assert!(!status.message.contains("X-Amz-"), "{name}: {}", status.message);
    }
    assert_eq!(fixture.object_count(".blocks/").await, 0);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_urls_are_reported() {
    let fixture = Fixture::start().await;
    let url = fixture.upload("raw", &disk(MIB, &[])).await;
    let missing = fixture.sign("nothing").await;
    // The last digits of the signature, turned round.
    let (head, tail) = url.split_at(url.len() - 8);
    let forged = format!("{head}{}", tail.chars().rev().collect::<String>());
    for (uri, words) in [(missing.as_str(), "not found"), (forged.as_str(), "denied")] {
        let done = fixture.wait(&fixture.create(&request("web", uri)).await).await;
        let status = failure(&done);
        assert_eq!(status.canonical_code(), Code::FailedPrecondition, "{}", status.message);
        assert!(status.message.contains(words), "{}", status.message);
        assert!(!status.message.contains("X-Amz-"), "{}", status.message);
    }
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_small_a_disk_is_refused_before_anything_is_stored() {
    let fixture = Fixture::start().await;
    let url = fixture.upload("raw", &disk(10 * MIB, &[(0, 10 * MIB)])).await;
    let mut small = request("web", &url);
    small.min_disk_size = 8 << 20;
    let status = failure(&fixture.wait(&fixture.create(&small).await).await);
    assert_eq!(status.canonical_code(), Code::InvalidArgument);
    assert_eq!(status.message, "Minimal disk size should be greater or equal than 12582912");
    assert_eq!(fixture.object_count(".blocks/").await, 0);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_changes_is_refused() {
    let slow = support::SlowSource::start(disk(64 * MIB, &[(0, 64 * MIB)])).await;
    let fixture = Fixture::start_with(|config| config.allowed_uri_hosts.push(slow.rule())).await;
    let operation = fixture.create(&request("web", &slow.url())).await;
    slow.until_reading().await;
    slow.replace();
    slow.hurry();
    let status = failure(&fixture.wait(&operation).await);
    assert_eq!(status.canonical_code(), Code::FailedPrecondition, "{}", status.message);
    assert!(status.message.contains("changed"), "{}", status.message);
    fixture.until_object_count(".blocks/", 0).await;
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_tebibytes_of_nothing_take_no_time_and_no_room() {
    let Some(qcow2) = support::qemu_create("qcow2", "8T") else { return };
    let fixture = Fixture::start().await;
    let image_id = fixture.ready("huge", &qcow2).await;
    let image = fixture.client.get_image(&image_id, &fixture.cancel).await.unwrap();
    assert_eq!((image.storage_size, image.min_disk_size), (0, 8 << 40));
    assert_eq!(fixture.block_count().await, 0);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_continues_the_ingest() {
    let content = disk(24 * MIB, &[(0, 24 * MIB)]);
    let slow = support::SlowSource::start(content.clone()).await;
    let fixture = Fixture::start_with(|config| config.allowed_uri_hosts.push(slow.rule())).await;
    let operation = fixture.create(&request("web", &slow.url())).await;
    slow.until_reading().await;
    let fixture = fixture.restart().await;
    let seen = fixture.client.get_operation(&operation.id, &fixture.cancel).await.unwrap();
    assert!(!seen.done);
    slow.hurry();
    let done = fixture.wait(&operation).await;
    assert!(matches!(done.outcome(), OperationOutcome::Succeeded(_)), "{done:?}");
    assert_eq!(fixture.read_back(&image_id(&done)).await, content);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_is_not_read_again() {
    let blocks = 60;
    let runs: Vec<_> = (0..blocks).map(|block| (block * 4 * MIB + 512, 512)).collect();
    let content = disk(blocks * 4 * MIB, &runs);
    let slow = support::SlowSource::start(content.clone()).await;
    let fixture = Fixture::start_with(|config| config.allowed_uri_hosts.push(slow.rule())).await;
    slow.stall_at(160 * MIB);
    let operation = fixture.create(&request("web", &slow.url())).await;
    while slow.served() < 160 * MIB {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let fixture = fixture.restart().await;
    slow.stall_at(usize::MAX);
    let done = fixture.wait(&operation).await;
    assert!(matches!(done.outcome(), OperationOutcome::Succeeded(_)), "{done:?}");
    assert!(fixture.read_back(&image_id(&done)).await == content);
    // Ten parts were in flight, and as many may have been stored without being noted; the others are not read twice.
    let again = slow.served() - 160 * MIB;
    assert!(again <= content.len() - 80 * MIB, "{again} bytes after the restart");
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_is_read_from_the_start() {
    let before = disk(60 * 4 * MIB, &[(512, 512)]);
    let slow = support::SlowSource::start(before.clone()).await;
    let fixture = Fixture::start_with(|config| config.allowed_uri_hosts.push(slow.rule())).await;
    slow.stall_at(160 * MIB);
    let operation = fixture.create(&request("web", &slow.url())).await;
    while slow.served() < 160 * MIB {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    slow.replace();
    let fixture = fixture.restart().await;
    slow.stall_at(usize::MAX);
    let done = fixture.wait(&operation).await;
    assert!(matches!(done.outcome(), OperationOutcome::Succeeded(_)), "{done:?}");
    assert!(slow.served() - 160 * MIB >= before.len());
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn urls_of_the_embedded_store_are_good_after_a_restart() {
    let fixture = Fixture::start().await;
    let url = fixture.upload("raw", &disk(5 * MIB, &[(0, MIB)])).await;
    let fixture = fixture.restart().await;
    let done = fixture.wait(&fixture.create(&request("web", &url)).await).await;
    assert!(matches!(done.outcome(), OperationOutcome::Succeeded(_)), "{done:?}");
    fixture.stop().await;
}

/// The store of the first server serves the second one as any S3 store would, connected by us or by configuration.
#[tokio::test(flavor = "multi_thread")]
async fn blocks_in_a_bucket_of_another_store() {
    let first = Fixture::start().await;
    let uri = |folder: &str| format!("s3://images/{folder}").parse().unwrap();
    for storage in [
        Storage::Connected { store: first.store.clone(), uri: uri("connected") },
        Storage::Bucket { uri: uri("configured"), config: first.store_config().into() },
    ] {
        let second = Fixture::start_on(storage).await;
        let content = disk(5 * MIB, &[(0, MIB)]);
        let image_id = second.ready("web", &content).await;
        assert_eq!(second.read_back(&image_id).await, content);
        assert!(!second.dir().join("store.json").exists());
        second.stop().await;
    }
    assert_eq!(first.object_count("connected/").await, 2, "a block and a manifest");
    assert_eq!(first.object_count("configured/").await, 2);
    let missing =
        Storage::Bucket { uri: "s3://missing".parse().unwrap(), config: first.store_config().into() };
    let refused = Server::start(Config { storage: missing, ..first.config_elsewhere() }).await;
    assert!(matches!(refused.err(), Some(ServerError::Store { .. })));
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_to_a_folder() {
    let fixture = Fixture::start().await;
    let second = Server::start(fixture.config()).await;
    assert!(matches!(second.err(), Some(ServerError::Locked { .. })));
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_only_loopback() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::new("0.0.0.0:0".parse().unwrap(), dir.path());
    let refused = Server::start(config).await;
    assert!(matches!(refused.err(), Some(ServerError::OpenToTheNetwork { .. })));
    assert!(!dir.path().join("store.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_with_a_token() {
    let fixture = Fixture::start_with(|config| {
        config.tls = Some(support::tls_files());
        config.tokens = vec!["token".parse().unwrap()];
    })
    .await;
    let done = fixture
        .wait(&fixture.create(&request("web", &fixture.upload("raw", &disk(MIB, &[])).await)).await)
        .await;
    assert!(matches!(done.outcome(), OperationOutcome::Succeeded(_)), "{done:?}");
    let grpc = fixture.client_over(Transport::Grpc, fixture.token());
    assert_eq!(grpc.get_operation(&done.id, &fixture.cancel).await.unwrap(), done);
    let stranger = fixture.client_over(Transport::Grpc, None).get_operation(&done.id, &fixture.cancel).await;
    assert_eq!(stranger.unwrap_err().code(), Code::Unauthenticated);
    let stranger = fixture.client_with(None).get_operation(&done.id, &fixture.cancel).await;
    assert_eq!(stranger.unwrap_err().code(), Code::Unauthenticated);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_are_the_owners() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::start_with(|config| std::fs::create_dir(&config.data_dir).unwrap()).await;
    let mode = |name| std::fs::metadata(fixture.dir().join(name)).unwrap().permissions().mode() & 0o777;
    for (name, expected) in
        [("store.json", 0o600), ("catalog.sqlite", 0o600), ("catalog.sqlite-wal", 0o600), ("store", 0o700)]
    {
        assert_eq!(mode(name), expected, "{name}");
    }
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_hosts_are_not_read() {
    let fixture = Fixture::start().await;
    let slow = support::SlowSource::start(disk(MIB, &[])).await;
    let refused =
        fixture.client.create_image(&request("web", &slow.url()), Uuid::new_v4(), &fixture.cancel).await;
    let Err(ApiError::Status(error)) = refused else { panic!("{refused:?}") };
    assert_eq!((error.code, error.field_violations()[0].field.as_str()), (Code::InvalidArgument, "uri"));
    assert_eq!(slow.served(), 0);
    fixture.stop().await;
}
