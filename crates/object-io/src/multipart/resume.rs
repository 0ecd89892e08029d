//! An upload that goes on where an earlier process stopped.
//!
//! "ListParts", Amazon S3 API Reference. A part is not sent again if the store and the journal agree about it (number, ETag,
//! length, and CRC32 where the store tells it), and if the bytes that are made for it now have the CRC32 that was journalled:
//! each part is made again, at the speed of memory, so that nothing has to be believed of the source.
//!
//! Refused: to continue an upload of something else. It is aborted then, and another one is begun.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::holes::remove_zeroes;
use super::journal::{Begun, Journal, UploadOf};
use super::{MultipartOptions, MultipartSink, OpenUpload, PartPlan, UploadedObject, abort_now, crc};
use crate::retry::Patience;
use crate::store::{ListedPart, PartSent, Store, UploadId};
use crate::{ObjectError, Scheme};

/// How an upload stands that has a journal.
#[derive(Debug)]
pub enum Resumed {
    /// A sink for the parts.
    Sink(Box<MultipartSink>, Progress),
    /// There is nothing left to send: the object was completed, and only the news of it was lost.
    Done(UploadedObject),
}

/// What an upload goes on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There was none before.
    Begun,
    /// So much of it is in the store.
    Continued {
        /// Parts that the store and the journal agree about.
        parts: usize,
        /// Their bytes.
        bytes: u64,
    },
    /// What there was is of no use, and was aborted.
    Restarted(Restart),
}

/// Why an upload does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Restart {
    /// The source holds something else than it did.
    Source,
    /// The object is to be made in another way.
    Form,
    /// The store does not know it any more.
    Forgotten,
    /// The store does not tell which parts it has.
    Hidden,
}

impl MultipartSink {
    /// Continues the upload that `journal` knows, if it is of the same bytes, or begins one and notes it there.
    ///
    /// A sink that fails leaves upload and journal for the next time, unless it was cancelled: then nothing remains.
    /// [`Journal::give_up`] ends what is left.
    ///
    /// # Errors
    ///
    /// As [`MultipartSink::create`].
    #[allow(clippy::too_many_arguments, reason = "`create`, and what the journal is about")]
    pub async fn resume(
        store: &Store,
        bucket: &str,
        key: &str,
        len: u64,
        options: MultipartOptions,
        journal: &Arc<Journal>,
        of: UploadOf,
        cancel: &CancellationToken,
    ) -> Result<Resumed, ObjectError> {
        let plan = store.plan(&store.place(bucket, key), len)?;
        let known = journal.known();
        let mut progress = Progress::Begun;
        if let Some(begun) = known.begun.as_ref() {
            let id = begun.id();
            let restart = match begun.restart(plan, &of) {
                Some(restart) => restart,
                None => match store.list_parts(&id, || Patience::of_verb(&store.0.retry), cancel).await {
                    Ok(listed) => {
                        let trusted = agreed(known.parts, &listed, plan);
                        let bytes = trusted.values().map(|part| part.len).sum();
                        let parts = trusted.len();
                        let mut sink = Self::over(store, id, plan, options, cancel);
                        sink.resumed = trusted;
                        sink.is_resumed = true;
                        sink.journal = Some(journal.clone());
                        return Ok(Resumed::Sink(sink.into(), Progress::Continued { parts, bytes }));
                    }
                    Err(error) if error.is_not_found() => {
                        // How long an object is that may be shorter, only its parts tell.
                        let is_whole =
                            known.is_whole(len) || (options.may_be_shorter && !known.parts.is_empty());
                        if is_whole
                            && let Some(done) =
                                completed(store, &id, &known.parts, &options, &of, cancel).await?
                        {
                            journal.done(&done.etag);
                            return Ok(Resumed::Done(done));
                        }
                        Restart::Forgotten
                    }
                    Err(ObjectError::AccessDenied { .. } | ObjectError::Refused { .. }) => Restart::Hidden,
                    Err(error) => return Err(error),
                },
            };
            if options.copy_holes {
                remove_zeroes(store, &id).await;
            }
            // Known until it is gone: what follows may fail.
            if restart == Restart::Forgotten || abort_now(store, &id).await {
                journal.forget();
            }
            progress = Progress::Restarted(restart);
        }
        let mut sink = Self::create(store, bucket, key, len, options, cancel).await?;
        let begun = Begun::new(store.endpoint(), &sink.upload.id, plan, of);
        let noted = journal.clone();
        // Syncs. A panic there would have been told.
        let _ = tokio::task::spawn_blocking(move || noted.begin(begun)).await;
        sink.journal = Some(journal.clone());
        Ok(Resumed::Sink(sink.into(), progress))
    }

    fn over(
        store: &Store,
        id: UploadId,
        plan: PartPlan,
        options: MultipartOptions,
        cancel: &CancellationToken,
    ) -> Self {
        let name = id.place().into();
        Self::new(OpenUpload::new(store.clone(), id), name, plan, options, cancel)
    }
}

impl Journal {
    /// Aborts the upload and removes the journal, also after a cancellation, and never for long. False if the upload may
    /// still be there; the journal is kept then.
    pub async fn give_up(&self, store: &Store) -> bool {
        let gone = match self.begun() {
            Some(begun) => {
                let id = begun.id();
                tokio::join!(abort_now(store, &id), remove_zeroes(store, &id)).0
            }
            None => true,
        };
        if gone {
            self.remove();
        }
        gone
    }
}

impl Begun {
    fn id(&self) -> UploadId {
        UploadId {
            scheme: Scheme::of_endpoint(&self.endpoint),
            bucket: self.bucket.as_str().into(),
            key: self.key.as_str().into(),
            id: self.upload_id.as_str().into(),
        }
    }

    /// Why this upload is of other bytes than the one that is wanted.
    fn restart(&self, plan: PartPlan, of: &UploadOf) -> Option<Restart> {
        // A digest says more than times and inodes, which change with a copy, and on some file systems with a restart.
        let same_source = match (&self.of.guest_digest, &of.guest_digest) {
            (Some(before), Some(now)) => before == now,
            _ => self.of.sources == of.sources,
        };
        // What is recorded was recorded at the beginning.
        let same_record = self.of.guest_digest.is_some() == of.guest_digest.is_some();
        let same_form = (&self.of.form, self.of.layout) == (&of.form, of.layout) && same_record;
        let same_plan = (self.len, self.part_len) == (plan.len, plan.part_len);
        match (same_source, same_form && same_plan) {
            (false, _) => Some(Restart::Source),
            (true, false) => Some(Restart::Form),
            (true, true) => None,
        }
    }
}

/// The parts that both know, and know the same of.
fn agreed(
    mut journalled: BTreeMap<u32, PartSent>,
    listed: &[ListedPart],
    plan: PartPlan,
) -> BTreeMap<u32, PartSent> {
    journalled.retain(|number, part| {
        let start = u64::from(*number).checked_sub(1).map(|index| index.saturating_mul(plan.part_len));
        let planned = start.map(|start| plan.len.saturating_sub(start).min(plan.part_len));
        let found = listed.binary_search_by_key(number, |listed| listed.number).ok();
        found.and_then(|index| listed.get(index)).is_some_and(|listed| {
            // Some stores leave the quotes out in lists.
            listed.etag.trim_matches('"') == part.etag.trim_matches('"')
                && listed.size == part.len
                && planned == Some(part.len)
                && listed.crc32.is_none_or(|sum| sum == part.crc32)
        })
    });
    journalled
}

/// The object that an upload has become of which all parts were sent.
async fn completed(
    store: &Store,
    id: &UploadId,
    parts: &BTreeMap<u32, PartSent>,
    options: &MultipartOptions,
    of: &UploadOf,
    cancel: &CancellationToken,
) -> Result<Option<UploadedObject>, ObjectError> {
    let stored = match store.head(&id.bucket, &id.key, cancel).await {
        Ok(stored) => stored,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let len: u64 = parts.values().map(|part| part.len).sum();
    // Where ETags are no MD5s, what the object says about itself has to do: the form and the digest of its content.
    let ours = match super::etag_of_object(parts) {
        Some(etag) => stored.etag.as_deref() == Some(&*etag),
        // Without a digest another disk may say the same of itself.
        None => of.guest_digest.is_some() && stored.metadata == options.metadata,
    };
    let crc32 = crc::of_object(parts);
    let etag = stored.etag.unwrap_or_default();
    Ok((ours && stored.size == len).then_some(UploadedObject { etag, size: len, crc32 }))
}

impl Store {
    /// What errors and journals call this store: its URL, or the region of AWS. No secret.
    pub fn endpoint(&self) -> String {
        match &self.0.endpoint {
            Some(url) => url.as_str().to_owned(),
            None => format!("aws:{}", self.0.region),
        }
    }
}
