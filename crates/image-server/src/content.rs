//! The content of images as it really is: from a URL, a volume or another image to blocks, and from blocks to readers.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use block_store::{BlockStore, BlockStoreError, Collected, Manifest};
use disk_convert::{ByteSource, ConvertError, Options, References, Rendered, open_image};
use disk_image::{Format, ObjectMap, OpenOptions, qcow2};
use image_ingest::{Found, Policy, UriPolicy, min_disk_size, probe, probe_source};
use object_io::Store;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    buckets::{Object, SourceBuckets},
    catalog::{Catalog, CatalogError, Room},
    ingest::{IngestError, Ingested},
    limits,
    observe::Traffic,
    origin::Origin,
    pool::{Pool, PoolError, Reserved},
    volumes::{Volume, VolumeSources, Volumes},
    worker::{Content, IngestWork},
};

/// Pause before the catalog is asked once more.
const CATALOG_PAUSE: Duration = Duration::from_secs(1);

/// What the content of an image is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// What the guest sees.
    Raw,
    /// A qcow2 file.
    Qcow2,
}

/// The content of an image in a form.
#[derive(Clone)]
pub(crate) struct Readable {
    pub(crate) source: Arc<dyn ByteSource>,
    /// Names these bytes, quotes included.
    pub(crate) etag: String,
}

/// Reads by range GET, stores in a [`BlockStore`].
pub(crate) struct StoredContent {
    pub(crate) blocks: BlockStore,
    pub(crate) catalog: Catalog,
    pub(crate) policy: Policy,
    /// What the images of a folder may store, bytes.
    pub(crate) folder_quota: Option<u64>,
    pub(crate) pool: Option<Arc<Pool>>,
    pub(crate) volumes: VolumeSources,
    pub(crate) buckets: SourceBuckets,
    /// The store of those buckets.
    pub(crate) store: Store,
    pub(crate) open: OpenImages,
    pub(crate) traffic: Arc<Traffic>,
}

/// The images that were read last, by id and form, the last one first. Content never changes under an id.
#[derive(Default)]
pub(crate) struct OpenImages(Mutex<VecDeque<(String, Form, Readable)>>);

impl OpenImages {
    fn get(&self, image_id: &str, form: Form) -> Option<Readable> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = open.iter().position(|(id, of, _)| id == image_id && *of == form)?;
        let found = open.remove(at)?;
        open.push_front(found.clone());
        Some(found.2)
    }

    fn put(&self, image_id: &str, form: Form, readable: Readable) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Two that miss it at once open it twice.
        open.retain(|(id, of, _)| id != image_id || *of != form);
        open.truncate(limits::OPEN_IMAGES - 1);
        open.push_front((image_id.to_owned(), form, readable));
    }
}

#[async_trait]
impl Content for StoredContent {
    async fn ingest(
        &self,
        work: &IngestWork,
        cancel: &CancellationToken,
    ) -> Result<Ingested<String>, IngestError> {
        // Counters are of one ingest: what they count together is nobody's progress.
        let options = Options { counters: Arc::default(), ..self.policy.options.clone() };
        let (counters, begun) = (Arc::clone(&options.counters), Instant::now());
        let policy = Policy { wanted_disk_size: work.wanted_disk_size, options, ..self.policy.clone() };
        let ended = self.take_in(work, &policy, cancel).await;
        let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.traffic.bytes_read.fetch_add(counters.bytes_read(), Ordering::Relaxed);
        self.traffic.ingests.fetch_add(1, Ordering::Relaxed);
        self.traffic.ingest_millis.fetch_add(millis, Ordering::Relaxed);
        ended
    }

    async fn open(
        &self,
        image_id: &str,
        form: Form,
        cancel: &CancellationToken,
    ) -> Result<Readable, IngestError> {
        if let Some(readable) = self.open.get(image_id, form) {
            return Ok(readable);
        }
        let readable = self.readable(image_id, form, cancel).await?;
        self.open.put(image_id, form, readable.clone());
        Ok(readable)
    }

    async fn collect(&self, cancel: &CancellationToken) -> Result<u64, IngestError> {
        let collected = self.blocks.collect(cancel).await.map_err(|error| stored(error, cancel))?;
        let Collected { kept, removed, bytes, left } = collected;
        tracing::info!(kept, removed, bytes, left, "unlisted blocks collected");
        Ok(left)
    }

    async fn sweep(&self) -> Result<(), IngestError> {
        match &self.pool {
            Some(pool) => Ok(pool.folder.sweep(&self.catalog).await?),
            None => Ok(()),
        }
    }
}

impl StoredContent {
    async fn readable(
        &self,
        image_id: &str,
        form: Form,
        cancel: &CancellationToken,
    ) -> Result<Readable, IngestError> {
        let options = &self.policy.options;
        let name = self.catalog.manifest(image_id).await.map_err(IngestError::Catalog)?;
        let manifest = self.blocks.load(&name, cancel).await.map_err(|error| stored(error, cancel))?;
        let digest = manifest.guest_digest();
        let raw: Arc<dyn ByteSource> = Arc::new(self.blocks.source(image_id, manifest, &options.workers));
        Ok(match form {
            Form::Raw => Readable { source: raw, etag: format!("\"{digest}\"") },
            Form::Qcow2 => {
                let how = OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() };
                let disk =
                    open_image(raw, &how, &References::Deny, options, cancel).await.map_err(unreadable)?;
                let cluster_size = qcow2::DEFAULT_CLUSTER_SIZE;
                let layout = qcow2::Layout::new(disk.image().map(), &qcow2::LayoutOptions { cluster_size });
                let layout = ObjectMap::qcow2(layout.map_err(|source| IngestError::Layout { source })?);
                let name = format!("image {image_id} as qcow2");
                let source = Arc::new(Rendered::new(name, disk, layout, options).map_err(unreadable)?);
                Readable { source, etag: format!("\"{digest}-qcow2-{cluster_size}\"") }
            }
        })
    }

    /// Proves what the image is made of, and stores it. Gives the name of the manifest that lists it.
    async fn take_in(
        &self,
        work: &IngestWork,
        policy: &Policy,
        cancel: &CancellationToken,
    ) -> Result<Ingested<String>, IngestError> {
        let found = match Origin::of(&work.source) {
            Origin::Image(id) => return self.share(id, work, policy, cancel).await,
            Origin::Uri(uri) => probe(uri.expose(), policy, cancel).await?,
            Origin::Object(object) => self.probe_object(object, policy, cancel).await?,
            Origin::Snapshot(id) => {
                volume("snapshot", id, self.volumes.snapshots.as_deref(), policy.clone(), cancel).await?
            }
            Origin::Disk(id) => {
                volume("disk", id, self.volumes.disks.as_deref(), policy.clone(), cancel).await?
            }
        };
        let pooled = self.reserve(work, found.storage_bound(), cancel).await?;
        let parts = found.virtual_size().div_ceil(disk_convert::BLOCK_SIZE);
        patiently(|| self.catalog.note_parts(&work.attempt, parts), cancel).await?;
        let sink = self.blocks.sink(&work.manifest(), found.virtual_size(), &policy.options.workers, cancel);
        // What the ledger knows of the same version of the source is not read again.
        let source = found.disk().source();
        let version = if source.is_pinned() { source.version() } else { String::new() };
        let known = tokio::select! {
            biased;
            known = sink.resume(&version) => known.map_err(|error| stored(error, cancel))?,
            () = cancel.cancelled() => return Err(IngestError::Cancelled),
        };
        if known > 0 {
            tracing::info!(image_id = %work.image_id, known, "parts of an earlier attempt are kept");
        }
        let stored = found.store(sink, cancel).await?;
        self.pool(pooled, work, &stored.output, policy, cancel).await?;
        Ok(stored.map(|_| work.manifest()))
    }

    /// Opens and proves an object of our own store, by a URL of our own that nobody else sees.
    async fn probe_object(
        &self,
        text: &str,
        policy: &Policy,
        cancel: &CancellationToken,
    ) -> Result<Found, IngestError> {
        // What was let in yesterday is held to what is let in today.
        let object = Object::parse(text).filter(|object| self.buckets.allow(None, *object));
        let object = object.ok_or_else(|| IngestError::NoSource { kind: "object", id: text.to_owned() })?;
        let life = limits::OBJECT_URL_LIFE;
        let signed = self.store.presign_get(object.bucket, object.key, life, cancel).await;
        let signed = signed.map_err(|error| stored(error.into(), cancel))?;
        // The store that we are configured with, wherever it is, and nothing else.
        let uris = UriPolicy {
            own_endpoint: Url::parse(signed.expose()).ok(),
            resolver: Arc::clone(&policy.uris.resolver),
            ..UriPolicy::default()
        };
        Ok(probe(signed.expose(), &Policy { uris, ..policy.clone() }, cancel).await?)
    }

    /// Makes the copy for which there is room.
    async fn pool(
        &self,
        room: Option<Reserved>,
        work: &IngestWork,
        manifest: &Manifest,
        policy: &Policy,
        cancel: &CancellationToken,
    ) -> Result<(), IngestError> {
        let Some(room) = room else { return Ok(()) };
        let options = &policy.options;
        // An ingest has given its memory back when it is stored, and what is shared never had any.
        let _held = match &policy.budget {
            Some(budget) => Some(budget.hold(options.memory, cancel).await?),
            None => None,
        };
        let disk = Arc::new(self.blocks.source(&work.image_id, manifest.clone(), &options.workers));
        // What is copied was counted when it was read.
        let options = Options { counters: Arc::default(), ..options.clone() };
        Ok(room.fill(disk, &options, cancel).await?)
    }

    /// The content of another image, which then has both: its manifest is that of both, and no block is read or written. Whether it
    /// still has it, the commit that publishes the new one asks again.
    async fn share(
        &self,
        from: &str,
        work: &IngestWork,
        policy: &Policy,
        cancel: &CancellationToken,
    ) -> Result<Ingested<String>, IngestError> {
        let gone = || IngestError::NoSource { kind: "image", id: from.to_owned() };
        let name = match patiently(|| self.catalog.manifest(from), cancel).await {
            Err(IngestError::Catalog(CatalogError::NoImage { .. })) => return Err(gone()),
            found => found?,
        };
        let manifest = self.blocks.load(&name, cancel).await.map_err(|error| match error.is_not_found() {
            true => gone(),
            false => stored(error, cancel),
        })?;
        let min_disk_size = min_disk_size(manifest.virtual_size(), work.wanted_disk_size)?;
        let pooled = self.reserve(work, manifest.storage_size(), cancel).await?;
        self.pool(pooled, work, &manifest, policy, cancel).await?;
        Ok(Ingested {
            virtual_size: manifest.virtual_size(),
            storage_size: manifest.storage_size(),
            min_disk_size,
            guest_digest: manifest.guest_digest(),
            output: name,
        })
    }

    /// Takes the room that the image can fill, in its folder and in the pool where it is pooled, or fails before anything is written.
    async fn reserve(
        &self,
        work: &IngestWork,
        needed: u64,
        cancel: &CancellationToken,
    ) -> Result<Option<Reserved>, IngestError> {
        let pooled = match (work.pooled, &self.pool) {
            (false, _) => None,
            (true, Some(pool)) => Some(pool.reserve(&work.image_id, needed)?),
            // Another server has accepted it, or this one with another configuration.
            (true, None) => return Err(PoolError::None.into()),
        };
        let Some(quota) = self.folder_quota else { return Ok(pooled) };
        match patiently(|| self.catalog.reserve(&work.attempt, needed, quota), cancel).await? {
            Room::Reserved => Ok(pooled),
            Room::Lacking { folder_id, used } => Err(IngestError::Quota { folder_id, used, needed, quota }),
        }
    }
}

/// Asks the catalog, as often as its database fails: as with commits, an ingest does not end because of that.
async fn patiently<T, F>(question: impl Fn() -> F, cancel: &CancellationToken) -> Result<T, IngestError>
where
    F: Future<Output = Result<T, CatalogError>>,
{
    loop {
        match cancel.run_until_cancelled(question()).await.ok_or(IngestError::Cancelled)? {
            Err(CatalogError::Database { .. }) => {
                let pause = tokio::time::sleep(CATALOG_PAUSE);
                cancel.run_until_cancelled(pause).await.ok_or(IngestError::Cancelled)?;
            }
            answer => return answer.map_err(IngestError::Catalog),
        }
    }
}

/// Opens and proves a volume of the operator's.
async fn volume(
    kind: &'static str,
    id: &str,
    volumes: Option<&dyn Volumes>,
    policy: Policy,
    cancel: &CancellationToken,
) -> Result<Found, IngestError> {
    let opened = match volumes {
        Some(volumes) => volumes.open(id).await.map_err(|error| unreadable(error.into()))?,
        None => None,
    };
    let Volume { source, format } =
        opened.ok_or_else(|| IngestError::NoSource { kind, id: id.to_owned() })?;
    Ok(probe_source(source, &Policy { format: Some(format), ..policy }, cancel).await?)
}

fn unreadable(error: ConvertError) -> IngestError {
    IngestError::Ingest(image_ingest::IngestError::Open(error))
}

fn stored(error: BlockStoreError, cancel: &CancellationToken) -> IngestError {
    if cancel.is_cancelled() { IngestError::Cancelled } else { IngestError::Store(error) }
}
