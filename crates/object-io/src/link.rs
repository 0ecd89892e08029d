//! What an upload has learned of the line to its store: how fast it is, how many parts at once use it up, and how much failure is
//! still put up with.
//!
//! Cost: a lock that is held for some arithmetic, twice a part.

mod limit;
mod window;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

pub(crate) use limit::{PacedBody, RateLimit};
use window::Window;

use crate::limits::{MIN_RATE, RATE_MARGIN, RATE_PART_TIME};
use crate::{ObjectError, RetryOptions};

/// Parts that arrive for each retry that they give back to the budget.
const PARTS_PER_RETRY: u32 = 2;

/// The line of one upload.
#[derive(Debug)]
pub(crate) struct Link {
    options: RetryOptions,
    limit: Option<RateLimit>,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug)]
struct State {
    window: Window,
    in_flight: usize,
    /// Bytes a second of one part, averaged over the last few.
    rate: Option<f64>,
    /// Retries that are left, and parts since one was given back.
    budget: u32,
    arrived: u32,
    /// Since when nothing has succeeded, and how often something was tried since.
    failing: Option<(Instant, u32)>,
}

/// Leave to send a part; given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot<'a> {
    link: &'a Link,
    since: Instant,
}

impl Link {
    /// For parts of `part_len` bytes, at most `in_flight` at once, and bytes no faster than `limit`.
    pub(crate) fn new(
        options: RetryOptions,
        part_len: u64,
        in_flight: usize,
        limit: Option<RateLimit>,
    ) -> Self {
        // Under a limit more parts at once only make each of them slower.
        let worth = limit.as_ref().map_or(u64::MAX, |limit| {
            limit.bytes_per_second().saturating_mul(RATE_PART_TIME.as_secs()) / part_len.max(1)
        });
        let max = in_flight.min(usize::try_from(worth).unwrap_or(usize::MAX)).max(1);
        let now = Instant::now();
        let state = State {
            window: Window::new(max, now),
            in_flight: 0,
            rate: None,
            budget: options.budget,
            arrived: 0,
            failing: None,
        };
        Self { options, limit, state: Mutex::new(state), freed: Notify::new() }
    }

    pub(crate) fn options(&self) -> &RetryOptions {
        &self.options
    }

    pub(crate) fn limit(&self) -> Option<&RateLimit> {
        self.limit.as_ref()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until another part may be sent.
    pub(crate) async fn slot(&self) -> Slot<'_> {
        loop {
            let freed = self.freed.notified();
            {
                let mut state = self.state();
                if state.in_flight < state.window.size() {
                    state.in_flight += 1;
                    return Slot { link: self, since: Instant::now() };
                }
            }
            freed.await;
        }
    }

    /// How long an attempt to send `len` bytes may take: what the parts before took, with a margin; at first, what the slowest
    /// link that is worth using needs.
    pub(crate) fn timeout(&self, len: u64) -> Duration {
        let state = self.state();
        #[allow(clippy::cast_precision_loss, reason = "estimates")]
        let (slowest, len) = (MIN_RATE as f64, len as f64);
        let mut rate = state.rate.map_or(slowest, |rate| (rate / RATE_MARGIN).max(slowest));
        if let Some(limit) = &self.limit {
            #[allow(clippy::cast_precision_loss, reason = "estimates")]
            let share = limit.bytes_per_second() as f64 / state.window.size() as f64;
            rate = rate.min(share / RATE_MARGIN);
        }
        self.options.attempt_timeout + Duration::from_secs_f64((len / rate).min(MAX_BODY_SECONDS))
    }

    /// The store answered: the line works.
    pub(crate) fn answered(&self) {
        self.state().failing = None;
    }

    /// True if there may be another attempt after `error`, `wait` from now.
    pub(crate) fn puts_up_with(&self, error: &ObjectError, wait: Duration) -> bool {
        let mut state = self.state();
        // Damaged bytes say nothing about how much the line takes.
        if !matches!(error, ObjectError::Checksum { .. }) {
            state.window.trouble(Instant::now());
        }
        let (since, failures) = state.failing.unwrap_or_else(|| (Instant::now(), 0));
        state.failing = Some((since, failures + 1));
        // On a slow line one attempt takes longer than an outage may: it is not the only one.
        let is_outage = since.elapsed() > self.options.outage && failures + 1 >= self.options.attempts;
        if wait > self.options.outage || is_outage {
            return false;
        }
        let Some(left) = state.budget.checked_sub(1) else { return false };
        state.budget = left;
        true
    }

    /// Parts that may be in flight now.
    #[cfg(test)]
    pub(crate) fn window(&self) -> usize {
        self.state().window.size()
    }
}

/// A day: no estimate is trusted beyond it.
const MAX_BODY_SECONDS: f64 = 86_400.0;

impl Slot<'_> {
    /// The part of `len` bytes arrived, by an attempt that began at `began`.
    pub(crate) fn arrived(self, len: u64, began: Instant) {
        let now = Instant::now();
        let mut state = self.link.state();
        state.failing = None;
        state.window.arrived(len, self.since, now);
        state.arrived += 1;
        if state.arrived == PARTS_PER_RETRY {
            state.arrived = 0;
            state.budget = (state.budget + 1).min(self.link.options.budget);
        }
        let seconds = now.duration_since(began).as_secs_f64();
        // Below that the answer takes longer than the bytes.
        if len >= MIN_RATE && seconds > 0.0 {
            #[allow(clippy::cast_precision_loss, reason = "estimates")]
            let rate = len as f64 / seconds;
            state.rate = Some(state.rate.map_or(rate, |before| before * 0.75 + rate * 0.25));
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.link.state().in_flight -= 1;
        // A window that has grown has room for more than one.
        self.link.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verb;

    fn link(limit: Option<u64>) -> Link {
        Link::new(RetryOptions::default(), 16 << 20, 16, limit.map(RateLimit::new))
    }

    fn trouble() -> ObjectError {
        ObjectError::TimedOut { verb: Verb::Upload, place: "s3://b/k".into() }
    }

    #[test]
    fn retries_end_with_the_budget_and_parts_give_some_back() {
        let link = link(None);
        let budget = RetryOptions::default().budget;
        for _ in 0..budget {
            assert!(link.puts_up_with(&trouble(), Duration::ZERO));
        }
        assert!(!link.puts_up_with(&trouble(), Duration::ZERO));
        for _ in 0..PARTS_PER_RETRY {
            let slot = futures_util::future::FutureExt::now_or_never(link.slot()).unwrap();
            slot.arrived(1, Instant::now());
        }
        assert!(link.puts_up_with(&trouble(), Duration::ZERO));
        assert!(!link.puts_up_with(&trouble(), Duration::ZERO));
    }

    #[test]
    fn no_wait_is_longer_than_an_outage_that_is_put_up_with() {
        let link = link(None);
        let outage = RetryOptions::default().outage;
        assert!(link.puts_up_with(&trouble(), outage));
        assert!(!link.puts_up_with(&trouble(), outage + Duration::from_secs(1)));
    }

    #[test]
    fn an_outage_ends_an_upload_after_as_many_attempts_as_a_verb_has() {
        let options = RetryOptions { outage: Duration::ZERO, ..RetryOptions::default() };
        let link = Link::new(options.clone(), 16 << 20, 16, None);
        let give_up = |link: &Link| (1..100).find(|_| !link.puts_up_with(&trouble(), Duration::ZERO));
        assert_eq!(give_up(&link), Some(options.attempts));
        // One success, and all of them are there again.
        link.answered();
        assert_eq!(give_up(&link), Some(options.attempts));
    }

    #[test]
    fn trouble_halves_what_is_in_flight_down_to_one() {
        let link = link(None);
        let before = link.window();
        link.puts_up_with(&trouble(), Duration::ZERO);
        assert_eq!(link.window(), before / 2);
        for _ in 0..50 {
            link.puts_up_with(&trouble(), Duration::ZERO);
        }
        assert_eq!(link.window(), 1);
    }

    #[test]
    fn an_attempt_may_take_what_its_size_and_the_line_need() {
        let link = link(None);
        let base = RetryOptions::default().attempt_timeout;
        assert_eq!(link.timeout(0), base);
        assert_eq!(link.timeout(10 * MIN_RATE), base + Duration::from_secs(10));
        // A part of 16 MiB in a second: the next that takes a minute is stuck.
        let slot = futures_util::future::FutureExt::now_or_never(link.slot()).unwrap();
        slot.arrived(16 << 20, Instant::now().checked_sub(Duration::from_secs(1)).unwrap());
        let timeout = link.timeout(16 << 20);
        assert!(timeout > base && timeout < base + Duration::from_secs(10), "{timeout:?}");
    }

    #[test]
    fn a_limit_leaves_time_for_the_bytes_that_it_holds_back() {
        // 16 KiB/s: a part of 16 MiB takes 1024 s, and is sent alone.
        let link = link(Some(16 << 10));
        assert_eq!(link.window(), 1);
        assert!(link.timeout(16 << 20) > Duration::from_secs(1024));
    }
}
