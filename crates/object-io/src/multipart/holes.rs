//! Parts of zeroes that the store copies for itself, so that holes do not travel.
//!
//! "UploadPartCopy", Amazon S3 API Reference. The source has to be an object, so one of zeroes, as long as a part, is put beside when the first
//! such part comes: it costs what that part would have cost. Every copy is proven as a part that is sent is, and journalled as one. The
//! first copy that is refused or not proven is the last one: what is left is sent, as it is where the store is known to copy
//! nothing.
//!
//! The object of zeroes lives inside its upload, whose id its name tells: it is removed before the upload is completed, and
//! with an upload that is aborted. What a kill leaves is removed by the process that continues, or by whoever looks for what
//! begins with [`ZEROES_PREFIX`]. Not copied: a last part that is shorter.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::{MultipartSink, OpenUpload};
use crate::limits::{ABORT_TIMEOUT, ZEROES_PREFIX};
use crate::store::{PartSent, PutOptions, UploadId, Wanted, md5_of};
use crate::{ObjectError, Store};

/// What is known of the copies of one upload.
#[derive(Debug, Default)]
pub(super) struct Holes {
    /// MD5 of the object of zeroes, once that is there; `None` if it cannot be.
    source: OnceCell<Option<[u8; 16]>>,
    /// It was asked for.
    begun: AtomicBool,
    /// A copy was refused, or not proven.
    off: AtomicBool,
}

/// The key of the zeroes for an upload.
pub fn zeroes_key(upload_id: &str) -> String {
    let mut name = hex::encode(Sha256::digest(upload_id));
    name.truncate(32);
    format!("{ZEROES_PREFIX}{name}")
}

impl MultipartSink {
    /// Has the store make part `number` of zeroes. `None` if they have to be sent.
    pub(super) async fn copy_zeroes(
        &self,
        number: u32,
        crc32: u32,
        zeroes: &Bytes,
    ) -> Result<Option<PartSent>, ObjectError> {
        let OpenUpload { store, id, .. } = &self.upload;
        let (holes, len) = (&self.holes, zeroes.len() as u64);
        let may_copy = self.options.copy_holes && store.profile().part_copy != Some(false);
        if !may_copy || len != self.part_len || holes.off.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let source = holes.source.get_or_try_init(|| self.put_zeroes(zeroes)).await?;
        let Some(md5) = *source else { return Ok(None) };
        let wanted = Wanted { len, crc32, md5 };
        let key = zeroes_key(&id.id);
        match store.copy_part(id, number, &key, wanted, &self.link, &self.cancel).await {
            Ok(Some(sent)) => {
                store.0.profile.learn("parts can be copied", |profile| profile.part_copy = Some(true));
                return Ok(Some(sent));
            }
            Ok(None) => {
                store.0.profile.learn("copies are not as they should be", |profile| {
                    profile.part_copy = Some(false);
                });
            }
            Err(ObjectError::Cancelled) => return Err(ObjectError::Cancelled),
            Err(error) => {
                tracing::debug!(object = %self.name, %error, "a part is not copied; zeroes are sent");
                if matches!(error, ObjectError::Refused { .. }) {
                    store
                        .0
                        .profile
                        .learn("parts cannot be copied", |profile| profile.part_copy = Some(false));
                }
            }
        }
        holes.off.store(true, Ordering::Relaxed);
        Ok(None)
    }

    /// Puts the object of zeroes; `None` if the store does not take it.
    async fn put_zeroes(&self, zeroes: &Bytes) -> Result<Option<[u8; 16]>, ObjectError> {
        let OpenUpload { store, id, .. } = &self.upload;
        let cancel = &self.cancel;
        let put = async {
            let _slot = self.link.slot().await;
            if let Some(limit) = self.link.limit() {
                tokio::time::sleep_until(limit.take(zeroes.len() as u64).into()).await;
            }
            self.holes.begun.store(true, Ordering::Relaxed);
            let key = zeroes_key(&id.id);
            store.put(&id.bucket, &key, zeroes.clone(), &PutOptions::default(), cancel).await
        };
        match cancel.run_until_cancelled(put).await {
            Some(Ok(_)) => Ok(Some(md5_of(zeroes).await)),
            None | Some(Err(ObjectError::Cancelled)) => Err(ObjectError::Cancelled),
            // Who may write this object need not be allowed to write others.
            Some(Err(error)) => {
                tracing::debug!(object = %self.name, %error, "no object of zeroes to copy; zeroes are sent");
                Ok(None)
            }
        }
    }

    /// Removes the object of zeroes, if there is one, or may be.
    pub(super) async fn remove_zeroes(&self) {
        // Also where a cancel met its being put, or the answer was lost.
        let is_begun = self.holes.begun.load(Ordering::Relaxed);
        if is_begun || (self.options.copy_holes && self.is_resumed) {
            let OpenUpload { store, id, .. } = &self.upload;
            remove_zeroes(store, id).await;
        }
    }
}

/// Also after a cancellation, and never for long. A failure is told, and no more: nothing depends on it.
pub(super) async fn remove_zeroes(store: &Store, id: &UploadId) {
    let never = CancellationToken::new();
    let removal = store.remove_zeroes(&id.bucket, &id.id, &never);
    match tokio::time::timeout(ABORT_TIMEOUT, removal).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(upload = %id.place(), %error, "object of zeroes not removed"),
        Err(_) => tracing::warn!(upload = %id.place(), "object of zeroes not removed in time"),
    }
}

impl Store {
    /// Removes the zeroes that an upload was copying its holes from. That there are none is no error.
    ///
    /// # Errors
    ///
    /// If the store refuses or cannot be reached.
    pub async fn remove_zeroes(
        &self,
        bucket: &str,
        upload_id: &str,
        cancel: &CancellationToken,
    ) -> Result<(), ObjectError> {
        self.delete(bucket, &zeroes_key(upload_id), cancel).await
    }
}
