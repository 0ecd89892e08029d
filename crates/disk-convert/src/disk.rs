//! A disk image together with what it is read from.

use std::sync::Arc;

use bytes::Bytes;
use disk_image::{Format, Image, Open, OpenOptions, Stored, open, raw};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::assemble::to_usize;
use crate::{ByteSource, ConvertError, Options, SourceError, SourceFault, Workers};

/// An opened disk image and its source. Cheap to clone.
#[derive(Clone)]
pub struct Disk {
    image: Arc<Image>,
    source: Arc<dyn ByteSource>,
}

impl Disk {
    /// Joins an image with the source that it was opened from.
    pub fn new(image: Image, source: Arc<dyn ByteSource>) -> Self {
        Self { image: Arc::new(image), source }
    }

    /// The image.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Its source.
    pub fn source(&self) -> &Arc<dyn ByteSource> {
        &self.source
    }
}

/// Opens the disk image in `source`. For a raw disk, what the source knows of its allocation becomes holes.
///
/// Reads metadata only: time and memory are proportional to it, not to the virtual size. Nothing remains after a
/// cancellation.
///
/// # Errors
///
/// [`ConvertError::Open`] if the image is refused, or what the source reports.
pub async fn open_image(
    source: Arc<dyn ByteSource>,
    how: &OpenOptions,
    options: &Options,
    cancel: &CancellationToken,
) -> Result<Disk, ConvertError> {
    let refused = |error| ConvertError::Open { name: source.name().into(), source: error };
    let opening = async {
        let mut step = open(source.len(), how).map_err(refused)?;
        let mut head = (Stored::image(0, 0), Bytes::new());
        let image = loop {
            match step {
                Open::Ready(image) => break image,
                Open::Need(need) => {
                    let answers = read_metadata(&source, need.wants(), &mut head, &options.workers).await?;
                    // Tables of an 8 TiB disk take a while to parse: not on the runtime's threads.
                    step = options.workers.run(move || need.resume(answers)).await?.map_err(refused)?;
                }
            }
        };
        if image.format() == Format::Raw
            && let Some(allocation) = source.allocation().await?
        {
            return raw::open(source.len(), Some(&allocation)).map_err(refused);
        }
        Ok(image)
    };
    let image = cancel.run_until_cancelled(opening).await.unwrap_or(Err(ConvertError::Cancelled))?;
    Ok(Disk::new(image, source))
}

/// Reads what a parser wants in as few reads as serve the source best. `head` keeps the start of the file, which is wanted first to
/// recognise the format, then to parse it.
async fn read_metadata(
    source: &Arc<dyn ByteSource>,
    wants: &[Stored],
    head: &mut (Stored, Bytes),
    workers: &Workers,
) -> Result<Vec<Bytes>, ConvertError> {
    let missing = wants.iter().filter(|want| !head.0.span.covers(want.span)).copied().collect();
    let reads = source.shape().reads.merge(missing);
    let bytes = read_all(source, &reads, workers).await?;
    let read: Vec<_> = reads.into_iter().zip(bytes).collect();
    if let Some(first) = read.first().filter(|(at, _)| at.span.start == 0 && head.0.span.is_empty()) {
        head.clone_from(first);
    }
    let answer = |want: &Stored| {
        let after = read.partition_point(|(at, _)| at.span.start <= want.span.start);
        let (at, bytes) = after
            .checked_sub(1)
            .and_then(|i| read.get(i))
            .filter(|_| !head.0.span.covers(want.span))
            .unwrap_or(head);
        let from = to_usize(want.span.start - at.span.start);
        bytes.slice(from..from + to_usize(want.span.len))
    };
    Ok(wants.iter().map(answer).collect())
}

/// Reads runs, several in flight, and gives their bytes in order.
pub(crate) async fn read_all(
    source: &Arc<dyn ByteSource>,
    wants: &[Stored],
    workers: &Workers,
) -> Result<Vec<Bytes>, ConvertError> {
    let local = source.blocking().is_some();
    stream::iter(wants.to_vec())
        .map(|want| async move {
            let span = want.span;
            let bytes = if local {
                let file = source.clone();
                workers.run(move || read_local(&file, want)).await??
            } else {
                source.read(span).await?
            };
            if bytes.len() as u64 != span.len {
                return Err(SourceError::new(source.name(), span, SourceFault::Protocol).into());
            }
            Ok(bytes)
        })
        .buffered(source.shape().in_flight.max(1))
        .try_collect()
        .await
}

fn read_local(source: &Arc<dyn ByteSource>, want: Stored) -> Result<Bytes, SourceError> {
    let Some(file) = source.blocking() else {
        return Err(SourceError::new(source.name(), want.span, SourceFault::Protocol));
    };
    let mut bytes = vec![0; to_usize(want.span.len)];
    file.read_at(want.span.start, &mut bytes)?;
    Ok(bytes.into())
}
