//! Pauses between attempts and between polls.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{ApiError, Uuid};

/// Longest pause that a server can ask for by `Retry-After`.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// How often and how fast a failed attempt is repeated.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Attempts in all; 1 means no retry.
    pub attempts: u32,
    /// Pause after the first failure; it doubles from failure to failure.
    pub first_pause: Duration,
    /// Longest pause of our own accord.
    pub max_pause: Duration,
}

/// Six attempts within about ten seconds: enough for a server that restarts, short for a person who waits.
impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 6, first_pause: Duration::from_millis(300), max_pause: Duration::from_secs(5) }
    }
}

impl Retry {
    pub(super) fn pause_after(&self, failures: u32, retry_after: Option<Duration>) -> Duration {
        let factor = 2u32.saturating_pow(failures.saturating_sub(1).min(16));
        let own = self.first_pause.saturating_mul(factor).min(self.max_pause);
        // A server's wish is a lower bound: jitter is added to it, not taken away.
        retry_after.unwrap_or_default().min(RETRY_AFTER_MAX) + jittered(own)
    }
}

/// How an operation is waited for.
#[derive(Clone, Copy, Debug)]
pub struct WaitOptions {
    /// Pause before the second poll; it grows by half from poll to poll.
    pub first_interval: Duration,
    /// Longest pause between polls.
    pub max_interval: Duration,
    /// How long the server may be out of reach before the waiting ends with the last error.
    pub patience: Duration,
}

/// From 200 ms to 3 s, which a small image does not notice and a server with a large one neither; five minutes without
/// an answer are more than a restart and less than a night.
impl Default for WaitOptions {
    fn default() -> Self {
        Self {
            first_interval: Duration::from_millis(200),
            max_interval: Duration::from_secs(3),
            patience: Duration::from_secs(300),
        }
    }
}

impl WaitOptions {
    pub(super) fn next_interval(&self, interval: Duration) -> Duration {
        interval.saturating_mul(3).checked_div(2).unwrap_or(interval).min(self.max_interval)
    }
}

/// Between three quarters and five quarters of `pause`, so that clients that failed together do not return together.
pub(super) fn jittered(pause: Duration) -> Duration {
    // The process has one source of randomness already: 16 of the bits that identifiers are made from.
    let random = u32::from(u16::from_le_bytes([Uuid::new_v4().as_bytes()[0], Uuid::new_v4().as_bytes()[1]]));
    let quarter = pause / 4;
    pause - quarter + (quarter * 2).mul_f64(f64::from(random) / f64::from(u16::MAX))
}

pub(super) async fn pause(time: Duration, cancel: &CancellationToken) -> Result<(), ApiError> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(ApiError::Cancelled),
        () = tokio::time::sleep(time) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let retry = Retry::default();
        let within = |pause: Duration, around: u64| {
            pause >= Duration::from_millis(around * 3 / 4)
                && pause <= Duration::from_millis(around * 5 / 4 + 1)
        };
        assert!(within(retry.pause_after(1, None), 300));
        assert!(within(retry.pause_after(3, None), 1200));
        assert!(within(retry.pause_after(1000, None), 5000));
        let asked = retry.pause_after(1, Some(Duration::from_secs(7)));
        assert!(asked >= Duration::from_secs(7) && asked < Duration::from_secs(8));
        assert!(retry.pause_after(1, Some(Duration::from_secs(86_400))) < Duration::from_secs(62));
    }

    #[test]
    fn poll_intervals_reach_their_bound() {
        let options = WaitOptions::default();
        let mut interval = options.first_interval;
        for _ in 0..20 {
            interval = options.next_interval(interval);
        }
        assert_eq!(interval, options.max_interval);
    }
}
