//! Who works on what, on both databases.

use super::*;

on_both![
    work_is_claimed_once_by_a_crowd,
    a_lease_ends_by_the_clock_of_the_database,
    who_lost_the_lease_writes_nothing,
    what_is_handed_back_is_taken_at_once,
    a_cancel_is_seen_by_the_owner,
    light_work_needs_no_place,
];

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
