//! Operations: repeated, cancelled, interrupted, continued.

use super::*;

over_both!(
    a_repeated_call_gives_the_same_operation,
    a_key_whose_operation_failed_starts_anew,
    cancel_while_it_runs,
    cancel_at_the_last_moment_wins,
    four_run_and_the_rest_wait,
    a_restart_continues,
    what_an_earlier_run_stored_goes_with_the_failure,
    a_catalog_that_fails_for_a_moment_delays_an_operation,
    a_cancel_before_a_crash_is_kept,
);

async fn a_repeated_call_gives_the_same_operation(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let key = Uuid::new_v4();
    let first = server.client.create_image(&request("web", "disk"), key, &server.cancel).await.unwrap();
    server.wait(&first.id).await;
    // Another signing of the same object is the same request.
    let source = Some(Source::Uri(format!("{HOST}/disk?X-Amz-Signature=another")));
    let again = CreateImageRequest { source, ..request("web", "") };
    let second = server.client.create_image(&again, key, &server.cancel).await.unwrap();
    assert_eq!(first.id, second.id);
    // Another version of it is not.
    let source = Some(Source::Uri(format!("{HOST}/disk?versionId=2&X-Amz-Signature=another")));
    let version = CreateImageRequest { source, ..request("web", "") };
    let error = refusal(server.client.create_image(&version, key, &server.cancel).await);
    assert_eq!((error.code, error.http_status), (Code::AlreadyExists, 409));
    let error = refusal(server.client.create_image(&request("other", "disk"), key, &server.cancel).await);
    assert_eq!((error.code, error.http_status), (Code::AlreadyExists, 409));
    let error = refusal(server.create(&request("web", "disk")).await);
    assert_eq!((error.code, error.http_status), (Code::AlreadyExists, 409), "the name is taken");
    assert_eq!(server.fake.ingests.load(Ordering::SeqCst), 1);
    server.stop().await;
}

async fn a_key_whose_operation_failed_starts_anew(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let key = Uuid::new_v4();
    let first = server.client.create_image(&request("web", "panic"), key, &server.cancel).await.unwrap();
    let status = failure(&server.wait(&first.id).await);
    assert_eq!(status.canonical_code(), Code::Internal, "a panic ends the operation too");
    let second = server.client.create_image(&request("web", "disk"), key, &server.cancel).await.unwrap();
    assert_ne!(first.id, second.id);
    assert!(matches!(server.wait(&second.id).await.outcome(), OperationOutcome::Succeeded(_)));
    server.stop().await;
}

async fn cancel_while_it_runs(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let operation = server.create(&request("web", "slow")).await.unwrap();
    server.until_running(1).await;
    server.client.cancel_operation(&operation.id, &server.cancel).await.unwrap();
    let status = failure(&server.wait(&operation.id).await);
    assert_eq!(status.canonical_code(), Code::Cancelled);
    let image_id = operation.metadata_as::<CreateImageMetadata>().unwrap().image_id;
    assert_eq!(refusal(server.client.get_image(&image_id, &server.cancel).await).code, Code::NotFound);
    server.until_collected(1).await;
    let again = server.client.cancel_operation(&operation.id, &server.cancel).await.unwrap();
    assert!(again.done, "cancelling what has ended shows how it ended");
    server.stop().await;
}

async fn cancel_at_the_last_moment_wins(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let operation = server.create(&request("web", "deaf")).await.unwrap();
    server.until_running(1).await;
    let answer = server.client.cancel_operation(&operation.id, &server.cancel).await.unwrap();
    assert!(!answer.done);
    server.fake.go_on.notify_one();
    assert_eq!(failure(&server.wait(&operation.id).await).canonical_code(), Code::Cancelled);
    server.until_collected(1).await;
    server.stop().await;
}

async fn four_run_and_the_rest_wait(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let mut operations = Vec::new();
    for _ in 0..6 {
        operations.push(server.create(&request("", "slow")).await.unwrap());
    }
    server.until_running(limits::RUNNING_INGESTS).await;
    // One that waits is cancelled at once, without a place.
    let last = operations.pop().unwrap();
    server.client.cancel_operation(&last.id, &server.cancel).await.unwrap();
    assert_eq!(failure(&server.wait(&last.id).await).canonical_code(), Code::Cancelled);
    for _ in 0..limits::RUNNING_INGESTS {
        server.fake.go_on.notify_one();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.until_running(1).await;
    server.fake.go_on.notify_one();
    for operation in &operations {
        assert!(matches!(server.wait(&operation.id).await.outcome(), OperationOutcome::Succeeded(_)));
    }
    assert_eq!(server.fake.most.load(Ordering::SeqCst), limits::RUNNING_INGESTS);
    assert_eq!(server.fake.ingests.load(Ordering::SeqCst), 5);
    server.stop().await;
}

async fn a_restart_continues(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let goes_on = server.create(&request("web", "slow")).await.unwrap();
    server.until_running(1).await;
    let server = Harness::over(transport, server.stop().await, &[]).await;
    server.until_running(1).await;
    let seen = server.client.get_operation(&goes_on.id, &server.cancel).await.unwrap();
    assert!(!seen.done);
    server.fake.go_on.notify_one();
    assert!(matches!(server.wait(&goes_on.id).await.outcome(), OperationOutcome::Succeeded(_)));
    server.stop().await;
}

async fn what_an_earlier_run_stored_goes_with_the_failure(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let small = CreateImageRequest { min_disk_size: 4 << 20, ..request("web", "slow") };
    let operation = server.create(&small).await.unwrap();
    server.until_running(1).await;
    // The first run may have stored everything, up to the manifest; the second one is refused before its first block.
    let server = Harness::over(transport, server.stop().await, &[]).await;
    server.until_running(1).await;
    server.fake.go_on.notify_one();
    assert_eq!(failure(&server.wait(&operation.id).await).canonical_code(), Code::InvalidArgument);
    server.until_collected(1).await;
    server.stop().await;
}

async fn a_catalog_that_fails_for_a_moment_delays_an_operation(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let path = server.dir.path().join("catalog.sqlite");
    let database = sqlx::SqlitePool::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    let full = "CREATE TRIGGER full BEFORE UPDATE ON operations WHEN NEW.state = 'RUNNING' \
                BEGIN SELECT RAISE(FAIL, 'disk full'); END";
    sqlx::query(full).execute(&database).await.unwrap();
    let operation = server.create(&request("web", "disk")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.fake.ingests.load(Ordering::SeqCst), 0);
    sqlx::query("DROP TRIGGER full").execute(&database).await.unwrap();
    assert!(matches!(server.wait(&operation.id).await.outcome(), OperationOutcome::Succeeded(_)));
    database.close().await;
    server.stop().await;
}

async fn a_cancel_before_a_crash_is_kept(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let operation = server.create(&request("web", "deaf")).await.unwrap();
    server.until_running(1).await;
    server.app.catalog.cancel(&operation.id).await.unwrap();
    // The catalog is opened again while the first server still holds it, as after a crash: nothing was said goodbye to.
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(server.dir.path().join("catalog.sqlite"), dir.path().join("catalog.sqlite")).unwrap();
    std::fs::copy(server.dir.path().join("catalog.sqlite-wal"), dir.path().join("catalog.sqlite-wal"))
        .unwrap();
    let after = Harness::over(transport, dir, &[]).await;
    assert_eq!(failure(&after.wait(&operation.id).await).canonical_code(), Code::Cancelled);
    assert_eq!(after.fake.ingests.load(Ordering::SeqCst), 0, "nothing is downloaded for it again");
    after.until_collected(1).await;
    after.stop().await;
    server.fake.go_on.notify_one();
    server.stop().await;
}
