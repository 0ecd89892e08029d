//! The store's clock, where it is not this machine's.
//!
//! Signatures carry the time, and a store refuses what is off by more than 15 minutes (`RequestTimeTooSkewed`, "Error responses", Amazon
//! S3 API). Every answer has the store's time in its `Date` (RFC 9110, section 6.6.1). The SDK compares it with its own and signs the
//! requests after it by the store's clock, so only the first one is refused, and asked again ([`Patience`](crate::retry::Patience)).
//! It does not do so for URLs, and keeps the difference to itself: for those it is measured here.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use aws_smithy_runtime_api::box_error::BoxError;

use crate::limits::CLOCK_NOISE;

/// How far the store's clock is ahead of this machine's, by its last answer. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoreClock {
    seconds: Arc<AtomicI64>,
}

impl StoreClock {
    /// The time, by the store's clock where that is known to be another.
    pub(crate) fn now(&self) -> SystemTime {
        let (now, seconds) = (SystemTime::now(), self.seconds.load(Ordering::Relaxed));
        let difference = Duration::from_secs(seconds.unsigned_abs());
        let corrected = match seconds {
            _ if difference < CLOCK_NOISE => None,
            0.. => now.checked_add(difference),
            _ => now.checked_sub(difference),
        };
        corrected.unwrap_or(now)
    }

    fn learn(&self, date: &str) {
        if let Some(ahead) = parse_date(date).map(|store| ahead(store, SystemTime::now())) {
            self.seconds.store(ahead, Ordering::Relaxed);
        }
    }
}

impl Intercept for StoreClock {
    fn name(&self) -> &'static str {
        "StoreClock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.response().headers();
        // What a cache answers has the time of another answer (RFC 9111, section 5.1).
        if let Some(date) = headers.get("date").filter(|_| headers.get("age").is_none()) {
            self.learn(date);
        }
        Ok(())
    }
}

/// A `Date`.
pub(crate) fn parse_date(date: &str) -> Option<SystemTime> {
    SystemTime::try_from(DateTime::from_str(date, DateTimeFormat::HttpDate).ok()?).ok()
}

/// Seconds from `now` to `store`.
fn ahead(store: SystemTime, now: SystemTime) -> i64 {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match store.duration_since(now) {
        Ok(ahead) => seconds(ahead),
        Err(behind) => -seconds(behind.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_learned_and_noise_is_not() {
        let (clock, hour) = (StoreClock::default(), Duration::from_secs(3600));
        for (store, is_other) in [
            (SystemTime::now() + hour, true),
            (SystemTime::now() - hour, true),
            (SystemTime::now() + Duration::from_secs(5), false),
        ] {
            clock.learn(&DateTime::from(store).fmt(DateTimeFormat::HttpDate).unwrap());
            let now = clock.now();
            let off = now.duration_since(SystemTime::now()).unwrap_or_else(|error| error.duration());
            assert_eq!(off > hour / 2, is_other, "{off:?}");
            assert!(!is_other || ahead(now, store).abs() < 10, "{now:?} {store:?}");
        }
        clock.learn("yesterday");
        assert!(clock.now() <= SystemTime::now());
    }
}
