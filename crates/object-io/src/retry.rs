//! The one layer of retries: when an attempt is worth another, and how long to wait before it.
//!
//! The SDK's own retries are off: they know neither `Retry-After` nor a budget for a whole upload. Pauses double and are drawn from
//! their upper half, so that clients that failed together do not come back together. Tried again are throttling, failures of the
//! store, broken or silent connections, and bytes that arrived damaged ([`ObjectError::is_retryable`]); no other 4xx, but for one that
//! tells the store's time, by which the next request is signed ([`clock`](crate::clock)), and once 401, after which another token may
//! come ([`google`](crate::google)).
//!
//! A verb on its own gets a few attempts. Inside an upload [`Link`] decides: a minute without a network must not cost an upload of hours,
//! and a store that is overloaded must not be asked for ever.

use std::future::Future;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use tokio_util::sync::CancellationToken;

use crate::limits::{
    ATTEMPT_TIMEOUT, FIRST_PAUSE, MAX_ATTEMPTS, MAX_PAUSE, MAX_RETRY_AFTER, OUTAGE, RETRY_BUDGET,
};
use crate::link::Link;
use crate::{ObjectError, Verb};

/// How much failure is put up with.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryOptions {
    /// Attempts of a verb that is no part of an upload, the first included.
    pub attempts: u32,
    /// The pause before the second attempt, which doubles each time.
    pub first_pause: Duration,
    /// The longest pause that the store did not ask for.
    pub max_pause: Duration,
    /// How long an attempt without a body may take; one with a body gets more, by its size and the rate of the parts before it.
    pub attempt_timeout: Duration,
    /// How long an upload goes on while nothing of it succeeds.
    pub outage: Duration,
    /// Retries that an upload may make; two parts that arrive give one back.
    pub budget: u32,
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self {
            attempts: MAX_ATTEMPTS,
            first_pause: FIRST_PAUSE,
            max_pause: MAX_PAUSE,
            attempt_timeout: ATTEMPT_TIMEOUT,
            outage: OUTAGE,
            budget: RETRY_BUDGET,
        }
    }
}

/// The attempts that are left, and how long to wait before the next.
#[derive(Debug)]
pub(crate) struct Backoff {
    left: u32,
    pause: Duration,
    max_pause: Duration,
}

impl Backoff {
    /// For `attempts` in all, the first included.
    pub(crate) fn new(attempts: u32) -> Self {
        Self { left: attempts.saturating_sub(1), pause: FIRST_PAUSE, max_pause: MAX_PAUSE }
    }

    fn of(options: &RetryOptions, attempts: u32) -> Self {
        Self { left: attempts.saturating_sub(1), pause: options.first_pause, max_pause: options.max_pause }
    }

    /// How long to wait before another attempt; `None` if there is none left.
    pub(crate) fn next_pause(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let pause = self.pause;
        self.pause = (pause * 2).min(self.max_pause);
        Some(pause.mul_f64(0.5 + fastrand::f64() / 2.0))
    }
}

/// Who decides whether there is another attempt.
#[derive(Debug)]
pub(crate) struct Patience<'a> {
    backoff: Backoff,
    link: Option<&'a Link>,
    /// The store has told its time, and that was no help.
    knows_time: bool,
    /// The store has refused who asks, and may know them by another token.
    was_refused: bool,
}

impl<'a> Patience<'a> {
    /// Of a verb on its own.
    pub(crate) fn of_verb(options: &RetryOptions) -> Self {
        Self {
            backoff: Backoff::of(options, options.attempts),
            link: None,
            knows_time: false,
            was_refused: false,
        }
    }

    /// Of a verb that removes what would be left otherwise: more attempts, for whoever bounds their time.
    pub(crate) fn of_removal(options: &RetryOptions) -> Self {
        let backoff = Backoff::of(options, options.attempts.saturating_mul(3));
        Self { backoff, link: None, knows_time: false, was_refused: false }
    }

    /// Of a verb that an upload cannot do without.
    pub(crate) fn of_upload(link: &'a Link) -> Self {
        // The link counts for all of them together.
        Self {
            backoff: Backoff::of(link.options(), u32::MAX),
            link: Some(link),
            knows_time: false,
            was_refused: false,
        }
    }

    /// How long to wait before another attempt, after `error`; `None` if that was the last.
    pub(crate) fn next_pause(&mut self, error: &ObjectError) -> Option<Duration> {
        if matches!(error, ObjectError::Clock { .. }) && !std::mem::replace(&mut self.knows_time, true) {
            return Some(Duration::ZERO);
        }
        let is_refused = error.answer().is_some_and(|answer| answer.status == 401);
        if is_refused && !std::mem::replace(&mut self.was_refused, true) {
            return Some(Duration::ZERO);
        }
        if !error.is_retryable() {
            return None;
        }
        let asked = error.answer().and_then(|answer| answer.retry_after).unwrap_or_default();
        let pause = match self.link {
            Some(link) if link.puts_up_with(error, asked) => self.backoff.next_pause()?,
            None if asked <= MAX_RETRY_AFTER => self.backoff.next_pause()?,
            _ => return None,
        };
        Some(pause.max(asked))
    }
}

/// What is asked, for errors, and how long an attempt may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) verb: Verb,
    pub(crate) place: &'a str,
    pub(crate) timeout: Duration,
    pub(crate) cancel: &'a CancellationToken,
}

/// Makes attempts until one succeeds, fails for good, or `patience` ends.
pub(crate) async fn ask<T, E, F>(
    question: Question<'_>,
    mut patience: Patience<'_>,
    mut attempt: impl FnMut() -> F,
) -> Result<T, ObjectError>
where
    F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    loop {
        match ask_once(question, attempt()).await {
            Ok(answer) => {
                if let Some(link) = patience.link {
                    link.answered();
                }
                return Ok(answer);
            }
            Err(error) => pause_after(question, &mut patience, error).await?,
        }
    }
}

/// Makes one attempt, unless the caller cancels first.
///
/// The SDK's futures have 16 KiB. They are boxed here, or each future that waits for one would have them inside: a stack of 2 MiB
/// is not enough for those of a debug build.
pub(crate) fn ask_once<T, E>(
    Question { verb, place, timeout, cancel }: Question<'_>,
    attempt: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
) -> impl Future<Output = Result<T, ObjectError>>
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let attempt = Box::pin(attempt);
    async move {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(ObjectError::Cancelled),
            answer = tokio::time::timeout(timeout, attempt) => match answer {
                Ok(answer) => answer.map_err(|error| ObjectError::from_sdk(verb, place, error)),
                Err(_) => Err(ObjectError::TimedOut { verb, place: place.into() }),
            },
        }
    }
}

/// Waits before another attempt; gives the error back where there is none.
pub(crate) async fn pause_after(
    Question { verb, place, cancel, .. }: Question<'_>,
    patience: &mut Patience<'_>,
    error: ObjectError,
) -> Result<(), ObjectError> {
    let Some(pause) = patience.next_pause(&error) else { return Err(error) };
    tracing::debug!(%verb, place, %error, ?pause, "trying again");
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(ObjectError::Cancelled),
        () = tokio::time::sleep(pause) => Ok(()),
    }
}

/// `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3).
pub(crate) fn parse_retry_after(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::from_str(text, DateTimeFormat::HttpDate).ok()?;
    Some(SystemTime::try_from(date).ok()?.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let mut backoff = Backoff::new(9);
        let pauses: Vec<_> = std::iter::from_fn(|| backoff.next_pause()).collect();
        assert_eq!(pauses.len(), 8);
        assert!(pauses[0] >= FIRST_PAUSE / 2 && pauses[0] <= FIRST_PAUSE);
        assert!(pauses[7] >= MAX_PAUSE / 2 && pauses[7] <= MAX_PAUSE);
        assert_eq!(Backoff::new(1).next_pause(), None);
    }

    #[test]
    fn a_wait_is_asked_for_in_seconds_or_by_a_date() {
        assert_eq!(parse_retry_after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let later = DateTime::from(SystemTime::now() + Duration::from_secs(90));
        let later = parse_retry_after(&later.fmt(DateTimeFormat::HttpDate).unwrap()).unwrap();
        assert!(later > Duration::from_secs(80) && later <= Duration::from_secs(90), "{later:?}");
        assert_eq!(parse_retry_after("soon"), None);
    }
}
