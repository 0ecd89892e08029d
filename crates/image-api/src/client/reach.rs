//! Whether a server answers at all, and what time it has.

use std::time::{Duration, SystemTime};

use reqwest::header;
use tokio_util::sync::CancellationToken;

use super::{
    ApiError, ClientOptions, TransportError,
    endpoints::{Endpoints, server_of},
    rest::http_client,
};

/// How wrong a clock is, as exact as the header `Date`: whole seconds.
#[derive(Clone, Copy, Debug)]
pub struct Skew {
    /// By how much this machine's clock is ahead of the server's.
    pub ahead: Duration,
    /// By how much it is behind.
    pub behind: Duration,
}

/// Asks a server for whatever it answers without a token: any answer will do. One attempt. `None` where it does not tell its time.
///
/// # Errors
/// Where nothing answers, or what answers is not trusted.
pub async fn reach(
    endpoint: &str,
    options: &ClientOptions,
    cancel: &CancellationToken,
) -> Result<Option<Skew>, ApiError> {
    let endpoints = Endpoints::new(endpoint, options)?;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = http_client(&endpoints, options)?;
    let exchange = async {
        let before = SystemTime::now();
        let answer = http.get(endpoints.base.clone()).send().await;
        let after = SystemTime::now();
        let answer = answer.map_err(|source| ApiError::Transport {
            call: "reach the server",
            server: server_of(&endpoints.base),
            source: TransportError::Http(source.without_url()),
        })?;
        let date = answer.headers().get(header::DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
        Ok(date.map(|date| Skew::between(before, after, date)))
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(ApiError::Cancelled),
        reached = exchange => reached,
    }
}

impl Skew {
    /// The server's time was `date` at some time between `before` and `after`, and a fraction of a second more.
    fn between(before: SystemTime, after: SystemTime, date: SystemTime) -> Self {
        Self {
            ahead: before.duration_since(date + Duration::from_secs(1)).unwrap_or_default(),
            behind: date.duration_since(after).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skew_is_what_no_travel_time_explains() {
        let at = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        let skew = |before, after, date| {
            let Skew { ahead, behind } = Skew::between(at(before), at(after), at(date));
            (ahead.as_millis(), behind.as_millis())
        };
        assert_eq!(skew(10_100, 10_300, 10_000), (0, 0));
        assert_eq!(skew(8_900, 10_300, 9_000), (0, 0));
        assert_eq!(skew(310_500, 310_600, 10_000), (299_500, 0));
        assert_eq!(skew(10_000, 10_500, 130_000), (0, 119_500));
    }
}
