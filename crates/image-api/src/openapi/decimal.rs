//! Ranges of whole numbers as patterns.
//!
//! Canonical JSON has 64-bit numbers as strings, which JSON Schema holds to a pattern only. A range of the table becomes one: for
//! each number of digits, the digits that may stand at a place depend on those before it as long as these are the bound's own.

/// A pattern of the numbers from `min` to `max` as they are written without signs and leading zeros.
pub(super) fn between(min: u64, max: u64) -> String {
    let mut choices = Vec::new();
    let mut next = Some(min);
    while let Some(lowest) = next.filter(|lowest| *lowest <= max) {
        let lowest = lowest.to_string();
        // As many nines; where that is beyond the type, the end is nearer.
        let highest = "9".repeat(lowest.len()).parse().map_or(max, |nines: u64| nines.min(max));
        choices.push(of_one_length(&lowest, &highest.to_string()));
        next = highest.checked_add(1);
    }
    choices.join("|")
}

fn of_one_length(low: &str, high: &str) -> String {
    let (Some(first), Some(last)) = (low.chars().next(), high.chars().next()) else { return String::new() };
    let (low_rest, high_rest) = (&low[1..], &high[1..]);
    let rest = low_rest.len();
    if low.bytes().all(|digit| digit == b'0') && high.bytes().all(|digit| digit == b'9') {
        return format!("[0-9]{{{}}}", low.len());
    }
    if first == last {
        return format!("{first}{}", of_one_length(low_rest, high_rest));
    }
    let mut choices = vec![format!("{first}{}", of_one_length(low_rest, &"9".repeat(rest)))];
    let between: Vec<char> = ('0'..='9').filter(|digit| (first < *digit) && (*digit < last)).collect();
    if let (Some(from), Some(to)) = (between.first(), between.last()) {
        choices.push(format!("[{from}-{to}][0-9]{{{rest}}}"));
    }
    choices.push(format!("{last}{}", of_one_length(&"0".repeat(rest), high_rest)));
    format!("({})", choices.join("|"))
}

#[cfg(test)]
mod tests {
    use regex_lite::Regex;

    use super::*;

    #[test]
    fn what_is_between_fits_and_nothing_else() {
        for (min, max) in [(0, 0), (0, 7), (1, 10), (5, 123), (99, 101), (0, 1000), (310, 1234), (1000, 1999)]
        {
            let pattern = Regex::new(&format!("^({})$", between(min, max))).unwrap();
            for number in 0..2500 {
                let fits = pattern.is_match(&number.to_string());
                assert_eq!(fits, (min..=max).contains(&number), "{number} in {min}..={max}: {pattern}");
            }
        }
        let (min, max) = (4 << 20, 4 << 40);
        let pattern = Regex::new(&format!("^({})$", between(min, max))).unwrap();
        for (number, fits) in [(min - 1, false), (min, true), (max / 3, true), (max, true), (max + 1, false)]
        {
            assert_eq!(pattern.is_match(&number.to_string()), fits, "{number}");
        }
        for other in ["", "-5", "+4194304", "04194304", "4194304.0", "4e9"] {
            assert!(!pattern.is_match(other), "{other}");
        }
    }
}
