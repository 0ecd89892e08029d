//! Makes the bytes of one part from its plan: on a CPU worker, with nothing to wait for but a local disk.

use std::cell::RefCell;

use bytes::Bytes;
use disk_image::{Decoder, Encoded, Origin, Plan, ReadShape, Span, Stored};

use crate::{ConvertError, Counters, SourceError, SourceFault, Sources};

/// The stored bytes that a part needs.
pub(crate) enum Fetched {
    /// Already here: each read of [`Plan::reads`], in its order.
    Here(Vec<(Stored, Bytes)>),
    /// To be read where they are needed; plain runs go straight into the part.
    Local(ReadShape),
}

thread_local! {
    /// Codec contexts and scratch, reused by all the parts that a worker makes.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

#[derive(Default)]
struct Scratch {
    decoder: Decoder,
    /// Encoded bytes that were read for the current part.
    encoded: Vec<u8>,
    /// A decoded unit of which the part takes only some.
    unit: Vec<u8>,
}

/// Writes the pieces of `plan` into `part`, which is as long as the part; what lies between them is left as it was.
///
/// Returns the runs written: ascending, apart, relative to the part.
pub(crate) fn assemble(
    plan: &Plan,
    sources: &Sources,
    fetched: &Fetched,
    counters: &Counters,
    part: &mut [u8],
) -> Result<Vec<Span>, ConvertError> {
    SCRATCH.with_borrow_mut(|scratch| {
        let Scratch { decoder, encoded, unit } = scratch;
        let (stored, local) = match fetched {
            Fetched::Here(reads) => {
                (Store { reads: reads.iter().map(|(at, bytes)| (*at, bytes.as_ref())).collect() }, false)
            }
            Fetched::Local(shape) => {
                let wants = plan.reads(*shape, |origin| matches!(origin, Origin::Encoded(..)));
                (Store::read(&wants, sources, counters, encoded)?, true)
            }
        };
        let mut assembler = Assembler { sources, stored, local, counters, decoder, unit, decoded: None };
        let mut runs: Vec<Span> = Vec::new();
        for piece in &plan.pieces {
            let run = Span::new(piece.at, piece.len);
            assembler.fill(&piece.origin, slice_mut(part, run))?;
            match runs.last_mut() {
                Some(last) if last.end() == run.start => last.len += run.len,
                _ => runs.push(run),
            }
        }
        Ok(runs)
    })
}

/// Zeroes what lies between `runs`, which ascend.
pub(crate) fn zero_gaps(part: &mut [u8], runs: &[Span]) {
    let mut at = 0;
    for run in runs {
        slice_mut(part, Span::between(at, run.start)).fill(0);
        at = run.end();
    }
    let end = part.len() as u64;
    slice_mut(part, Span::between(at, end)).fill(0);
}

struct Assembler<'a> {
    sources: &'a Sources,
    stored: Store<'a>,
    /// True if plain runs are read into their place, false if they are in `stored`.
    local: bool,
    counters: &'a Counters,
    decoder: &'a mut Decoder,
    unit: &'a mut Vec<u8>,
    /// What `unit` holds.
    decoded: Option<Encoded>,
}

impl Assembler<'_> {
    fn fill(&mut self, origin: &Origin, into: &mut [u8]) -> Result<(), ConvertError> {
        match origin {
            Origin::Literal(bytes) => into.copy_from_slice(bytes),
            Origin::Stored(stored) if self.local => {
                self.sources.read_at(*stored, into)?;
                self.counters.read(stored.span.len);
                self.counters.copied(stored.span.len);
            }
            Origin::Stored(stored) => {
                into.copy_from_slice(self.bytes(*stored)?);
                self.counters.copied(stored.span.len);
            }
            Origin::Encoded(unit, 0) if into.len() as u64 == unit.guest.len => self.decode(unit, into)?,
            Origin::Encoded(unit, skip) => {
                if self.decoded != Some(*unit) {
                    self.decoded = None;
                    let mut room = std::mem::take(self.unit);
                    room.clear();
                    room.resize(to_usize(unit.guest.len), 0);
                    let result = self.decode(unit, &mut room);
                    *self.unit = room;
                    result?;
                    self.decoded = Some(*unit);
                }
                let from = Span::new(*skip, into.len() as u64);
                into.copy_from_slice(&self.unit[to_usize(from.start)..to_usize(from.end())]);
            }
        }
        Ok(())
    }

    fn decode(&mut self, unit: &Encoded, into: &mut [u8]) -> Result<(), ConvertError> {
        let stored = self.stored.get(unit.stored).ok_or_else(|| self.missing(unit.stored))?;
        self.decoder.decode(unit, stored, into).map_err(|source| ConvertError::Decode {
            name: self.sources.file(unit.stored.file).name().into(),
            guest: unit.guest.start,
            stored: unit.stored.span.start,
            source,
        })?;
        self.counters.decoded(unit.guest.len);
        Ok(())
    }

    fn bytes(&self, stored: Stored) -> Result<&[u8], ConvertError> {
        self.stored.get(stored).ok_or_else(|| self.missing(stored))
    }

    /// A source that answered with other bytes than it was asked for.
    fn missing(&self, stored: Stored) -> ConvertError {
        SourceError::new(self.sources.file(stored.file).name(), stored.span, SourceFault::Protocol).into()
    }
}

/// Stored bytes in memory, by where they are stored.
struct Store<'a> {
    /// Ascending.
    reads: Vec<(Stored, &'a [u8])>,
}

impl<'a> Store<'a> {
    fn read(
        wants: &[Stored],
        sources: &Sources,
        counters: &Counters,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Self, ConvertError> {
        let total = wants.iter().map(|want| want.span.len).sum();
        if scratch.len() < to_usize(total) {
            scratch.resize(to_usize(total), 0);
        }
        let mut rest = scratch.as_mut_slice();
        let mut reads = Vec::with_capacity(wants.len());
        for want in wants {
            let (here, after) = rest.split_at_mut(to_usize(want.span.len));
            sources.read_at(*want, here)?;
            counters.read(want.span.len);
            reads.push((*want, &*here));
            rest = after;
        }
        Ok(Self { reads })
    }

    fn get(&self, stored: Stored) -> Option<&'a [u8]> {
        let after = self
            .reads
            .partition_point(|(at, _)| (at.file, at.span.start) <= (stored.file, stored.span.start));
        let (at, bytes) = self.reads.get(after.checked_sub(1)?)?;
        let from = to_usize(stored.span.start - at.span.start);
        bytes.get(from..from.checked_add(to_usize(stored.span.len))?).filter(|_| at.file == stored.file)
    }
}

fn slice_mut(part: &mut [u8], run: Span) -> &mut [u8] {
    &mut part[to_usize(run.start)..to_usize(run.end())]
}

/// Lengths of parts and reads, which fit memory.
pub(crate) fn to_usize(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
