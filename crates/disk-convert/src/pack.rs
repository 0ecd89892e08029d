//! The loop for outputs that are packed: plan a unit of work, fetch what it needs, assemble and encode it, give its frames their places.
//!
//! It is the loop of [`convert`](crate::convert()) with a second half. Workers make frames of about [`LEAST_SPAN`] guest bytes at a time,
//! in any order; one task takes them in guest order and fills parts of the sink's size ([`stage`]), which leave as soon as nothing
//! can be added to them. So the bytes do not depend on who was quicker. What points to the frames leaves last.
//!
//! Memory: some parts are kept apart for the second half, which therefore never waits for the first. Of the first, a span is admitted in
//! guest order, and its memory is free again when its frames are in their parts: the one that is waited for is always among those
//! admitted.

mod stage;

use std::cell::RefCell;
use std::sync::Arc;

use disk_image::{Encoder, Frame, ObjectMap, PackedLayout, Plan, Span, Stored};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, Admitted, PAGE};
use crate::assemble::{Fetched, assemble, to_usize};
use crate::buffer::{Buffer, BufferPool};
use crate::convert::{fetch, part_size, reads_and_cost, unless_stopped, worst_cost};
use crate::{ConvertError, Disk, Options, PartSize, Sink, SinkError, is_zero};
use stage::{Putter, Stage, open_parts};

/// Guest bytes that one job encodes, at least: what fits the cache, and is long enough that handing it on costs nothing.
const LEAST_SPAN: u64 = 1 << 20;

/// What came of packing.
#[derive(Debug)]
pub struct Packed<T> {
    /// What the sink gave.
    pub output: T,
    /// Bytes of the object.
    pub len: u64,
}

/// Makes the output that `layout` packs the content of `disk` into, and gives it to `sink`.
///
/// Holds at most `options.memory` bytes of parts, reads and frames. Reads each stored byte once, encodes each unit once. A sink that
/// is told its length beforehand is told [`PackedLayout::max_len`].
///
/// # Errors
///
/// As [`convert`](crate::convert()). The sink has been aborted then, and nothing is in flight any more.
pub async fn pack<L: PackedLayout, S: Sink>(
    disk: &Disk,
    layout: L,
    sink: S,
    options: &Options,
    cancel: &CancellationToken,
) -> Result<Packed<S::Output>, ConvertError> {
    let sink = Arc::new(sink);
    let finished = async {
        disk.check_whole()?;
        let len = make_parts(disk, layout, &sink, options, cancel).await?;
        disk.sources().verify().await?;
        if cancel.is_cancelled() {
            return Err(ConvertError::Cancelled);
        }
        let output = sink.finish(len).await?;
        Ok(Packed { output, len })
    };
    let result = finished.await;
    if result.is_err() {
        sink.abort().await;
    }
    result
}

/// Makes all parts, and tells the length of the object.
async fn make_parts<L: PackedLayout, S: Sink>(
    disk: &Disk,
    layout: L,
    sink: &Arc<S>,
    options: &Options,
    cancel: &CancellationToken,
) -> Result<u64, ConvertError> {
    let rules = sink.rules();
    let part = match rules.size {
        PartSize::Exactly(size) => size,
        PartSize::AtLeast(least) => least.next_multiple_of(layout.unit_len()),
    };
    let len = layout.max_len();
    if len.div_ceil(part) > u64::from(u32::MAX) {
        return Err(ConvertError::TooManyParts { len, part });
    }
    let span = part_size(disk, LEAST_SPAN, layout.unit_len());
    let lead = lead(&layout, span);
    let worst = worst_cost(disk, span) + lead;
    let share = Share::of(options, rules.in_flight, part, open_parts(&layout, part), worst)?;
    let stats = disk.image().map().stats();
    options.counters.expect(stats.data + stats.encoded);

    // Either half stops the other one when it fails.
    let stop = cancel.child_token();
    let jobs = options.workers.jobs();
    let in_flight =
        if disk.sources().are_local() { jobs * 2 } else { disk.sources().shape().in_flight + jobs };
    let (give, mut take) = unbounded_channel();
    let mut spans = Admission::new(share.spans, in_flight, &stop);
    let maker = SpanMaker {
        disk: disk.clone(),
        options: options.clone(),
        buffers: BufferPool::new(to_usize(lead + span)),
        codec: layout.codec(),
        unit: layout.unit_len(),
        max_frame: layout.max_frame_len(),
        places_zeroes: layout.places_zeroes(),
        lead,
        stop: spans.stop(),
    };
    let make = async {
        let planned = maker.plan_all(span, &mut spans, &give).await;
        let made = spans.finish(planned).await;
        if made.is_err() {
            stop.cancel();
        }
        // Not before: the end of the queue means that all is in it.
        drop(give);
        made
    };

    let mut parts = Admission::new(share.parts, usize::MAX, &stop);
    let putter = Putter::new(sink.clone(), rules, options, parts.stop());
    let place = async {
        let mut stage = Stage::new(layout, part, putter, &mut parts);
        let placed = async {
            while let Some(frames) = take.recv().await {
                // What was not made has its own error.
                let (frames, _memory) = frames.await.map_err(|_| ConvertError::Cancelled)?;
                stage.place(&frames).await?;
                options.counters.advance(frames.filled);
            }
            // A half that has failed ends the queue as well.
            if stop.is_cancelled() {
                return Err(ConvertError::Cancelled);
            }
            stage.seal().await
        };
        let (len, placed) = match placed.await {
            Ok(len) => (len, Ok(())),
            Err(error) => (0, Err(error)),
        };
        let put = parts.finish(placed).await;
        if put.is_err() {
            stop.cancel();
        }
        put.map(|()| len)
    };
    match tokio::join!(make, place) {
        (Ok(()), placed) => placed,
        // Told to stop, by the other half.
        (Err(ConvertError::Cancelled), Err(error)) => Err(error),
        (Err(error), _) => Err(error),
    }
}

/// The smallest memory in which `layout` packs `disk` into parts of `part` bytes, bytes.
pub fn least_memory_to_pack<L: PackedLayout>(disk: &Disk, layout: &L, part: u64) -> u64 {
    let span = part_size(disk, LEAST_SPAN, layout.unit_len());
    Share::least(part, open_parts(layout, part), worst_cost(disk, span) + lead(layout, span))
}

/// How much more the frames of a span of `span` guest bytes may take than the span itself, bytes.
fn lead<L: PackedLayout>(layout: &L, span: u64) -> u64 {
    let unit = layout.unit_len();
    (layout.max_frame_len().saturating_sub(unit) * (span / unit)).next_multiple_of(PAGE)
}

/// How the memory is divided, bytes.
struct Share {
    spans: u64,
    parts: u64,
}

impl Share {
    /// For parts of `part` bytes of which `open` may be begun at a time, and spans that cost up to `span`.
    fn of(
        options: &Options,
        in_flight: usize,
        part: u64,
        open: u64,
        span: u64,
    ) -> Result<Self, ConvertError> {
        let part = part.next_multiple_of(PAGE);
        let needed = Self::least(part, open, span);
        let Some(rest) = options.memory.checked_sub(needed) else {
            return Err(ConvertError::Budget { memory: options.memory, needed });
        };
        // One part is always on its way. More of them are worth no more than half of what is left: the workers want the rest.
        let more = (rest / 2 / part).min((in_flight as u64).saturating_sub(1));
        let parts = (open + 1 + more) * part;
        Ok(Self { spans: options.memory - parts, parts })
    }

    /// The least that will do: the parts that are begun, one on its way, and two spans.
    fn least(part: u64, open: u64, span: u64) -> u64 {
        (open + 1) * part.next_multiple_of(PAGE) + 2 * span
    }
}

/// The frames of a span of the guest, in guest order.
struct Frames {
    /// One behind the other from the start; what does not shrink as it is.
    bytes: Buffer,
    /// Where each unit begins in the guest, and what became of it.
    list: Vec<(u64, Frame)>,
    /// Guest bytes that the source holds of the span.
    filled: u64,
}

thread_local! {
    /// The contexts of the codec that this worker used last, and room for one frame.
    static SCRATCH: RefCell<Option<(Encoder, Vec<u8>)>> = const { RefCell::new(None) };
}

/// Makes frames; shared by all spans that are in flight.
#[derive(Clone)]
struct SpanMaker {
    disk: Disk,
    options: Options,
    buffers: BufferPool,
    codec: disk_image::Codec,
    /// Guest bytes that are encoded together.
    unit: u64,
    /// How long a frame may be.
    max_frame: u64,
    /// Units that are zero have frames too.
    places_zeroes: bool,
    /// How far behind the start of a buffer the guest bytes stand that frames are made of.
    lead: u64,
    stop: CancellationToken,
}

impl SpanMaker {
    /// Plans all spans of `size` guest bytes that hold anything, in order, and has them made.
    async fn plan_all(
        &self,
        size: u64,
        admission: &mut Admission,
        queue: &UnboundedSender<oneshot::Receiver<(Frames, Admitted)>>,
    ) -> Result<(), ConvertError> {
        let map = self.disk.image().map();
        let guest = ObjectMap::raw(map.guest_len());
        let mut at = 0;
        while let Some(filled) = guest.next_filled(map, at) {
            let span = Span::new(filled / size * size, size).intersect(Span::new(0, guest.len()));
            let plan = Plan::new(map, &guest, span);
            let (reads, cost) = reads_and_cost(&self.disk, &plan);
            // A unit at the end of the disk is filled up.
            let cost = self.lead + cost + span.len.next_multiple_of(self.unit) - span.len;
            let admitted = admission.admit(cost).await?;
            let maker = self.clone();
            let frames = admission.hand_on(admitted, async move { maker.make(plan, reads).await });
            queue.send(frames).map_err(|_| ConvertError::Cancelled)?;
            at = span.end();
        }
        Ok(())
    }

    /// Makes the frames of a span. After an error or a cancellation, at most a CPU job is still running, and it is waited for.
    async fn make(self, plan: Plan, reads: Vec<Stored>) -> Result<Frames, ConvertError> {
        let fetched = unless_stopped(&self.stop, fetch(&self.disk, reads, &self.options)).await?;
        let workers = self.options.workers.clone();
        workers.run(move || self.work(&plan, &fetched)).await?
    }

    /// What a worker does.
    fn work(&self, plan: &Plan, fetched: &Fetched) -> Result<Frames, ConvertError> {
        if self.stop.is_cancelled() {
            return Err(ConvertError::Cancelled);
        }
        let mut bytes = self.buffers.take().map_err(|error| SinkError::io("memory", None, error))?;
        let counters = &self.options.counters;
        let len = to_usize(plan.object.len);
        let guest = &mut bytes[to_usize(self.lead)..];
        let runs = assemble(plan, self.disk.sources(), fetched, counters, &mut guest[..len])?;
        let covers = cover(guest, &runs, self.unit);
        let filled = runs.iter().map(|run| run.len).sum();
        let list = self.encode(&mut bytes, &covers, plan.object.start)?;
        Ok(Frames { bytes, list, filled })
    }

    /// Encodes the units inside `covers` where they stand, and moves their frames to the start of `bytes`: they are no longer than
    /// the units and the lead before those, so they never reach one that is still to be encoded.
    fn encode(
        &self,
        bytes: &mut [u8],
        covers: &[Span],
        start: u64,
    ) -> Result<Vec<(u64, Frame)>, ConvertError> {
        SCRATCH.with_borrow_mut(|scratch| {
            let fits = scratch.as_ref().is_some_and(|(encoder, _)| encoder.codec() == self.codec);
            let (encoder, room) = match scratch {
                Some(scratch) if fits => scratch,
                scratch => scratch.insert((Encoder::new(self.codec), Vec::new())),
            };
            room.resize(to_usize(self.max_frame), 0);
            let (mut list, mut end) = (Vec::new(), 0);
            let mut encodes = 0;
            for at in covers.iter().flat_map(|cover| (cover.start..cover.end()).step_by(to_usize(self.unit)))
            {
                let from = self.lead + at;
                let unit = to_usize(from)..to_usize(from + self.unit);
                if !self.places_zeroes && is_zero(&bytes[unit.clone()]) {
                    continue;
                }
                encodes += 1;
                let frame = match encoder.encode(&bytes[unit.clone()], room) {
                    Some(len) => {
                        bytes[end..end + len].copy_from_slice(&room[..len]);
                        end += len;
                        Frame::Encoded(len as u64)
                    }
                    // Room for every frame is what the layout has promised.
                    None if self.max_frame >= self.unit => return Err(ConvertError::Panicked),
                    None => {
                        bytes.copy_within(unit.clone(), end);
                        end += unit.len();
                        Frame::Plain
                    }
                };
                list.push((start + at, frame));
            }
            self.options.counters.encoded(encodes, end as u64);
            Ok(list)
        })
    }
}

/// The units that `runs` touch, merged, after what else is in them was zeroed. Units that no run touches are not looked at.
fn cover(bytes: &mut [u8], runs: &[Span], unit: u64) -> Vec<Span> {
    let mut covers: Vec<Span> = Vec::new();
    // Up to here everything that matters is what it should be.
    let mut known = 0;
    for (i, run) in runs.iter().enumerate() {
        let (first, last) = (run.start / unit * unit, run.end().next_multiple_of(unit));
        let next = runs.get(i + 1).map_or(last, |next| next.start.min(last));
        for gap in [Span::between(first.max(known), run.start), Span::between(run.end(), next)] {
            bytes[to_usize(gap.start)..to_usize(gap.end())].fill(0);
        }
        known = next;
        match covers.last_mut() {
            Some(cover) if cover.end() >= first => *cover = Span::between(cover.start, last),
            _ => covers.push(Span::between(first, last)),
        }
    }
    covers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_covered_and_the_rest_is_not_touched() {
        let mut bytes = vec![9; 100];
        let runs = [Span::new(3, 2), Span::new(7, 1), Span::new(19, 2), Span::new(55, 5), Span::new(81, 8)];
        for run in runs {
            bytes[to_usize(run.start)..to_usize(run.end())].fill(1);
        }
        let covers = cover(&mut bytes, &runs, 10);
        assert_eq!(covers, [Span::new(0, 30), Span::new(50, 10), Span::new(80, 10)]);
        for (at, byte) in bytes.iter().enumerate() {
            let is_in = |spans: &[Span]| spans.iter().any(|span| span.contains(at as u64));
            let expected = if is_in(&runs) {
                1
            } else if is_in(&covers) {
                0
            } else {
                9
            };
            assert_eq!(*byte, expected, "{at}");
        }
    }

    #[test]
    fn memory_is_divided_without_a_rest() {
        let options = |memory| Options { memory, ..Options::default() };
        let share = |memory| Share::of(&options(memory), 6, 16, 3, 100);
        let page = 4096;
        assert!(matches!(share(4 * page + 199), Err(ConvertError::Budget { .. })));
        let least = share(4 * page + 200).unwrap();
        assert_eq!((least.parts, least.spans), (4 * page, 200));
        let ample = share(1 << 30).unwrap();
        assert_eq!((ample.parts, ample.spans), (9 * page, (1 << 30) - 9 * page));
    }
}
