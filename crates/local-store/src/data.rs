//! Data files, and the bytes that stream in and out of them.
//!
//! Both ways a body moves in jobs on the blocking pool, one running while the next is collected or sent: a
//! request holds two [`WRITE_BATCH`]es or two [`READ_CHUNK`]s, and a client that stalls holds no thread.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, IoSlice, Read as _, Seek as _, SeekFrom, Write as _};
use std::mem;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use s3s::dto::StreamingBlob;
use s3s::stream::{ByteStream, RemainingLength};
use s3s::{S3Result, StdError, s3_error};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::checksums::{Algorithm, Claim, Hashes, parse_content_md5};
use crate::errors::{body_error, idle, internal, join};
use crate::folder::sync_dir;
use crate::limits::{BODY_IDLE, MAX_PUT, READ_CHUNK, WRITE_BATCH};
use crate::records::{FileId, Moment, Object, Part, Slice};

/// The `data/` folder of a bucket.
pub(crate) struct DataDir {
    path: PathBuf,
    reaper: mpsc::Sender<PathBuf>,
}

impl DataDir {
    pub(crate) fn new(path: PathBuf, reaper: mpsc::Sender<PathBuf>) -> Arc<Self> {
        Arc::new(Self { path, reaper })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn locate(&self, id: FileId) -> PathBuf {
        self.path.join(id.to_string())
    }
}

/// A data file, owned: it is removed when the last holder lets go, unless a record names it.
#[derive(Clone)]
pub(crate) struct DataFile(Arc<Owned>);

struct Owned {
    id: FileId,
    dir: Arc<DataDir>,
    /// A record names the file.
    recorded: AtomicBool,
}

impl DataFile {
    /// The file of this id, which a record names.
    pub(crate) fn recorded(dir: &Arc<DataDir>, id: FileId) -> Self {
        let file = Self::claim(dir, id);
        file.record();
        file
    }

    fn claim(dir: &Arc<DataDir>, id: FileId) -> Self {
        Self(Arc::new(Owned { id, dir: Arc::clone(dir), recorded: AtomicBool::new(false) }))
    }

    fn create(dir: &Arc<DataDir>) -> io::Result<(Self, File)> {
        let this = Self::claim(dir, FileId::fresh());
        let file = File::create_new(this.path())?;
        Ok((this, file))
    }

    /// Another name for the same bytes in `dir`, durable; a copy where the file system has no hard links.
    pub(crate) fn duplicate(&self, dir: &Arc<DataDir>) -> io::Result<Self> {
        let twin = Self::claim(dir, FileId::fresh());
        if let Err(error) = fs::hard_link(self.path(), twin.path()) {
            tracing::debug!(%error, "no hard link, copying instead");
            fs::copy(self.path(), twin.path())?;
            File::open(twin.path())?.sync_data()?;
        }
        sync_dir(dir.path())?;
        Ok(twin)
    }

    pub(crate) fn id(&self) -> FileId {
        self.0.id
    }

    /// To be called when a record that names the file is in its place.
    pub(crate) fn record(&self) {
        self.0.recorded.store(true, Ordering::Release);
    }

    /// To be called when no record names the file any more, durably. Readers that hold it go on.
    pub(crate) fn forget(&self) {
        self.0.recorded.store(false, Ordering::Release);
    }

    fn path(&self) -> PathBuf {
        self.0.dir.locate(self.0.id)
    }
}

impl std::fmt::Debug for DataFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DataFile({})", self.id())
    }
}

impl serde::Serialize for DataFile {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.id().serialize(serializer)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if !*self.recorded.get_mut() {
            // The reaper is gone only when the store is, and then the next start sweeps.
            let _ = self.dir.reaper.send(self.dir.locate(self.id));
        }
    }
}

/// What to hold a body against, and what to learn of it.
pub(crate) struct Promise<'a> {
    pub(crate) length: Option<i64>,
    pub(crate) content_md5: Option<&'a str>,
    pub(crate) claim: Claim,
    /// Wanted beside the one of the claim.
    pub(crate) wanted: Option<Algorithm>,
}

/// Streams a request's body into a new data file, synced, and holds it against its promise. On an error nothing of it
/// stays.
pub(crate) async fn receive(
    dir: &Arc<DataDir>,
    body: Option<StreamingBlob>,
    promise: Promise<'_>,
) -> S3Result<Part> {
    let length = promise.length.and_then(|length| u64::try_from(length).ok());
    let length = length
        .ok_or_else(|| s3_error!(MissingContentLength, "You must provide the Content-Length HTTP header."))?;
    if length > MAX_PUT {
        return Err(s3_error!(EntityTooLarge, "Your proposed upload exceeds the maximum allowed size"));
    }
    let content_md5 = promise.content_md5.map(parse_content_md5).transpose()?;
    let algorithms = promise.claim.algorithm().into_iter().chain(promise.wanted);
    let mut writer = Writer::start(dir, Hashes::new(algorithms));

    let mut size = 0;
    let mut batch = Vec::new();
    let mut batched = 0;
    let mut body = body.map(StreamExt::fuse);
    while let Some(chunk) = match &mut body {
        Some(body) => timeout(BODY_IDLE, body.next()).await.map_err(|_| idle())?,
        None => None,
    } {
        let chunk = chunk.map_err(body_error)?;
        size += chunk.len() as u64;
        if size > length {
            return Err(incomplete());
        }
        batched += chunk.len();
        batch.push(chunk);
        if batched >= WRITE_BATCH {
            writer.push(mem::take(&mut batch)).await?;
            batched = 0;
        }
    }
    if size != length {
        return Err(incomplete());
    }
    writer.push(batch).await?;
    let (file, hashes) = writer.finish().await?;
    let (md5, digests) = hashes.finish();

    promise.claim.verify(&digests)?;
    if content_md5.is_some_and(|expected| expected != md5) {
        return Err(s3_error!(BadDigest, "The Content-MD5 you specified did not match what we received."));
    }
    let slices = [Slice { file, offset: 0, len: size }].into();
    Ok(Part { size, md5, digests: digests.into(), modified: Moment::now(), slices })
}

fn incomplete() -> s3s::S3Error {
    s3_error!(
        IncompleteBody,
        "You did not provide the number of bytes specified by the Content-Length HTTP header."
    )
}

/// Hashes and writes batches in order, the latest in the background.
struct Writer(JoinHandle<io::Result<Open>>);

struct Open {
    data: DataFile,
    file: File,
    hashes: Hashes,
}

impl Writer {
    fn start(dir: &Arc<DataDir>, hashes: Hashes) -> Self {
        let dir = Arc::clone(dir);
        Self(tokio::task::spawn_blocking(move || {
            let (data, file) = DataFile::create(&dir)?;
            Ok(Open { data, file, hashes })
        }))
    }

    /// Returns when the batch before this one is written.
    async fn push(&mut self, batch: Vec<Bytes>) -> S3Result<()> {
        let mut open = (&mut self.0).await.map_err(join)?.map_err(internal)?;
        self.0 = tokio::task::spawn_blocking(move || {
            for chunk in &batch {
                open.hashes.update(chunk);
            }
            write_all(&mut open.file, &batch)?;
            Ok(open)
        });
        Ok(())
    }

    async fn finish(self) -> S3Result<(DataFile, Hashes)> {
        let open = self.0.await.map_err(join)?.map_err(internal)?;
        let synced = tokio::task::spawn_blocking(move || {
            open.file.sync_data()?;
            Ok((open.data, open.hashes))
        });
        synced.await.map_err(join)?.map_err(internal)
    }
}

/// `Write::write_all_vectored`, which is not stable.
fn write_all(file: &mut File, chunks: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
    let mut rest = &mut slices[..];
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A run of an object's bytes, read in order across its data files.
pub(crate) struct Cursor {
    slices: VecDeque<Slice<DataFile>>,
    open: Option<File>,
    left: u64,
}

impl Cursor {
    /// Of `len` bytes from `start`, which must lie within the object.
    pub(crate) fn new(object: &Object, start: u64, len: u64) -> Self {
        Self { slices: slices(object, start, len).collect(), open: None, left: len }
    }

    /// The next bytes, up to [`READ_CHUNK`] and within one data file; none at the end.
    pub(crate) fn read(&mut self) -> io::Result<Bytes> {
        let Some(slice) = self.slices.front_mut() else { return Ok(Bytes::new()) };
        let file = match &mut self.open {
            Some(file) => file,
            none => {
                let mut file = File::open(slice.file.path())?;
                file.seek(SeekFrom::Start(slice.offset))?;
                none.insert(file)
            }
        };
        let len = slice.len.min(READ_CHUNK);
        // Not zeroed first: `read_to_end` fills spare capacity.
        let mut buffer = Vec::with_capacity(usize::try_from(len).map_err(io::Error::other)?);
        if file.take(len).read_to_end(&mut buffer)? as u64 != len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        slice.offset += len;
        slice.len -= len;
        self.left -= len;
        if slice.len == 0 {
            self.slices.pop_front();
            self.open = None;
        }
        Ok(buffer.into())
    }
}

/// The pieces of data files that hold `len` bytes of the object from `start`.
pub(crate) fn slices(object: &Object, start: u64, len: u64) -> impl Iterator<Item = Slice<DataFile>> {
    let end = start + len;
    let mut at = 0;
    object.parts.iter().flat_map(|part| &part.slices).filter_map(move |slice| {
        let from = start.clamp(at, at + slice.len) - at;
        let to = end.clamp(at, at + slice.len) - at;
        at += slice.len;
        (from < to).then(|| Slice { file: slice.file.clone(), offset: slice.offset + from, len: to - from })
    })
}

/// The body of a response: the chunk after the one being sent is read meanwhile.
pub(crate) struct Body {
    ahead: Option<JoinHandle<io::Result<(Cursor, Bytes)>>>,
    ready: Option<Bytes>,
    left: u64,
}

impl Body {
    /// Reads the first bytes before it returns, so that a missing file is a status and not a broken body.
    pub(crate) async fn start(cursor: Cursor) -> S3Result<Self> {
        let left = cursor.left;
        let (cursor, first) = read_ahead(cursor).await.map_err(join)?.map_err(internal)?;
        let ahead = (cursor.left > 0).then(|| read_ahead(cursor));
        Ok(Self { ahead, ready: (!first.is_empty()).then_some(first), left })
    }
}

fn read_ahead(mut cursor: Cursor) -> JoinHandle<io::Result<(Cursor, Bytes)>> {
    tokio::task::spawn_blocking(move || {
        let chunk = cursor.read()?;
        Ok((cursor, chunk))
    })
}

impl Stream for Body {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let chunk = match (self.ready.take(), &mut self.ahead) {
            (Some(chunk), _) => chunk,
            (None, None) => return Poll::Ready(None),
            (None, Some(ahead)) => {
                let read = ready!(Pin::new(ahead).poll(cx));
                self.ahead = None;
                match read.map_err(StdError::from).and_then(|read| read.map_err(StdError::from)) {
                    Ok((cursor, chunk)) => {
                        self.ahead = (cursor.left > 0).then(|| read_ahead(cursor));
                        chunk
                    }
                    Err(error) => {
                        tracing::error!(%error, "cannot read a data file; the response breaks off");
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
        };
        self.left -= chunk.len() as u64;
        Poll::Ready(Some(Ok(chunk)))
    }
}

impl ByteStream for Body {
    fn remaining_length(&self) -> RemainingLength {
        usize::try_from(self.left).map_or_else(|_| RemainingLength::unknown(), RemainingLength::new_exact)
    }
}
