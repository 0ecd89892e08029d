//! What a compressed file unpacks to, as a source that is read at random.
//!
//! The file is read once from start to end while it is opened ([`Scan`]): with requests in flight ahead where it waits for a network.
//! That proves it whole, and leaves checkpoints; a read decodes from the one before it, on a worker, beside other reads, or goes on where
//! an earlier read ended. What the scan saw to be zero is told as not allocated.
//!
//! Refused: content above [`Options::max_unpacked`], and reads that come to many times the content, each from a checkpoint of its own: an
//! image can be made of which every cluster costs a decode of megabytes. Cost: one decode of everything on one core, and one in all reads,
//! on all of them, with half a checkpoint's distance for each that does not follow another one; besides what is read the checkpoints
//! ([`MAX_CHECKPOINT_MEMORY`](disk_image::limits::MAX_CHECKPOINT_MEMORY)), and 1.5 MiB for each read in flight.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use disk_image::unpack::{Checkpoints, Cursor, Scan};
use disk_image::{Compression, OpenError, ReadShape, Span};
use futures_util::{StreamExt, future, stream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::assemble::to_usize;
use crate::{ByteSource, ConvertError, Options, ReadAt, SourceError, SourceFault, SourceShape, Workers};

/// Bytes of the file that are decoded at once: between two looks at whether it was cancelled, and few enough that many reads hold some.
const PIECE: u64 = 1 << 20;

/// What a piece is longer than the content that is wanted of it, bytes: headers, and streams that did not shrink.
const HEADROOM: u64 = 4 << 10;

/// Least part of an output that waits for a network, bytes: such reads come in any order, and each decodes some in vain.
const LEAST_PART: u64 = 4 << 20;

/// Where checkpoints are far apart, such parts grow with the distance up to this. Six times as much is held of two parts.
const MOST_PART: u64 = 16 << 20;

/// Bytes that all reads may decode, for each byte of the content: a digest, a look inside and a conversion take some six.
const MAX_WORK_RATIO: u64 = 16;

/// Bytes that they may decode in any case: half a minute on a core.
const MIN_WORK: u64 = 16 << 30;

/// The content of a compressed file. Cheap to clone.
#[derive(Clone)]
pub struct Unpacked {
    inner: Arc<Inner>,
}

struct Inner {
    file: Arc<dyn ByteSource>,
    compression: Compression,
    checkpoints: Checkpoints,
    workers: Workers,
    /// Bytes decoded by reads, and the most that they may be.
    work: AtomicU64,
    most_work: u64,
    /// Decoders where reads ended, last one last: what is read next is mostly what follows.
    parked: Mutex<Vec<Cursor>>,
    /// The most of them, and of reads that wait for a network with a piece of the file in hand.
    in_flight: usize,
    decoding: Semaphore,
}

impl Unpacked {
    /// Reads `file` through; how far it is shows in the counters of `options`.
    ///
    /// # Errors
    ///
    /// If it is damaged, comes to more than `options` allow, or cannot be read; and [`ConvertError::Cancelled`].
    pub async fn open(
        file: Arc<dyn ByteSource>,
        compression: Compression,
        options: &Options,
        cancel: &CancellationToken,
    ) -> Result<Self, ConvertError> {
        let refused = |source: OpenError| ConvertError::Open { name: file.name().into(), source };
        let scan = Scan::new(compression, file.len(), options.max_unpacked);
        options.counters.expect(file.len());
        let scan = match file.blocking() {
            Some(_) => scan_local(scan, &file, options, cancel).await?,
            None => scan_remote(scan, &file, options, cancel).await?,
        };
        let checkpoints = scan.and_then(Scan::finish).map_err(refused)?;
        tracing::debug!(
            file = file.name(),
            content = checkpoints.content_len(),
            checkpoints = checkpoints.count(),
            memory = checkpoints.memory(),
            "unpacked once"
        );
        // Two a worker: parts are made in batches, and the next batch begins where another worker's ended.
        let waits = if file.blocking().is_some() { 0 } else { file.shape().in_flight };
        let in_flight = waits.max(options.workers.jobs() * 2);
        let most_work = checkpoints.content_len().saturating_mul(MAX_WORK_RATIO).max(MIN_WORK);
        let inner = Inner {
            file,
            compression,
            checkpoints,
            workers: options.workers.clone(),
            work: AtomicU64::new(0),
            most_work,
            parked: Mutex::default(),
            in_flight,
            decoding: Semaphore::new(in_flight),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// How the file is compressed.
    pub fn compression(&self) -> Compression {
        self.inner.compression
    }

    /// Where decoding can begin.
    pub fn checkpoints(&self) -> &Checkpoints {
        &self.inner.checkpoints
    }

    /// Bytes that reads have decoded so far, given or not.
    pub fn decoded(&self) -> u64 {
        self.inner.work.load(Ordering::Relaxed)
    }
}

/// A job reads a piece and decodes it; whoever reads ahead is the kernel.
async fn scan_local(
    mut scan: Scan,
    file: &Arc<dyn ByteSource>,
    options: &Options,
    cancel: &CancellationToken,
) -> Result<Result<Scan, OpenError>, ConvertError> {
    while scan.file() < file.len() {
        let before = scan.file();
        if cancel.is_cancelled() {
            return Err(ConvertError::Cancelled);
        }
        let source = file.clone();
        let job = move || {
            let piece = Span::between(scan.file(), source.len().min(scan.file() + PIECE));
            let bytes = read_now(source.as_ref(), piece)?;
            Ok::<_, SourceError>(scan.push(&bytes).map(|()| scan))
        };
        scan = match options.workers.run(job).await?? {
            Ok(scan) => scan,
            Err(error) => return Ok(Err(error)),
        };
        options.counters.advance(scan.file() - before);
    }
    Ok(Ok(scan))
}

/// A piece is decoded while the next ones are on their way.
async fn scan_remote(
    mut scan: Scan,
    file: &Arc<dyn ByteSource>,
    options: &Options,
    cancel: &CancellationToken,
) -> Result<Result<Scan, OpenError>, ConvertError> {
    let len = file.len();
    let pieces = (0..len.div_ceil(PIECE)).map(|i| Span::between(i * PIECE, len.min((i + 1) * PIECE)));
    let pieces = stream::iter(pieces)
        .map(|piece| async move { exactly(file.as_ref(), piece, file.read(piece).await?) })
        .buffered(file.shape().in_flight.max(2));
    let mut pieces = std::pin::pin!(pieces);
    let mut next = cancel.run_until_cancelled(pieces.next()).await;
    loop {
        let bytes = match next {
            None => return Err(ConvertError::Cancelled),
            Some(None) => return Ok(Ok(scan)),
            Some(Some(bytes)) => bytes?,
        };
        let len = bytes.len() as u64;
        let job = options.workers.run(move || scan.push(&bytes).map(|()| scan));
        let (scanned, read) = future::join(job, cancel.run_until_cancelled(pieces.next())).await;
        scan = match scanned? {
            Ok(scan) => scan,
            Err(error) => return Ok(Err(error)),
        };
        options.counters.advance(len);
        next = read;
    }
}

fn exactly(file: &dyn ByteSource, span: Span, bytes: Bytes) -> Result<Bytes, SourceError> {
    if bytes.len() as u64 != span.len {
        return Err(SourceError::new(file.name(), span, SourceFault::Protocol));
    }
    Ok(bytes)
}

/// Reads where that does not wait for a network.
fn read_now(file: &dyn ByteSource, span: Span) -> Result<Vec<u8>, SourceError> {
    let Some(local) = file.blocking() else {
        return Err(SourceError::new(file.name(), span, SourceFault::Protocol));
    };
    let mut bytes = vec![0; to_usize(span.len)];
    local.read_at(span.start, &mut bytes)?;
    Ok(bytes)
}

/// A run of the content while it is made.
struct Run {
    of: Arc<Inner>,
    cursor: Cursor,
    span: Span,
    filled: usize,
}

impl Run {
    /// Begins at the checkpoint before it, or where an earlier read ended, if that is nearer.
    fn new(of: &Arc<Inner>, span: Span) -> Result<Self, SourceError> {
        let cursor = match of.parked(span.start) {
            Some(cursor) => cursor,
            None => of.checkpoints.seek(span.start),
        };
        let work = span.end() - cursor.content();
        if of.work.fetch_add(work, Ordering::Relaxed).saturating_add(work) > of.most_work {
            return Err(SourceError::new(of.file.name(), span, SourceFault::Scattered));
        }
        Ok(Self { of: of.clone(), cursor, span, filled: 0 })
    }

    /// What of the file is wanted next; nothing, once all is there.
    fn wants(&self) -> Option<Span> {
        if self.filled as u64 == self.span.len {
            return None;
        }
        let start = self.cursor.file();
        // What is short asks for little: a stream is hardly ever longer than its content.
        let enough = (self.span.end() - self.cursor.content() + HEADROOM).min(PIECE);
        Some(Span::between(start, self.of.checkpoints.file_end(self.span.end()).min(start + enough)))
    }

    /// Goes on with what was wanted; `into` is as long as the run.
    fn push(&mut self, piece: &[u8], into: &mut [u8]) -> Result<(), SourceError> {
        let changed = || SourceError::new(self.of.file.name(), self.span, SourceFault::Changed);
        // The scan found more here.
        if piece.is_empty() {
            return Err(changed());
        }
        let (from, rest) = (self.span.start + self.filled as u64, &mut into[self.filled..]);
        self.filled += self.cursor.read(piece, from, rest).map_err(|error| changed().because(error))?;
        Ok(())
    }

    /// Leaves the decoder to whoever goes on from here.
    fn park(self) {
        let mut parked = self.of.parked.lock().unwrap_or_else(PoisonError::into_inner);
        if parked.len() == self.of.in_flight {
            parked.remove(0);
        }
        parked.push(self.cursor);
    }
}

impl Inner {
    /// The parked decoder from which byte `at` is nearest, if a checkpoint is not nearer.
    fn parked(&self, at: u64) -> Option<Cursor> {
        let least = self.checkpoints.before(at);
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        let stands = parked.iter().enumerate().map(|(i, cursor)| (cursor.content(), i));
        let (_, nearest) = stands.filter(|(content, _)| (least..=at).contains(content)).max()?;
        Some(parked.remove(nearest))
    }

    fn check(&self, span: Span) -> Result<(), SourceError> {
        if !Span::new(0, self.checkpoints.content_len()).covers(span) {
            return Err(SourceError::new(self.file.name(), span, SourceFault::Shrunk));
        }
        Ok(())
    }
}

/// On the thread that asks: a worker that makes one part after the other finds the decoder where it left it.
impl ReadAt for Unpacked {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), SourceError> {
        let span = Span::new(offset, into.len() as u64);
        self.inner.check(span)?;
        let mut run = Run::new(&self.inner, span)?;
        while let Some(piece) = run.wants() {
            let bytes = read_now(self.inner.file.as_ref(), piece)?;
            run.push(&bytes, into)?;
        }
        run.park();
        Ok(())
    }
}

#[async_trait]
impl ByteSource for Unpacked {
    fn len(&self) -> u64 {
        self.inner.checkpoints.content_len()
    }

    fn name(&self) -> &str {
        self.inner.file.name()
    }

    async fn read(&self, span: Span) -> Result<Bytes, SourceError> {
        let inner = &self.inner;
        inner.check(span)?;
        let failed =
            |error: ConvertError| SourceError::new(self.name(), span, SourceFault::Io).because(error);
        let mut bytes = vec![0; to_usize(span.len)];
        if inner.file.blocking().is_some() {
            let this = self.clone();
            let job = move || this.read_at(span.start, &mut bytes).map(|()| bytes);
            return inner.workers.run(job).await.map_err(failed)?.map(Bytes::from);
        }
        // Nobody closes it.
        let _permit = inner.decoding.acquire().await.map_err(|_| failed(ConvertError::Cancelled))?;
        let mut run = Run::new(inner, span)?;
        while let Some(piece) = run.wants() {
            let read = exactly(inner.file.as_ref(), piece, inner.file.read(piece).await?)?;
            let job = move || run.push(&read, &mut bytes).map(|()| (run, bytes));
            (run, bytes) = inner.workers.run(job).await.map_err(failed)??;
        }
        run.park();
        Ok(Bytes::from(bytes))
    }

    async fn allocation(&self) -> Result<Option<Vec<Span>>, SourceError> {
        Ok(Some(self.inner.checkpoints.filled().to_vec()))
    }

    async fn verify(&self) -> Result<(), SourceError> {
        self.inner.file.verify().await
    }

    fn version(&self) -> String {
        self.inner.file.version()
    }

    fn is_pinned(&self) -> bool {
        self.inner.file.is_pinned()
    }

    fn shape(&self) -> SourceShape {
        let spacing = self.inner.checkpoints.spacing();
        // A read of its own would decode half of this in vain.
        let reads = ReadShape { max_gap: spacing / 2, max_len: MOST_PART };
        match self.inner.file.blocking() {
            Some(_) => SourceShape { reads, ..SourceShape::LOCAL },
            None => {
                let (part, in_flight) = (spacing.clamp(LEAST_PART, MOST_PART), self.inner.in_flight);
                SourceShape { reads, part, in_flight }
            }
        }
    }

    fn held(&self) -> u64 {
        self.inner.checkpoints.memory() as u64
    }

    fn blocking(&self) -> Option<&dyn ReadAt> {
        self.inner.file.blocking().map(|_| self as &dyn ReadAt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemorySource;

    #[tokio::test]
    async fn whoever_reads_too_much_is_stopped() {
        let content = vec![7; 1 << 20];
        let mut file = vec![0; 1 << 20];
        let mut encoder = disk_image::Encoder::new(disk_image::Codec::Gzip);
        let len = encoder.encode(&content, &mut file).unwrap();
        file.truncate(len);
        let source = Arc::new(MemorySource::new("small", file));
        let (options, never) = (Options::default(), CancellationToken::new());
        let unpacked = Unpacked::open(source, Compression::Gzip, &options, &never).await.unwrap();
        let (whole, half) = (Span::new(0, 1 << 20), Span::new(0, 1 << 19));
        assert_eq!(unpacked.read(whole).await.unwrap(), content);
        assert_eq!(unpacked.decoded(), 1 << 20);
        // From the start again; then on from where that ended.
        assert_eq!(unpacked.read(half).await.unwrap(), content[..1 << 19]);
        let rest = Span::new(1 << 19, 1 << 19);
        assert_eq!(unpacked.read(rest).await.unwrap(), content[..1 << 19]);
        assert_eq!(unpacked.decoded(), 2 << 20);

        unpacked.inner.work.store(MIN_WORK - 1, Ordering::Relaxed);
        let error = unpacked.read(half).await.unwrap_err();
        assert_eq!(error.fault, SourceFault::Scattered);
        assert!(ConvertError::from(error).is_refusal());
    }
}
