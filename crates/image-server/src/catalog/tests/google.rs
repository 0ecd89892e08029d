//! What Compute Engine's API keeps, on both databases.

use image_api::google::{self, GuestOsFeature};

use super::*;
use crate::operation::Kind;

on_both![
    what_is_kept_comes_back,
    operations_say_what_they_were_about,
    names_lead_to_the_image_that_is_there,
    labels_change_from_what_they_were,
    how_far_an_operation_is,
];

fn extras() -> google::Image {
    google::Image {
        architecture: Some("ARM64".to_owned()),
        licenses: vec!["l".to_owned()],
        guest_os_features: vec![GuestOsFeature { r#type: Some("GVNIC".to_owned()) }],
        ..google::Image::default()
    }
}

async fn ready(catalog: &Catalog, new: NewImage) -> Image {
    catalog.admit_create(new).await.unwrap();
    let Claimed { ticket, .. } = claim(catalog).await;
    publish(catalog, &ticket).await.unwrap()
}

fn asked() -> Asked<'static> {
    Asked { by: "somebody", key: None }
}

async fn what_is_kept_comes_back(db: Db) {
    let mut new = NewImage { google: extras(), ..new_image("web", None) };
    new.image.family = "linux".to_owned();
    let image = ready(&db.catalog, new).await;
    let catalog = db.again().await;
    let shown = catalog.image_named("folder", "web").await.unwrap().unwrap();
    assert_eq!((&shown.image, &shown.google), (&image, &extras()));
    assert_eq!(catalog.latest_of_family("folder", "linux").await.unwrap(), Some(shown.clone()));
    let edit = ImageEdit { family: Some("other".to_owned()), ..ImageEdit::default() };
    catalog.update_image(&image.id, edit, asked()).await.unwrap();
    assert_eq!(catalog.latest_of_family("folder", "linux").await.unwrap(), None);
    let query = ListQuery {
        folder_id: "folder".to_owned(),
        conditions: Vec::new(),
        order: Column::Name,
        direction: Direction::Ascending,
        after: None,
        limit: 10,
    };
    let listed = catalog.images_shown(&query).await.unwrap();
    assert_eq!((listed.len(), &listed[0].google), (1, &extras()));
    assert_eq!(listed[0].image.family, "other");
}

async fn operations_say_what_they_were_about(db: Db) {
    let catalog = &db.catalog;
    let image = ready(catalog, new_image("web", Some(("anonymous/key", "d")))).await;
    let change = catalog.update_image(&image.id, ImageEdit::default(), asked()).await.unwrap();
    let Admission::New(delete) = catalog.admit_delete(&image.id, "anonymous", None).await.unwrap() else {
        panic!("no key was given")
    };
    let Claimed { ticket, .. } = claim(catalog).await;
    catalog.deleted(&ticket, Blocks::None).await.unwrap();
    assert!(catalog.image(&image.id).await.is_err());
    let seen = catalog.any_operation(&delete.id).await.unwrap();
    assert_eq!(seen.about, About { folder_id: "folder".to_owned(), image_name: "web".to_owned(), key: None });
    let change = catalog.any_operation(&change.id).await.unwrap();
    assert_eq!((change.about, change.state), (seen.about, State::Succeeded));
    let all = catalog.operations_of(&image.id, None, 10).await.unwrap();
    let create = all.iter().find(|seen| seen.message.description == Kind::Create.description()).unwrap();
    assert_eq!(create.about.key.as_deref(), Some("key"), "as the caller wrote it");
}

async fn names_lead_to_the_image_that_is_there(db: Db) {
    let catalog = &db.catalog;
    let going = ready(catalog, new_image("web", None)).await;
    catalog.admit_delete(&going.id, "anonymous", None).await.unwrap();
    let named =
        async |name: &str| catalog.image_named("folder", name).await.unwrap().map(|shown| shown.image.id);
    assert_eq!(named("web").await, Some(going.id.clone()));
    let there = admit(catalog, "web").await;
    assert_eq!(named("web").await, Some(there.image_id));
    let unnamed = admit(catalog, "").await;
    assert_eq!(named(&unnamed.image_id).await, Some(unnamed.image_id));
    assert_eq!(named(&going.id).await, None, "one with a name is not called by its id");
    assert_eq!(named("").await, None);
    assert_eq!(catalog.image_named("other", "web").await.unwrap(), None);
}

async fn labels_change_from_what_they_were(db: Db) {
    let catalog = &db.catalog;
    let image = ready(catalog, new_image("web", None)).await;
    let to = |value: &str| ImageEdit {
        labels: Some([("k".to_owned(), value.to_owned())].into()),
        labels_were: Some(image.labels.clone()),
        ..ImageEdit::default()
    };
    // Of several who saw the same labels one has its way.
    let (one, other) = tokio::join!(
        catalog.update_image(&image.id, to("1"), asked()),
        catalog.update_image(&image.id, to("2"), asked())
    );
    let refused = [&one, &other].into_iter().filter(|done| matches!(done, Err(CatalogError::Changed { .. })));
    assert_eq!((refused.count(), one.is_ok() || other.is_ok()), (1, true));
}

async fn how_far_an_operation_is(db: Db) {
    let catalog = &db.catalog;
    let record = admit(catalog, "web").await;
    let progress = async || {
        let seen = catalog.any_operation(&record.id).await.unwrap();
        catalog.progress(&seen).await.unwrap()
    };
    assert_eq!(progress().await, 0);
    let Claimed { ticket, job, .. } = claim(catalog).await;
    let attempt = Attempt { image_id: job.image_id, epoch: ticket.epoch };
    assert_eq!(progress().await, 0, "nobody knows of how many parts");
    catalog.note_parts(&attempt, 8).await.unwrap();
    catalog.begin_reading(&attempt, "v").await.unwrap();
    assert_eq!(progress().await, 0);
    catalog.claim_blocks(&attempt, &[(0, None), (1, Some([1; 32]))], &[]).await.unwrap();
    assert_eq!(progress().await, 25);
    // Whoever has lost the lease has no say.
    catalog.note_parts(&Attempt { epoch: ticket.epoch - 1, ..attempt.clone() }, 1).await.unwrap();
    assert_eq!(progress().await, 25);
    catalog.claim_blocks(&attempt, &[(7, None)], &[]).await.unwrap();
    assert_eq!(progress().await, 99, "not done before it is");
    publish(catalog, &ticket).await.unwrap();
    assert_eq!(progress().await, 100);
}
