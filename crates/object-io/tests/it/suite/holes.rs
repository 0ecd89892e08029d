//! Parts of zeroes that the store copies: the right object, fewer bytes on the wire, and nothing left of what they were copied from.

use bytes::Bytes;
use disk_convert::{Part, Payload, Sink as _, SinkError};
use local_store::testing::{Fault, FaultProxy};
use object_io::limits::ZEROES_PREFIX;
use object_io::{
    Checksum, MultipartOptions, MultipartSink, Store, StoreConfig, StoreProfile, UploadedObject,
};
use tokio_util::sync::CancellationToken;

use super::{plan, through};
use crate::local::{BUCKET, Local, noise};
use crate::multipart::{parts, uploads};

const PART: usize = 16 << 20;
/// Of no other test of the suite: a foreign store is one for all of them.
const KEY: &str = "disk-with-holes";

/// Data, holes, data, a hole, and a last part that is short.
fn object() -> Bytes {
    let mut object = vec![0; 6 * PART + 1000];
    object[..PART].copy_from_slice(&noise(PART));
    object[3 * PART..4 * PART].copy_from_slice(&noise(PART));
    object.into()
}

async fn upload(store: &Store, key: &str, object: &Bytes) -> Result<UploadedObject, SinkError> {
    let never = CancellationToken::new();
    let options = MultipartOptions { copy_holes: true, ..MultipartOptions::default() };
    let sink = MultipartSink::create(store, BUCKET, key, object.len() as u64, options, &never).await;
    let sink = sink.map_err(|error| error.into_sink_error(None))?;
    let puts = parts(object).into_iter().map(|part| sink.put(part));
    if let Err(error) = futures_util::future::try_join_all(puts).await {
        sink.abort().await;
        return Err(error);
    }
    sink.finish(object.len() as u64).await
}

async fn zeroes(store: &Store) -> usize {
    store.list(BUCKET, ZEROES_PREFIX, None, &CancellationToken::new()).await.unwrap().objects.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_object_is_the_same_however_it_is_guarded() {
    let local = Local::under_test().await;
    let object = object();
    for (checksum, part_copy) in [(None, None), (Some(Checksum::Md5), None), (None, Some(false))] {
        let store_profile = StoreProfile { checksum, part_copy, ..StoreProfile::default() };
        let config = StoreConfig { store_profile, ..local.config_by(&local.endpoint) };
        let store = Store::connect(config).await.unwrap();
        let done = upload(&store, KEY, &object).await.unwrap();
        assert_eq!(done.crc32, crc32fast::hash(&object));
        assert!(local.store.get(BUCKET, KEY, None, &local.never).await.unwrap() == object);
        assert_eq!((zeroes(&local.store).await, uploads(&local.store).await), (0, 0));
        println!("holes with {checksum:?}, {part_copy:?}: {:?}", store.profile().part_copy);
        // Every store that is tested copies parts.
        assert_eq!(store.profile().part_copy, Some(part_copy.unwrap_or(true)));
    }
    local.store.delete(BUCKET, KEY, &local.never).await.unwrap();
    local.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_nothing_are_noticed_and_sent_instead() {
    let local = Local::under_test().await;
    let object = object();
    let proxy = FaultProxy::start(local.address(), plan(1, 1000, &[Fault::EmptyCopy])).await.unwrap();
    let store = through(&local, &proxy, StoreProfile::default()).await;
    upload(&store, KEY, &object).await.unwrap();
    assert!(local.store.get(BUCKET, KEY, None, &local.never).await.unwrap() == object);
    assert_eq!(store.profile().part_copy, Some(false));
    local.store.delete(BUCKET, KEY, &local.never).await.unwrap();
    assert_eq!((zeroes(&local.store).await, uploads(&local.store).await), (0, 0));
    local.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faulty_copies_end_in_the_right_object_or_in_nothing() {
    let local = Local::under_test().await;
    let object = object();
    let mut whole = 0;
    for seed in 0..12 {
        let proxy = FaultProxy::start(local.address(), plan(seed, 200, &Fault::ALL)).await.unwrap();
        let store = through(&local, &proxy, StoreProfile::default()).await;
        let done = upload(&store, KEY, &object).await;
        let after = format!("{seed}: {done:?} after {:?}", proxy.happened());
        match done {
            Ok(_) => {
                assert!(local.store.get(BUCKET, KEY, None, &local.never).await.unwrap() == object, "{after}");
                whole += 1;
            }
            Err(_) => {
                let left = local.store.head(BUCKET, KEY, &local.never).await;
                assert!(left.is_err_and(|error| error.is_not_found()), "{after}");
            }
        }
        assert_eq!((zeroes(&local.store).await, uploads(&local.store).await), (0, 0), "{after}");
        local.store.delete(BUCKET, KEY, &local.never).await.unwrap();
    }
    assert!(whole >= 6, "{whole} of 12 were carried through");
    local.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_takes_the_zeroes_along() {
    let local = Local::under_test().await;
    let options = MultipartOptions { copy_holes: true, ..MultipartOptions::default() };
    let len = 4 * PART as u64;
    let sink = MultipartSink::create(&local.store, BUCKET, KEY, len, options, &local.never).await.unwrap();
    let hole = |number: u32| Part {
        number,
        offset: u64::from(number) * PART as u64,
        payload: Payload::Zero(PART as u64),
    };
    sink.put(hole(2)).await.unwrap();
    assert_eq!(zeroes(&local.store).await, 1);
    sink.put(hole(0)).await.unwrap();
    sink.abort().await;
    assert_eq!((zeroes(&local.store).await, uploads(&local.store).await), (0, 0));
    local.stop().await;
}
