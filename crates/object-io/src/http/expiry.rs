//! When a signed URL ends, as its own query says: no request is needed to know that it has.

use std::time::{Duration, SystemTime};

use time::PrimitiveDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use url::Url;

const BASIC: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");

/// When the signature of `url` ends: Signature Version 4 of AWS (`X-Amz-*`) and of Google (`X-Goog-*`), and Version 2 (`Expires`).
/// `None` if it has none, or none that can be understood; the server is asked then.
pub(super) fn expires_at(url: &Url) -> Option<SystemTime> {
    let value = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value);
    let seconds = |name: &str| value(name).and_then(|text| text.parse().ok()).map(Duration::from_secs);
    for (date, expires) in [("X-Amz-Date", "X-Amz-Expires"), ("X-Goog-Date", "X-Goog-Expires")] {
        if let (Some(date), Some(expires)) = (value(date), seconds(expires)) {
            let signed = PrimitiveDateTime::parse(&date, BASIC).ok()?.assume_utc();
            return SystemTime::from(signed).checked_add(expires);
        }
    }
    // The name is too common to mean this without a signature beside it.
    value("Signature")?;
    SystemTime::UNIX_EPOCH.checked_add(seconds("Expires")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(url: &str) -> Option<u64> {
        let end = expires_at(&Url::parse(url).unwrap())?;
        Some(end.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn signatures_say_when_they_end() {
        // 2013-05-24 00:00:00 UTC is 1369353600: the date of the example in Amazon's documentation.
        for (query, end) in [
            ("X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400", Some(1_369_353_600 + 86_400)),
            ("X-Goog-Expires=60&X-Goog-Date=20130524T000000Z", Some(1_369_353_600 + 60)),
            ("AWSAccessKeyId=A&Expires=1141889120&Signature=x", Some(1_141_889_120)),
            ("Expires=1141889120", None),
            ("X-Amz-Date=yesterday&X-Amz-Expires=86400", None),
            ("X-Amz-Date=20130524T000000Z&X-Amz-Expires=-1", None),
            ("X-Amz-Date=20130524T000000Z&X-Amz-Expires=18446744073709551615", None),
            ("", None),
        ] {
            assert_eq!(unix(&format!("https://host/b/k?{query}")), end, "{query}");
        }
    }
}
