//! The suite that every database passes: each test runs on SQLite and on PostgreSQL.

use std::{collections::HashMap, sync::Arc, time::Duration};

use image_api::{
    Code, compute::image::Status as ImageStatus, operation::operation::Result as Ending, unpack,
};

use super::*;
use crate::{operation::Refused, postgres::Postgres};

/// A catalog of its own.
pub(crate) struct Db {
    pub(crate) catalog: Catalog,
    place: Place,
}

/// Where it is, and what must live as long.
enum Place {
    Sqlite(tempfile::TempDir),
    Postgres { url: String, _server: Arc<Postgres> },
}

impl Db {
    pub(crate) async fn sqlite() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open_file(&dir.path().join("catalog.sqlite")).await.unwrap();
        assert!(!catalog.is_postgres());
        Some(Self { catalog, place: Place::Sqlite(dir) })
    }

    pub(crate) async fn postgres() -> Option<Self> {
        let postgres = Postgres::shared()?;
        let url = postgres.database();
        let catalog = Catalog::open_url(&url).await.unwrap();
        assert!(catalog.is_postgres());
        Some(Self { catalog, place: Place::Postgres { url, _server: postgres } })
    }

    /// The same catalog, as another process has it.
    pub(crate) async fn again(&self) -> Catalog {
        match &self.place {
            Place::Sqlite(dir) => {
                Catalog::open_file_beside(&dir.path().join("catalog.sqlite")).await.unwrap()
            }
            Place::Postgres { url, .. } => Catalog::open_url(url).await.unwrap(),
        }
    }
}

/// Runs each test on both databases.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name($crate::catalog::tests::Db::sqlite().await.unwrap()).await;
            })*
        }

        mod postgres {
            $(#[tokio::test]
            async fn $name() {
                let Some(db) = $crate::catalog::tests::Db::postgres().await else { return };
                super::$name(db).await;
            })*
        }
    };
}
pub(crate) use on_both;

mod api;
mod blocks;
mod google;
mod leases;
mod quota;

on_both![
    ready_and_done_are_one_commit,
    the_source_is_kept_as_long_as_it_is_needed,
    nothing_is_lost_when_a_worker_dies,
    a_cancel_wins_over_success,
    what_is_left_over_is_remembered,
    names,
    keys,
    a_key_is_used_once_by_a_crowd,
    deletion,
    any_number_is_looked_up,
];

const LEASE: Duration = Duration::from_secs(60);
/// One that has run out when it is looked at.
const NO_TIME: Duration = Duration::ZERO;

async fn claim(catalog: &Catalog) -> Claimed {
    // What a refused call has locked is free when its connection is back in the pool, and until then passed over.
    for _ in 0..500 {
        if let Some(claimed) = catalog.claim("owner", LEASE, Want::Any).await.unwrap() {
            return claimed;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("there is no work")
}

/// Claims all there is; the tickets by operation.
async fn claim_all(catalog: &Catalog) -> HashMap<String, Ticket> {
    let mut tickets = HashMap::new();
    while let Some(claimed) = catalog.claim("owner", LEASE, Want::Any).await.unwrap() {
        tickets.insert(claimed.ticket.id.clone(), claimed.ticket);
    }
    tickets
}

/// As if the leases had been taken long ago.
async fn let_leases_run_out(catalog: &Catalog) {
    let past = sqlx::query("UPDATE operations SET lease_until = 1 WHERE lease_until IS NOT NULL");
    past.execute(&catalog.pool).await.unwrap();
}

pub(crate) fn new_image(name: &str, key: Option<(&str, &str)>) -> NewImage {
    NewImage {
        image: Image {
            folder_id: "folder".to_owned(),
            name: name.to_owned(),
            description: "text".to_owned(),
            labels: [("k".to_owned(), "v".to_owned())].into(),
            product_ids: vec!["p".to_owned()],
            ..Image::default()
        },
        google: image_api::google::Image::default(),
        source: SourceUri::trusted("https://s/b/k?signature".to_owned()),
        wanted_disk_size: 0,
        created_by: "anonymous".to_owned(),
        key: key
            .map(|(key, digest)| IdempotencyKey { key: key.to_owned(), request_digest: digest.to_owned() }),
        limits: crate::Limits::default().queue(),
    }
}

pub(crate) async fn admit(catalog: &Catalog, name: &str) -> OperationRecord {
    match catalog.admit_create(new_image(name, None)).await.unwrap() {
        Admission::New(record) => record,
        Admission::Known(_) => panic!("no key was given"),
    }
}

const SIZES: Sizes = Sizes { storage_size: 5, min_disk_size: 8 << 20 };

async fn publish(catalog: &Catalog, ticket: &Ticket) -> Result<Image, CatalogError> {
    catalog.publish(ticket, SIZES, "manifest", "manifest").await
}

async fn ready_and_done_are_one_commit(db: Db) {
    let catalog = &db.catalog;
    let record = admit(catalog, "web").await;
    let creating = catalog.image(&record.image_id).await.unwrap();
    assert_eq!(creating.status(), ImageStatus::Creating);
    let early = Ticket { id: record.id.clone(), epoch: 0 };
    assert!(matches!(publish(catalog, &early).await, Err(CatalogError::Refused(_))), "not started");

    let Claimed { ticket, .. } = claim(catalog).await;
    let image = publish(catalog, &ticket).await.unwrap();
    assert_eq!((image.status(), image.storage_size, image.min_disk_size), (ImageStatus::Ready, 5, 8 << 20));
    assert_eq!((image.description.as_str(), image.labels["k"].as_str()), ("text", "v"));
    assert_eq!(catalog.image(&record.image_id).await.unwrap(), image);

    let operation = catalog.operation(&record.id).await.unwrap().into_message();
    assert!(operation.done);
    let Some(Ending::Response(any)) = operation.result else { panic!("no response") };
    assert_eq!(unpack::<Image>(&any).unwrap(), image);
    assert_eq!(catalog.manifest(&image.id).await.unwrap(), "manifest");
    let again = publish(catalog, &ticket).await;
    assert!(matches!(again, Err(CatalogError::Refused(Refused::State { state: State::Succeeded, .. }))));
}

async fn the_source_is_kept_as_long_as_it_is_needed(db: Db) {
    let catalog = &db.catalog;
    let record = admit(catalog, "web").await;
    let Claimed { ticket, job } = claim(catalog).await;
    assert_eq!(job.source.unwrap().expose(), "https://s/b/k?signature");
    publish(catalog, &ticket).await.unwrap();
    let mut tx = catalog.begin().await.unwrap();
    assert!(read_job(&mut tx, &record.id).await.unwrap().source.is_none());
}

async fn nothing_is_lost_when_a_worker_dies(db: Db) {
    let catalog = &db.catalog;
    let [running, cancelling, ready] =
        [admit(catalog, "b").await, admit(catalog, "c").await, admit(catalog, "d").await];
    let tickets = claim_all(catalog).await;
    let_leases_run_out(catalog).await;
    catalog.cancel(&cancelling.id).await.unwrap();
    publish(catalog, &tickets[&ready.id]).await.unwrap();
    let queued = admit(catalog, "a").await;
    // No close: a process that is killed does not say goodbye.
    let again = db.again().await;
    let after = claim_all(&again).await;
    let mut found: Vec<&String> = after.keys().collect();
    let mut expected = vec![&queued.id, &running.id, &cancelling.id];
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    let states = async |id: &str| again.operation(id).await.unwrap().state;
    assert_eq!(states(&queued.id).await, State::Running);
    assert_eq!(states(&running.id).await, State::Running);
    assert_eq!(states(&cancelling.id).await, State::Cancelling);
    assert_eq!(states(&ready.id).await, State::Succeeded);
    assert_eq!(again.image(&ready.image_id).await.unwrap().status(), ImageStatus::Ready);
}

async fn a_cancel_wins_over_success(db: Db) {
    let catalog = &db.catalog;
    let record = admit(catalog, "web").await;
    let Claimed { ticket, .. } = claim(catalog).await;
    assert_eq!(catalog.cancel(&record.id).await.unwrap().state, State::Cancelling);
    assert!(matches!(publish(catalog, &ticket).await, Err(CatalogError::Refused(_))));
    let error = Status::new(Code::Internal, "broken");
    catalog.failed(&ticket, &error, Blocks::None).await.unwrap();
    let operation = catalog.operation(&record.id).await.unwrap();
    assert_eq!(operation.state, State::Cancelled);
    assert_eq!(operation.error.unwrap().canonical_code(), Code::Cancelled);
    assert!(matches!(catalog.image(&record.image_id).await, Err(CatalogError::NoImage { .. })));
    assert_eq!(
        catalog.cancel(&record.id).await.unwrap().state,
        State::Cancelled,
        "cancelling twice is no error"
    );
}

async fn what_is_left_over_is_remembered(db: Db) {
    let catalog = &db.catalog;
    let [early, late, stopped] =
        [admit(catalog, "a").await, admit(catalog, "b").await, admit(catalog, "c").await];
    let tickets = claim_all(catalog).await;
    catalog.cancel(&stopped.id).await.unwrap();
    let error = Status::new(Code::InvalidArgument, "x");
    catalog.failed(&tickets[&early.id], &error, Blocks::None).await.unwrap();
    assert!(catalog.leftovers().await.unwrap().is_empty());
    catalog.failed(&tickets[&late.id], &error, Blocks::MayBeLeft).await.unwrap();
    catalog.stopped(&tickets[&stopped.id]).await.unwrap();
    let left = catalog.leftovers().await.unwrap();
    assert_eq!(left.len(), 2);
    catalog.collected(&left[..1]).await.unwrap();
    assert_eq!(catalog.leftovers().await.unwrap(), left[1..]);
}

async fn names(db: Db) {
    let catalog = &db.catalog;
    let first = admit(catalog, "web").await;
    let taken = catalog.admit_create(new_image("web", None)).await;
    assert!(matches!(taken, Err(CatalogError::NameTaken { image_id, .. }) if image_id == first.image_id));
    let mut elsewhere = new_image("web", None);
    elsewhere.image.folder_id = "other".to_owned();
    assert!(catalog.admit_create(elsewhere).await.is_ok());
    for _ in 0..2 {
        admit(catalog, "").await;
    }
    let tickets = claim_all(catalog).await;
    catalog.failed(&tickets[&first.id], &Status::new(Code::Internal, "x"), Blocks::None).await.unwrap();
    let second = admit(catalog, "web").await;
    publish(catalog, &claim(catalog).await.ticket).await.unwrap();
    assert!(catalog.admit_create(new_image("web", None)).await.is_err(), "READY has the name too");
    let Admission::New(_) = catalog.admit_delete(&second.image_id, "anonymous", None).await.unwrap() else {
        panic!()
    };
    admit(catalog, "web").await;
}

async fn keys(db: Db) {
    let catalog = &db.catalog;
    let Admission::New(first) = catalog.admit_create(new_image("web", Some(("k", "d")))).await.unwrap()
    else {
        panic!()
    };
    let Admission::Known(same) = catalog.admit_create(new_image("web", Some(("k", "d")))).await.unwrap()
    else {
        panic!()
    };
    assert_eq!(first, same);
    let other = catalog.admit_create(new_image("other", Some(("k", "e")))).await;
    assert!(matches!(other, Err(CatalogError::KeyReused)));

    let Claimed { ticket, .. } = claim(catalog).await;
    catalog.failed(&ticket, &Status::new(Code::Unavailable, "x"), Blocks::None).await.unwrap();
    let Admission::New(second) = catalog.admit_create(new_image("web", Some(("k", "d")))).await.unwrap()
    else {
        panic!("a failed operation frees its key")
    };
    assert_ne!(second.id, first.id);
    assert!(catalog.operation(&first.id).await.is_ok(), "the failed operation can still be looked at");
    publish(catalog, &claim(catalog).await.ticket).await.unwrap();
    let known = catalog.admit_create(new_image("web", Some(("k", "d")))).await.unwrap();
    assert!(matches!(known, Admission::Known(record) if record.id == second.id), "a success stays");
}

async fn a_key_is_used_once_by_a_crowd(db: Db) {
    let catalog = &db.catalog;
    let calls = (0..200).map(|_| {
        let catalog = catalog.clone();
        tokio::spawn(async move {
            loop {
                match catalog.admit_create(new_image("web", Some(("k", "d")))).await {
                    // On a busy machine some wait too long for a connection; a caller asks again.
                    Err(error) if error.is_outage() => {}
                    answer => break answer.unwrap(),
                }
            }
        })
    });
    let calls: Vec<_> = calls.collect();
    let (mut new, mut ids) = (0, std::collections::HashSet::new());
    for call in calls {
        match call.await.unwrap() {
            Admission::New(record) => {
                new += 1;
                ids.insert(record.id);
            }
            Admission::Known(record) => {
                ids.insert(record.id);
            }
        }
    }
    assert_eq!((new, ids.len()), (1, 1));
}

async fn any_number_is_looked_up(db: Db) {
    let (first, last) = (admit(&db.catalog, "a").await.image_id, admit(&db.catalog, "b").await.image_id);
    // More than either database takes in one statement.
    let mut ids = vec![first.clone()];
    ids.extend((0..70_000).map(|number| format!("gone{number}")));
    ids.push(last.clone());
    assert_eq!(db.catalog.with_content(ids).await.unwrap(), [first, last].into());
    assert!(db.catalog.with_content(Vec::new()).await.unwrap().is_empty());
}

async fn deletion(db: Db) {
    let catalog = &db.catalog;
    let record = admit(catalog, "web").await;
    let early = catalog.admit_delete(&record.image_id, "anonymous", None).await;
    assert!(matches!(early, Err(CatalogError::NotDeletable { status: "CREATING", .. })));
    publish(catalog, &claim(catalog).await.ticket).await.unwrap();

    let Admission::New(delete) = catalog.admit_delete(&record.image_id, "anonymous", None).await.unwrap()
    else {
        panic!()
    };
    assert_eq!(catalog.image(&record.image_id).await.unwrap().status(), ImageStatus::Deleting);
    assert!(matches!(catalog.cancel(&delete.id).await, Err(CatalogError::Refused(_))));
    let Claimed { ticket, .. } = claim(catalog).await;
    assert_eq!(ticket.id, delete.id);
    catalog.unlist(&ticket).await.unwrap();
    assert!(catalog.manifests().await.unwrap().is_empty());
    catalog.not_deleted(&ticket, &Status::new(Code::Unavailable, "x")).await.unwrap();
    assert_eq!(catalog.image(&record.image_id).await.unwrap().status(), ImageStatus::Error);

    let Admission::New(delete) = catalog.admit_delete(&record.image_id, "anonymous", None).await.unwrap()
    else {
        panic!()
    };
    catalog.deleted(&claim(catalog).await.ticket, Blocks::MayBeLeft).await.unwrap();
    assert_eq!(catalog.leftovers().await.unwrap(), std::slice::from_ref(&delete.id));
    assert!(matches!(catalog.image(&record.image_id).await, Err(CatalogError::NoImage { .. })));
    let operation = catalog.operation(&delete.id).await.unwrap().into_message();
    let Some(Ending::Response(any)) = operation.result else { panic!("no response") };
    assert_eq!(any.type_url, "type.googleapis.com/google.protobuf.Empty");
}

#[tokio::test]
async fn other_databases_are_refused_without_their_url() {
    let error = Catalog::open_url("mysql://user:secret@host/db").await.unwrap_err();
    assert!(matches!(error, CatalogError::UnsupportedUrl));
    assert!(!error.to_string().contains("secret"));
}

/// A server that the system has stopped inside a transaction, with the lock that admissions take.
#[tokio::test]
async fn who_stands_still_lets_go_of_the_locks() {
    let Some(db) = Db::postgres().await else { return };
    let other = db.again().await;
    let stopped = other.begin_admission().await.unwrap();
    // The database ends that transaction before this wait for its lock runs out.
    let admitted = tokio::time::timeout(2 * crate::limits::CATALOG_BUSY, admit(&db.catalog, "web")).await;
    admitted.expect("the lock is free again");
    drop(stopped);
}

#[tokio::test]
async fn a_file_with_any_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a ? b # c % d.sqlite");
    Catalog::open_file(&path).await.unwrap().close().await;
    assert!(path.exists());
    let names: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
}
