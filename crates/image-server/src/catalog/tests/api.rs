//! Changes, access bindings and tokens, on both databases.

use image_api::{
    access::{AccessBinding, AccessBindingAction, AccessBindingDelta, Subject},
    compute::UpdateImageMetadata,
};

use super::*;
use crate::limits;

on_both![
    a_change_and_its_operation_are_one_commit,
    changes_that_are_refused,
    a_crowd_with_one_key_makes_one_change,
    a_crowd_gives_a_name_once,
    operations_in_pages,
    the_latest,
    bindings_go_with_their_image,
    tokens_expire,
];

async fn ready(catalog: &Catalog, name: &str) -> Image {
    admit(catalog, name).await;
    let Claimed { ticket, .. } = claim(catalog).await;
    publish(catalog, &ticket).await.unwrap()
}

fn by(key: Option<&IdempotencyKey>) -> Asked<'_> {
    Asked { by: "somebody", key }
}

fn key(key: &str, digest: &str) -> IdempotencyKey {
    IdempotencyKey { key: key.to_owned(), request_digest: digest.to_owned() }
}

fn rename(name: &str) -> ImageEdit {
    ImageEdit { name: Some(name.to_owned()), ..ImageEdit::default() }
}

async fn a_change_and_its_operation_are_one_commit(db: Db) {
    let catalog = &db.catalog;
    let image = ready(catalog, "web").await;
    let edit = ImageEdit { min_disk_size: Some(1 << 30), labels: Some([].into()), ..rename("db") };
    let operation = catalog.update_image(&image.id, edit, by(None)).await.unwrap();
    let changed = catalog.image(&image.id).await.unwrap();
    assert_eq!((changed.name.as_str(), changed.min_disk_size, changed.labels.len()), ("db", 1 << 30, 0));
    assert_eq!(changed.description, image.description, "what the edit does not name stays");
    let Some(Ending::Response(any)) = &operation.result else { panic!("no response") };
    assert_eq!(unpack::<Image>(any).unwrap(), changed);
    assert_eq!(operation.metadata_as::<UpdateImageMetadata>().unwrap().image_id, image.id);
    assert_eq!(db.again().await.any_operation(&operation.id).await.unwrap().message, operation);
}

async fn changes_that_are_refused(db: Db) {
    let catalog = &db.catalog;
    let image = ready(catalog, "web").await;
    ready(catalog, "taken").await;
    let refused = catalog.update_image(&image.id, rename("taken"), by(None)).await;
    assert!(matches!(refused, Err(CatalogError::NameTaken { .. })));
    let creating = admit(catalog, "new").await.image_id;
    let refused = catalog.update_image(&creating, rename("other"), by(None)).await;
    assert!(matches!(refused, Err(CatalogError::NotChangeable { .. })));
    let refused = catalog.update_image("nothing", rename("other"), by(None)).await;
    assert!(matches!(refused, Err(CatalogError::NoImage { .. })));
    assert!(matches!(catalog.any_operation("nothing").await, Err(CatalogError::NoOperation { .. })));
    assert_eq!(catalog.operations_of(&image.id, None, 10).await.unwrap().len(), 1, "refusals leave none");
}

async fn a_crowd_with_one_key_makes_one_change(db: Db) {
    let catalog = &db.catalog;
    let image = ready(catalog, "web").await;
    let key = key("k", "d");
    let all = (0..8).map(|_| catalog.update_image(&image.id, rename("db"), by(Some(&key))));
    let all = futures_util::future::join_all(all).await;
    let first = all[0].as_ref().unwrap();
    assert!(all.iter().all(|other| other.as_ref().unwrap() == first));
    let other = IdempotencyKey { request_digest: "e".to_owned(), ..key.clone() };
    assert!(matches!(catalog.known(Some(&other)).await, Err(CatalogError::KeyReused)));
    let create = NewImage { key: Some(key.clone()), ..new_image("y", None) };
    assert!(matches!(catalog.admit_create(create).await, Err(CatalogError::KeyReused)));
    let refused = catalog.update_image(&image.id, rename("x"), by(Some(&other))).await;
    assert!(matches!(refused, Err(CatalogError::KeyReused)));
}

async fn a_crowd_gives_a_name_once(db: Db) {
    let catalog = &db.catalog;
    let mut images = Vec::new();
    for name in ["a", "b", "c", "d"] {
        images.push(ready(catalog, name).await.id);
    }
    let all = images.iter().map(|id| catalog.update_image(id, rename("same"), by(None)));
    let all = futures_util::future::join_all(all).await;
    assert_eq!(all.iter().filter(|done| done.is_ok()).count(), 1, "{all:?}");
    assert!(all.iter().all(|done| matches!(done, Ok(_) | Err(CatalogError::NameTaken { .. }))), "{all:?}");
}

async fn operations_in_pages(db: Db) {
    let catalog = &db.catalog;
    let image = ready(catalog, "web").await;
    for name in ["a", "b", "c"] {
        catalog.update_image(&image.id, rename(name), by(None)).await.unwrap();
    }
    let (mut seen, mut after) = (Vec::new(), None);
    while let [operation] = &catalog.operations_of(&image.id, after.take(), 1).await.unwrap()[..] {
        after = Some((operation.created_at, operation.message.id.clone()));
        seen.push(operation.message.description.clone());
    }
    assert_eq!(seen, ["Update image", "Update image", "Update image", "Create image"]);
}

async fn the_latest(db: Db) {
    let catalog = &db.catalog;
    assert_eq!(catalog.latest_of_family("folder", "linux").await.unwrap(), None);
    for name in ["old", "new"] {
        let mut new = new_image(name, None);
        new.image.family = "linux".to_owned();
        catalog.admit_create(new).await.unwrap();
        let Claimed { ticket, .. } = claim(catalog).await;
        publish(catalog, &ticket).await.unwrap();
    }
    let mut creating = new_image("creating", None);
    creating.image.family = "linux".to_owned();
    catalog.admit_create(creating).await.unwrap();
    assert_eq!(catalog.latest_of_family("folder", "linux").await.unwrap().unwrap().image.name, "new");
    assert_eq!(catalog.latest_of_family("folder", "").await.unwrap(), None);
}

async fn bindings_go_with_their_image(db: Db) {
    let catalog = &db.catalog;
    let image = ready(catalog, "web").await;
    let binding = |id: &str| AccessBinding {
        role_id: "viewer".to_owned(),
        subject: Some(Subject { id: id.to_owned(), r#type: "serviceAccount".to_owned() }),
    };
    let add = |id: &str| AccessBindingDelta {
        action: AccessBindingAction::Add.into(),
        access_binding: Some(binding(id)),
    };
    let edit = BindingsEdit::Update(vec![add("a"), add("b"), add("a")]);
    catalog.change_bindings(&image.id, edit, by(None)).await.unwrap();
    assert_eq!(catalog.bindings(&image.id, 0, 10).await.unwrap(), [binding("a"), binding("b")]);
    assert_eq!(catalog.bindings(&image.id, 1, 10).await.unwrap(), [binding("b")]);
    catalog.change_bindings(&image.id, BindingsEdit::Set(vec![binding("b")]), by(None)).await.unwrap();
    assert_eq!(catalog.bindings(&image.id, 0, 10).await.unwrap(), [binding("b")]);
    let many = (0..=limits::ACCESS_BINDINGS).map(|number| binding(&number.to_string())).collect();
    let refused = catalog.change_bindings(&image.id, BindingsEdit::Set(many), by(None)).await;
    assert!(matches!(refused, Err(CatalogError::TooManyBindings { .. })));
    assert_eq!(catalog.bindings(&image.id, 0, 10).await.unwrap(), [binding("b")], "nothing of it stays");
    catalog.admit_delete(&image.id, "somebody", None).await.unwrap();
    let Claimed { ticket, .. } = claim(catalog).await;
    catalog.deleted(&ticket, Blocks::None).await.unwrap();
    assert_eq!(catalog.bindings(&image.id, 0, 10).await.unwrap(), []);
}

async fn tokens_expire(db: Db) {
    let catalog = &db.catalog;
    catalog.add_token("gone", "account", now() - 1).await.unwrap();
    catalog.add_token("good", "account", now() + 60_000_000).await.unwrap();
    assert_eq!(catalog.account_of_token("gone").await.unwrap(), None);
    assert_eq!(catalog.account_of_token("good").await.unwrap().as_deref(), Some("account"));
    let left: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM iam_tokens").fetch_one(&catalog.pool).await.unwrap();
    assert_eq!(left, 1, "what has expired is forgotten when the next one comes");
}
