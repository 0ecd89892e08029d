//! Finds zeroes that are stored as data.
//!
//! A layout places only what the map calls stored, so content that turns out to be zero has to be known before. A separate pass, map
//! to map, over all workers at the speed of memory; worth it where the file system knows too little, above all for RAW.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use disk_image::{ExtentMapBuilder, ObjectMap, Span, State};
use tokio_util::sync::CancellationToken;

use crate::assemble::to_usize;
use crate::{
    ConvertError, Disk, FilledPart, Options, Part, PartRules, PartSize, PutNow, Sink, SinkError, Zeroes,
    convert, is_zero,
};

/// Zeroes shorter than this, or not aligned to it, stay data, bytes: the smallest cluster that users of these formats choose.
pub const SCAN_GRANULARITY: u64 = 64 << 10;

/// The same disk with runs of stored zeroes marked as zero. Encoded units are not looked into: compressors leave zeroes out.
///
/// # Errors
///
/// As [`convert()`].
pub async fn scan(disk: &Disk, options: &Options, cancel: &CancellationToken) -> Result<Disk, ConvertError> {
    let map = disk.image().map();
    let mut plain = ExtentMapBuilder::new();
    for extent in map.iter() {
        let state = if matches!(extent.state, State::Data(_)) { extent.state } else { State::Hole };
        plain.push(extent.guest.len, state);
    }
    let plain = disk.with_map(plain.finish(map.guest_len()));
    let layout = ObjectMap::raw(map.guest_len());
    let zeroes = convert(&plain, &layout, ZeroFinder::default(), options, cancel).await?;

    let mut found = zeroes.into_iter().map(|(start, end)| Span::between(start, end));
    let mut next = found.next();
    let mut marked = ExtentMapBuilder::new();
    for extent in map.iter() {
        let mut at = extent.guest.start;
        while at < extent.guest.end() {
            while next.is_some_and(|zero| zero.end() <= at) {
                next = found.next();
            }
            let rest = Span::between(at, extent.guest.end());
            let zero = next.map_or(Span::default(), |zero| zero.intersect(rest));
            let (len, zero) = match zero.is_empty() {
                true => (rest.len, false),
                false if zero.start == at => (zero.len, true),
                false => (zero.start - at, false),
            };
            for part in map.extents(Span::new(at, len)) {
                let state = if zero { State::Zero } else { part.state };
                marked.push(part.guest.len, state);
            }
            at += len;
        }
    }
    Ok(disk.with_map(marked.finish(map.guest_len())))
}

/// Collects the zero runs of what is put. Runs that meet are one, so that a disk which is zero throughout costs no more than one
/// that is a hole.
#[derive(Default)]
struct ZeroFinder {
    /// End of each run by its start.
    found: Mutex<BTreeMap<u64, u64>>,
}

#[async_trait]
impl Sink for ZeroFinder {
    type Output = BTreeMap<u64, u64>;

    fn rules(&self) -> PartRules {
        PartRules { size: PartSize::AtLeast(SCAN_GRANULARITY), zeroes: Zeroes::SkipRuns, in_flight: 2 }
    }

    async fn put(&self, _part: Part) -> Result<(), SinkError> {
        // Never called: this sink is blocking.
        Ok(())
    }

    fn blocking(&self) -> Option<&dyn PutNow> {
        Some(self)
    }

    async fn finish(&self, _len: u64) -> Result<Self::Output, SinkError> {
        Ok(std::mem::take(&mut self.found.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    async fn abort(&self) {}
}

impl PutNow for ZeroFinder {
    fn put_now(&self, part: &FilledPart<'_>) -> Result<u64, SinkError> {
        let mut zeroes: Vec<Span> = Vec::new();
        for run in part.runs {
            let mut at = run.start;
            while at < run.end() {
                let step = Span::between(at, (at / SCAN_GRANULARITY + 1) * SCAN_GRANULARITY).intersect(*run);
                let whole = step.len == SCAN_GRANULARITY || step.end() == part.bytes.len() as u64;
                if whole && is_zero(&part.bytes[to_usize(step.start)..to_usize(step.end())]) {
                    match zeroes.last_mut() {
                        Some(last) if last.end() == step.start => last.len += step.len,
                        _ => zeroes.push(step),
                    }
                }
                at = step.end();
            }
        }
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        for zero in &zeroes {
            merge(&mut found, Span::new(part.offset + zero.start, zero.len));
        }
        Ok(zeroes.iter().map(|zero| zero.len).sum())
    }
}

/// Adds a run that meets no other one but at its ends.
fn merge(found: &mut BTreeMap<u64, u64>, run: Span) {
    let end = found.remove(&run.end()).unwrap_or(run.end());
    match found.range_mut(..run.start).next_back() {
        Some((_, before)) if *before == run.start => *before = end,
        _ => {
            found.insert(run.start, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn zeroes_of_neighbouring_parts_are_one_run() {
        let finder = ZeroFinder::default();
        let bytes = vec![0; to_usize(SCAN_GRANULARITY)];
        let runs = [Span::new(0, SCAN_GRANULARITY)];
        // In any order: 7 and 16 lie apart.
        for number in [3, 1, 2, 0, 16, 5, 4, 7] {
            let offset = u64::from(number) * SCAN_GRANULARITY;
            finder.put_now(&FilledPart { number, offset, bytes: &bytes, runs: &runs }).unwrap();
        }
        let found: Vec<_> = finder.finish(0).await.unwrap().into_iter().collect();
        let at = |number: u64| number * SCAN_GRANULARITY;
        assert_eq!(found, [(0, at(6)), (at(7), at(8)), (at(16), at(17))]);
    }
}
