//! What a folder may ask for and store, on both databases.

use super::*;

on_both![room_is_given_once, the_queue_has_an_end_and_a_folder_a_rate,];

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
