//! Several Images by one command: each as a command of its own would make it, some at a time.
//!
//! What a command may use is for all of them together. Memory is shared out: an image begins with an equal share, and where that
//! does not hold two parts of its object, which is found out before any of it is sent, it gives the share back and waits until it
//! has what it needs. Who waits longest is served first, so no image is passed over for ever. CPU workers, connections and --limit-rate
//! are common to all. An image that fails, whatever the reason, ends its own task and no other.

pub(in crate::commands) mod outcome;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use disk_convert::ConvertError;
use object_io::BucketUri;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info_span};

use super::entries::{self, Entry};
use super::place::Cloud;
use super::{Create, Place, Source, bucket, forecast, manifest};
use crate::args::CreateArgs;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use outcome::{Made, Outcomes};

/// Images at a time, unless told otherwise: of the default memory each then holds three parts of a plain object, and while one is read
/// or waits for the service, others send.
const PARALLEL: u8 = 4;

/// The unit in which memory is shared out, bytes.
const UNIT: u64 = 1 << 20;

/// Makes all of them, and prints a result for each.
pub(super) async fn run(args: &CreateArgs, context: &Context) -> Result<Exit, Error> {
    for (typed, option) in [(args.fields.name.is_some(), "--name"), (args.key.is_some(), "--key")] {
        if typed {
            return Err(Error::ForOne { option });
        }
    }
    let bucket = bucket(args, context)?;
    let entries = entries::read(args, read_manifest(args, context).await?, context)?;
    if args.resume.dry_run {
        return all(args, context, &bucket, entries, None).await;
    }
    let owners: BTreeSet<_> = entries.iter().map(|entry| entry.fields.owner().to_owned()).collect();
    let place = Place::open(args, context, owners.iter().map(String::as_str), bucket.clone()).await?;
    let result = all(args, context, &bucket, entries, Some(&place.cloud)).await;
    place.close(context).await;
    result
}

/// The manifest's text, if there is one. Whoever waits for a pipe can be interrupted.
async fn read_manifest<'a>(
    args: &'a CreateArgs,
    context: &Context,
) -> Result<Option<(&'a Path, String)>, Error> {
    let Some(path) = args.manifest.as_deref() else { return Ok(None) };
    let read = {
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || manifest::read(&path))
    };
    match context.cancel.run_until_cancelled(read).await {
        None => Err(Error::Interrupted),
        Some(text) => Ok(Some((path, text.unwrap_or(Err(Error::Panicked))?))),
    }
}

/// The same, where the cloud is there; only forecasts where there is none.
async fn all(
    args: &CreateArgs,
    context: &Context,
    bucket: &BucketUri,
    entries: Vec<Entry>,
    cloud: Option<&Cloud>,
) -> Result<Exit, Error> {
    let parallel = usize::from(args.parallel.unwrap_or(PARALLEL)).min(entries.len());
    let memory = Arc::new(Memory::new(context.memory(), parallel));
    let outcomes = Arc::new(Outcomes::new(&entries));
    let shown = Arc::new(context.progress.waiting(outcomes.summary()));
    let mut tasks = JoinSet::new();
    for entry in entries {
        while tasks.len() >= parallel {
            tasks.join_next().await;
        }
        let (name, image) = (entry.fields.name().to_owned(), entry.image());
        let share = memory.take(memory.share, &context.cancel).await;
        let progress = context.progress.row(&name, outcomes.width());
        let context = context.of_image(&name, &progress, memory.share);
        let (outcomes, shown) = (outcomes.clone(), shown.clone());
        let span = info_span!("image", name);
        let one = share.map(|share| One {
            context: context.of_image(&name, &progress, memory.share),
            entry,
            bucket: bucket.clone(),
            cloud: cloud.cloned(),
            memory: memory.clone(),
            share,
        });
        tasks.spawn(async move {
            let made = match one {
                // A task within the task, so that a panic too is the result of one image.
                Ok(one) => tokio::spawn(one.make().instrument(span)).await.unwrap_or(Err(Error::Panicked)),
                Err(error) => Err(error),
            };
            progress.end_row();
            // Who reads the results may be slow, or stand still, and the rest goes on.
            let told = tokio::task::spawn_blocking(move || {
                outcomes.tell(&context, &name, &image, made);
                shown.say(outcomes.summary());
            });
            // A panic is on standard error already.
            let _ = told.await;
        });
    }
    while tasks.join_next().await.is_some() {}
    drop(shown);
    outcomes.end(context)
}

/// One Image.
struct One {
    context: Context,
    entry: Entry,
    bucket: BucketUri,
    cloud: Option<Cloud>,
    memory: Arc<Memory>,
    share: OwnedSemaphorePermit,
}

impl One {
    async fn make(mut self) -> Result<Made, Error> {
        let source = Source::of(&self.entry.args, &self.context).await?;
        source.fit(&mut self.entry.fields, &self.entry.args);
        loop {
            match self.make_of(&source).await {
                // Nothing was sent: memory is looked at first.
                Err(Error::Convert(ConvertError::Budget { memory, needed })) if memory < self.memory.all => {
                    self = self.with_memory(needed).await?;
                }
                result => return result,
            }
        }
    }

    async fn make_of(&self, source: &Source) -> Result<Made, Error> {
        let (context, Entry { args, fields }) = (&self.context, &self.entry);
        match (&self.cloud, source) {
            (Some(cloud), source) => {
                let create = Create {
                    args,
                    context,
                    fields: fields.clone(),
                    cloud,
                    is_bereft: AtomicBool::new(false),
                };
                Ok(Made::Operation(create.of(source).await?.into()))
            }
            (None, Source::Disk(disk, _)) => {
                Ok(Made::Forecast(forecast::of_disk(args, context, fields, &self.bucket, disk).await?))
            }
            // The command line has --uri for one Image only.
            (None, Source::Uri(_)) => Err(Error::ForOne { option: "--uri" }),
        }
    }

    /// The same with so many bytes of memory, or all there is.
    async fn with_memory(self, bytes: u64) -> Result<Self, Error> {
        let Self { context, entry, bucket, cloud, memory, share } = self;
        // Two that waited for more, each with what it has, would wait for ever.
        drop(share);
        let share = memory.take(bytes, &context.cancel).await?;
        let context = context.of_image(entry.fields.name(), &context.progress, bytes.min(memory.all));
        Ok(Self { context, entry, bucket, cloud, memory, share })
    }
}

/// The memory of the command.
struct Memory {
    /// All of it, bytes.
    all: u64,
    /// What an image begins with, bytes.
    share: u64,
    /// What is free, in units.
    free: Arc<Semaphore>,
    units: u32,
}

impl Memory {
    fn new(all: u64, parallel: usize) -> Self {
        let units = u32::try_from(all / UNIT).unwrap_or(u32::MAX).clamp(1, u32::MAX >> 3);
        let share = (u64::from(units) / (parallel.max(1) as u64)).max(1) * UNIT;
        Self { all, share, free: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// Waits until so many bytes are free, or all are; whoever came before is served before.
    async fn take(&self, bytes: u64, cancel: &CancellationToken) -> Result<OwnedSemaphorePermit, Error> {
        let units = match bytes >= self.all {
            true => self.units,
            false => u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, self.units),
        };
        let taken = cancel.run_until_cancelled(self.free.clone().acquire_many_owned(units)).await;
        // The semaphore is never closed.
        taken.and_then(Result::ok).ok_or(Error::Interrupted)
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::pin::pin;

    use super::*;

    /// True if it is not there yet.
    async fn waits(share: impl Future<Output = Result<OwnedSemaphorePermit, Error>>) -> bool {
        tokio::select! {
            biased;
            _ = share => false,
            () = ready(()) => true,
        }
    }

    #[tokio::test]
    async fn memory_is_shared_out_in_turn() {
        let (memory, cancel) = (Memory::new(36 * UNIT, 4), CancellationToken::new());
        assert_eq!(memory.share, 9 * UNIT);
        let mut shares = Vec::new();
        for _ in 0..4 {
            shares.push(memory.take(memory.share, &cancel).await.unwrap());
        }
        let mut large = pin!(memory.take(32 * UNIT, &cancel));
        let mut small = pin!(memory.take(memory.share, &cancel));
        assert!(waits(large.as_mut()).await && waits(small.as_mut()).await);
        shares.pop();
        assert!(waits(small.as_mut()).await, "it would fit, but is not first");
        shares.clear();
        let taken = large.await.unwrap();
        assert!(waits(small.as_mut()).await);
        drop(taken);
        let taken = small.await.unwrap();
        // Who is interrupted waits for nothing.
        cancel.cancel();
        assert!(matches!(memory.take(u64::MAX, &cancel).await, Err(Error::Interrupted)));
        drop(taken);
    }

    #[test]
    fn little_memory_is_shared_out_too() {
        for (all, parallel) in [(0, 4), (UNIT, 64), (100 * UNIT, 64), (UNIT * 3 / 2, 1)] {
            let memory = Memory::new(all, parallel);
            assert!(memory.units >= 1 && memory.share >= UNIT, "{all}");
        }
    }
}
