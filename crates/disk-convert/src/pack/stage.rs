//! The second half of packing: frames in guest order into parts of the sink's size.
//!
//! A part is put as soon as it is whole: all of it lies before what frames may still take. Only three kinds wait: the part that is
//! being filled, one with a gap that smaller frames go on to fill, and one that begins inside the head. What of the head, and behind
//! the frames, has no part yet is made when all frames have their place.

use std::collections::BTreeMap;
use std::sync::Arc;

use disk_image::{PackedLayout, Placed, Span, Unsettled};
use tokio_util::sync::CancellationToken;

use super::Frames;
use crate::admission::{Admission, Admitted};
use crate::assemble::{to_usize, zero_gaps};
use crate::buffer::{Buffer, BufferPool};
use crate::convert::unless_stopped;
use crate::{ConvertError, FilledPart, Options, Part, PartRules, Payload, Sink, SinkError, Zeroes};

/// A part that is being filled.
struct OpenPart {
    bytes: Buffer,
    /// What of it is filled: ascending, apart, relative to the part.
    runs: Vec<Span>,
    memory: Admitted,
}

/// Frames into parts.
pub(super) struct Stage<'a, L, S> {
    layout: L,
    part: u64,
    /// Parts that were begun and not put, by number.
    open: BTreeMap<u32, OpenPart>,
    /// The first part behind the head that was not begun.
    next: u32,
    buffers: BufferPool,
    putter: Putter<S>,
    admission: &'a mut Admission,
}

/// How many parts may be open at a time: the one that is being filled, one that begins inside the head, and those of a gap.
pub(super) fn open_parts<L: PackedLayout>(layout: &L, part: u64) -> u64 {
    let of_gap = match layout.gap_within() {
        0 => 0,
        run if part.is_multiple_of(run) => 1,
        run => run.div_ceil(part) + 1,
    };
    2 + of_gap
}

impl<'a, L: PackedLayout, S: Sink> Stage<'a, L, S> {
    /// An empty object, in parts of `part` bytes.
    pub(super) fn new(layout: L, part: u64, putter: Putter<S>, admission: &'a mut Admission) -> Self {
        Self {
            next: number(layout.head_len() / part),
            layout,
            part,
            open: BTreeMap::new(),
            buffers: BufferPool::new(to_usize(part)),
            putter,
            admission,
        }
    }

    /// Gives frames their places.
    pub(super) async fn place(&mut self, frames: &Frames) -> Result<(), ConvertError> {
        let mut at = 0;
        for &(guest, frame) in &frames.list {
            let len = to_usize(frame.len(self.layout.unit_len()));
            let bytes = &frames.bytes[at..at + len];
            let Placed { offset, lead } = self.layout.place(guest, frame, bytes);
            self.write(offset - lead.len() as u64, &lead).await?;
            self.write(offset, bytes).await?;
            at += len;
        }
        Ok(())
    }

    async fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ConvertError> {
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let index = number(at / self.part);
            while self.next <= index {
                self.put_whole();
                self.begin(self.next).await?;
                self.next += 1;
            }
            let within = at % self.part;
            let (now, later) = rest.split_at(to_usize(self.part - within).min(rest.len()));
            // Frames never go back to what is settled, so their part is open.
            if let Some(part) = self.open.get_mut(&index) {
                part.write(within, now);
            }
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// Begins a part, once there is memory for it.
    async fn begin(&mut self, number: u32) -> Result<(), ConvertError> {
        let memory = self.admission.admit(self.part).await?;
        let offset = u64::from(number) * self.part;
        let bytes = self.buffers.take().map_err(|error| SinkError::io("memory", Some(offset), error))?;
        self.open.insert(number, OpenPart { bytes, runs: Vec::new(), memory });
        Ok(())
    }

    /// Puts the parts that nothing can be added to.
    fn put_whole(&mut self) {
        let Unsettled { gap, end } = self.layout.unsettled();
        let (head, part) = (self.layout.head_len(), self.part);
        let is_whole = |number: u32| {
            let span = Span::new(u64::from(number) * part, part);
            span.start >= head && span.end() <= end && span.intersect(gap).is_empty()
        };
        let whole: Vec<u32> = self.open.keys().copied().filter(|number| is_whole(*number)).collect();
        for number in whole {
            if let Some(OpenPart { bytes, runs, memory }) = self.open.remove(&number) {
                let span = Span::new(u64::from(number) * part, part);
                let putter = self.putter.clone();
                self.admission.spawn(memory, putter.put(number, span, bytes, runs, |_, _| {}));
            }
        }
    }

    /// Ends the object, makes what there is besides frames, and tells its length. The head comes last.
    pub(super) async fn seal(mut self) -> Result<u64, ConvertError> {
        self.put_whole();
        let len = self.layout.seal();
        let behind = self.next..number(len.div_ceil(self.part));
        let head = 0..number(self.layout.head_len() / self.part);
        let open: Vec<u32> = self.open.keys().copied().rev().collect();
        let layout = Arc::new(self.layout);
        for number in behind.chain(open).chain(head) {
            let span = Span::new(u64::from(number) * self.part, self.part).intersect(Span::new(0, len));
            let OpenPart { bytes, runs, memory } = match self.open.remove(&number) {
                Some(part) => part,
                None => {
                    let memory = self.admission.admit(self.part).await?;
                    let bytes = self
                        .buffers
                        .take()
                        .map_err(|error| SinkError::io("memory", Some(span.start), error))?;
                    OpenPart { bytes, runs: Vec::new(), memory }
                }
            };
            let layout = layout.clone();
            let literals = move |bytes: &mut [u8], runs: &mut Vec<Span>| {
                let mut at = span.start;
                while let Some((start, literal)) =
                    layout.literal_from(at).filter(|(start, _)| *start < span.end())
                {
                    let len = literal.len().min(to_usize(span.end() - start));
                    write(bytes, runs, start - span.start, &literal[..len]);
                    at = start + len as u64;
                }
            };
            let putter = self.putter.clone();
            self.admission.spawn(memory, putter.put(number, span, bytes, runs, literals));
        }
        Ok(len)
    }
}

impl OpenPart {
    fn write(&mut self, at: u64, bytes: &[u8]) {
        write(&mut self.bytes, &mut self.runs, at, bytes);
    }
}

/// Fills a run of a part that was not filled before, and notes it.
fn write(part: &mut [u8], runs: &mut Vec<Span>, at: u64, bytes: &[u8]) {
    let run = Span::new(at, bytes.len() as u64);
    part[to_usize(run.start)..to_usize(run.end())].copy_from_slice(bytes);
    let next = runs.partition_point(|known| known.start < run.start);
    let joins_next = runs.get(next).is_some_and(|known| known.start == run.end());
    match next.checked_sub(1).filter(|before| runs[*before].end() == run.start) {
        Some(before) if joins_next => {
            runs[before].len += run.len + runs[next].len;
            runs.remove(next);
        }
        Some(before) => runs[before].len += run.len,
        None if joins_next => runs[next] = Span::between(run.start, runs[next].end()),
        None => runs.insert(next, run),
    }
}

/// Part numbers were counted before the first part was made.
fn number(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Puts parts; shared by all that are in flight.
pub(super) struct Putter<S> {
    sink: Arc<S>,
    rules: PartRules,
    options: Options,
    stop: CancellationToken,
}

impl<S> Clone for Putter<S> {
    fn clone(&self) -> Self {
        Self {
            sink: self.sink.clone(),
            rules: self.rules,
            options: self.options.clone(),
            stop: self.stop.clone(),
        }
    }
}

impl<S: Sink> Putter<S> {
    pub(super) fn new(sink: Arc<S>, rules: PartRules, options: &Options, stop: CancellationToken) -> Self {
        Self { sink, rules, options: options.clone(), stop }
    }

    /// Puts a part after `complete` has added to it, which a worker does. After an error or a cancellation, at most a local write is still
    /// running, and it is waited for.
    async fn put(
        self,
        number: u32,
        span: Span,
        mut bytes: Buffer,
        mut runs: Vec<Span>,
        complete: impl FnOnce(&mut [u8], &mut Vec<Span>) + Send + 'static,
    ) -> Result<(), ConvertError> {
        let Self { sink, rules, options, stop } = self;
        let (offset, len) = (span.start, to_usize(span.len));
        let (here, stopped, counters) = (sink.clone(), stop.clone(), options.counters.clone());
        let work = move || -> Result<Option<Part>, ConvertError> {
            if stopped.is_cancelled() {
                return Err(ConvertError::Cancelled);
            }
            complete(&mut bytes[..len], &mut runs);
            if runs.is_empty() {
                return Ok(Some(Part { number, offset, payload: Payload::Zero(span.len) }));
            }
            if rules.zeroes != Zeroes::SkipRuns {
                zero_gaps(&mut bytes[..len], &runs);
            }
            match here.blocking() {
                Some(sink) => {
                    let zeroes =
                        sink.put_now(&FilledPart { number, offset, bytes: &bytes[..len], runs: &runs })?;
                    let given = match rules.zeroes {
                        Zeroes::SkipRuns => runs.iter().map(|run| run.len).sum(),
                        Zeroes::Put | Zeroes::SkipParts => len as u64,
                    };
                    counters.put(given, zeroes);
                    Ok(None)
                }
                None => Ok(Some(Part { number, offset, payload: Payload::Data(bytes.freeze(len)) })),
            }
        };
        let ready = options.workers.run(work).await??;
        match ready {
            None => {}
            Some(Part { payload: Payload::Zero(_), .. }) if rules.zeroes != Zeroes::Put => {}
            Some(part) => {
                let len = part.payload.len();
                let put = sink.put(part);
                // A write to a local disk cannot be dropped, only waited for.
                match sink.blocking() {
                    Some(_) => put.await?,
                    None => unless_stopped(&stop, put).await?,
                }
                options.counters.put(len, 0);
            }
        }
        options.counters.part_done(0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_merged_in_whatever_order_they_come() {
        let (mut part, mut runs) = (vec![0; 20], Vec::new());
        for (at, len) in [(4, 2), (10, 3), (0, 2), (6, 4), (2, 2), (15, 5), (14, 1)] {
            write(&mut part, &mut runs, at, &vec![1; len]);
        }
        assert_eq!(runs, [Span::new(0, 13), Span::new(14, 6)]);
        assert_eq!(part.iter().position(|byte| *byte == 0), Some(13));
    }
}
