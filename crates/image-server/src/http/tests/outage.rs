//! A database that is away: callers are told so, may come again, and lose nothing.

use super::*;
use crate::postgres::Postgres;

over_both!(a_file_that_another_process_holds, a_postgres_that_is_stopped);

/// What a caller is told.
fn assert_is_away<T: std::fmt::Debug>(answer: Result<T, ApiError>) {
    let error = answer.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    let error = refusal(Err::<(), _>(error));
    assert_eq!((error.code, error.http_status), (Code::Unavailable, 503), "{error}");
    assert_eq!(error.retry_after, Some(limits::OUTAGE_RETRY_AFTER));
    assert_eq!(error.message, "the catalog does not answer at the moment");
}

async fn a_file_that_another_process_holds(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let path = server.dir.path().join("catalog.sqlite");
    let other = sqlx::SqlitePool::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    let held = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let key = Uuid::new_v4();
    let create = async || server.client.create_image(&request("web", "disk"), key, &server.cancel).await;
    assert_is_away(create().await);
    // What is only read is there.
    let nothing = refusal(server.client.get_image("nothing", &server.cancel).await);
    assert_eq!(nothing.code, Code::NotFound);
    held.rollback().await.unwrap();
    let operation = create().await.unwrap();
    assert!(matches!(server.wait(&operation.id).await.outcome(), OperationOutcome::Succeeded(_)));
    other.close().await;
    server.stop().await;
}

async fn a_postgres_that_is_stopped(transport: Transport) {
    let Some(postgres) = Postgres::start() else { return };
    let catalog = Catalog::open_url(&postgres.database()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let server = Harness::on(transport, dir, catalog, Identity::default(), Rights::default()).await;
    let first = server.create(&request("first", "disk")).await.unwrap();
    let first = server.wait(&first.id).await;
    postgres.stop_immediately();
    let key = Uuid::new_v4();
    let create = async || server.client.create_image(&request("web", "disk"), key, &server.cancel).await;
    assert_is_away(create().await);
    assert_is_away(server.client.get_operation(&first.id, &server.cancel).await);
    postgres.run();
    assert_eq!(server.client.get_operation(&first.id, &server.cancel).await.unwrap(), first);
    let operation = create().await.unwrap();
    assert_eq!(create().await.unwrap().id, operation.id);
    assert!(matches!(server.wait(&operation.id).await.outcome(), OperationOutcome::Succeeded(_)));
    server.stop().await;
}
