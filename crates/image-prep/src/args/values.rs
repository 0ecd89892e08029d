//! Values of the command line that have a grammar of their own: sizes, times, labels, buckets.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use object_io::{BucketUri, Scheme, UriError};

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub(crate) u64);

/// Powers of 1024: what sizes of disks and of memory are made of.
const BINARY: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

impl FromStr for Size {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| InvalidSize)?;
        let factor = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(InvalidSize),
        };
        number.checked_mul(factor).map(Self).ok_or(InvalidSize)
    }
}

/// Exact where the size is a whole number of a unit, else rounded to two digits: `4 MiB`, `2.21 GiB`.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((unit, factor)) = BINARY.iter().rev().find(|(_, factor)| self.0 >= *factor) else {
            return write!(f, "{} B", self.0);
        };
        if self.0.is_multiple_of(*factor) {
            return write!(f, "{} {unit}", self.0 / factor);
        }
        // Two digits of a ratio below 1024 need no exactness.
        #[allow(clippy::cast_precision_loss)]
        let ratio = self.0 as f64 / *factor as f64;
        write!(f, "{ratio:.2} {unit}")
    }
}

/// Text that is no size.
#[derive(Debug, thiserror::Error)]
#[error("expected bytes, or a number with K, M, G, T, KiB, MiB, GiB, TiB, KB, MB, GB or TB")]
pub(crate) struct InvalidSize;

/// How long something may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lifetime(pub(crate) Duration);

/// The longest that any store signs for: 30 days on Yandex. AWS and GCS stop at 7.
pub(crate) const LONGEST: Duration = Duration::from_secs(30 * 86_400);

impl FromStr for Lifetime {
    type Err = InvalidLifetime;

    fn from_str(text: &str) -> Result<Self, InvalidLifetime> {
        let time = duration(text).ok_or(InvalidLifetime)?;
        if time.is_zero() || time > LONGEST { Err(InvalidLifetime) } else { Ok(Self(time)) }
    }
}

/// A number with a unit.
fn duration(text: &str) -> Option<Duration> {
    let unit = text.chars().last().filter(char::is_ascii)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let number: u64 = text[..text.len() - 1].parse().ok()?;
    number.checked_mul(seconds).map(Duration::from_secs)
}

/// How old something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Age(pub(crate) Duration);

impl FromStr for Age {
    type Err = InvalidAge;

    fn from_str(text: &str) -> Result<Self, InvalidAge> {
        duration(text).map(Self).ok_or(InvalidAge)
    }
}

/// Text that is no age.
#[derive(Debug, thiserror::Error)]
#[error("expected a number with s, m, h or d")]
pub(crate) struct InvalidAge;

/// Text that is no such time.
#[derive(Debug, thiserror::Error)]
#[error("expected a number with s, m, h or d, above zero and at most 30d")]
pub(crate) struct InvalidLifetime;

/// A label. Its rules are those of the image service, checked with the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    /// Before the first equals sign.
    pub(crate) key: String,
    /// After it.
    pub(crate) value: String,
}

impl FromStr for Label {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, InvalidLabel> {
        let (key, value) = text.split_once('=').ok_or(InvalidLabel)?;
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

/// A bucket, by its name alone or with the scheme of its store.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Bucket {
    /// Its name. One without a scheme is checked where it is used, by the rules of its store.
    pub(crate) name: String,
    /// What was said of its store.
    pub(crate) scheme: Option<Scheme>,
}

impl Bucket {
    /// Where it is; in the store of `default` where nothing was said.
    pub(crate) fn uri(&self, default: Scheme) -> Result<BucketUri, UriError> {
        self.scheme.unwrap_or(default).place(&self.name, "").parse()
    }
}

impl TryFrom<String> for Bucket {
    type Error = UriError;

    fn try_from(text: String) -> Result<Self, UriError> {
        text.parse()
    }
}

impl FromStr for Bucket {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        if !text.contains("://") {
            return Ok(Self { name: text.to_owned(), scheme: None });
        }
        let uri: BucketUri = text.parse()?;
        // A folder has no place here: keys are made, or typed with --key.
        match uri.prefix() {
            "" => Ok(Self { name: uri.bucket().to_owned(), scheme: Some(uri.scheme()) }),
            _ => Err(UriError::Bucket),
        }
    }
}

/// Text that is no label.
#[derive(Debug, thiserror::Error)]
#[error("expected KEY=VALUE")]
pub(crate) struct InvalidLabel;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("1k", 1 << 10),
            ("192MiB", 192 << 20),
            ("10G", 10 << 30),
            ("4TiB", 4 << 40),
            ("1GB", 1_000_000_000),
        ] {
            assert_eq!(text.parse::<Size>().unwrap(), Size(bytes), "{text}");
        }
        for wrong in ["", "M", "-1", "1.5G", "1 G", "1X", "99999999999T", "18446744073709551616", "1é"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1 << 20, "1 MiB"),
            (6 << 40, "6 TiB"),
            (1536, "1.50 KiB"),
            ((2 << 30) + 12345, "2.00 GiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }

    #[test]
    fn buckets() {
        let of = |text: &str| text.parse::<Bucket>().map(|bucket| (bucket.name, bucket.scheme));
        assert_eq!(of("images"), Ok(("images".to_owned(), None)));
        assert_eq!(of("gs://my_images"), Ok(("my_images".to_owned(), Some(Scheme::Gs))));
        assert_eq!(of("s3://images/"), Ok(("images".to_owned(), Some(Scheme::S3))));
        for wrong in ["gs://images/folder", "s3://my_images", "https://images", "gs://"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lifetimes() {
        assert_eq!("24h".parse::<Lifetime>().unwrap(), Lifetime(Duration::from_secs(86_400)));
        assert_eq!("90s".parse::<Lifetime>().unwrap(), Lifetime(Duration::from_secs(90)));
        for wrong in ["", "h", "24", "0s", "31d", "1y", "24é", "99999999999999999999d"] {
            assert!(wrong.parse::<Lifetime>().is_err(), "{wrong}");
        }
        assert_eq!("0s".parse::<Age>().unwrap(), Age(Duration::ZERO));
        assert_eq!("90d".parse::<Age>().unwrap(), Age(Duration::from_secs(90 * 86_400)));
        assert!("1".parse::<Age>().is_err());
    }
}
