//! Pauses between attempts: doubled each time, and drawn from their upper half, so that clients that failed together do not come
//! back together.

use std::time::Duration;

use crate::limits::{FIRST_PAUSE, MAX_PAUSE};

/// The attempts that are left, and how long to wait before the next.
#[derive(Debug)]
pub(crate) struct Backoff {
    left: u32,
    pause: Duration,
}

impl Backoff {
    /// For `attempts` in all, the first included.
    pub(crate) fn new(attempts: u32) -> Self {
        Self { left: attempts.saturating_sub(1), pause: FIRST_PAUSE }
    }

    /// How long to wait before another attempt; `None` if there is none left.
    pub(crate) fn next_pause(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let pause = self.pause;
        self.pause = (pause * 2).min(MAX_PAUSE);
        Some(pause.mul_f64(0.5 + fastrand::f64() / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let mut backoff = Backoff::new(8);
        let pauses: Vec<_> = std::iter::from_fn(|| backoff.next_pause()).collect();
        assert_eq!(pauses.len(), 7);
        assert!(pauses[0] >= FIRST_PAUSE / 2 && pauses[0] <= FIRST_PAUSE);
        assert!(pauses[6] >= MAX_PAUSE / 2 && pauses[6] <= MAX_PAUSE);
        assert_eq!(Backoff::new(1).next_pause(), None);
    }
}
