//! The language of `filter`, on the JSON of an image.
//!
//! Source: the reference of `images.list` and <https://google.aip.dev/160>. `FIELD OP VALUE` with `=`, `!=`, `<`, `<=`, `>`, `>=` and `:`, NOT
//! or `-` before it, parentheses; expressions one after the other and AND want all of them, OR binds closer than both. A field
//! is a path: `name`, `labels.owner`, `guestOsFeatures.type`. `:` asks whether a list or a map has the value, or of any field
//! whether there is something (`:*`). Or else, and not with those together, `FIELD eq REGEX` and `FIELD ne REGEX`, which match
//! the whole value. Numbers are compared as numbers, also those that JSON has as strings, all else as text.
//!
//! Refused: fields that an image does not have, wildcards within values (`eq` has them), and what goes beyond the limits below. Cost: the
//! length of the filter times that of the values. Regular expressions do not backtrack, but a few characters of one compile to
//! thousands of steps (`a{999}`), each of them taken for each character of a value: hence the limits of their size and number.

mod reader;

use regex_lite::Regex;
use serde_json::Value;

use reader::{DEPTH, REGEXES, Reader};

/// Why a filter cannot be read. Offsets are bytes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FilterError {
    #[error("expected {expected} at offset {offset}")]
    Expected { expected: &'static str, offset: usize },
    #[error("the string at offset {offset} does not end")]
    String { offset: usize },
    #[error("images have no field {field:?}")]
    Field { field: String },
    #[error("{pattern:?} is no regular expression that is served here")]
    Regex { pattern: String },
    #[error("more than {REGEXES} regular expressions")]
    Regexes,
    #[error("a wildcard in {value:?}; `eq` takes a regular expression")]
    Wildcard { value: String },
    #[error("eq and ne do not go together with other operators")]
    Mixed,
    #[error("more than {DEPTH} parentheses in each other")]
    Depth,
}

/// A filter that was read.
#[derive(Debug, Default)]
pub(super) struct Filter(Option<Expr>);

#[derive(Debug)]
enum Expr {
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Not(Box<Expr>),
    Is { path: Vec<String>, test: Test },
}

#[derive(Debug)]
enum Test {
    Compare(Compare, String),
    /// `:`; `None` of anything at all.
    Has(Option<String>),
    /// `eq`, or `ne` where negated.
    Matches(Regex, bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Filter {
    /// Reads a filter; the empty one lets all pass.
    pub(super) fn parse(text: &str) -> Result<Self, FilterError> {
        Reader::new(text).read().map(Self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether an image passes.
    pub(super) fn passes(&self, image: &Value) -> bool {
        self.0.as_ref().is_none_or(|expr| expr.holds(image))
    }
}

impl Expr {
    fn holds(&self, image: &Value) -> bool {
        match self {
            Self::All(all) => all.iter().all(|expr| expr.holds(image)),
            Self::Any(any) => any.iter().any(|expr| expr.holds(image)),
            Self::Not(expr) => !expr.holds(image),
            Self::Is { path, test } => {
                let mut found = Vec::new();
                collect(image, path, &mut found);
                test.holds(&found)
            }
        }
    }
}

/// What stands at a path; lists on the way have it in each of their items.
fn collect<'v>(value: &'v Value, path: &[String], found: &mut Vec<&'v Value>) {
    match (value, path) {
        (Value::Null, _) => {}
        (value, []) => found.push(value),
        (Value::Array(items), path) => items.iter().for_each(|item| collect(item, path, found)),
        (Value::Object(fields), [name, rest @ ..]) => {
            if let Some(value) = fields.get(name) {
                collect(value, rest, found);
            }
        }
        _ => {}
    }
}

impl Test {
    fn holds(&self, found: &[&Value]) -> bool {
        let texts = || found.iter().filter_map(|value| text_of(value));
        match self {
            // What is not there is not equal.
            Self::Compare(Compare::Unequal, wanted) => !texts().any(|text| compare(&text, wanted).is_eq()),
            Self::Compare(how, wanted) => texts().any(|text| how.holds(compare(&text, wanted))),
            Self::Has(None) => found.iter().any(|value| !is_empty(value)),
            Self::Has(Some(wanted)) => found.iter().any(|value| has(value, wanted)),
            Self::Matches(regex, negated) => texts().any(|text| regex.is_match(&text)) != *negated,
        }
    }
}

impl Compare {
    fn holds(self, found: std::cmp::Ordering) -> bool {
        match self {
            Self::Equal => found.is_eq(),
            Self::Unequal => found.is_ne(),
            Self::Less => found.is_lt(),
            Self::LessOrEqual => found.is_le(),
            Self::Greater => found.is_gt(),
            Self::GreaterOrEqual => found.is_ge(),
        }
    }
}

fn compare(found: &str, wanted: &str) -> std::cmp::Ordering {
    match (found.parse::<i128>(), wanted.parse::<i128>()) {
        (Ok(found), Ok(wanted)) => found.cmp(&wanted),
        _ => found.cmp(wanted),
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        _ => None,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn has(value: &Value, wanted: &str) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| has(item, wanted)),
        Value::Object(fields) => fields.contains_key(wanted),
        value => text_of(value).is_some_and(|text| compare(&text, wanted).is_eq()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn passes(filter: &str) -> bool {
        let image = json!({
            "id": "7", "name": "web-1", "family": "linux", "status": "READY", "diskSizeGb": "12",
            "labels": {"owner": "me", "empty": ""}, "licenses": ["a", "b"],
            "guestOsFeatures": [{"type": "GVNIC"}, {"type": "WINDOWS"}], "creationTimestamp": "2026-11-22T00:00:00Z",
        });
        Filter::parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}")).passes(&image)
    }

    #[test]
    fn what_passes() {
        for filter in [
            "",
            "  ",
            "name = web-1",
            "name=\"web-1\"",
            "name != web-2",
            "description != x",
            "labels.owner = me",
            "labels.owner:*",
            "labels:owner",
            "labels.owner:me",
            "licenses:b",
            "guestOsFeatures.type = WINDOWS",
            "guestOsFeatures.type:GVNIC",
            "diskSizeGb > 9",
            "diskSizeGb <= 12 AND diskSizeGb >= 12",
            "creationTimestamp > 2026-01-01",
            "(name = web-1) (status = READY)",
            "name = x OR name = web-1",
            "(family = windows) OR (family = linux) AND (status = READY)",
            "NOT name = x",
            "-name = x AND NOT (status = FAILED OR family = x)",
            "name eq web-.*",
            "name eq 'web-[0-9]+'",
            "(name eq \".*1\") (name ne db.*)",
            "description ne .*",
        ] {
            assert!(passes(filter), "{filter}");
        }
    }

    #[test]
    fn what_does_not() {
        for filter in [
            "name = web",
            "name != web-1",
            "description = x",
            "description:*",
            "labels.other:*",
            "labels.empty:*",
            "labels:me",
            "licenses:c",
            "diskSizeGb < 9",
            "diskSizeGb > 100",
            // OR binds closer: (x or web-1) and FAILED.
            "name = x OR name = web-1 AND status = FAILED",
            "name eq web",
            "name ne web-.*",
            "NOT name = web-1",
        ] {
            assert!(!passes(filter), "{filter}");
        }
    }

    #[test]
    fn what_is_refused() {
        let refused = |filter: &str| Filter::parse(filter).map(drop).unwrap_err();
        for (filter, offset) in [
            ("name", 4),
            ("name ~ x", 5),
            ("name = ", 7),
            ("name = a)", 8),
            ("(name = a", 9),
            ("name = a AND", 12),
            ("= a", 0),
        ] {
            let found = refused(filter);
            assert!(
                matches!(found, FilterError::Expected { offset: at, .. } if at == offset),
                "{filter}: {found:?}"
            );
        }
        assert_eq!(refused("name = 'a"), FilterError::String { offset: 7 });
        assert_eq!(refused("color = red"), FilterError::Field { field: "color".to_owned() });
        assert_eq!(refused("labels. = x"), FilterError::Field { field: "labels.".to_owned() });
        assert!(matches!(refused("name = web*"), FilterError::Wildcard { .. }));
        assert!(matches!(refused("name eq '['"), FilterError::Regex { .. }));
        assert!(matches!(refused("name eq '(a{1000}){1000}'"), FilterError::Regex { .. }), "a bomb");
        assert!(
            matches!(refused("name eq a{999}"), FilterError::Regex { .. }),
            "as many steps for each character"
        );
        assert!(Filter::parse(&"(name eq a)".repeat(REGEXES)).is_ok());
        assert_eq!(refused(&"(name eq a)".repeat(REGEXES + 1)), FilterError::Regexes);
        assert_eq!(refused("(name eq a) (status = READY)"), FilterError::Mixed);
        assert!(Filter::parse(&format!("{}name = a{}", "(".repeat(DEPTH), ")".repeat(DEPTH))).is_ok());
        assert_eq!(refused(&"(".repeat(DEPTH + 1)), FilterError::Depth);
    }
}
