//! Which bytes of a file an image has already pointed to: proof that nothing is referenced twice and no table lies on data.
//!
//! An image that points twice at the same bytes is damaged or a bomb: 448 KiB of tables can ask for 1 GiB of output. One that
//! points at its own tables serves them as disk content. So whatever is reachable is claimed once.
//!
//! Most of what formats store are units (clusters, grains, blocks) that all begin at the same distance from a multiple of their
//! size. They take one bit each, in pages that exist only where something is stored. Everything else (tables of other lengths, units
//! out of step) is held as runs that grow together where they meet. Compressed streams may share a unit, but none begins where another
//! one does: as writers lay them one after the other, they too are held as runs. Memory is proportional to fragmentation.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::map::check_memory;
use crate::{Item, OpenError, Span};

/// Bits in a page.
const PAGE_BITS: u64 = 2048;

/// A page of bits.
type Page = [u64; 32];

/// About what a run costs in a [`BTreeMap`], bytes: two numbers and a share of a node that is not full.
const RUN_COST: usize = 32;

/// How far the end of a compressed stream may lie before the end that its entry gives: formats count whole sectors, and some
/// writers one too many.
const STREAM_SLACK: u64 = 1024;

/// What of one file was pointed to.
#[derive(Debug)]
pub(crate) struct Claims {
    /// Bytes in a unit.
    unit: u64,
    /// Distance of the units from a multiple of their size: that of the first one.
    phase: Option<u64>,
    /// Units claimed.
    units: Bits,
    /// Units that compressed streams reach into.
    shared: Bits,
    /// What is not a unit, start -> end.
    runs: BTreeMap<u64, u64>,
    streams: Streams,
}

impl Claims {
    /// No claims in a file whose units have `unit` bytes.
    pub(crate) fn new(unit: u64) -> Self {
        Self {
            unit: unit.max(1),
            phase: None,
            units: Bits::default(),
            shared: Bits::default(),
            runs: BTreeMap::new(),
            streams: Streams::default(),
        }
    }

    /// Claims `span` for what `what` points to; nothing else may claim any of it.
    ///
    /// # Errors
    ///
    /// [`OpenError::Claimed`] if some of it is claimed already, [`OpenError::Limit`] if too much is out of step.
    pub(crate) fn claim(&mut self, span: Span, what: Item) -> Result<(), OpenError> {
        if span.is_empty() {
            return Ok(());
        }
        let offset = span.start.checked_rem(self.unit).unwrap_or(0);
        if span.len == self.unit && *self.phase.get_or_insert(offset) == offset {
            let slot = self.slot(span.start);
            if self.units.contains(slot) || self.shared.contains(slot) || self.meets_run(span) {
                return Err(OpenError::Claimed { what, at: span.start });
            }
            self.units.insert(slot);
        } else {
            if let Some(at) = self.first_claimed(span) {
                return Err(OpenError::Claimed { what, at });
            }
            self.add_run(span);
        }
        self.check_memory()
    }

    /// Claims the compressed stream in `span`, whose end is an upper bound: it may share units with other streams and reach a
    /// little into what follows, but it begins where no other stream does.
    ///
    /// # Errors
    ///
    /// As [`Claims::claim`].
    pub(crate) fn claim_stream(&mut self, span: Span, what: Item) -> Result<(), OpenError> {
        let least = span.len.saturating_sub(STREAM_SLACK).max(1);
        let sure = Span::new(span.start, least);
        self.phase.get_or_insert(0);
        for slot in self.slot(sure.start)..=self.slot(sure.end().saturating_sub(1)) {
            if self.units.contains(slot) {
                return Err(OpenError::Claimed { what, at: span.start });
            }
            self.shared.insert(slot);
        }
        if self.meets_run(sure) {
            return Err(OpenError::Claimed { what, at: span.start });
        }
        if !self.streams.insert(span) {
            return Err(OpenError::Claimed { what, at: span.start });
        }
        self.check_memory()
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        self.units
            .memory()
            .saturating_add(self.shared.memory())
            .saturating_add(self.runs.len().saturating_mul(RUN_COST))
            .saturating_add(self.streams.memory())
    }

    /// Streams whose start could not be told from an earlier one's without seeing both again; see [`Claims::recheck`].
    pub(crate) fn has_doubts(&self) -> bool {
        !self.streams.doubts.is_empty()
    }

    /// Settles the doubts: is given the start of every stream once more, and refuses one that comes twice.
    ///
    /// # Errors
    ///
    /// [`OpenError::Claimed`].
    pub(crate) fn recheck(&self, starts: impl Iterator<Item = u64>) -> Result<(), OpenError> {
        let mut seen = BTreeSet::new();
        for start in starts.filter(|start| self.streams.doubts.contains(start)) {
            if !seen.insert(start) {
                return Err(OpenError::Claimed { what: Item::The("table of clusters"), at: start });
            }
        }
        Ok(())
    }

    fn check_memory(&self) -> Result<(), OpenError> {
        check_memory(self.memory())
    }

    /// The number of the unit that holds `at`. What lies before the first unit counts as part of it: it is smaller than one.
    fn slot(&self, at: u64) -> u64 {
        at.saturating_sub(self.phase.unwrap_or(0)).checked_div(self.unit).unwrap_or(0)
    }

    /// The bytes of a unit.
    fn unit_at(&self, slot: u64) -> Span {
        Span::new(slot.saturating_mul(self.unit).saturating_add(self.phase.unwrap_or(0)), self.unit)
    }

    /// The first byte of `span` that is claimed.
    fn first_claimed(&self, span: Span) -> Option<u64> {
        if self.meets_run(span) {
            return Some(span.start);
        }
        (self.slot(span.start)..=self.slot(span.end().saturating_sub(1)))
            .filter(|&slot| self.units.contains(slot) || self.shared.contains(slot))
            .map(|slot| self.unit_at(slot).intersect(span))
            .find(|both| !both.is_empty())
            .map(|both| both.start)
    }

    fn meets_run(&self, span: Span) -> bool {
        self.runs.range(..span.end()).next_back().is_some_and(|(_, &end)| end > span.start)
    }

    /// Adds a run that meets no other, and joins it with those that it touches.
    fn add_run(&mut self, span: Span) {
        let (mut start, mut end) = (span.start, span.end());
        if let Some(after) = self.runs.remove(&end) {
            end = after;
        }
        if let Some((&before, _)) = self.runs.range(..start).next_back().filter(|(_, last)| **last == start) {
            start = before;
        }
        self.runs.insert(start, end);
    }
}

/// A set of numbers in pages. The page that was written last is at hand: writers go through a file in order, nearly.
#[derive(Debug, Default)]
struct Bits {
    hot: u64,
    hot_page: Box<Page>,
    /// The other pages.
    pages: HashMap<u64, Box<Page>>,
}

impl Bits {
    fn contains(&self, number: u64) -> bool {
        let (page, word, bit) = place(number);
        let page = if page == self.hot { Some(&self.hot_page) } else { self.pages.get(&page) };
        page.and_then(|page| page.get(word)).is_some_and(|word| word & bit != 0)
    }

    fn insert(&mut self, number: u64) {
        let (page, word, bit) = place(number);
        if page != self.hot {
            let wanted = self.pages.remove(&page).unwrap_or_default();
            let cold = std::mem::replace(&mut self.hot_page, wanted);
            self.pages.insert(self.hot, cold);
            self.hot = page;
        }
        if let Some(word) = self.hot_page.get_mut(word) {
            *word |= bit;
        }
    }

    fn memory(&self) -> usize {
        self.pages
            .capacity()
            .saturating_mul(24)
            .saturating_add(self.pages.len().saturating_mul(size_of::<Page>()))
    }
}

/// Page, word and bit of a number.
fn place(number: u64) -> (u64, usize, u64) {
    let inside = number % PAGE_BITS;
    (number / PAGE_BITS, usize::try_from(inside / 64).unwrap_or(0), 1 << (inside % 64))
}

/// Where compressed streams begin, as runs of streams that follow one another.
#[derive(Debug, Default)]
struct Streams {
    /// First start -> the last stream's start, and the end that its entry gives.
    runs: BTreeMap<u64, (u64, u64)>,
    /// Starts inside a run: a writer with several threads puts streams a little out of order, so each may be new or may be there
    /// already.
    doubts: BTreeSet<u64>,
}

impl Streams {
    /// Adds a stream; false if one is known to begin there, or to reach past there.
    fn insert(&mut self, span: Span) -> bool {
        let (start, end) = (span.start, span.end());
        let first = match self.runs.range_mut(..=start).next_back() {
            Some((&first, (last, _))) if start == first || start == *last => return false,
            Some((_, (last, _))) if start < *last => return self.doubts.insert(start),
            Some((_, (_, last_end))) if start.saturating_add(STREAM_SLACK) < *last_end => return false,
            Some((&first, (last, last_end))) if start <= *last_end => {
                (*last, *last_end) = (start, end);
                first
            }
            _ => {
                self.runs.insert(start, (start, end));
                start
            }
        };
        // Join it with the run that follows.
        let next = self.runs.range(start.saturating_add(1)..=end).next().map(|(&next, &run)| (next, run));
        if let Some((next, run)) = next {
            self.runs.remove(&next);
            self.runs.insert(first, run);
        }
        true
    }

    fn memory(&self) -> usize {
        self.runs
            .len()
            .saturating_mul(RUN_COST.saturating_add(8))
            .saturating_add(self.doubts.len().saturating_mul(16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: u64 = 1 << 16;
    const WHAT: Item = Item::The("test");

    #[expect(clippy::needless_pass_by_value, reason = "a result is handed over as it comes")]
    fn refused(result: Result<(), OpenError>, at: u64) {
        assert_eq!(result, Err(OpenError::Claimed { what: WHAT, at }));
    }

    #[test]
    fn units_are_claimed_once() {
        let mut claims = Claims::new(UNIT);
        for unit in [7, 3, 5, 4, 6] {
            claims.claim(Span::new(unit * UNIT, UNIT), WHAT).unwrap();
        }
        for unit in 3..8 {
            refused(claims.claim(Span::new(unit * UNIT, UNIT), WHAT), unit * UNIT);
            // A unit at the end of the disk is shorter, and still has its place to itself.
            refused(claims.claim(Span::new(unit * UNIT, 512), WHAT), unit * UNIT);
        }
        claims.claim(Span::new(8 * UNIT, 512), WHAT).unwrap();
    }

    #[test]
    fn tables_meet_neither_tables_nor_units() {
        let mut claims = Claims::new(UNIT);
        claims.claim(Span::new(4 * UNIT, UNIT), WHAT).unwrap();
        claims.claim(Span::new(UNIT / 2, 3 * UNIT), WHAT).unwrap();
        refused(claims.claim(Span::new(3 * UNIT, UNIT), WHAT), 3 * UNIT);
        refused(claims.claim(Span::new(5 * UNIT - 1, 2), WHAT), 5 * UNIT - 1);
        refused(claims.claim(Span::new(3 * UNIT + UNIT / 2, UNIT), WHAT), 4 * UNIT);
        claims.claim(Span::new(3 * UNIT + UNIT / 2, UNIT / 2), WHAT).unwrap();
        assert_eq!(claims.runs.len(), 1, "{claims:?}");
        refused(claims.claim(Span::new(0, UNIT), WHAT), 0);
        claims.claim(Span::new(0, UNIT / 2), WHAT).unwrap();
        refused(claims.claim(Span::new(0, 512), WHAT), 0);
        claims.claim(Span::new(10 * UNIT + 512, UNIT), WHAT).unwrap();
        refused(claims.claim(Span::new(11 * UNIT, UNIT), WHAT), 11 * UNIT);
    }

    #[test]
    fn units_may_all_be_out_of_step_alike() {
        let mut claims = Claims::new(UNIT);
        for unit in 0..1000 {
            claims.claim(Span::new(unit * UNIT + 21 * 512, UNIT), WHAT).unwrap();
        }
        assert!(claims.runs.is_empty());
        refused(claims.claim(Span::new(30 * UNIT, 512), WHAT), 30 * UNIT);
        claims.claim(Span::new(0, 21 * 512), WHAT).unwrap();
    }

    #[test]
    fn streams_share_units_with_streams_only() {
        let mut claims = Claims::new(UNIT);
        claims.claim(Span::new(UNIT, UNIT), WHAT).unwrap();
        claims.claim_stream(Span::new(2 * UNIT + 100, 5000), WHAT).unwrap();
        claims.claim_stream(Span::new(2 * UNIT + 5000, 2 * UNIT), WHAT).unwrap();
        refused(claims.claim_stream(Span::new(2 * UNIT + 100, 700), WHAT), 2 * UNIT + 100);
        refused(claims.claim_stream(Span::new(3 * UNIT, 700), WHAT), 3 * UNIT);
        refused(claims.claim_stream(Span::new(UNIT + 100, 700), WHAT), UNIT + 100);
        refused(claims.claim(Span::new(3 * UNIT, UNIT), WHAT), 3 * UNIT);
        // The last sector of a stream may be more than there is of it.
        claims.claim(Span::new(5 * UNIT, UNIT), WHAT).unwrap();
        claims.claim_stream(Span::new(5 * UNIT - 5000, 5512), WHAT).unwrap();
    }

    #[test]
    fn streams_out_of_order_are_told_from_repeated_ones() {
        let start = |i: u64| (1 << 20) + i * 700;
        let stream = |i| Span::between(start(i), start(i + 1).next_multiple_of(512));
        // As a writer with several threads lays them.
        let order: Vec<u64> = (0..4000).map(|i| i / 8 * 8 + (i * 5 + i / 8) % 8).collect();
        let mut claims = Claims::new(UNIT);
        for &i in &order {
            claims.claim_stream(stream(i), WHAT).unwrap();
        }
        assert!(claims.memory() < 200_000, "{}", claims.memory());
        claims.recheck(order.iter().map(|&i| start(i))).unwrap();
        // The same once more in the middle is either seen at once, or when all are seen again.
        for twice in [0, 1, 1000, 2222, 3999] {
            if claims.claim_stream(stream(twice), WHAT).is_ok() {
                assert!(claims.has_doubts());
                let all = order.iter().chain([&twice]).map(|&i| start(i));
                claims.recheck(all).unwrap_err();
            }
        }
    }

    #[test]
    fn memory_follows_fragmentation() {
        let mut claims = Claims::new(UNIT);
        for unit in 0..1_000_000 {
            claims.claim(Span::new((unit * 7919 % 1_000_003) * UNIT, UNIT), WHAT).unwrap();
        }
        assert!(claims.memory() < 300_000, "{}", claims.memory());
        let mut claims = Claims::new(UNIT);
        for stream in 0..1_000_000 {
            claims.claim_stream(Span::new(UNIT + stream * 1000, 1000), WHAT).unwrap();
        }
        assert!(claims.memory() < 50_000, "{}", claims.memory());
    }
}
