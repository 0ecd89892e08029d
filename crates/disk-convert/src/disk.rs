//! A disk image together with what it is read from.

use std::sync::Arc;

use bytes::Bytes;
use disk_image::{
    Compression, ExtentMap, Feature, Format, Image, Open, OpenError, OpenOptions, Reference, Referred,
    Stored, open, open_unpacked, raw,
};
use futures_util::{StreamExt, TryStreamExt, future, stream};
use tokio_util::sync::CancellationToken;

use crate::assemble::to_usize;
use crate::references::Opener;
use crate::{
    ByteSource, ConvertError, Options, ReferenceFault, References, SourceError, SourceFault, Sources,
    Unpacked, Workers,
};

/// An opened disk image and the files that it is read from. Cheap to clone.
#[derive(Clone)]
pub struct Disk {
    image: Arc<Image>,
    /// The image's own file, as it is.
    file: Arc<dyn ByteSource>,
    /// What the map's runs lie in: that file, or what it unpacks to, and those that the image names.
    sources: Sources,
    compression: Option<Compression>,
}

impl Disk {
    /// Joins an image with the source that it was opened from.
    pub fn new(image: Image, source: Arc<dyn ByteSource>) -> Self {
        let sources = Sources::new(vec![source.clone()]);
        Self { image: Arc::new(image), file: source, sources, compression: None }
    }

    /// The same disk with a refined map, for example one in which stored zeroes are marked.
    ///
    /// # Panics
    ///
    /// If the map is not as long as the virtual size.
    #[must_use]
    pub fn with_map(&self, map: ExtentMap) -> Self {
        Self { image: Arc::new(self.image.as_ref().clone().with_map(map)), ..self.clone() }
    }

    /// The image.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The image's own file, compressed if it is.
    pub fn source(&self) -> &Arc<dyn ByteSource> {
        &self.file
    }

    /// How that file is compressed as a whole, if it is: then the runs of the map lie in what it unpacks to.
    pub fn compression(&self) -> Option<Compression> {
        self.compression
    }

    /// Memory that the map takes, and what makes the files readable, bytes.
    pub fn memory(&self) -> u64 {
        self.sources.iter().map(|file| file.held()).sum::<u64>() + self.image.map().memory() as u64
    }

    /// Fails if the content of the disk is not all there; see [`Image::is_partial`].
    pub(crate) fn check_whole(&self) -> Result<(), ConvertError> {
        match self.image.is_partial() {
            true => Err(ConvertError::Partial { name: self.source().name().into() }),
            false => Ok(()),
        }
    }

    /// All the files that hold the disk, as the map's runs lie in them.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }
}

/// Opens the disk image in `source`. For a raw disk, what the source knows of its allocation becomes holes.
///
/// Reads metadata only: time and memory are proportional to it, not to the virtual size; but a file that is compressed as a whole
/// is read through ([`Unpacked`]). Nothing remains after a cancellation.
///
/// # Errors
///
/// [`ConvertError::Open`] if the image is refused, [`ConvertError::Reference`] if it names a file that `references` does not let
/// in, or what the source reports.
pub async fn open_image(
    source: Arc<dyn ByteSource>,
    how: &OpenOptions,
    references: &References,
    options: &Options,
    cancel: &CancellationToken,
) -> Result<Disk, ConvertError> {
    Opening::new(source, references)?.run(how, options, cancel).await
}

/// An image while it is opened.
struct Opening {
    /// The files opened so far.
    sources: Sources,
    references: Policy,
    /// The start of the image's own file, which is wanted first to recognise the format, then to parse it.
    head: (Stored, Bytes),
    compression: Option<Compression>,
}

/// No start of a file.
fn nothing() -> (Stored, Bytes) {
    (Stored::image(0, 0), Bytes::new())
}

enum Policy {
    Deny,
    List,
    Beneath(Opener),
}

impl Opening {
    fn new(source: Arc<dyn ByteSource>, references: &References) -> Result<Self, ConvertError> {
        let references = match references {
            References::Deny => Policy::Deny,
            References::List => Policy::List,
            References::Beneath(folder) => Policy::Beneath(Opener::new(folder)?),
        };
        Ok(Self { sources: Sources::new(vec![source]), references, head: nothing(), compression: None })
    }

    async fn run(
        mut self,
        how: &OpenOptions,
        options: &Options,
        cancel: &CancellationToken,
    ) -> Result<Disk, ConvertError> {
        let file = self.sources.image().clone();
        let mut step = open(file.len(), how);
        let mut image = loop {
            step = match self.unpacked(step, how, options, cancel).await? {
                Open::Ready(image) => break image,
                Open::Need(need) => {
                    // A job that reads a local file cannot be dropped, only waited for.
                    let local = self.sources.are_local();
                    let read = self.read(need.wants(), &options.workers);
                    let answers = if local { read.await? } else { unless_cancelled(cancel, read).await? };
                    if cancel.is_cancelled() {
                        return Err(ConvertError::Cancelled);
                    }
                    // Tables of an 8 TiB disk take a while to parse: not on the runtime's threads.
                    options.workers.run(move || need.resume(answers)).await?
                }
                Open::Refer(refer) => {
                    let mut files: Vec<_> = self.sources.iter().cloned().collect();
                    let mut referred = Vec::new();
                    for reference in refer.references() {
                        let opening = self.refer(reference, &mut files);
                        referred.push(unless_cancelled(cancel, opening).await?);
                    }
                    self.sources = Sources::new(files);
                    options.workers.run(move || refer.resume(referred)).await?
                }
            };
        };
        if image.format() == Format::Raw
            && image.member().is_none()
            && let Some(allocation) = unless_cancelled(cancel, self.sources.image().allocation()).await?
        {
            let len = self.sources.image().len();
            image = raw::open(len, Some(&allocation)).map_err(|error| self.refused(error))?;
        }
        Ok(Disk { image: Arc::new(image), file, sources: self.sources, compression: self.compression })
    }

    /// The next step. Where it turned out that the file is compressed, that of opening what it unpacks to.
    async fn unpacked(
        &mut self,
        step: Result<Open<Image>, OpenError>,
        how: &OpenOptions,
        options: &Options,
        cancel: &CancellationToken,
    ) -> Result<Open<Image>, ConvertError> {
        let compression = match step {
            Err(OpenError::Unsupported(Feature::Compressed(compression))) => compression,
            step => return step.map_err(|error| self.refused(error)),
        };
        let content = Unpacked::open(self.sources.image().clone(), compression, options, cancel).await?;
        let step = open_unpacked(compression, content.len(), how);
        self.sources = Sources::new(vec![Arc::new(content)]);
        self.head = nothing();
        self.compression = Some(compression);
        step.map_err(|error| self.refused(error))
    }

    fn refused(&self, error: OpenError) -> ConvertError {
        let (file, source) = error.located();
        ConvertError::Open { name: self.sources.file(file).name().into(), source }
    }

    /// Opens a file that the image names, if the policy lets it in, and appends it to `files`.
    async fn refer(
        &mut self,
        reference: &Reference,
        files: &mut Vec<Arc<dyn ByteSource>>,
    ) -> Result<Referred, ConvertError> {
        let opened = match &mut self.references {
            Policy::List => return Ok(Referred::Skipped),
            Policy::Deny => Err(ReferenceFault::Denied),
            Policy::Beneath(opener) => opener.open(reference).map(|source| (source, opener.last())),
        };
        let (source, file) = opened.map_err(|source| {
            let by = self.sources.file(reference.by);
            ConvertError::Reference { name: by.name().into(), reference: reference.clone(), source }
        })?;
        let allocation = match reference.format {
            Format::Raw => source.allocation().await?,
            _ => None,
        };
        let len = source.len();
        files.push(Arc::new(source));
        Ok(Referred::File { file, len, allocation })
    }

    /// Reads what a parser wants in as few reads as serve the source best.
    async fn read(&mut self, wants: &[Stored], workers: &Workers) -> Result<Vec<Bytes>, ConvertError> {
        let head = &mut self.head;
        let in_head =
            |head: &(Stored, Bytes), want: &Stored| want.file == head.0.file && head.0.span.covers(want.span);
        let missing = wants.iter().filter(|want| !in_head(head, want)).copied().collect();
        let reads = self.sources.shape().reads.merge(missing);
        let bytes = read_all(&self.sources, &reads, workers).await?;
        let read: Vec<_> = reads.into_iter().zip(bytes).collect();
        if let Some(first) = read.first().filter(|(at, _)| at.span.start == 0 && head.0.span.is_empty()) {
            head.clone_from(first);
        }
        let answer = |want: &Stored| {
            let after =
                read.partition_point(|(at, _)| (at.file, at.span.start) <= (want.file, want.span.start));
            let (at, bytes) = after
                .checked_sub(1)
                .and_then(|i| read.get(i))
                .filter(|_| !in_head(head, want))
                .unwrap_or(head);
            let from = to_usize(want.span.start - at.span.start);
            bytes.slice(from..from + to_usize(want.span.len))
        };
        Ok(wants.iter().map(answer).collect())
    }
}

async fn unless_cancelled<T, E: Into<ConvertError>>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, ConvertError> {
    match cancel.run_until_cancelled(work).await {
        Some(result) => result.map_err(Into::into),
        None => Err(ConvertError::Cancelled),
    }
}

/// Reads runs, several in flight, and gives their bytes in order.
pub(crate) async fn read_all(
    sources: &Sources,
    wants: &[Stored],
    workers: &Workers,
) -> Result<Vec<Bytes>, ConvertError> {
    if sources.are_local() {
        return read_all_local(sources, wants, workers).await;
    }
    stream::iter(wants.to_vec())
        .map(|want| async move {
            let source = sources.file(want.file);
            let bytes = source.read(want.span).await?;
            if bytes.len() as u64 != want.span.len {
                return Err(SourceError::new(source.name(), want.span, SourceFault::Protocol).into());
            }
            Ok(bytes)
        })
        .buffered(sources.shape().in_flight.max(1))
        .try_collect()
        .await
}

/// Reads on the workers, each its share of the runs: a hop between threads costs more than a small read.
async fn read_all_local(
    sources: &Sources,
    wants: &[Stored],
    workers: &Workers,
) -> Result<Vec<Bytes>, ConvertError> {
    let share = wants.len().div_ceil(workers.jobs()).max(1);
    let jobs = wants.chunks(share).map(|wants| {
        let (sources, wants) = (sources.clone(), wants.to_vec());
        workers.run(move || {
            let read = |want: &Stored| {
                let mut bytes = vec![0; to_usize(want.span.len)];
                sources.read_at(*want, &mut bytes)?;
                Ok(Bytes::from(bytes))
            };
            wants.iter().map(read).collect::<Result<Vec<_>, SourceError>>()
        })
    });
    let mut read = Vec::with_capacity(wants.len());
    for share in future::join_all(jobs).await {
        read.extend(share??);
    }
    Ok(read)
}
