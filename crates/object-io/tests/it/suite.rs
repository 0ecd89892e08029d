//! What an upload promises of every store: the right object, or an error and nothing. `cargo xtask stores` runs it on several.
//!
//! Faults come from a proxy that breaks what passes through it, by a seed.

mod holes;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use disk_convert::{Sink as _, SinkError};
use local_store::testing::{Fault, FaultPlan, FaultProxy};
use object_io::{
    Checksum, MultipartOptions, MultipartSink, RetryOptions, Store, StoreConfig, StoreProfile, UploadedObject,
};

use crate::local::{BUCKET, Local, noise};
use crate::multipart::{parts, uploads};

/// Uploads of the test; more with this variable.
const UPLOADS: u64 = 40;
const MORE: &str = "FAULTY_UPLOADS";

/// Two parts and a bit.
const LEN: usize = (33 << 20) + 1;

/// Everything a hundred times faster than for people.
fn quick() -> RetryOptions {
    RetryOptions {
        first_pause: Duration::from_millis(5),
        max_pause: Duration::from_millis(40),
        attempt_timeout: Duration::from_secs(2),
        outage: Duration::from_secs(10),
        ..RetryOptions::default()
    }
}

async fn through(local: &Local, proxy: &FaultProxy, store_profile: StoreProfile) -> Store {
    let config = local.config_by(proxy.endpoint());
    Store::connect(StoreConfig { store_profile, retry: quick(), ..config }).await.unwrap()
}

fn plan(seed: u64, per_mille: u32, faults: &[Fault]) -> FaultPlan {
    FaultPlan { seed, per_mille, faults: faults.into(), delay: Duration::from_millis(2500) }
}

async fn upload(store: &Store, key: &str, object: &Bytes) -> Result<UploadedObject, String> {
    let never = tokio_util::sync::CancellationToken::new();
    let len = object.len() as u64;
    let sink = MultipartSink::create(store, BUCKET, key, len, MultipartOptions::default(), &never);
    let sink = sink.await.map_err(|error| error.to_string())?;
    let puts = parts(object).into_iter().map(|part| sink.put(part));
    if let Err(error) = futures_util::future::try_join_all(puts).await {
        sink.abort().await;
        return Err(told(&error));
    }
    sink.finish(len).await.map_err(|error| told(&error))
}

fn told(error: &SinkError) -> String {
    let chain = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[tokio::test]
async fn an_object_of_any_length_is_what_was_sent() {
    let local = Local::under_test().await;
    println!("profile: {}", local.store.probe(BUCKET, "probe", &local.never).await.unwrap());
    let mut object = noise(LEN);
    object[..16 << 20].fill(0);
    let object = Bytes::from(object);
    for checksum in [None, Some(Checksum::Md5), Some(Checksum::None)] {
        for len in [0, 1, 16 << 20, LEN] {
            let store_profile = StoreProfile { checksum, ..StoreProfile::default() };
            let config = StoreConfig { store_profile, ..local.config_by(&local.endpoint) };
            let store = Store::connect(config).await.unwrap();
            let object = object.slice(..len);
            let done = upload(&store, "disk", &object).await;
            // Garage takes no part without bytes. No form of a disk is empty.
            if len == 0 && done.as_ref().is_err_and(|error| error.contains("Empty body")) {
                continue;
            }
            let done = done.unwrap_or_else(|error| panic!("{checksum:?} {len}: {error}"));
            assert_eq!((done.size, done.crc32), (len as u64, crc32fast::hash(&object)));
            let stored = local.store.get(BUCKET, "disk", None, &local.never).await.unwrap();
            assert!(stored == object, "{checksum:?} {len}");
            let found = store.profile().checksum;
            println!("{len} bytes: told {checksum:?}, used {found:?}");
            assert!(found.is_some() && (checksum.is_none() || checksum == found));
        }
    }
    local.store.delete(BUCKET, "disk", &local.never).await.unwrap();
    assert_eq!(uploads(&local.store).await, 0);
    local.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faulty_uploads_end_in_the_right_object_or_in_nothing() {
    let local = Local::under_test().await;
    let object = Bytes::from(noise(LEN));
    let count = std::env::var(MORE).ok().and_then(|count| count.parse().ok()).unwrap_or(UPLOADS);
    let (mut happened, mut errors, mut whole) = (BTreeMap::new(), BTreeMap::<String, usize>::new(), 0);
    for seed in 0..count {
        // Some fail often; and of some, parts get lost, for which nothing can be done.
        let (per_mille, faults) = match seed % 4 {
            0 => (80, &Fault::ALL[..]),
            1 => (200, &Fault::ALL[..]),
            2 => (400, &Fault::ALL[..]),
            _ => (300, &[Fault::DroppedPart, Fault::WrongEtag, Fault::TruncatedListing][..]),
        };
        let proxy = FaultProxy::start(local.address(), plan(seed, per_mille, faults)).await.unwrap();
        let checksum = (seed % 8 > 3).then_some(Checksum::Md5);
        let store = through(&local, &proxy, StoreProfile { checksum, ..StoreProfile::default() }).await;
        let key = format!("disk-{seed}");
        let done = upload(&store, &key, &object).await;
        assert_eq!(
            uploads(&local.store).await,
            0,
            "{seed}: an upload is left after {done:?}, {:?}",
            proxy.happened()
        );
        match done {
            Ok(done) => {
                assert_eq!(done.crc32, crc32fast::hash(&object), "{seed}");
                let stored = local.store.get(BUCKET, &key, None, &local.never).await.unwrap();
                assert!(stored == object, "{seed}: another object");
                whole += 1;
            }
            Err(error) => {
                assert!(error.contains(&key) || error.contains(BUCKET), "{seed}: {error}");
                let left = local.store.head(BUCKET, &key, &local.never).await;
                assert!(left.is_err_and(|error| error.is_not_found()), "{seed}: an object after {error}");
                *errors.entry(error.replace(&key, "disk")).or_default() += 1;
            }
        }
        local.store.delete(BUCKET, &key, &local.never).await.unwrap();
        for (fault, count) in proxy.happened() {
            *happened.entry(fault).or_insert(0) += count;
        }
    }
    println!("{count} uploads: {whole} whole, {} refused with nothing left", count - whole);
    println!("faults: {happened:?}");
    errors.iter().for_each(|(error, count)| println!("{count} x {error}"));
    assert!(whole * 2 > count, "most can be carried through");
    assert!(count < UPLOADS || whole < count, "a part that is lost cannot be");
    local.stop().await;
}

/// Each of these alone must not cost the upload.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_the_line_are_survived() {
    let local = Local::under_test().await;
    let object = Bytes::from(noise(LEN));
    let faults = [
        Fault::Unavailable,
        Fault::Throttled,
        Fault::ResetMidBody,
        Fault::ResetAfterBody,
        Fault::LostReply,
        Fault::TornReply,
        Fault::Delayed,
        Fault::WrongEtag,
        Fault::TruncatedListing,
    ];
    for fault in faults {
        for checksum in [None, Some(Checksum::Md5)] {
            let proxy = FaultProxy::start(local.address(), plan(3, 250, &[fault])).await.unwrap();
            let store = through(&local, &proxy, StoreProfile { checksum, ..StoreProfile::default() }).await;
            let done = upload(&store, "disk", &object).await;
            assert!(done.is_ok(), "{fault:?} {checksum:?}: {done:?} after {:?}", proxy.happened());
            let stored = local.store.get(BUCKET, "disk", None, &local.never).await.unwrap();
            assert!(stored == object, "{fault:?}");
            assert_eq!(uploads(&local.store).await, 0, "{fault:?}");
        }
    }
    local.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_the_store_lost_is_an_error_and_nothing_is_left() {
    let local = Local::under_test().await;
    let object = Bytes::from(noise(LEN));
    let proxy = FaultProxy::start(local.address(), plan(1, 1000, &[Fault::DroppedPart])).await.unwrap();
    let store = through(&local, &proxy, StoreProfile::default()).await;
    let error = upload(&store, "disk", &object).await.unwrap_err();
    assert!(error.contains("part 1"), "{error}");
    assert!(local.store.head(BUCKET, "disk", &local.never).await.unwrap_err().is_not_found());
    assert_eq!(uploads(&local.store).await, 0);
    local.stop().await;
}

/// A limit is a lower bound on time, which no machine is too slow for.
#[tokio::test]
async fn bytes_go_no_faster_than_they_may() {
    let local = Local::under_test().await;
    let config = StoreConfig { limit_rate: Some(512 << 10), ..local.config_by(&local.endpoint) };
    let store = Store::connect(config).await.unwrap();
    let object = Bytes::from(noise(1 << 20));
    let began = std::time::Instant::now();
    upload(&store, "disk", &object).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(1500), "{:?}", began.elapsed());
    assert!(local.store.get(BUCKET, "disk", None, &local.never).await.unwrap() == object);
    local.stop().await;
}

#[tokio::test]
async fn copies_of_nothing_are_noticed() {
    let local = Local::under_test().await;
    let proxy = FaultProxy::start(local.address(), plan(1, 1000, &[Fault::EmptyCopy])).await.unwrap();
    let store = through(&local, &proxy, StoreProfile::default()).await;
    let profile = store.probe(BUCKET, "probe", &local.never).await.unwrap();
    assert_eq!(profile.part_copy, Some(false));
    local.stop().await;
}
