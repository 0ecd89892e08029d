//! Which of the content is not zero: what unpacks to a raw disk has no holes otherwise.
//!
//! Counted in granules of [`FILLED_GRANULE`] bytes, or twice that, and so on, where there would be more runs than
//! [`MAX_FILLED_RUNS`]. Cost: a look at each granule up to the first byte that is not zero; 16 bytes a run.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::Span;
use crate::limits::{FILLED_GRANULE, MAX_FILLED_RUNS};

/// The runs while content goes by.
#[derive(Debug)]
pub(super) struct Filled {
    granule: u64,
    runs: Vec<Span>,
    /// Bytes that went by.
    at: u64,
    /// Whether the current granule has a byte that is not zero.
    holds: bool,
}

impl Default for Filled {
    fn default() -> Self {
        Self { granule: FILLED_GRANULE, runs: Vec::new(), at: 0, holds: false }
    }
}

impl Filled {
    pub(super) fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let end = self.start().saturating_add(self.granule);
            let room = usize::try_from(end.saturating_sub(self.at)).unwrap_or(usize::MAX);
            let (here, rest) = bytes.split_at(room.min(bytes.len()));
            self.holds = self.holds || !is_zero(here);
            self.at = self.at.saturating_add(here.len() as u64);
            bytes = rest;
            if self.at == end {
                self.close(Span::between(end.saturating_sub(self.granule), end));
            }
        }
    }

    /// The runs: ascending, apart, inside of what went by.
    pub(super) fn finish(mut self) -> Vec<Span> {
        self.close(Span::between(self.start(), self.at));
        if let Some(last) = self.runs.last_mut() {
            *last = Span::between(last.start, last.end().min(self.at));
        }
        self.runs
    }

    /// Where the current granule begins.
    fn start(&self) -> u64 {
        self.at.checked_div(self.granule).unwrap_or(0).saturating_mul(self.granule)
    }

    fn close(&mut self, granule: Span) {
        if std::mem::take(&mut self.holds) && !granule.is_empty() {
            push(&mut self.runs, granule);
        }
        if self.runs.len() > MAX_FILLED_RUNS {
            self.granule = self.granule.saturating_mul(2);
            let granules =
                |bytes: u64| bytes.checked_div(self.granule).unwrap_or(0).saturating_mul(self.granule);
            let mut runs = Vec::new();
            for run in &self.runs {
                let end = run.end().saturating_add(self.granule.saturating_sub(1));
                push(&mut runs, Span::between(granules(run.start), granules(end)));
            }
            self.runs = runs;
        }
    }
}

/// Adds a run that does not begin before the last one.
fn push(runs: &mut Vec<Span>, run: Span) {
    match runs.last_mut() {
        Some(last) if last.end() >= run.start => *last = Span::between(last.start, last.end().max(run.end())),
        _ => runs.push(run),
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(4096).all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn granules_that_hold_something() {
        const G: usize = FILLED_GRANULE as usize;
        let mut content = vec![0; 10 * G + 700];
        for at in [0, G - 1, 3 * G, 4 * G + 5, 9 * G - 1, 10 * G + 699] {
            content[at] = 1;
        }
        let g = |granules: u64| granules * FILLED_GRANULE;
        let expected = [
            Span::between(0, g(1)),
            Span::between(g(3), g(5)),
            Span::between(g(8), g(9)),
            Span::between(g(10), g(10) + 700),
        ];
        for piece in [1000, 4096, G, 3 * G + 1, content.len()] {
            let mut filled = Filled::default();
            content.chunks(piece).for_each(|bytes| filled.add(bytes));
            assert_eq!(filled.finish(), expected, "by {piece}");
        }
        assert_eq!(Filled::default().finish(), []);
    }

    /// Every other granule: runs become coarser, and still cover what is not zero.
    #[test]
    fn there_are_never_too_many() {
        let mut filled = Filled::default();
        let mut granules = vec![0; 2 * FILLED_GRANULE as usize];
        granules[0] = 1;
        let count = MAX_FILLED_RUNS as u64 + 10;
        for _ in 0..count {
            filled.add(&granules);
        }
        assert!(filled.runs.len() <= MAX_FILLED_RUNS);
        assert_eq!(filled.finish(), [Span::new(0, 2 * FILLED_GRANULE * count)]);
    }
}
