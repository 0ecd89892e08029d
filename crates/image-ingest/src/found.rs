//! One ingest: from a URL, or any byte source, to a sink and to the sizes of what it holds.
//!
//! The image is opened, which proves its whole mapping, and held to the policy, before the first byte is written. Then its raw layout
//! is converted into the sink. Time begins when the memory is there.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use disk_convert::{
    ByteSource, ConvertError, Disk, GuestDigest, Options, References, Sink, SinkError, Summed, convert,
    open_image, storage_bound,
};
use disk_image::limits::MAX_MAP_MEMORY;
use disk_image::{Format, ObjectMap, OpenOptions};
use object_io::HttpSource;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::memory::Held;
use crate::{IngestError, Limit, Policy, limits};

/// What an ingest came to. Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ingested<T = ()> {
    /// What the guest sees.
    pub virtual_size: u64,
    /// The blocks that are not zero.
    pub storage_size: u64,
    /// The smallest disk that may be made from the image.
    pub min_disk_size: u64,
    /// Digest of the disk, the same whatever format it came in.
    pub guest_digest: GuestDigest,
    /// What the sink gave.
    pub output: T,
}

impl<T> Ingested<T> {
    /// The same, with something else instead of what the sink gave.
    pub fn map<U>(self, output: impl FnOnce(T) -> U) -> Ingested<U> {
        let Self { virtual_size, storage_size, min_disk_size, guest_digest, output: given } = self;
        Ingested { virtual_size, storage_size, min_disk_size, guest_digest, output: output(given) }
    }
}

/// Takes the disk image at `uri` into the sink that `sink` makes of what was found.
///
/// # Errors
///
/// See [`IngestError`]; what is refused was refused before `sink` was called. The sink has been aborted then, and nothing is in
/// flight any more, after a cancel neither.
pub async fn ingest<S>(
    uri: &str,
    policy: &Policy,
    sink: impl FnOnce(&Found) -> Result<S, SinkError>,
    cancel: &CancellationToken,
) -> Result<Ingested<S::Output>, IngestError>
where
    S: Sink,
    S::Output: Summed,
{
    let found = probe(uri, policy, cancel).await?;
    let sink = sink(&found).map_err(|error| IngestError::Open(error.into()))?;
    found.store(sink, cancel).await
}

/// Opens and proves the disk image at `uri`.
///
/// # Errors
///
/// If the policy does not let the URI or the image in, the source fails, or the image is refused.
pub async fn probe(uri: &str, policy: &Policy, cancel: &CancellationToken) -> Result<Found, IngestError> {
    let uri = policy.uris.check(uri)?;
    let http = policy.uris.http_options(policy.http);
    let begun = Begun::new(policy, cancel).await?;
    let stop = cancel.child_token();
    let opening = async {
        let source = HttpSource::open(uri.expose(), &http, &stop).await;
        Opened::new(Arc::new(source.map_err(opening_failed(&stop))?), policy, &stop).await
    };
    let opened = within(begun.deadline, policy.time, &stop, opening).await?;
    Ok(Found::new(begun, opened, policy))
}

/// Opens and proves the disk image in `source`, from wherever the caller has it.
///
/// # Errors
///
/// As [`probe`].
pub async fn probe_source(
    source: Arc<dyn ByteSource>,
    policy: &Policy,
    cancel: &CancellationToken,
) -> Result<Found, IngestError> {
    let begun = Begun::new(policy, cancel).await?;
    let stop = cancel.child_token();
    let opening = Opened::new(source, policy, &stop);
    let opened = within(begun.deadline, policy.time, &stop, opening).await?;
    Ok(Found::new(begun, opened, policy))
}

/// A disk image that was proven and held to the policy; nothing of it is written yet. Holds the memory of its ingest until it is
/// stored or dropped.
pub struct Found {
    disk: Disk,
    policy: Policy,
    min_disk_size: u64,
    storage_bound: u64,
    deadline: Instant,
    memory: Option<Held>,
}

impl Found {
    fn new(Begun { deadline, mut memory }: Begun, opened: Opened, policy: &Policy) -> Self {
        let Opened { disk, min_disk_size, storage_bound } = opened;
        if let Some(memory) = &mut memory {
            memory.shrink_to(policy.options.memory.saturating_add(disk.memory()));
        }
        Self { disk, policy: policy.clone(), min_disk_size, storage_bound, deadline, memory }
    }

    /// What the guest sees, bytes.
    pub fn virtual_size(&self) -> u64 {
        self.disk.image().virtual_size()
    }

    /// The smallest disk that may be made from the image, bytes.
    pub fn min_disk_size(&self) -> u64 {
        self.min_disk_size
    }

    /// The most that can come to be stored: all blocks of 4 MiB in which the image stores anything, bytes.
    pub fn storage_bound(&self) -> u64 {
        self.storage_bound
    }

    /// The format, by content.
    pub fn format(&self) -> Format {
        self.disk.image().format()
    }

    /// The opened image.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Gives the raw content of the disk to `sink`.
    ///
    /// # Errors
    ///
    /// If image, source or sink fail, or it takes too long. The sink has been aborted then.
    pub async fn store<S>(
        self,
        sink: S,
        cancel: &CancellationToken,
    ) -> Result<Ingested<S::Output>, IngestError>
    where
        S: Sink,
        S::Output: Summed,
    {
        let stop = cancel.child_token();
        let virtual_size = self.virtual_size();
        let layout = ObjectMap::raw(virtual_size);
        let storing = async {
            let stored = convert(&self.disk, &layout, sink, &self.policy.options, &stop).await;
            // Whatever a cancel made fail on its way through source and sink is the cancel.
            stored.map_err(|error| match stop.is_cancelled() {
                true => IngestError::Cancelled,
                false => IngestError::converting(error),
            })
        };
        let output = within(self.deadline, self.policy.time, &stop, storing).await?;
        // Until here.
        drop(self.memory);
        let summary = output.summary();
        Ok(Ingested {
            virtual_size,
            storage_size: summary.storage_size,
            min_disk_size: self.min_disk_size,
            guest_digest: summary.guest_digest,
            output,
        })
    }
}

/// An ingest that has its memory, and its time running.
struct Begun {
    deadline: Instant,
    memory: Option<Held>,
}

impl Begun {
    async fn new(policy: &Policy, cancel: &CancellationToken) -> Result<Self, IngestError> {
        // The map's size is known when it is there.
        let most = policy.options.memory.saturating_add(MAX_MAP_MEMORY as u64);
        let memory = match &policy.budget {
            Some(budget) => Some(budget.hold(most, cancel).await?),
            None => None,
        };
        Ok(Self { deadline: Instant::now() + policy.time, memory })
    }
}

/// An image that is within the limits.
struct Opened {
    disk: Disk,
    min_disk_size: u64,
    storage_bound: u64,
}

impl Opened {
    async fn new(
        source: Arc<dyn ByteSource>,
        policy: &Policy,
        stop: &CancellationToken,
    ) -> Result<Self, IngestError> {
        let how = OpenOptions { format: policy.format, ..OpenOptions::default() };
        // An image is longer than its disk only by metadata and by what snapshots keep.
        let max_unpacked = policy.max_virtual_size.saturating_mul(2).min(policy.options.max_unpacked);
        // Progress is that of storing.
        let options = Options { max_unpacked, counters: Arc::default(), ..policy.options.clone() };
        let opened = open_image(source, &how, &References::Deny, &options, stop).await;
        let disk = opened.map_err(opening_failed(stop))?;
        let image = disk.image();
        let virtual_size = image.virtual_size();
        let within = |limit, found, allowed| match found <= allowed {
            true => Ok(()),
            false => Err(IngestError::TooLarge { limit, found, allowed }),
        };
        within(Limit::VirtualSize, virtual_size, policy.max_virtual_size)?;
        within(Limit::Metadata, disk.memory(), policy.max_metadata)?;
        let min_disk_size = min_disk_size(virtual_size, policy.wanted_disk_size)?;
        let storage_bound = storage_bound(image.map());
        within(Limit::StorageSize, storage_bound, policy.max_storage_size)?;
        for warning in image.warnings() {
            tracing::warn!(source = disk.source().name(), %warning, "odd image");
        }
        Ok(Self { disk, min_disk_size, storage_bound })
    }
}

fn opening_failed<E: Into<ConvertError>>(stop: &CancellationToken) -> impl FnOnce(E) -> IngestError {
    let stop = stop.clone();
    move |error| match stop.is_cancelled() {
        true => IngestError::Cancelled,
        false => IngestError::opening(error.into()),
    }
}

/// The work's end, unless that comes too late: then the work is told to stop, and waited for, and what was in flight has ended.
async fn within<T>(
    deadline: Instant,
    limit: Duration,
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, IngestError>>,
) -> Result<T, IngestError> {
    let mut work = pin!(work);
    match timeout_at(deadline, &mut work).await {
        Ok(ended) => ended,
        Err(_) => {
            stop.cancel();
            let _ = work.await;
            Err(IngestError::TooLong { limit })
        }
    }
}

/// The smallest disk that holds the guest, and at least what the caller wants; bytes.
///
/// # Errors
///
/// [`IngestError::DiskTooSmall`] if the caller wants a smaller one than that; 0 means that it does not care.
pub fn min_disk_size(virtual_size: u64, wanted: u64) -> Result<u64, IngestError> {
    let needed = virtual_size.max(1).checked_next_multiple_of(limits::DISK_UNIT).unwrap_or(u64::MAX);
    match wanted {
        0 => Ok(needed),
        wanted if wanted < needed => Err(IngestError::DiskTooSmall { needed, wanted }),
        wanted => Ok(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smallest_disks() {
        const MIB: u64 = 1 << 20;
        for (virtual_size, needed) in [(512, 4), (4 * MIB, 4), (4 * MIB + 512, 8), (8 << 40, 8 << 20)] {
            assert_eq!(min_disk_size(virtual_size, 0).unwrap(), needed * MIB);
            assert_eq!(min_disk_size(virtual_size, needed * MIB).unwrap(), needed * MIB);
            assert_eq!(min_disk_size(virtual_size, needed * MIB + 1).unwrap(), needed * MIB + 1);
            assert!(matches!(
                min_disk_size(virtual_size, needed * MIB - 1),
                Err(IngestError::DiskTooSmall { needed: n, .. }) if n == needed * MIB
            ));
        }
    }
}
