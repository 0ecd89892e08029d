//! The memory of several ingests together, and what a cancel leaves.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use disk_convert::{Digesting, MemorySink, MemorySource, Options};
use disk_image::{Codec, Encoder};
use image_ingest::{IngestError, MemoryBudget, Policy, UriPolicy, probe_source};
use tokio_util::sync::CancellationToken;

const MIB: u64 = 1 << 20;

fn source() -> Arc<MemorySource> {
    let mut disk = vec![0; 1 << 20];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    Arc::new(MemorySource::new("disk", disk))
}

/// Ingests of 64 MiB, besides their maps.
fn policy(budget: &MemoryBudget) -> Policy {
    let options = Options { memory: 64 * MIB, ..Options::default() };
    Policy { options, budget: Some(budget.clone()), ..Policy::new(UriPolicy::default()) }
}

#[tokio::test]
async fn an_ingest_holds_what_it_may_need_and_then_what_it_needs() {
    let (budget, never) = (MemoryBudget::new(400 * MIB), CancellationToken::new());
    let policy = policy(&budget);
    // 64 MiB and the largest map, 256 MiB, while it is opened; then a map of one run.
    let first = probe_source(source(), &policy, &never).await.unwrap();
    assert_eq!(budget.free(), (400 - 65) * MIB);
    let second = probe_source(source(), &policy, &never).await.unwrap();
    assert_eq!(budget.free(), (400 - 130) * MIB);
    // A third one has no room for a map of the largest size, until one of them has ended.
    let waiting = tokio::spawn({
        let policy = policy.clone();
        async move { probe_source(source(), &policy, &CancellationToken::new()).await.map(drop) }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    let sink = Digesting::new(MemorySink::default(), &policy.options.workers);
    first.store(sink, &never).await.unwrap();
    waiting.await.unwrap().unwrap();
    drop(second);
    assert_eq!(budget.free(), budget.total());
}

#[tokio::test]
async fn one_that_waits_can_be_cancelled() {
    let (budget, cancel) = (MemoryBudget::new(320 * MIB), CancellationToken::new());
    let policy = policy(&budget);
    let held = probe_source(source(), &policy, &cancel).await.unwrap();
    let waiting = tokio::spawn({
        let (policy, cancel) = (policy.clone(), cancel.clone());
        async move { probe_source(source(), &policy, &cancel).await.map(drop) }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    cancel.cancel();
    assert!(matches!(waiting.await.unwrap(), Err(IngestError::Cancelled)));
    // And one that holds its memory gives it back.
    let sink = Digesting::new(MemorySink::default(), &policy.options.workers);
    assert!(matches!(held.store(sink, &cancel).await, Err(IngestError::Cancelled)));
    assert_eq!(budget.free(), budget.total());
}

/// A compressed file is read through before anything is known of what is in it: the policy holds there already.
#[tokio::test]
async fn a_compressed_source_is_held_to_the_policy() {
    let mut disk = vec![0; 16 << 20];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let mut file = vec![0; 1 << 20];
    let len = Encoder::new(Codec::Gzip).encode(&disk, &mut file).unwrap();
    file.truncate(len);
    let source = |file: &[u8]| Arc::new(MemorySource::new("disk.gz", file.to_vec()));
    let (budget, never) = (MemoryBudget::new(400 * MIB), CancellationToken::new());
    let wide = policy(&budget);
    let narrow = Policy { max_virtual_size: 4 * MIB, ..wide.clone() };
    let refused = probe_source(source(&file), &narrow, &never).await.map(drop).unwrap_err();
    assert!(refused.is_refusal());
    let why = std::error::Error::source(&refused).unwrap().to_string();
    assert_eq!(why, "the length of what the file unpacks to is 8388609, the limit is 8388608");
    assert_eq!(budget.free(), budget.total());

    let found = probe_source(source(&file), &wide, &never).await.unwrap();
    assert_eq!(found.virtual_size(), 16 * MIB);
    let sink = Digesting::new(MemorySink::default(), &wide.options.workers);
    let stored = found.store(sink, &never).await.unwrap();
    assert!(stored.output.output == disk);
}
