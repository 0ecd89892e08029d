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

on_both![
    ready_and_done_are_one_commit,
    the_source_is_kept_as_long_as_it_is_needed,
    nothing_is_lost_when_a_worker_dies,
    a_cancel_wins_over_success,
    what_is_left_over_is_remembered,
    names,
    keys,
    a_key_is_used_once_by_a_crowd,
    room_is_given_once,
    the_queue_has_an_end_and_a_folder_a_rate,
    content_is_shared_as_long_as_somebody_has_it,
    deletion,
    work_is_claimed_once_by_a_crowd,
    a_lease_ends_by_the_clock_of_the_database,
    who_lost_the_lease_writes_nothing,
    what_is_handed_back_is_taken_at_once,
    a_cancel_is_seen_by_the_owner,
    light_work_needs_no_place,
    progress_is_taken_over,
    progress_of_another_source_is_forgotten,
    claims_end_with_the_operation,
    one_side_sees_the_other,
    sentences,
    manifests_in_use,
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

fn new_image(name: &str, key: Option<(&str, &str)>) -> NewImage {
    NewImage {
        image: Image {
            folder_id: "folder".to_owned(),
            name: name.to_owned(),
            description: "text".to_owned(),
            labels: [("k".to_owned(), "v".to_owned())].into(),
            product_ids: vec!["p".to_owned()],
            ..Image::default()
        },
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
        tokio::spawn(async move { catalog.admit_create(new_image("web", Some(("k", "d")))).await.unwrap() })
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

async fn work_is_claimed_once_by_a_crowd(db: Db) {
    for _ in 0..20 {
        admit(&db.catalog, "").await;
    }
    let others = [db.again().await, db.again().await, db.catalog.clone()];
    let takers = others.iter().cycle().take(9).cloned().map(|catalog| {
        tokio::spawn(async move {
            let mut mine = Vec::new();
            while let Some(claimed) = catalog.claim("owner", LEASE, Want::Any).await.unwrap() {
                assert_eq!((claimed.ticket.epoch, claimed.is_repeated()), (1, false));
                mine.push(claimed.ticket.id);
            }
            mine
        })
    });
    let takers: Vec<_> = takers.collect();
    let mut all = Vec::new();
    for taker in takers {
        all.extend(taker.await.unwrap());
    }
    // One that passed over a row that another had locked may have found nothing, and the other may have given it up.
    all.extend(claim_all(&db.catalog).await.into_keys());
    let distinct: std::collections::HashSet<&String> = all.iter().collect();
    assert_eq!((all.len(), distinct.len()), (20, 20));
}

async fn a_lease_ends_by_the_clock_of_the_database(db: Db) {
    let catalog = &db.catalog;
    let by_ours = now();
    assert!((catalog.clock().await - by_ours).abs() < 60_000_000, "microseconds since 1970");
    admit(catalog, "web").await;
    let lease = Duration::from_millis(400);
    let first = catalog.claim("first", lease, Want::Any).await.unwrap().unwrap();
    let begun = std::time::Instant::now();
    assert!(catalog.claim("second", lease, Want::Any).await.unwrap().is_none());
    tokio::time::sleep(lease / 2).await;
    catalog.renew(&first.ticket, lease).await.unwrap();
    let second = loop {
        if let Some(second) = catalog.claim("second", LEASE, Want::Any).await.unwrap() {
            break second;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(begun.elapsed() >= lease * 3 / 2, "{:?}", begun.elapsed());
    assert_eq!((second.ticket.epoch, second.is_repeated()), (2, true));
}

async fn who_lost_the_lease_writes_nothing(db: Db) {
    let catalog = &db.catalog;
    let record = admit(catalog, "web").await;
    let loser = catalog.claim("loser", NO_TIME, Want::Any).await.unwrap().unwrap().ticket;
    // A lease that has run out and that nobody took is still one.
    catalog.renew(&loser, NO_TIME).await.unwrap();
    let winner = claim(catalog).await.ticket;
    assert_eq!((&winner.id, winner.epoch), (&loser.id, 2));
    let attempt = Attempt { image_id: record.image_id.clone(), epoch: loser.epoch };
    let status = Status::new(Code::Internal, "x");
    let refused = [
        catalog.renew(&loser, LEASE).await,
        catalog.release(&loser).await,
        publish(catalog, &loser).await.map(drop),
        catalog.failed(&loser, &status, Blocks::None).await,
        catalog.stopped(&loser).await,
        catalog.begin_reading(&attempt, "v").await.map(drop),
        catalog.claim_blocks(&attempt, &[(0, Some([1; 32]))], &[]).await.map(drop),
    ];
    for (number, refused) in refused.into_iter().enumerate() {
        let lost = matches!(refused, Err(CatalogError::Refused(Refused::LeaseLost { held: 1, current: 2 })));
        assert!(lost, "{number}: {refused:?}");
    }
    publish(catalog, &winner).await.unwrap();
    assert!(catalog.all_claimed().await.unwrap().is_empty());
    // Also when all is over.
    assert!(matches!(publish(catalog, &loser).await, Err(CatalogError::Refused(Refused::LeaseLost { .. }))));
}

async fn what_is_handed_back_is_taken_at_once(db: Db) {
    let catalog = &db.catalog;
    let record = admit(catalog, "web").await;
    let first = claim(catalog).await.ticket;
    catalog.release(&first).await.unwrap();
    assert_eq!(catalog.operation(&record.id).await.unwrap().state, State::Queued);
    let second = claim(catalog).await;
    assert!(second.ticket.epoch > first.epoch && second.is_repeated());
    assert!(matches!(catalog.release(&first).await, Err(CatalogError::Refused(Refused::LeaseLost { .. }))));
    catalog.free_leases().await.unwrap();
    assert_eq!(claim(catalog).await.ticket.epoch, second.ticket.epoch + 1);
}

async fn a_cancel_is_seen_by_the_owner(db: Db) {
    let catalog = &db.catalog;
    let record = admit(catalog, "web").await;
    let ticket = claim(catalog).await.ticket;
    let watch = async || catalog.watch([record.id.clone()]).await.unwrap()[&record.id];
    assert_eq!(watch().await, (1, State::Running));
    db.again().await.cancel(&record.id).await.unwrap();
    assert_eq!(watch().await, (1, State::Cancelling));
    catalog.renew(&ticket, LEASE).await.unwrap();
    assert!(catalog.claim("other", LEASE, Want::Any).await.unwrap().is_none(), "its owner takes it back");
    catalog.stopped(&ticket).await.unwrap();
    assert_eq!(watch().await, (1, State::Cancelled));
}

async fn light_work_needs_no_place(db: Db) {
    let catalog = &db.catalog;
    let ready = admit(catalog, "ready").await;
    publish(catalog, &claim(catalog).await.ticket).await.unwrap();
    let heavy = admit(catalog, "heavy").await;
    let cancelled = admit(catalog, "cancelled").await;
    catalog.cancel(&cancelled.id).await.unwrap();
    let Admission::New(delete) = catalog.admit_delete(&ready.image_id, "anonymous", None).await.unwrap()
    else {
        panic!()
    };
    let mut light = Vec::new();
    while let Some(claimed) = catalog.claim("owner", LEASE, Want::Light).await.unwrap() {
        light.push(claimed.ticket.id);
    }
    assert_eq!(light, [cancelled.id, delete.id]);
    assert_eq!(claim(catalog).await.ticket.id, heavy.id);
}

/// The creation of an image, and the attempt at it that its latest lease is.
async fn begin_ingest(catalog: &Catalog, lease: Duration) -> (Ticket, Attempt) {
    let claimed = catalog.claim("owner", lease, Want::Any).await.unwrap().unwrap();
    let attempt = Attempt { image_id: claimed.job.image_id, epoch: claimed.ticket.epoch };
    assert_eq!(Attempt::parse(&attempt.to_string()).as_ref(), Some(&attempt));
    (claimed.ticket, attempt)
}

async fn progress_is_taken_over(db: Db) {
    let catalog = &db.catalog;
    admit(catalog, "web").await;
    let (_, first) = begin_ingest(catalog, NO_TIME).await;
    assert!(catalog.begin_reading(&first, "v1").await.unwrap().is_empty());
    let parts = [(0, Some([1; 32])), (1, None), (2, Some([2; 32])), (7, Some([1; 32]))];
    catalog.claim_blocks(&first, &parts, &[]).await.unwrap();
    catalog.claim_blocks(&first, &[(8, Some([3; 32]))], &[0, 1, 7]).await.unwrap();
    let (ticket, second) = begin_ingest(catalog, LEASE).await;
    let known = catalog.begin_reading(&second, "v1").await.unwrap();
    assert_eq!(known, [(0, Some([1; 32])), (1, None), (7, Some([1; 32]))].into());
    assert_eq!(
        catalog.all_claimed().await.unwrap(),
        [[1; 32]].into(),
        "what may not be stored is claimed anew"
    );
    publish(catalog, &ticket).await.unwrap();
}

async fn progress_of_another_source_is_forgotten(db: Db) {
    let catalog = &db.catalog;
    admit(catalog, "web").await;
    let mut before = None;
    // Another version, and one that says nothing.
    for (version, kept) in [("v1", 0), ("v1", 1), ("v2", 0), ("", 0), ("", 0)] {
        let (ticket, attempt) = begin_ingest(catalog, LEASE).await;
        assert_ne!(before, Some(attempt.epoch));
        before = Some(attempt.epoch);
        assert_eq!(catalog.begin_reading(&attempt, version).await.unwrap().len(), kept, "{version}");
        catalog.claim_blocks(&attempt, &[(0, Some([1; 32]))], &[]).await.unwrap();
        catalog.claim_blocks(&attempt, &[], &[0]).await.unwrap();
        catalog.release(&ticket).await.unwrap();
    }
}

async fn claims_end_with_the_operation(db: Db) {
    let catalog = &db.catalog;
    let block = [4; 32];
    for end in 0..3 {
        let record = admit(catalog, "").await;
        let (ticket, attempt) = begin_ingest(catalog, LEASE).await;
        catalog.claim_blocks(&attempt, &[(0, Some(block)), (1, Some(block))], &[]).await.unwrap();
        assert_eq!(catalog.claimed(&[block, [5; 32]]).await.unwrap(), [block].into());
        match end {
            0 => drop(publish(catalog, &ticket).await.unwrap()),
            1 => catalog.failed(&ticket, &Status::new(Code::Internal, "x"), Blocks::MayBeLeft).await.unwrap(),
            _ => {
                catalog.cancel(&record.id).await.unwrap();
                catalog.stopped(&ticket).await.unwrap();
            }
        }
        assert!(catalog.claimed(&[block]).await.unwrap().is_empty());
        // A put that comes too late leaves no claim that would last for ever.
        let late = catalog.claim_blocks(&attempt, &[(2, Some(block))], &[]).await;
        assert!(matches!(late, Err(CatalogError::Refused(_))), "{late:?}");
        assert!(catalog.all_claimed().await.unwrap().is_empty());
    }
}

async fn one_side_sees_the_other(db: Db) {
    let catalog = &db.catalog;
    admit(catalog, "web").await;
    let (_, attempt) = begin_ingest(catalog, LEASE).await;
    for round in 0..20_u8 {
        let block = [round; 32];
        let other = db.catalog.clone();
        let condemn = tokio::spawn(async move {
            let mine = other.condemn("collector", &[block]).await.unwrap();
            assert_eq!(mine, [block]);
            other.claimed(&mine).await.unwrap().contains(&block)
        });
        let condemned =
            catalog.claim_blocks(&attempt, &[(u32::from(round), Some(block))], &[]).await.unwrap();
        let is_claimed = condemn.await.unwrap();
        assert!(is_claimed || condemned.contains(&block), "nobody saw the other");
    }
}

async fn sentences(db: Db) {
    let catalog = &db.catalog;
    let blocks = [[1; 32], [2; 32], [3; 32]];
    assert_eq!(catalog.condemn("one", &blocks[..2]).await.unwrap().len(), 2);
    assert_eq!(catalog.condemn("two", &blocks).await.unwrap(), [[3; 32]], "the others are another's");
    assert_eq!(catalog.condemned(&blocks).await.unwrap(), blocks.into());
    catalog.acquit("two", &blocks).await.unwrap();
    assert_eq!(catalog.condemned(&blocks).await.unwrap(), [[1; 32], [2; 32]].into());
    // A collector that died.
    sqlx::query(
        "UPDATE condemned_blocks SET condemned_at = condemned_at - 3600000000 WHERE block_id LIKE '01%'",
    )
    .execute(&catalog.pool)
    .await
    .unwrap();
    assert_eq!(catalog.condemned(&blocks).await.unwrap(), [[2; 32]].into(), "a sentence runs out");
    assert_eq!(catalog.condemn("two", &blocks).await.unwrap().len(), 2);
    catalog.acquit("one", &[[1; 32]]).await.unwrap();
    assert!(catalog.condemned(&[[1; 32]]).await.unwrap().contains(&[1; 32]), "it is two's now");
}

async fn manifests_in_use(db: Db) {
    let catalog = &db.catalog;
    let record = admit(catalog, "web").await;
    let name = |epoch: i64| format!("{}.{epoch}", record.image_id);
    assert_eq!(catalog.manifests().await.unwrap(), [name(0)].into());
    catalog.claim("owner", NO_TIME, Want::Any).await.unwrap().unwrap();
    assert_eq!(catalog.manifests().await.unwrap(), [name(1)].into());
    let ticket = claim(catalog).await.ticket;
    assert_eq!(
        catalog.manifests().await.unwrap(),
        [name(2)].into(),
        "what the first attempt saves is nobody's"
    );
    catalog.publish(&ticket, SIZES, &name(2), &name(2)).await.unwrap();
    assert_eq!(catalog.manifests().await.unwrap(), [name(2)].into());
    let published = catalog.published().await.unwrap();
    let [image] = &published[..] else { panic!("{published:?}") };
    assert_eq!((&image.image_id, &image.manifest, image.storage_size), (&record.image_id, &name(2), 5));
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

const WIDE: QueueLimits = QueueLimits { unfinished: 100, creates_per_second: 100 };

async fn admit_to(
    catalog: &Catalog,
    folder_id: &str,
    limits: QueueLimits,
) -> Result<OperationRecord, CatalogError> {
    let image = Image { folder_id: folder_id.to_owned(), ..Image::default() };
    match catalog.admit_create(NewImage { image, limits, ..new_image("", None) }).await? {
        Admission::New(record) => Ok(record),
        Admission::Known(record) => panic!("{record:?}"),
    }
}

async fn room_is_given_once(db: Db) {
    let catalog = &db.catalog;
    let first = admit_to(catalog, "a", WIDE).await.unwrap();
    let second = admit_to(catalog, "a", WIDE).await.unwrap();
    let elsewhere = admit_to(catalog, "b", WIDE).await.unwrap();
    let reserve = async |of: &OperationRecord, epoch, bytes| {
        let attempt = Attempt { image_id: of.image_id.clone(), epoch };
        catalog.reserve(&attempt, bytes, 100).await
    };
    let early = reserve(&first, 0, 1).await;
    assert!(matches!(early, Err(CatalogError::Refused(_))), "nobody works on it: {early:?}");
    let mut tickets = claim_all(catalog).await;
    assert_eq!(reserve(&first, 1, 60).await.unwrap(), Room::Reserved);
    let lacking = Room::Lacking { folder_id: "a".to_owned(), used: 60 };
    assert_eq!(reserve(&second, 1, 41).await.unwrap(), lacking);
    assert_eq!(reserve(&elsewhere, 1, 100).await.unwrap(), Room::Reserved);
    assert_eq!(reserve(&second, 1, 40).await.unwrap(), Room::Reserved);
    // What is there in the end counts, not what might have come.
    let sizes = Sizes { storage_size: 10, min_disk_size: 4 << 20 };
    let ticket = tickets.remove(&first.id).unwrap();
    catalog.publish(&ticket, sizes, "manifest", "manifest").await.unwrap();
    assert_eq!(reserve(&second, 1, 90).await.unwrap(), Room::Reserved);
    assert!(matches!(reserve(&first, 1, 1).await, Err(CatalogError::Refused(_))), "it is published");
    // Who has lost the lease changes nothing of the one who has it.
    let_leases_run_out(catalog).await;
    let epochs = claim_all(catalog).await;
    assert_eq!(epochs[&second.id].epoch, 2);
    assert!(matches!(reserve(&second, 1, 1).await, Err(CatalogError::Refused(Refused::LeaseLost { .. }))));
    assert_eq!(reserve(&second, 2, 90).await.unwrap(), Room::Reserved);
}

async fn the_queue_has_an_end_and_a_folder_a_rate(db: Db) {
    let catalog = &db.catalog;
    let short = QueueLimits { unfinished: 2, creates_per_second: 100 };
    admit_to(catalog, "a", short).await.unwrap();
    admit_to(catalog, "b", short).await.unwrap();
    let full = admit_to(catalog, "c", short).await.unwrap_err();
    assert!(matches!(full, CatalogError::QueueFull { found: 2, limit: 2 }), "{full:?}");
    assert!(full.to_string().contains("(limit queued-operations)"), "{full}");
    let slow = QueueLimits { creates_per_second: 1, ..WIDE };
    for _ in 0..10 {
        admit_to(catalog, "d", slow).await.unwrap();
    }
    let fast = admit_to(catalog, "d", slow).await.unwrap_err();
    assert!(matches!(fast, CatalogError::TooFast { found: 10, limit: 10, .. }), "{fast:?}");
    assert!(fast.to_string().contains("(limit creates-per-second)"), "{fast}");
    admit_to(catalog, "e", slow).await.unwrap();
}

async fn content_is_shared_as_long_as_somebody_has_it(db: Db) {
    let catalog = &db.catalog;
    let first = admit(catalog, "first").await;
    catalog.publish(&claim(catalog).await.ticket, SIZES, "m.1", "m.1").await.unwrap();
    let second = admit(catalog, "second").await;
    let third = admit(catalog, "third").await;
    let mut tickets = claim_all(catalog).await;
    let shared = tickets.remove(&second.id).unwrap();
    catalog.publish(&shared, SIZES, "own", "m.1").await.unwrap();
    assert_eq!(catalog.manifest(&second.image_id).await.unwrap(), "m.1");
    // The first one goes, and the content stays.
    catalog.admit_delete(&first.image_id, "anonymous", None).await.unwrap();
    let delete = claim(catalog).await.ticket;
    catalog.unlist(&delete).await.unwrap();
    assert!(catalog.manifests().await.unwrap().contains("m.1"));
    catalog.deleted(&delete, Blocks::None).await.unwrap();
    // With the second one it goes, and nobody can have it any more.
    catalog.admit_delete(&second.image_id, "anonymous", None).await.unwrap();
    catalog.unlist(&claim(catalog).await.ticket).await.unwrap();
    assert!(!catalog.manifests().await.unwrap().contains("m.1"));
    let late = catalog.publish(&tickets.remove(&third.id).unwrap(), SIZES, "own", "m.1").await;
    assert!(matches!(late, Err(CatalogError::ContentGone { .. })), "{late:?}");
}
