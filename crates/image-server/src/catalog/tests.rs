//! Tests of the catalog.

use image_api::{
    Code, compute::image::Status as ImageStatus, operation::operation::Result as Ending, unpack,
};

use super::*;

async fn catalog() -> (tempfile::TempDir, Catalog) {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::open_file(&dir.path().join("catalog.sqlite")).await.unwrap();
    (dir, catalog)
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

async fn admit(catalog: &Catalog, name: &str) -> OperationRecord {
    match catalog.admit_create(new_image(name, None)).await.unwrap() {
        Admission::New(record) => record,
        Admission::Known(_) => panic!("no key was given"),
    }
}

const SIZES: Sizes = Sizes { storage_size: 5, min_disk_size: 8 << 20 };

#[tokio::test]
async fn ready_and_done_are_one_commit() {
    let (_dir, catalog) = catalog().await;
    let record = admit(&catalog, "web").await;
    let creating = catalog.image(&record.image_id).await.unwrap();
    assert_eq!(creating.status(), ImageStatus::Creating);
    assert!(matches!(catalog.publish(&record.id, SIZES).await, Err(CatalogError::Refused(_))), "not started");

    catalog.start(&record.id).await.unwrap();
    let image = catalog.publish(&record.id, SIZES).await.unwrap();
    assert_eq!((image.status(), image.storage_size, image.min_disk_size), (ImageStatus::Ready, 5, 8 << 20));
    assert_eq!((image.description.as_str(), image.labels["k"].as_str()), ("text", "v"));
    assert_eq!(catalog.image(&record.image_id).await.unwrap(), image);

    let operation = catalog.operation(&record.id).await.unwrap().into_message();
    assert!(operation.done);
    let Some(Ending::Response(any)) = operation.result else { panic!("no response") };
    assert_eq!(unpack::<Image>(&any).unwrap(), image);
    assert!(catalog.publish(&record.id, SIZES).await.is_err(), "an end is an end");
}

#[tokio::test]
async fn the_source_is_kept_as_long_as_it_is_needed() {
    let (_dir, catalog) = catalog().await;
    let record = admit(&catalog, "web").await;
    let source = catalog.job(&record.id).await.unwrap().source;
    assert_eq!(source.unwrap().expose(), "https://s/b/k?signature");
    catalog.start(&record.id).await.unwrap();
    catalog.publish(&record.id, SIZES).await.unwrap();
    assert!(catalog.job(&record.id).await.unwrap().source.is_none());
}

#[tokio::test]
async fn nothing_is_lost_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.sqlite");
    let catalog = Catalog::open_file(&path).await.unwrap();
    let [queued, running, cancelling, ready] = [
        admit(&catalog, "a").await,
        admit(&catalog, "b").await,
        admit(&catalog, "c").await,
        admit(&catalog, "d").await,
    ];
    for record in [&running, &cancelling, &ready] {
        catalog.start(&record.id).await.unwrap();
    }
    catalog.cancel(&cancelling.id).await.unwrap();
    catalog.publish(&ready.id, SIZES).await.unwrap();
    // No close: a process that is killed does not say goodbye.
    let again = Catalog::open_file(&path).await.unwrap();
    assert_eq!(
        again.requeue().await.unwrap(),
        [queued.id.clone(), running.id.clone(), cancelling.id.clone()]
    );
    let states = async |id: &str| again.operation(id).await.unwrap().state;
    assert_eq!(states(&queued.id).await, State::Queued);
    assert_eq!(states(&running.id).await, State::Queued);
    assert_eq!(states(&cancelling.id).await, State::Cancelling);
    assert_eq!(states(&ready.id).await, State::Succeeded);
    assert_eq!(again.image(&ready.image_id).await.unwrap().status(), ImageStatus::Ready);
}

#[tokio::test]
async fn a_cancel_wins_over_success() {
    let (_dir, catalog) = catalog().await;
    let record = admit(&catalog, "web").await;
    catalog.start(&record.id).await.unwrap();
    assert_eq!(catalog.cancel(&record.id).await.unwrap().state, State::Cancelling);
    assert!(matches!(catalog.publish(&record.id, SIZES).await, Err(CatalogError::Refused(_))));
    let error = Status::new(Code::Internal, "broken");
    catalog.failed(&record.id, &error, Blocks::None).await.unwrap();
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

#[tokio::test]
async fn what_is_left_over_is_remembered() {
    let (_dir, catalog) = catalog().await;
    let [early, late, stopped] =
        [admit(&catalog, "a").await, admit(&catalog, "b").await, admit(&catalog, "c").await];
    for record in [&early, &late, &stopped] {
        catalog.start(&record.id).await.unwrap();
    }
    catalog.cancel(&stopped.id).await.unwrap();
    let error = Status::new(Code::InvalidArgument, "x");
    catalog.failed(&early.id, &error, Blocks::None).await.unwrap();
    assert!(catalog.leftovers().await.unwrap().is_empty());
    catalog.failed(&late.id, &error, Blocks::MayBeLeft).await.unwrap();
    catalog.stopped(&stopped.id).await.unwrap();
    let left = catalog.leftovers().await.unwrap();
    assert_eq!(left.len(), 2);
    catalog.collected(&left[..1]).await.unwrap();
    assert_eq!(catalog.leftovers().await.unwrap(), left[1..]);
}

#[tokio::test]
async fn names() {
    let (_dir, catalog) = catalog().await;
    let first = admit(&catalog, "web").await;
    let taken = catalog.admit_create(new_image("web", None)).await;
    assert!(matches!(taken, Err(CatalogError::NameTaken { image_id, .. }) if image_id == first.image_id));
    let mut elsewhere = new_image("web", None);
    elsewhere.image.folder_id = "other".to_owned();
    assert!(catalog.admit_create(elsewhere).await.is_ok());
    for _ in 0..2 {
        admit(&catalog, "").await;
    }
    catalog.start(&first.id).await.unwrap();
    catalog.failed(&first.id, &Status::new(Code::Internal, "x"), Blocks::None).await.unwrap();
    let second = admit(&catalog, "web").await;
    catalog.start(&second.id).await.unwrap();
    catalog.publish(&second.id, SIZES).await.unwrap();
    assert!(catalog.admit_create(new_image("web", None)).await.is_err(), "READY has the name too");
    let Admission::New(_) = catalog.admit_delete(&second.image_id, "anonymous", None).await.unwrap() else {
        panic!()
    };
    admit(&catalog, "web").await;
}

#[tokio::test]
async fn keys() {
    let (_dir, catalog) = catalog().await;
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

    catalog.start(&first.id).await.unwrap();
    catalog.failed(&first.id, &Status::new(Code::Unavailable, "x"), Blocks::None).await.unwrap();
    let Admission::New(second) = catalog.admit_create(new_image("web", Some(("k", "d")))).await.unwrap()
    else {
        panic!("a failed operation frees its key")
    };
    assert_ne!(second.id, first.id);
    assert!(catalog.operation(&first.id).await.is_ok(), "the failed operation can still be looked at");
    catalog.start(&second.id).await.unwrap();
    catalog.publish(&second.id, SIZES).await.unwrap();
    let known = catalog.admit_create(new_image("web", Some(("k", "d")))).await.unwrap();
    assert!(matches!(known, Admission::Known(record) if record.id == second.id), "a success stays");
}

#[tokio::test]
async fn a_key_is_used_once_by_a_crowd() {
    let (_dir, catalog) = catalog().await;
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

#[tokio::test]
async fn deletion() {
    let (_dir, catalog) = catalog().await;
    let record = admit(&catalog, "web").await;
    let early = catalog.admit_delete(&record.image_id, "anonymous", None).await;
    assert!(matches!(early, Err(CatalogError::NotDeletable { status: "CREATING", .. })));
    catalog.start(&record.id).await.unwrap();
    catalog.publish(&record.id, SIZES).await.unwrap();

    let Admission::New(delete) = catalog.admit_delete(&record.image_id, "anonymous", None).await.unwrap()
    else {
        panic!()
    };
    assert_eq!(catalog.image(&record.image_id).await.unwrap().status(), ImageStatus::Deleting);
    assert!(matches!(catalog.cancel(&delete.id).await, Err(CatalogError::Refused(_))));
    catalog.start(&delete.id).await.unwrap();
    catalog.not_deleted(&delete.id, &Status::new(Code::Unavailable, "x")).await.unwrap();
    assert_eq!(catalog.image(&record.image_id).await.unwrap().status(), ImageStatus::Error);

    let Admission::New(delete) = catalog.admit_delete(&record.image_id, "anonymous", None).await.unwrap()
    else {
        panic!()
    };
    catalog.start(&delete.id).await.unwrap();
    catalog.deleted(&delete.id).await.unwrap();
    assert!(matches!(catalog.image(&record.image_id).await, Err(CatalogError::NoImage { .. })));
    let operation = catalog.operation(&delete.id).await.unwrap().into_message();
    let Some(Ending::Response(any)) = operation.result else { panic!("no response") };
    assert_eq!(any.type_url, "type.googleapis.com/google.protobuf.Empty");
}

#[tokio::test]
async fn other_databases_are_refused_without_their_url() {
    let error = Catalog::open_url("postgres://user:secret@host/db").await.unwrap_err();
    assert!(matches!(error, CatalogError::UnsupportedUrl));
    assert!(!error.to_string().contains("secret"));
}
