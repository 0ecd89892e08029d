//! Disks into a real store and back, and what is noticed when the store is damaged.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::sync::Arc;

use block_store::{BlockStore, BlockStoreError, Collected, Manifest};
use bytes::Bytes;
use disk_convert::{
    BLOCK_SIZE, ByteSource, ConvertError, Disk, MemorySink, MemorySource, Options, Part, Payload, References,
    Sink as _, SourceFault, Workers, convert, digest, open_image,
};
use disk_image::{Format, ObjectMap, OpenOptions, Span};
use object_io::{Credentials, PutOptions, Store, StoreConfig};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const BUCKET: &str = "blocks";
const BLOCK: usize = 4 << 20;

struct Local {
    store: Store,
    blocks: BlockStore,
    options: Options,
    never: CancellationToken,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
    _dir: TempDir,
}

impl Local {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (access_key, secret_key) = ("test-access-key".to_owned(), "test-secret-key".to_owned());
        let credentials = Some(Credentials::new(&*access_key, &*secret_key));
        let config = local_store::Config {
            dir: dir.path().join("store"),
            region: "here".into(),
            credentials: local_store::Credentials { access_key, secret_key },
        };
        let shutdown = CancellationToken::new();
        let end = shutdown.clone();
        let served = tokio::spawn(async move { local_store::serve(listener, config, end).await.unwrap() });
        let (endpoint_url, region) = (Some(endpoint), Some("here".into()));
        let config = StoreConfig { endpoint_url, region, credentials, ..StoreConfig::default() };
        let store = Store::connect(config).await.unwrap();
        let never = CancellationToken::new();
        store.create_bucket_if_missing(BUCKET, &never).await.unwrap();
        let blocks = BlockStore::new(store.clone(), BUCKET, "images");
        let options = Options { workers: Workers::new(Some(2)).unwrap(), ..Options::default() };
        Self { store, blocks, options, never, shutdown, served, _dir: dir }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        drop((self.store, self.blocks));
        self.served.await.unwrap();
    }

    async fn ingest(&self, id: &str, disk: &[u8]) -> Result<Manifest, ConvertError> {
        self.ingest_until(id, disk, &self.never).await
    }

    async fn ingest_until(
        &self,
        id: &str,
        disk: &[u8],
        cancel: &CancellationToken,
    ) -> Result<Manifest, ConvertError> {
        let disk = self.open(Arc::new(MemorySource::new(id, disk.to_vec()))).await;
        let len = disk.image().virtual_size();
        let sink = self.blocks.sink(id, len, &self.options.workers, cancel);
        convert(&disk, &ObjectMap::raw(len), sink, &self.options, cancel).await
    }

    async fn open(&self, source: Arc<dyn ByteSource>) -> Disk {
        let raw = OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() };
        open_image(source, &raw, &References::Deny, &self.options, &self.never).await.unwrap()
    }

    fn source(&self, id: &str, manifest: &Manifest) -> block_store::ManifestSource {
        self.blocks.source(id, manifest.clone(), &self.options.workers)
    }

    async fn keys(&self, prefix: &str) -> Vec<String> {
        let page = self.store.list(BUCKET, prefix, None, &self.never).await.unwrap();
        assert!(page.next.is_none());
        page.objects.into_iter().map(|object| object.key).collect()
    }

    async fn overwrite(&self, key: &str, content: Vec<u8>) {
        let options = PutOptions::default();
        self.store.put(BUCKET, key, content.into(), &options, &self.never).await.unwrap();
    }
}

fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap().wrapping_add(seed)).collect()
}

/// Seven blocks: content, zero, the first again, content, zero, zero, and one that is as short as the disk's end makes it.
fn disk() -> Vec<u8> {
    let mut disk = vec![0; 6 * BLOCK + (1 << 20) + 512];
    disk[..BLOCK].copy_from_slice(&pattern(1, BLOCK));
    disk[2 * BLOCK..3 * BLOCK].copy_from_slice(&pattern(1, BLOCK));
    disk[4 * BLOCK - 1] = 1;
    let tail = disk.len() - 6 * BLOCK;
    disk[6 * BLOCK..].copy_from_slice(&pattern(2, tail));
    disk
}

/// The key of a block with this content.
fn key_of(content: &[u8]) -> String {
    let name: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("images/blocks/{}/{name}", &name[..2])
}

/// The guest digest by its definition, over the whole disk in memory.
fn digest_by_definition(disk: &[u8]) -> [u8; 32] {
    let mut text = (disk.len() as u64).to_le_bytes().to_vec();
    for block in disk.chunks(BLOCK) {
        text.extend_from_slice(&Sha256::digest(block));
    }
    Sha256::digest(&text).into()
}

#[tokio::test]
async fn a_disk_comes_back_as_it_was() {
    let local = Local::start().await;
    let disk = disk();
    let manifest = local.ingest("a", &disk).await.unwrap();
    assert_eq!(manifest.virtual_size(), disk.len() as u64);
    assert_eq!(manifest.storage_size(), 3 * BLOCK_SIZE + (1 << 20) + 512);
    assert_eq!(manifest.guest_digest().0, digest_by_definition(&disk));
    assert_eq!(manifest.blocks().keys().copied().collect::<Vec<_>>(), [0, 2, 3, 6]);

    // Four blocks are not zero, two of them are equal; each lies under the hash of its content.
    let keys: HashSet<String> = local.keys("images/blocks/").await.into_iter().collect();
    let expected = [&disk[..BLOCK], &disk[3 * BLOCK..4 * BLOCK], &disk[6 * BLOCK..]].map(key_of);
    assert_eq!(keys, HashSet::from(expected));
    assert_eq!(local.keys("images/manifests/").await, ["images/manifests/a"]);

    let loaded = local.blocks.load("a", &local.never).await.unwrap();
    assert_eq!(loaded, manifest);
    let source = Arc::new(local.source("a", &loaded));
    assert_eq!(source.read(Span::new(0, disk.len() as u64)).await.unwrap(), disk);
    for (from, to) in [
        (0, 1),
        (BLOCK - 1, BLOCK + 1),
        (BLOCK, 2 * BLOCK),
        (4 * BLOCK - 2, 6 * BLOCK + 7),
        (disk.len() - 1, disk.len()),
    ] {
        let span = Span::between(from as u64, to as u64);
        assert_eq!(source.read(span).await.unwrap(), disk[from..to], "{from}..{to}");
    }
    assert!(source.read(Span::new(disk.len() as u64, 1)).await.is_err());

    let again = local.open(source).await;
    let summary = digest(&again, &local.options, &local.never).await.unwrap();
    assert_eq!(summary.guest_digest, manifest.guest_digest());
    assert_eq!(summary.storage_size, manifest.storage_size());
    let layout = ObjectMap::raw(disk.len() as u64);
    let copy = convert(&again, &layout, MemorySink::default(), &local.options, &local.never).await.unwrap();
    assert!(copy == disk);
    local.stop().await;
}

#[tokio::test]
async fn the_guest_digest_is_the_one_that_others_compute() {
    // By Python's hashlib, from the definition in `crates/README.md`; see `digest_by_definition`.
    const KNOWN: &str = "aa7d402409fe48fa9ccb94b8edd9144862df18023f44aeb9883df96507725434";
    let local = Local::start().await;
    let mut disk = pattern(0, BLOCK);
    disk.resize(2 * BLOCK, 0);
    disk.resize(2 * BLOCK + (1 << 20) + 512, 7);
    let manifest = local.ingest("known", &disk).await.unwrap();
    assert_eq!(manifest.guest_digest().to_string(), KNOWN);
    local.stop().await;
}

#[tokio::test]
async fn a_disk_of_zeroes_has_no_blocks() {
    let local = Local::start().await;
    // Zeroes that are stored, not known: the source cannot tell.
    let manifest = local.ingest("zero", &vec![0; 2 * BLOCK + 512]).await.unwrap();
    assert_eq!((manifest.storage_size(), manifest.blocks().len()), (0, 0));
    assert_eq!(local.keys("images/blocks/").await, [""; 0]);
    let source = local.source("zero", &manifest);
    assert_eq!(source.allocation().await.unwrap(), Some(Vec::new()));
    assert_eq!(source.read(Span::new(BLOCK_SIZE - 1, 2)).await.unwrap(), [0; 2][..]);
    local.stop().await;
}

#[tokio::test]
async fn blocks_are_removed_with_the_last_image_that_lists_them() {
    let local = Local::start().await;
    let first = disk();
    let mut second = first.clone();
    second[3 * BLOCK..4 * BLOCK].copy_from_slice(&pattern(9, BLOCK));
    local.ingest("first", &first).await.unwrap();
    let manifest = local.ingest("second", &second).await.unwrap();
    assert_eq!(local.keys("images/blocks/").await.len(), 4);

    local.blocks.delete("first", &local.never).await.unwrap();
    local.blocks.delete("first", &local.never).await.unwrap();
    assert!(local.blocks.load("first", &local.never).await.unwrap_err().is_not_found());
    let collected = local.blocks.collect(&local.never).await.unwrap();
    assert_eq!(collected, Collected { kept: 3, removed: 1, bytes: BLOCK_SIZE, left: 0 });
    let source = local.source("second", &manifest);
    assert!(source.read(Span::new(0, second.len() as u64)).await.unwrap() == second);
    local.stop().await;
}

#[tokio::test]
async fn a_running_ingest_keeps_what_it_has_stored_or_found() {
    let local = Local::start().await;
    let (found, stored) = (pattern(1, BLOCK), pattern(2, BLOCK));
    // Left over by somebody, listed by nobody.
    local.overwrite(&key_of(&found), found.clone()).await;
    local.overwrite(&key_of(&pattern(3, BLOCK)), pattern(3, BLOCK)).await;
    let sink = local.blocks.sink("a", 2 * BLOCK_SIZE, &local.options.workers, &local.never);
    for (number, content) in [(0, &found), (1, &stored)] {
        let payload = Payload::Data(Bytes::from(content.clone()));
        sink.put(Part { number, offset: u64::from(number) * BLOCK_SIZE, payload }).await.unwrap();
    }
    let collected = local.blocks.collect(&local.never).await.unwrap();
    assert_eq!(collected.removed, 1);
    let manifest = sink.finish(2 * BLOCK_SIZE).await.unwrap();
    drop(sink);
    assert_eq!(local.blocks.collect(&local.never).await.unwrap().removed, 0);
    let source = local.source("a", &manifest);
    assert!(source.read(Span::new(0, 2 * BLOCK_SIZE)).await.unwrap() == [found, stored].concat());
    local.stop().await;
}

#[tokio::test]
async fn nothing_is_listed_after_a_cancel_and_all_of_it_is_collected() {
    let local = Local::start().await;
    let kept = local.ingest("kept", &disk()).await.unwrap();
    for pause in [0, 5, 20, 50] {
        let cancel = CancellationToken::new();
        let mut disk = pattern(100, 8 * BLOCK);
        disk[..8].copy_from_slice(&u64::to_le_bytes(pause));
        let soon = async {
            tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
            cancel.cancel();
        };
        let (ingested, ()) = tokio::join!(local.ingest_until("gone", &disk, &cancel), soon);
        match ingested {
            Err(ConvertError::Cancelled) => {}
            Err(ConvertError::Sink(error)) => assert!(cancel.is_cancelled(), "{error:?}"),
            other => panic!("{pause}: {other:?}"),
        }
        assert!(local.blocks.load("gone", &local.never).await.unwrap_err().is_not_found());
        local.blocks.collect(&local.never).await.unwrap();
        assert_eq!(local.keys("images/blocks/").await.len(), 3, "{pause}");
    }
    let source = local.source("kept", &kept);
    assert!(source.read(Span::new(0, source.len())).await.unwrap() == disk());
    local.stop().await;
}

#[tokio::test]
async fn a_damaged_block_is_an_error_not_content() {
    let local = Local::start().await;
    let disk = disk();
    let manifest = local.ingest("a", &disk).await.unwrap();
    let key = key_of(&disk[..BLOCK]);
    let mut flipped = disk[..BLOCK].to_vec();
    flipped[12_345] ^= 1;
    let (mut long, short) = (disk[..BLOCK].to_vec(), disk[..BLOCK - 1].to_vec());
    long.push(0);
    for damaged in [flipped, long, short.clone(), Vec::new()] {
        local.overwrite(&key, damaged).await;
        let source = local.source("a", &manifest);
        let error = source.read(Span::new(10, 10)).await.unwrap_err();
        assert_eq!(error.fault, SourceFault::Changed, "{error:?}");
        // What is not damaged still comes.
        assert_eq!(source.read(Span::new(4 * BLOCK_SIZE - 1, 1)).await.unwrap(), [1][..]);
    }
    local.store.delete(BUCKET, &key, &local.never).await.unwrap();
    let missing = local.source("a", &manifest).read(Span::new(0, 1)).await.unwrap_err();
    assert_eq!(missing.fault, SourceFault::NotFound, "{missing:?}");
    // A block of the wrong length is not taken for the one that is to be stored.
    local.overwrite(&key, short).await;
    local.ingest("b", &disk).await.unwrap();
    let source = local.source("a", &manifest);
    assert!(source.read(Span::new(0, disk.len() as u64)).await.unwrap() == disk);
    local.stop().await;
}

#[tokio::test]
async fn a_damaged_manifest_is_refused_and_stops_collection() {
    let local = Local::start().await;
    local.ingest("a", &disk()).await.unwrap();
    let good = local.store.get(BUCKET, "images/manifests/a", None, &local.never).await.unwrap().to_vec();
    local.blocks.delete("a", &local.never).await.unwrap();
    for at in [0, 7, 8, 40, 60, 64, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        local.overwrite("images/manifests/bad", bad).await;
        let error = local.blocks.load("bad", &local.never).await.unwrap_err();
        assert!(matches!(error, BlockStoreError::Manifest { .. }), "{at}: {error:?}");
        assert!(local.blocks.collect(&local.never).await.is_err(), "{at}");
    }
    assert_eq!(local.keys("images/blocks/").await.len(), 3);
    local.overwrite("images/manifests/bad", good).await;
    assert_eq!(local.blocks.collect(&local.never).await.unwrap().removed, 0);
    local.stop().await;
}

#[tokio::test]
async fn a_disk_of_another_size_is_not_saved() {
    let local = Local::start().await;
    let sink = local.blocks.sink("a", BLOCK_SIZE, &local.options.workers, &local.never);
    assert!(sink.finish(2 * BLOCK_SIZE).await.is_err());
    assert!(local.blocks.load("a", &local.never).await.unwrap_err().is_not_found());
    local.stop().await;
}

#[tokio::test]
async fn images_may_go_while_blocks_are_collected() {
    let local = Local::start().await;
    let kept = local.ingest("kept", &disk()).await.unwrap();
    let empty = vec![0; 1 << 20];
    for n in 10..50 {
        local.ingest(&format!("gone-{n}"), &empty).await.unwrap();
    }
    let remove = async {
        // The last ones first: they have been listed by then, and not read.
        for n in (10..50).rev() {
            local.blocks.delete(&format!("gone-{n}"), &local.never).await.unwrap();
        }
    };
    let (collected, ()) = tokio::join!(local.blocks.collect(&local.never), remove);
    assert_eq!(collected.unwrap().removed, 0);
    local.source("kept", &kept).read(Span::new(0, kept.virtual_size())).await.unwrap();
    local.stop().await;
}
