//! Claims over a catalog, on both databases.

use futures_util::future::join_all;

use super::*;
use crate::{
    catalog::{
        Want,
        tests::{Db, admit, on_both},
    },
    limits,
};

/// The claims of the only operation there is, which is claimed anew.
async fn claims(db: &Db, lease: Duration) -> Arc<dyn Claims> {
    let claimed = db.catalog.claim("owner", lease, Want::Any).await.unwrap().unwrap();
    let attempt = Attempt { image_id: claimed.job.image_id, epoch: claimed.ticket.epoch };
    CatalogLedger::new(db.again().await).claims(&attempt.to_string())
}

async fn a_claim_waits_while_its_block_is_condemned(db: Db) {
    admit(&db.catalog, "web").await;
    let claims = claims(&db, limits::LEASE).await;
    let collector = CatalogLedger::new(db.again().await);
    let (condemned, free) = ([1; 32], [2; 32]);
    assert_eq!(collector.condemn(&[condemned]).await.unwrap(), [condemned]);
    claims.claim(0, Some(free)).await.unwrap();
    claims.claim(1, None).await.unwrap();
    let waiting = Arc::clone(&claims);
    let waits = tokio::spawn(async move { waiting.claim(2, Some(condemned)).await });
    tokio::time::sleep(3 * CONDEMNED_PAUSE).await;
    assert!(!waits.is_finished());
    assert_eq!(collector.claimed(&[condemned]).await.unwrap(), [condemned].into(), "and spares it");
    collector.acquit(&[condemned]).await.unwrap();
    waits.await.unwrap().unwrap();
}

async fn claims_that_come_together_are_all_noted(db: Db) {
    admit(&db.catalog, "web").await;
    let first = claims(&db, Duration::ZERO).await;
    assert!(first.begin("v").await.unwrap().is_empty());
    let block = |part: u32| Some([u8::try_from(part).unwrap(); 32]);
    for all in join_all((0..200).map(|part| first.claim(part, block(part)))).await {
        all.unwrap();
    }
    (0..150).for_each(|part| first.stored(part));
    first.claim(200, None).await.unwrap();
    let known = claims(&db, limits::LEASE).await.begin("v").await.unwrap();
    assert_eq!(known, (0..150).map(|part| (part, block(part))).collect());
    // The first one's lease is another's now.
    assert!(first.claim(201, block(1)).await.is_err());
    assert!(first.begin("v").await.is_err());
}

on_both![a_claim_waits_while_its_block_is_condemned, claims_that_come_together_are_all_noted];
