//! Do two disks hold the same bytes?

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use disk_image::{ObjectMap, Plan, Span, Stored};
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::assemble::{Fetched, assemble, to_usize, zero_gaps};
use crate::buffer::BufferPool;
use crate::convert::{BATCH, fetch, reads_and_cost, unless_stopped};
use crate::{BLOCK_SIZE, ConvertError, Disk, Options, SinkError};

/// Least size of a part of disks that do not wait for a network, bytes.
const LOCAL_PART: u64 = 512 << 10;

/// What comparing two disks finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Same size, same bytes.
    Same,
    /// The first byte that differs is at this guest offset.
    DiffersAt(u64),
    /// All bytes that both have are the same, and what one has more is zero.
    SizesDiffer {
        /// Virtual size of the first disk.
        first: u64,
        /// Virtual size of the second.
        second: u64,
    },
}

/// Compares the guest bytes of two disks. Reads what either of them stores, up to the first difference.
///
/// # Errors
///
/// Whatever the sources and images report, and [`ConvertError::Cancelled`].
pub async fn compare(
    first: &Disk,
    second: &Disk,
    options: &Options,
    cancel: &CancellationToken,
) -> Result<Comparison, ConvertError> {
    first.check_whole()?;
    second.check_whole()?;
    let sizes = (first.image().virtual_size(), second.image().virtual_size());
    let len = sizes.0.max(sizes.1);
    let local = first.sources().are_local() && second.sources().are_local();
    let part_size = part_size([first, second], local);
    let batch = if local { BATCH.div_ceil(part_size) } else { 1 };
    // Two parts of either side and their reads; see `convert` for the factor.
    let needed = 2 * 2 * 3 * part_size;
    if options.memory < needed {
        return Err(ConvertError::Budget { memory: options.memory, needed });
    }
    let both = Arc::new(Both {
        sides: [Side::new(first), Side::new(second)],
        options: options.clone(),
        buffers: BufferPool::new(to_usize(part_size)),
        found: AtomicU64::new(u64::MAX),
    });
    let stored = |disk: &Disk| disk.image().map().stats().data + disk.image().map().stats().encoded;
    options.counters.expect(stored(first).max(stored(second)));

    let in_flight = options.workers.jobs() + first.sources().shape().in_flight;
    let mut admission = Admission::new(options.memory, in_flight, cancel);
    let stop = admission.stop();
    let mut at = 0;
    let mut next = std::iter::from_fn(|| {
        let filled = both.sides.iter().filter_map(|side| side.next_filled(at)).min()?;
        at = filled / part_size * part_size;
        let part = Span::new(at, part_size.min(len - at));
        at = part.end();
        (part.start <= both.found.load(Ordering::Relaxed))
            .then(|| PartPair { part, sides: both.sides.each_ref().map(|side| side.plan(part)) })
    })
    .fuse()
    .peekable();
    let planned = async {
        while next.peek().is_some() {
            let pairs: Vec<PartPair> = next.by_ref().take(to_usize(batch)).collect();
            // A worker compares the parts of a batch one after the other.
            let cost = pairs.iter().map(|pair| pair.sides.iter().map(|side| side.cost).sum()).max();
            let admitted = admission.admit(cost.unwrap_or(0)).await?;
            let (both, stop) = (both.clone(), stop.clone());
            admission.spawn(admitted, async move { both.compare(pairs, &stop).await });
        }
        Ok(())
    };
    let planned = planned.await;
    admission.finish(planned).await?;
    first.sources().verify().await?;
    second.sources().verify().await?;
    Ok(match both.found.load(Ordering::Relaxed) {
        u64::MAX if sizes.0 == sizes.1 => Comparison::Same,
        u64::MAX => Comparison::SizesDiffer { first: sizes.0, second: sizes.1 },
        offset => Comparison::DiffersAt(offset),
    })
}

/// The size of parts: both sides of one fit the cache where there is nothing to wait for, and no encoded unit is cut.
fn part_size(disks: [&Disk; 2], local: bool) -> u64 {
    let least = if local { LOCAL_PART } else { BLOCK_SIZE };
    let units = disks.map(|disk| disk.image().map().stats().largest_unit.max(1));
    units.into_iter().fold(least, |size, unit| size.next_multiple_of(unit))
}

struct Both {
    sides: [Side; 2],
    options: Options,
    buffers: BufferPool,
    /// Lowest offset of a difference found so far.
    found: AtomicU64,
}

/// A part of both disks.
struct PartPair {
    part: Span,
    sides: [SidePart; 2],
}

/// How one side of a part is made.
struct SidePart {
    plan: Plan,
    /// What has to be fetched before a worker can begin.
    reads: Vec<Stored>,
    cost: u64,
}

/// A part whose sides a worker can make.
type FetchedPair = (Span, Vec<(Plan, Fetched)>);

struct Side {
    disk: Disk,
    layout: ObjectMap,
}

impl Side {
    fn new(disk: &Disk) -> Self {
        Self { disk: disk.clone(), layout: ObjectMap::raw(disk.image().virtual_size()) }
    }

    fn plan(&self, part: Span) -> SidePart {
        let plan = Plan::new(self.disk.image().map(), &self.layout, part);
        let (reads, cost) = reads_and_cost(&self.disk, &plan);
        SidePart { plan, reads, cost }
    }

    fn next_filled(&self, at: u64) -> Option<u64> {
        self.layout.next_filled(self.disk.image().map(), at)
    }
}

impl Both {
    /// Compares parts. After a cancellation, at most a CPU job is still running, and it is waited for.
    async fn compare(
        self: Arc<Self>,
        pairs: Vec<PartPair>,
        stop: &CancellationToken,
    ) -> Result<(), ConvertError> {
        let mut fetched: Vec<FetchedPair> = Vec::with_capacity(pairs.len());
        for PartPair { part, sides } in pairs {
            fetched.push((part, unless_stopped(stop, self.fetch(sides)).await?));
        }
        let workers = self.options.workers.clone();
        let stop = stop.clone();
        let job = move || {
            fetched.into_iter().try_for_each(|(part, sides)| match stop.is_cancelled() {
                true => Err(ConvertError::Cancelled),
                false => self.compare_now(part, sides),
            })
        };
        workers.run(job).await?
    }

    async fn fetch(&self, parts: [SidePart; 2]) -> Result<Vec<(Plan, Fetched)>, ConvertError> {
        let mut fetched = Vec::new();
        for (side, SidePart { plan, reads, .. }) in self.sides.iter().zip(parts) {
            fetched.push((plan, fetch(&side.disk, reads, &self.options).await?));
        }
        Ok(fetched)
    }

    fn compare_now(&self, part: Span, fetched: Vec<(Plan, Fetched)>) -> Result<(), ConvertError> {
        let len = to_usize(part.len);
        let mut buffers = Vec::new();
        let mut filled = 0;
        for (side, (plan, stored)) in self.sides.iter().zip(fetched) {
            let out_of_memory = |error| SinkError::io("memory", Some(part.start), error);
            let mut buffer = self.buffers.take().map_err(out_of_memory)?;
            let counters = &self.options.counters;
            let runs = assemble(&plan, side.disk.sources(), &stored, counters, &mut buffer[..len])?;
            zero_gaps(&mut buffer[..len], &runs);
            filled = filled.max(runs.iter().map(|run| run.len).sum());
            buffers.push(buffer);
        }
        if let [first, second] = buffers.as_slice()
            && let Some(at) = first_difference(&first[..len], &second[..len])
        {
            self.found.fetch_min(part.start + at, Ordering::Relaxed);
        }
        self.options.counters.part_done(filled);
        Ok(())
    }
}

/// Offset of the first byte that differs.
fn first_difference(first: &[u8], second: &[u8]) -> Option<u64> {
    if first == second {
        return None;
    }
    first.iter().zip(second).position(|(a, b)| a != b).map(|at| at as u64)
}
