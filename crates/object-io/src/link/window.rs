//! How many parts are in flight: the fewest that use up the line.
//!
//! Additive increase, multiplicative decrease. Bytes a second are counted over rounds of as many parts as are in flight. One more part
//! at a time is tried, and kept where a round is faster by half of what a part more could bring; when that has ended, one less is
//! tried now and then, and kept where a round is slower by less than that. Trouble (a time-out, a broken connection, a throttled request) halves the number. So a slow line ends
//! with few, each of which is soon there and costs little to send again, and a fast one with many.

use std::time::Instant;

use crate::limits::FIRST_IN_FLIGHT;

/// Of what one part of so many could bring, what it must bring to be kept.
const SHARE: f64 = 0.5;
/// Rounds between two trials.
const REST: u32 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    More,
    Fewer,
    /// So many rounds to go, then try again.
    Rest {
        left: u32,
    },
}

/// The number of parts in flight, and what is known for choosing it.
#[derive(Debug)]
pub(super) struct Window {
    size: usize,
    max: usize,
    trial: Trial,
    /// Which way the trial after the rest goes.
    next: Trial,
    /// Bytes a second before the trial.
    before: Option<f64>,
    bytes: u64,
    parts: usize,
    since: Instant,
    /// When it was halved last: parts that were in flight then fail for the same reason.
    halved: Option<Instant>,
    /// Failures that belong to the last halving.
    forgiven: usize,
}

impl Window {
    /// At most `max`, at least one.
    pub(super) fn new(max: usize, now: Instant) -> Self {
        Self {
            size: FIRST_IN_FLIGHT.clamp(1, max.max(1)),
            max: max.max(1),
            trial: Trial::More,
            next: Trial::Fewer,
            before: None,
            bytes: 0,
            parts: 0,
            since: now,
            halved: None,
            forgiven: 0,
        }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// A part of `len` bytes, sent from `began` on, arrived.
    pub(super) fn arrived(&mut self, len: u64, began: Instant, now: Instant) {
        // What was in flight when the number changed says nothing about the number after it.
        if self.halved.is_some_and(|at| began < at) {
            return;
        }
        self.bytes += len;
        self.parts += 1;
        // Two parts at least: one alone is too little to compare.
        if self.parts < self.size.max(2) {
            return;
        }
        let seconds = now.duration_since(self.since).as_secs_f64().max(1e-6);
        #[allow(clippy::cast_precision_loss, reason = "estimates")]
        let rate = self.bytes as f64 / seconds;
        self.judge(rate);
        (self.bytes, self.parts, self.since) = (0, 0, now);
    }

    /// A round is over, at `rate` bytes a second.
    fn judge(&mut self, rate: f64) {
        #[allow(clippy::cast_precision_loss, reason = "a small number")]
        let share = SHARE / self.size as f64;
        match (self.trial, self.before) {
            (Trial::Rest { left: 0 }, _) => {
                self.before = Some(rate);
                self.trial = self.next;
                self.step();
            }
            (Trial::Rest { left }, _) => self.trial = Trial::Rest { left: left - 1 },
            (_, None) => {
                self.before = Some(rate);
                self.step();
            }
            (Trial::More, Some(before)) if rate * (1.0 - share) >= before => {
                self.before = Some(rate);
                self.step();
            }
            (Trial::More, Some(_)) => {
                self.size = (self.size - 1).max(1);
                self.rest(Trial::Fewer);
            }
            (Trial::Fewer, Some(before)) if rate * (1.0 + share) >= before => self.step(),
            (Trial::Fewer, Some(_)) => {
                self.size = (self.size + 1).min(self.max);
                self.rest(Trial::More);
            }
        }
    }

    fn step(&mut self) {
        match self.trial {
            Trial::More if self.size < self.max => self.size += 1,
            Trial::Fewer if self.size > 1 => self.size -= 1,
            Trial::More => self.rest(Trial::Fewer),
            _ => self.rest(Trial::More),
        }
    }

    fn rest(&mut self, next: Trial) {
        (self.trial, self.next) = (Trial::Rest { left: REST }, next);
    }

    /// A part failed in a way that says that the line, or the store, has too much to do.
    pub(super) fn trouble(&mut self, now: Instant) {
        if let Some(left) = self.forgiven.checked_sub(1) {
            self.forgiven = left;
            return;
        }
        self.forgiven = self.size - 1;
        self.size = (self.size / 2).max(1);
        self.halved = Some(now);
        self.before = None;
        self.rest(Trial::More);
        (self.bytes, self.parts, self.since) = (0, 0, now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PART: u64 = 16 << 20;

    /// Sends `parts` over a line that takes `each` bytes a second of one part and `all` of all of them; gives the sizes at the end.
    fn run(window: &mut Window, parts: usize, each: f64, all: f64) -> Vec<usize> {
        let mut now = Instant::now();
        let mut sizes = Vec::new();
        window.since = now;
        for _ in 0..parts {
            #[allow(clippy::cast_precision_loss)]
            let rate = (each * window.size() as f64).min(all);
            let began = now;
            #[allow(clippy::cast_precision_loss)]
            let step = Duration::from_secs_f64(PART as f64 / rate);
            now += step;
            window.arrived(PART, began, now);
            sizes.push(window.size());
        }
        sizes.split_off(parts - parts / 4)
    }

    #[test]
    fn a_slow_line_gets_few_parts_and_a_fast_one_many() {
        let new = || Window::new(16, Instant::now());
        let slow = run(&mut new(), 600, 1e6, 1e6);
        assert!(slow.iter().all(|size| *size <= 2), "{slow:?}");
        let fast = run(&mut new(), 600, 1e6, 1e9);
        assert!(fast.iter().all(|size| *size >= 12), "{fast:?}");
        let middle = run(&mut new(), 600, 1e6, 8e6);
        assert!(middle.iter().all(|size| (7..=9).contains(size)), "{middle:?}");
    }

    #[test]
    fn it_comes_back_after_trouble() {
        let mut window = Window::new(16, Instant::now());
        run(&mut window, 300, 1e6, 1e9);
        let before = window.size();
        let now = Instant::now();
        for _ in 0..before {
            window.trouble(now);
        }
        // All that were in flight failed together: that is one reason, not many.
        assert_eq!(window.size(), before / 2);
        window.halved = None;
        let after = run(&mut window, 600, 1e6, 1e9);
        assert!(after.iter().all(|size| *size >= 12), "{after:?}");
    }

    #[test]
    fn it_never_leaves_its_bounds() {
        for max in [0, 1, 2, 16] {
            let mut window = Window::new(max, Instant::now());
            for round in 0..200 {
                if round % 7 == 0 {
                    window.trouble(Instant::now());
                }
                run(&mut window, 8, 1e6, 1e9);
                assert!((1..=max.max(1)).contains(&window.size()), "{max}: {}", window.size());
            }
        }
    }
}
