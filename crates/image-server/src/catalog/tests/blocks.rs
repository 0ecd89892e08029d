//! Claims, sentences, progress and manifests, on both databases.

use super::*;

on_both![
    progress_is_taken_over,
    progress_of_another_source_is_forgotten,
    claims_end_with_the_operation,
    one_side_sees_the_other,
    sentences,
    manifests_in_use,
    content_is_shared_as_long_as_somebody_has_it,
];

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
