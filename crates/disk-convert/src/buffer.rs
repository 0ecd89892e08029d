//! Buffers of parts: page-aligned, reused, never zeroed twice.
//!
//! They are anonymous mappings, not heap: a fresh one costs nothing until it is touched, and a dropped one goes back to the system at
//! once instead of staying with the allocator.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use memmap2::MmapMut;

/// Keeps buffers of one size for reuse. Cheap to clone.
#[derive(Clone)]
pub(crate) struct BufferPool {
    size: usize,
    free: Arc<Mutex<Vec<MmapMut>>>,
}

impl BufferPool {
    /// A pool of buffers of `size` bytes, empty at first.
    pub(crate) fn new(size: usize) -> Self {
        Self { size, free: Arc::default() }
    }

    /// A buffer whose content means nothing.
    pub(crate) fn take(&self) -> std::io::Result<Buffer> {
        let reused = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let map = match reused {
            Some(map) => map,
            None => MmapMut::map_anon(self.size)?,
        };
        Ok(Buffer { map: Some(map), pool: self.clone() })
    }
}

/// A buffer that returns to its pool when it is dropped.
pub(crate) struct Buffer {
    /// Always there until drop.
    map: Option<MmapMut>,
    pool: BufferPool,
}

impl Buffer {
    /// The first `len` bytes, shared; the buffer returns to its pool with the last clone.
    pub(crate) fn freeze(self, len: usize) -> Bytes {
        Bytes::from_owner(self).slice(..len)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.map.as_deref_mut().unwrap_or(&mut [])
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(map) = self.map.take() {
            self.pool.free.lock().unwrap_or_else(PoisonError::into_inner).push(map);
        }
    }
}
