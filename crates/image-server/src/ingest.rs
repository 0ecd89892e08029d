//! One ingest: from a byte source to stored blocks, their manifest and their sizes.
//!
//! The image is opened, which proves its whole mapping against named limits, and its size is compared with what the caller
//! wants, before the first block is read. Then the raw layout is converted into the block store, whose manifest is the last
//! thing written. The format is found by content; what an image names beside itself is never opened. Memory: the
//! budget of the options, and the image's map (at most 256 MiB, see `disk_image::limits`).

mod error;

use std::sync::Arc;

use block_store::BlockStore;
use disk_convert::{ByteSource, GuestDigest, Options, References, convert, open_image};
use disk_image::{ObjectMap, OpenOptions};
use tokio_util::sync::CancellationToken;

use crate::limits;
pub use error::IngestError;

/// What an ingest may do, and what it must come to.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Bytes of the smallest disk that the caller wants to allow; 0 means what the content needs.
    pub wanted_disk_size: u64,
    /// Memory and workers.
    pub options: Options,
}

/// What an ingest stored.
#[derive(Clone, Debug)]
pub struct Ingested {
    /// Bytes that the guest sees.
    pub virtual_size: u64,
    /// Bytes of the blocks that are not zero.
    pub storage_size: u64,
    /// Bytes of the smallest disk that may be made from the image.
    pub min_disk_size: u64,
    /// Digest of the disk, the same whatever format it came in.
    pub guest_digest: GuestDigest,
}

/// Stores the disk that `source` holds, and saves its manifest as `name`.
///
/// After an error or a cancel there is no manifest; blocks may be left over, which the store's collection removes. What the ledger of
/// `blocks` knows of the same version of the source is not read again.
pub async fn ingest(
    source: Arc<dyn ByteSource>,
    policy: &Policy,
    name: &str,
    blocks: &BlockStore,
    cancel: &CancellationToken,
) -> Result<Ingested, IngestError> {
    let options = &policy.options;
    // Whatever a cancel made fail on its way through source and sink is the cancel.
    let cancelled = |error| if cancel.is_cancelled() { IngestError::Cancelled } else { error };
    let opened = open_image(source, &OpenOptions::default(), &References::Deny, options, cancel).await;
    let disk = opened.map_err(|error| cancelled(IngestError::opening(error)))?;
    let virtual_size = disk.image().virtual_size();
    let min_disk_size = min_disk_size(virtual_size, policy.wanted_disk_size)?;
    for warning in disk.image().warnings() {
        tracing::warn!(name, %warning, "odd image");
    }
    let layout = ObjectMap::raw(virtual_size);
    let sink = blocks.sink(name, virtual_size, &options.workers, cancel);
    let version = if disk.source().is_pinned() { disk.source().version() } else { String::new() };
    let known = tokio::select! {
        biased;
        known = sink.resume(&version) => known.map_err(IngestError::Store)?,
        () = cancel.cancelled() => return Err(IngestError::Cancelled),
    };
    if known > 0 {
        tracing::info!(name, known, "parts of an earlier attempt are kept");
    }
    let converted = convert(&disk, &layout, sink, options, cancel).await;
    let manifest = converted.map_err(|error| cancelled(IngestError::converting(error)))?;
    Ok(Ingested {
        virtual_size,
        storage_size: manifest.storage_size(),
        min_disk_size,
        guest_digest: manifest.guest_digest(),
    })
}

/// The smallest disk that holds the guest, and at least what the caller wants.
pub(crate) fn min_disk_size(virtual_size: u64, wanted: u64) -> Result<u64, IngestError> {
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
