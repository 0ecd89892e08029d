//! Values that have a grammar of their own: sizes and times.

use std::time::Duration;

use object_io::{BucketUri, Scheme};

/// Bytes, or a number with a power of 1024.
pub(crate) fn parse_size(text: &str) -> Result<u64, &'static str> {
    let (number, unit) = split(text);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err("expected bytes, or a number with K, M, G or T"),
    };
    let size = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    size.filter(|size| *size > 0).ok_or("expected a number above zero")
}

/// `s3://BUCKET` or `s3://BUCKET/PREFIX`. Google's store is none for blocks: it honours no condition on what is put.
pub(crate) fn parse_bucket(text: &str) -> Result<BucketUri, String> {
    let uri: BucketUri = text.parse().map_err(|error: object_io::UriError| error.to_string())?;
    match uri.scheme() {
        Scheme::S3 => Ok(uri),
        Scheme::Gs => Err("expected s3://BUCKET or s3://BUCKET/PREFIX".to_owned()),
    }
}

/// A number with a unit.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    let (number, unit) = split(text);
    let unit_millis: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("expected a number with ms, s, m, h or d"),
    };
    let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_millis));
    millis.filter(|millis| *millis > 0).map(Duration::from_millis).ok_or("expected a number above zero")
}

/// Digits, and what stands behind them.
fn split(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, size) in
            [("1", 1), ("64k", 64 << 10), ("192M", 192 << 20), ("2GiB", 2 << 30), ("64T", 64 << 40)]
        {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for text in ["", "0", "M", "1.5G", "-1", "1X", "99999999T", "1 G"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times() {
        for (text, seconds) in
            [("1500ms", 1.5), ("5s", 5.0), ("2m", 120.0), ("24h", 86400.0), ("1d", 86400.0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["", "5", "0s", "s", "1w", "-1s", "99999999999999999999s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
