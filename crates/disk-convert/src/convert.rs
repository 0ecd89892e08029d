//! The loop: plan a part, fetch what it needs, assemble it, put it.
//!
//! A part depends only on immutable inputs, so parts are made in any order, as many at a time as the budget and the source and sink
//! are worth. Source and sink that never wait for a network are served from one CPU job a part, without a hop in between.

use std::sync::Arc;

use disk_image::{ObjectMap, Origin, Plan, Span, Stored};
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::assemble::{Fetched, assemble, to_usize, zero_gaps};
use crate::buffer::BufferPool;
use crate::disk::read_all;
use crate::share::share;
use crate::{
    ConvertError, Disk, FilledPart, Options, Part, PartRules, PartSize, Payload, Sink, SinkError, Zeroes,
};

/// What a worker makes of an output before it hands over again, bytes. Handed over each MiB, a plain copy has five times as many
/// context switches.
pub(crate) const BATCH: u64 = 8 << 20;

/// Makes the output that `layout` describes from `disk`, and gives it to `sink`.
///
/// Holds at most `options.memory` bytes of parts and reads. Reads each stored byte once for each part that needs it.
///
/// # Errors
///
/// Whatever source, image or sink report, [`ConvertError::Budget`] if the memory cannot hold two parts, and
/// [`ConvertError::Cancelled`]. The sink has been aborted then, and nothing is in flight any more.
pub async fn convert<S: Sink>(
    disk: &Disk,
    layout: &ObjectMap,
    sink: S,
    options: &Options,
    cancel: &CancellationToken,
) -> Result<S::Output, ConvertError> {
    let sink = Arc::new(sink);
    let finished = async {
        disk.check_whole()?;
        make_parts(disk, layout, &sink, options, cancel).await?;
        disk.sources().verify().await?;
        if cancel.is_cancelled() {
            return Err(ConvertError::Cancelled);
        }
        Ok(sink.finish(layout.len()).await?)
    };
    let result = finished.await;
    if result.is_err() {
        sink.abort().await;
    }
    result
}

async fn make_parts<S: Sink>(
    disk: &Disk,
    layout: &ObjectMap,
    sink: &Arc<S>,
    options: &Options,
    cancel: &CancellationToken,
) -> Result<(), ConvertError> {
    let rules = sink.rules();
    let shape = disk.sources().shape();
    let part_size = match rules.size {
        PartSize::Exactly(size) => size,
        PartSize::AtLeast(least) => part_size(disk, least, layout.alignment()),
    };
    let len = layout.len();
    if len.div_ceil(part_size) > u64::from(u32::MAX) {
        return Err(ConvertError::TooManyParts { len, part: part_size });
    }
    let needed = least_memory(disk, part_size);
    if options.memory < needed {
        return Err(ConvertError::Budget { memory: options.memory, needed });
    }
    let stats = disk.image().map().stats();
    options.counters.expect(match rules.zeroes {
        Zeroes::Put => len,
        Zeroes::SkipParts | Zeroes::SkipRuns => stats.data + stats.encoded,
    });

    let jobs = options.workers.jobs();
    let (in_flight, batch) = if disk.sources().are_local() && sink.blocking().is_some() {
        (jobs * 2, BATCH.div_ceil(part_size))
    } else {
        (shape.in_flight.max(rules.in_flight) + jobs, 1)
    };
    let mut admission = Admission::new(options.memory, in_flight, cancel);
    let maker = PartMaker {
        disk: disk.clone(),
        sink: sink.clone(),
        rules,
        options: options.clone(),
        buffers: BufferPool::new(to_usize(part_size)),
        stop: admission.stop(),
    };
    let mut at = 0;
    let next = std::iter::from_fn(|| {
        loop {
            if rules.zeroes != Zeroes::Put {
                let filled = layout.next_filled(disk.image().map(), at)?;
                at = filled / part_size * part_size;
            }
            if at >= len {
                return None;
            }
            let part = Span::new(at, part_size.min(len - at));
            at += part_size;
            let number = u32::try_from(part.start / part_size).unwrap_or(u32::MAX);
            if sink.wants(number) {
                return Some(maker.plan(number, layout, part));
            }
        }
    });
    let planned = async {
        let mut next = next.peekable();
        while next.peek().is_some() {
            let parts: Vec<PartJob> = next.by_ref().take(to_usize(batch)).collect();
            // A worker makes the parts of a batch one after the other.
            let cost = parts.iter().map(|part| part.cost).max().unwrap_or(0);
            let admitted = admission.admit(cost).await?;
            let maker = maker.clone();
            admission.spawn(admitted, async move { maker.make(parts).await });
        }
        Ok(())
    };
    let planned = planned.await;
    admission.finish(planned).await
}

/// The size of the parts that suits the source, from `least` on.
pub(crate) fn part_size(disk: &Disk, least: u64, alignment: u64) -> u64 {
    let unit = disk.image().map().stats().largest_unit;
    let wanted = least.max(disk.sources().shape().part).max(unit);
    // A part that begins inside an encoded unit or a cluster would decode it, or describe it, twice.
    wanted.next_multiple_of(alignment).next_multiple_of(unit.max(1))
}

/// The smallest memory that a conversion of `disk` into parts of `part` bytes accepts, bytes: what two of them cost.
pub fn least_memory(disk: &Disk, part: u64) -> u64 {
    2 * worst_cost(disk, part)
}

/// An upper bound of what one part costs: itself, and its reads, of which [`Plan::reads`] wastes at most half.
pub(crate) fn worst_cost(disk: &Disk, part_size: u64) -> u64 {
    let stats = disk.image().map().stats();
    let in_place = disk.sources().are_local() && stats.encoded == 0;
    part_size + if in_place { 0 } else { 2 * (part_size + stats.largest_unit) }
}

/// What a part has to fetch before a worker can begin, which is nothing where the worker reads for itself, and what it costs: its
/// bytes, its reads, and a decoded unit of which it takes only some.
pub(crate) fn reads_and_cost(disk: &Disk, plan: &Plan) -> (Vec<Stored>, u64) {
    let shape = disk.sources().shape().reads;
    let local = disk.sources().are_local();
    let reads = plan.reads(shape, |origin| !local || matches!(origin, Origin::Encoded(..)));
    let unit = plan.pieces.iter().map(|piece| match &piece.origin {
        Origin::Encoded(unit, _) if unit.guest.len != piece.len => unit.guest.len,
        _ => 0,
    });
    let read: u64 = reads.iter().map(|read| read.span.len).sum();
    let cost = plan.object.len + read + unit.max().unwrap_or(0);
    (if local { Vec::new() } else { reads }, cost)
}

/// Makes parts; shared by all that are in flight.
struct PartMaker<S> {
    disk: Disk,
    sink: Arc<S>,
    rules: PartRules,
    options: Options,
    buffers: BufferPool,
    stop: CancellationToken,
}

impl<S> Clone for PartMaker<S> {
    fn clone(&self) -> Self {
        Self {
            disk: self.disk.clone(),
            sink: self.sink.clone(),
            rules: self.rules,
            options: self.options.clone(),
            buffers: self.buffers.clone(),
            stop: self.stop.clone(),
        }
    }
}

/// A planned part.
struct PartJob {
    number: u32,
    plan: Plan,
    /// What has to be fetched before a worker can begin; empty where the worker reads for itself.
    reads: Vec<Stored>,
    cost: u64,
    /// What there is to count when it has been put.
    done: u64,
}

/// A part that a worker can begin.
struct FetchedPart {
    number: u32,
    plan: Plan,
    fetched: Fetched,
    done: u64,
}

impl<S: Sink> PartMaker<S> {
    fn plan(&self, number: u32, layout: &ObjectMap, part: Span) -> PartJob {
        let plan = Plan::new(self.disk.image().map(), layout, part);
        let (reads, cost) = reads_and_cost(&self.disk, &plan);
        let done = match self.rules.zeroes {
            Zeroes::Put => part.len,
            Zeroes::SkipParts | Zeroes::SkipRuns => plan.pieces.iter().map(|piece| piece.len).sum(),
        };
        PartJob { number, plan, reads, cost, done }
    }

    /// Makes parts and puts them. After an error or a cancellation, at most a CPU job or a local write is still running, and it is
    /// waited for.
    async fn make(self, parts: Vec<PartJob>) -> Result<(), ConvertError> {
        let mut filled = Vec::with_capacity(parts.len());
        for PartJob { number, plan, reads, done, .. } in parts {
            if self.stop.is_cancelled() {
                return Err(ConvertError::Cancelled);
            }
            if plan.pieces.is_empty() {
                let Span { start: offset, len } = plan.object;
                let put = self.sink.put(Part { number, offset, payload: Payload::Zero(len) });
                // A write to a local disk cannot be dropped, only waited for.
                match self.sink.blocking() {
                    Some(_) => put.await?,
                    None => unless_stopped(&self.stop, put).await?,
                }
                self.options.counters.put(len, 0);
                self.options.counters.part_done(done);
            } else {
                let fetched = unless_stopped(&self.stop, fetch(&self.disk, reads, &self.options)).await?;
                filled.push(FetchedPart { number, plan, fetched, done });
            }
        }
        if filled.is_empty() {
            return Ok(());
        }
        let maker = self.clone();
        let work = move || filled.into_iter().map(|part| maker.work(part)).collect::<Result<Vec<_>, _>>();
        for (part, done) in self.options.workers.run(work).await??.into_iter().flatten() {
            let len = part.payload.len();
            unless_stopped(&self.stop, self.sink.put(part)).await?;
            self.options.counters.put(len, 0);
            self.options.counters.part_done(done);
        }
        Ok(())
    }

    /// What a worker does: assembles the part, and puts it too if the sink does not wait for a network. Else it is returned, with what
    /// there is to count when it has been put.
    fn work(&self, part: FetchedPart) -> Result<Option<(Part, u64)>, ConvertError> {
        if self.stop.is_cancelled() {
            return Err(ConvertError::Cancelled);
        }
        let FetchedPart { number, mut plan, fetched, done } = part;
        if self.rules.zeroes == Zeroes::SkipRuns
            && let Some(sink) = self.sink.blocking()
        {
            share(&mut plan, self.disk.sources(), sink, &self.options.counters);
            if plan.pieces.is_empty() {
                self.options.counters.part_done(done);
                return Ok(None);
            }
        }
        let offset = plan.object.start;
        let len = to_usize(plan.object.len);
        let mut buffer = self.buffers.take().map_err(|error| SinkError::io("memory", Some(offset), error))?;
        let runs =
            assemble(&plan, self.disk.sources(), &fetched, &self.options.counters, &mut buffer[..len])?;
        if self.rules.zeroes != Zeroes::SkipRuns {
            zero_gaps(&mut buffer[..len], &runs);
        }
        match self.sink.blocking() {
            Some(sink) => {
                let bytes = &buffer[..len];
                let zeroes = sink.put_now(&FilledPart { number, offset, bytes, runs: &runs })?;
                let given = match self.rules.zeroes {
                    Zeroes::SkipRuns => runs.iter().map(|run| run.len).sum(),
                    Zeroes::Put | Zeroes::SkipParts => plan.object.len,
                };
                self.options.counters.put(given, zeroes);
                self.options.counters.part_done(done);
                Ok(None)
            }
            None => Ok(Some((Part { number, offset, payload: Payload::Data(buffer.freeze(len)) }, done))),
        }
    }
}

/// Reads what a part needs, unless its worker reads for itself.
pub(crate) async fn fetch(
    disk: &Disk,
    reads: Vec<Stored>,
    options: &Options,
) -> Result<Fetched, ConvertError> {
    let sources = disk.sources();
    if sources.are_local() {
        return Ok(Fetched::Local(sources.shape().reads));
    }
    let bytes = read_all(sources, &reads, &options.workers).await?;
    for read in &reads {
        options.counters.read(read.span.len);
    }
    Ok(Fetched::Here(reads.into_iter().zip(bytes).collect()))
}

/// The work's result, if it ends before `stop` fires.
pub(crate) async fn unless_stopped<T, E: Into<ConvertError>>(
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, ConvertError> {
    match stop.run_until_cancelled(work).await {
        Some(result) => result.map_err(Into::into),
        None => Err(ConvertError::Cancelled),
    }
}
