//! A disk image as the bytes of its guest: through its extent map, from wherever it is read.

use disk_convert::{ByteSource, ConvertError, Disk, Options, Rendered};
use disk_image::{ObjectMap, Span};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::source::{Cause, GuestBytes};
use crate::{Guest, inspect};

/// A disk that could not be looked into.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The image is not whole, or a thread failed.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// What was wanted of the disk could not be read.
    #[error("cannot look into the disk")]
    Read {
        /// Why not.
        source: Cause,
    },
}

/// Looks into the disk that an image holds. Reads are counted in `options`.
///
/// Runs in a thread of its own, which asks for one run after the other. A cancellation ends it at the next one.
///
/// # Errors
///
/// If the image names files that were not opened, if it cannot be read or decoded where something is looked for, and
/// [`ConvertError::Cancelled`].
pub async fn inspect_disk(
    disk: &Disk,
    options: &Options,
    cancel: &CancellationToken,
) -> Result<Guest, InspectError> {
    let map = disk.image().map();
    let layout = ObjectMap::raw(map.guest_len());
    let unit = map.stats().largest_unit;
    let bytes = Rendered::new(disk.source().name(), disk.clone(), layout, options)?;
    let source = OfDisk { bytes, unit, cancel: cancel.clone(), runtime: Handle::current() };
    let looked = tokio::task::spawn_blocking(move || inspect(Box::new(source))).await;
    let looked = looked.map_err(|_| ConvertError::Panicked)?;
    if cancel.is_cancelled() {
        return Err(ConvertError::Cancelled.into());
    }
    looked.map_err(|source| InspectError::Read { source })
}

struct OfDisk {
    bytes: Rendered,
    unit: u64,
    cancel: CancellationToken,
    runtime: Handle,
}

impl GuestBytes for OfDisk {
    fn len(&self) -> u64 {
        ByteSource::len(&self.bytes)
    }

    fn unit(&self) -> u64 {
        self.unit
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), Cause> {
        let read = self.bytes.read(Span::new(offset, into.len() as u64));
        match self.runtime.block_on(self.cancel.run_until_cancelled(read)) {
            Some(bytes) => {
                into.copy_from_slice(&bytes?);
                Ok(())
            }
            None => Err(Box::new(ConvertError::Cancelled)),
        }
    }
}
