//! One object, uploaded in parts as they are made.
//!
//! "Uploading and copying objects using multipart upload", Amazon S3 User Guide. The CRC32 of every part travels as a header, and
//! the CRC32 of the whole object, combined from them, with the last request; a store that does not know them gets a Content-MD5 with
//! every part. What the store holds is asked for before the last request and after it ([`complete`]).
//!
//! An upload that comes to no end is aborted: by [`Sink::abort`], when the creation is cancelled, and when the sink is dropped
//! inside a runtime. An object that a cancel finds being completed is removed. What a kill leaves behind,
//! [`Store::list_uploads`] finds. With a [`Journal`] ([`MultipartSink::resume`]) an upload outlives a failure and a kill: only
//! a cancel ends it.
//!
//! Cost: the parts that are in flight, which belong to the caller, and one shared part of zeroes that is never written to; some
//! 100 bytes for each part that was sent.

mod complete;
mod crc;
mod holes;
mod journal;
mod plan;
mod resume;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use disk_convert::{Part, PartRules, PartSize, Payload, Sink, SinkError, SinkFault, Zeroes};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::limits::{ABORT_TIMEOUT, PARTS_IN_FLIGHT};
use crate::link::Link;
use crate::store::{Inner, NewUpload, PartSent, Store, UploadId, protocol};
use crate::{ObjectError, Verb};

use complete::etag_of_object;
use holes::Holes;
pub use holes::zeroes_key;
pub use journal::{Begun, Done, Journal, JournalError, SourceIdentity, UploadOf};
pub use plan::PartPlan;
pub use resume::{Progress, Restart, Resumed};

/// How to upload.
#[derive(Debug, Clone)]
pub struct MultipartOptions {
    /// Only where there is no such object yet: asked before the upload, and again by the store at its end.
    pub if_none_match: bool,
    /// What the object says about itself; keys in lower case, values in ASCII.
    pub metadata: BTreeMap<String, String>,
    /// Parts to have in flight at most; how many are, the line decides.
    pub in_flight: usize,
    /// Parts of zeroes may be copied from an object of zeroes, which is put beside under [`ZEROES_PREFIX`](crate::limits::ZEROES_PREFIX) and
    /// removed before the end.
    pub copy_holes: bool,
    /// The object may end before the length that [`MultipartSink::create`] is told, which then only decides the size of the parts:
    /// its true length is known when it has been made.
    pub may_be_shorter: bool,
}

impl Default for MultipartOptions {
    fn default() -> Self {
        Self {
            if_none_match: false,
            metadata: BTreeMap::new(),
            in_flight: PARTS_IN_FLIGHT,
            copy_holes: false,
            may_be_shorter: false,
        }
    }
}

/// An object that was uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadedObject {
    /// Its version, quotes included.
    pub etag: String,
    /// Length in bytes, as the store has it.
    pub size: u64,
    /// CRC32 of all its bytes.
    pub crc32: u32,
}

/// Uploads the parts of one object.
#[derive(Debug)]
pub struct MultipartSink {
    upload: OpenUpload,
    name: Box<str>,
    len: u64,
    part_len: u64,
    options: MultipartOptions,
    link: Link,
    parts: Mutex<BTreeMap<u32, PartSent>>,
    zeroes: OnceLock<Bytes>,
    holes: Holes,
    cancel: CancellationToken,
    /// What an earlier process sent of this object, for parts whose bytes are still the same.
    resumed: BTreeMap<u32, PartSent>,
    /// Another process has worked on this upload.
    is_resumed: bool,
    /// Where parts are noted that were sent.
    journal: Option<Arc<Journal>>,
}

impl MultipartSink {
    /// Begins the upload of an object of `len` bytes. Cancelled, nothing remains of it.
    ///
    /// # Errors
    ///
    /// [`ObjectError::TooLong`] above the largest object; [`ObjectError::PreconditionFailed`] if the object exists and should not.
    pub async fn create(
        store: &Store,
        bucket: &str,
        key: &str,
        len: u64,
        options: MultipartOptions,
        cancel: &CancellationToken,
    ) -> Result<Self, ObjectError> {
        let name: Box<str> = store.place(bucket, key).into();
        let plan = store.plan(&name, len)?;
        if options.if_none_match {
            match store.head(bucket, key, cancel).await {
                Ok(_) => return Err(ObjectError::PreconditionFailed { place: name }),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let metadata = options.metadata.clone();
        let new = NewUpload { bucket: bucket.into(), key: key.into(), metadata };
        let upload = begin(store, new, cancel).await?;
        Ok(Self::new(upload, name, plan, options, cancel))
    }

    fn new(
        upload: OpenUpload,
        name: Box<str>,
        plan: PartPlan,
        options: MultipartOptions,
        cancel: &CancellationToken,
    ) -> Self {
        let Inner { retry, limit, .. } = &*upload.store.0;
        let link = Link::new(retry.clone(), plan.part_len, options.in_flight, limit.clone());
        Self {
            upload,
            name,
            len: plan.len,
            part_len: plan.part_len,
            options,
            link,
            parts: Mutex::default(),
            zeroes: OnceLock::new(),
            holes: Holes::default(),
            cancel: cancel.clone(),
            resumed: BTreeMap::new(),
            is_resumed: false,
            journal: None,
        }
    }

    /// True if a failure leaves the upload for another process to go on with.
    fn is_kept(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.is_usable()) && !self.cancel.is_cancelled()
    }

    /// Aborts the upload, unless it is for another process.
    async fn end(&self) {
        if self.is_kept() {
            self.upload.close();
            return;
        }
        let (gone, ()) = tokio::join!(self.upload.abort(), self.remove_zeroes());
        if gone && let Some(journal) = &self.journal {
            journal.remove();
        }
    }

    fn sent(&self) -> MutexGuard<'_, BTreeMap<u32, PartSent>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if no part is missing, and none but the last one is shorter than a part.
    fn is_gapless(&self, parts: &BTreeMap<u32, PartSent>) -> bool {
        let last = parts.len();
        let mut numbered = (1..=last).zip(parts);
        numbered.all(|(i, (number, part))| *number as usize == i && (i == last || part.len == self.part_len))
    }

    async fn send(&self, number: u32, body: Bytes, crc32: u32) -> Result<(), ObjectError> {
        let len = body.len() as u64;
        if self.is_there(number, crc32, len) {
            return Ok(());
        }
        let OpenUpload { store, id, .. } = &self.upload;
        let sent = store.send_part(id, number, body, crc32, &self.link, &self.cancel).await?;
        self.note(number, sent);
        Ok(())
    }

    async fn send_zeroes(&self, number: u32, len: u64) -> Result<(), ObjectError> {
        let crc32 = crc::of_zeroes(len);
        if self.is_there(number, crc32, len) {
            return Ok(());
        }
        let fits = usize::try_from(self.part_len).and_then(|all| usize::try_from(len).map(|len| (all, len)));
        let (all, len) = fits.map_err(|_| protocol(Verb::Upload, &self.name))?;
        // Pages that were never written to take no memory.
        let zeroes = self.zeroes.get_or_init(|| Bytes::from(vec![0; all])).slice(..len);
        match self.copy_zeroes(number, crc32, &zeroes).await? {
            Some(copied) => {
                self.note(number, copied);
                Ok(())
            }
            None => self.send(number, zeroes, crc32).await,
        }
    }

    /// True, and noted, if an earlier process sent this part.
    fn is_there(&self, number: u32, crc32: u32, len: u64) -> bool {
        let sent = self.resumed.get(&number).filter(|sent| (sent.crc32, sent.len) == (crc32, len));
        if let Some(sent) = sent {
            self.sent().insert(number, sent.clone());
        }
        sent.is_some()
    }

    /// Notes a part that the store has.
    fn note(&self, number: u32, sent: PartSent) {
        if let Some(journal) = &self.journal {
            journal.part(number, &sent);
        }
        self.sent().insert(number, sent);
    }
}

#[async_trait]
impl Sink for MultipartSink {
    type Output = UploadedObject;

    fn rules(&self) -> PartRules {
        PartRules {
            size: PartSize::Exactly(self.part_len),
            zeroes: Zeroes::Put,
            in_flight: self.options.in_flight,
        }
    }

    async fn put(&self, part: Part) -> Result<(), SinkError> {
        let offset = Some(part.offset);
        let len = part.payload.len();
        let most = self.len.saturating_sub(part.offset).min(self.part_len);
        let fits = len == most || (self.options.may_be_shorter && len < most);
        if part.offset != u64::from(part.number) * self.part_len || !fits {
            return Err(SinkError::new(self.name.clone(), offset, SinkFault::Protocol));
        }
        let number = part.number + 1;
        let sent = match part.payload {
            Payload::Data(bytes) => {
                let crc32 = crc32fast::hash(&bytes);
                self.send(number, bytes, crc32).await
            }
            Payload::Zero(len) => self.send_zeroes(number, len).await,
        };
        sent.map_err(|error| error.into_sink_error(offset))
    }

    async fn finish(&self, len: u64) -> Result<UploadedObject, SinkError> {
        let done = self.complete(len).await;
        match (&done, &self.journal) {
            (Ok(object), Some(journal)) => journal.done(&object.etag),
            (Ok(_), None) => {}
            (Err(_), _) => self.end().await,
        }
        done.map_err(|error| error.into_sink_error(None))
    }

    async fn abort(&self) {
        self.end().await;
    }
}

/// Begins an upload.
///
/// The request runs in a task of its own: were it dropped in the middle, an upload might remain whose name nobody knows.
async fn begin(store: &Store, new: NewUpload, cancel: &CancellationToken) -> Result<OpenUpload, ObjectError> {
    if cancel.is_cancelled() {
        return Err(ObjectError::Cancelled);
    }
    let place = store.place(&new.bucket, &new.key);
    let (give, mut take) = oneshot::channel();
    let task_store = store.clone();
    let task = tokio::spawn(async move {
        let never = CancellationToken::new();
        let id = task_store.create_upload(&new, &never).await;
        let upload = id.map(|id| OpenUpload::new(task_store, id));
        // Nobody waits any more: it is ours to abort.
        if let Err(Ok(upload)) = give.send(upload) {
            let _ = upload.abort().await;
        }
    });
    tokio::select! {
        biased;
        () = cancel.cancelled() => {}
        upload = &mut take => return upload.unwrap_or_else(|_| Err(protocol(Verb::Upload, &place))),
    }
    // Either the answer is here already, or the task meets a closed door and aborts. Both are waited for, so that a command can say
    // that nothing is left.
    take.close();
    match take.try_recv() {
        Ok(Ok(upload)) => drop(upload.abort().await),
        Ok(Err(_)) => {}
        Err(_) => drop(tokio::time::timeout(ABORT_TIMEOUT, task).await),
    }
    Err(ObjectError::Cancelled)
}

/// An upload that is aborted unless it is completed.
#[derive(Debug)]
struct OpenUpload {
    store: Store,
    id: UploadId,
    open: AtomicBool,
    /// An abort has failed.
    left: AtomicBool,
}

impl OpenUpload {
    fn new(store: Store, id: UploadId) -> Self {
        Self { store, id, open: AtomicBool::new(true), left: AtomicBool::new(false) }
    }

    /// It has come to its end: there is nothing left to abort.
    fn close(&self) {
        self.open.store(false, Ordering::Release);
    }

    /// False if it may still be there.
    async fn abort(&self) -> bool {
        if self.open.load(Ordering::Acquire) {
            let gone = abort_now(&self.store, &self.id).await;
            self.left.store(!gone, Ordering::Release);
            // Not before: where this future is dropped, the upload is still open.
            self.close();
        }
        !self.left.load(Ordering::Acquire)
    }
}

impl Drop for OpenUpload {
    fn drop(&mut self) {
        if !*self.open.get_mut() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (store, id) = (self.store.clone(), self.id.clone());
            runtime.spawn(async move { abort_now(&store, &id).await });
        }
    }
}

/// Works after a cancellation too, and never for long. False if the upload may still be there.
async fn abort_now(store: &Store, id: &UploadId) -> bool {
    let never = CancellationToken::new();
    let abort = store.abort_upload(&id.bucket, &id.key, &id.id, &never);
    match tokio::time::timeout(ABORT_TIMEOUT, abort).await {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => {
            tracing::warn!(upload = %id.place(), %error, "upload not aborted; its parts take room");
        }
        Err(_) => tracing::warn!(upload = %id.place(), "upload not aborted in time; its parts take room"),
    }
    false
}
