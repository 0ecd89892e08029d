//! What goes to standard error: one error with its causes and a hint, warnings, notes. With `--json` each is one object on one line.
//!
//! The chain of causes is told here and nowhere else. Queries of URLs are cut off on the way, as a second line of defence: the
//! types that hold pre-signed URLs do not print them, but a library beneath might.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::io::Write as _;

use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Error;
use crate::exit::Exit;

/// Says on standard error what is no result, to people or to programs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    json: bool,
}

/// Why a command failed, as it is told.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Failure {
    /// What failed, in one sentence.
    message: String,
    /// Why, the nearest cause first.
    causes: Vec<String>,
    /// Fields of the request that the service minds, where the sentence does not name them.
    details: Vec<String>,
    /// What would help, where something would.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// What the program ends with.
    exit_code: u8,
}

/// An error on a line of its own.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Failed<'a> {
    /// It.
    error: &'a Failure,
}

/// What a user should know and may ignore.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Warning<'a> {
    /// The sentence.
    warning: &'a str,
}

/// What is going on, where a user might wonder.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Note<'a> {
    /// The sentence.
    note: &'a str,
}

impl Report {
    /// JSON or text.
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Says why the command failed.
    pub(crate) fn error(self, failure: &Failure) {
        self.say(&Failed { error: failure }, || failure.to_text());
    }

    /// Says what a user should know and may ignore.
    pub(crate) fn warning(self, text: &str) {
        let text = &one_line(text);
        self.say(&Warning { warning: text }, || format!("warning: {text}\n"));
    }

    /// Says what is going on, where a user might wonder.
    pub(crate) fn note(self, text: &str) {
        let text = &one_line(text);
        self.say(&Note { note: text }, || format!("{text}\n"));
    }

    fn say(self, value: &impl Serialize, text: impl FnOnce() -> String) {
        let text = match self.json {
            true => serde_json::to_string(value).map(|line| line + "\n").unwrap_or_default(),
            false => text(),
        };
        // Where even this fails there is nobody to tell.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }
}

impl Failure {
    /// What is told of an error with which the program ends so.
    pub(crate) fn new(error: &Error, exit: Exit) -> Self {
        Self::of(error, &error.details(), error.hint(), exit)
    }

    fn of(error: &dyn StdError, details: &[String], hint: Option<&str>, exit: Exit) -> Self {
        let mut causes: Vec<String> = Vec::new();
        let first = one_line(&error.to_string());
        let mut cause = error.source();
        while let Some(error) = cause {
            let line = one_line(&error.to_string());
            // Libraries that print their source in their own text would have it said twice.
            if !line.is_empty() && !causes.last().unwrap_or(&first).contains(&line) {
                causes.push(line);
            }
            cause = error.source();
        }
        Self {
            message: first,
            causes,
            details: details.iter().map(|detail| one_line(detail)).collect(),
            hint: hint.map(str::to_owned),
            exit_code: exit.code(),
        }
    }

    /// For people.
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("error: {}\n", self.message);
        for cause in &self.causes {
            let _ = writeln!(text, "  caused by: {cause}");
        }
        for detail in &self.details {
            let _ = writeln!(text, "  {detail}");
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "hint: {hint}");
        }
        text
    }
}

/// An error and its causes in one line, with what [`Failure`] leaves out left out.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = one_line(&error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        let line = one_line(&error.to_string());
        if !line.is_empty() && !text.contains(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        cause = error.source();
    }
    text
}

/// The text as one line without control characters: file names and servers must not steer a terminal.
pub(crate) fn one_line(text: &str) -> String {
    let printable: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    without_queries(&printable)
}

/// The text with the query of every http URL cut off.
fn without_queries(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = ["http://", "https://"].iter().filter_map(|scheme| rest.find(scheme)).min() {
        let url = &rest[at..];
        let end = url.find(|c: char| c.is_whitespace() || "`'\"<>".contains(c)).unwrap_or(url.len());
        let query = url[..end].find('?').unwrap_or(end);
        kept.push_str(&rest[..at]);
        kept.push_str(&url[..query]);
        if query < end {
            kept.push_str("?…");
        }
        rest = &url[end..];
    }
    kept.push_str(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Link>>,
    }

    fn chain(texts: &[&'static str]) -> Link {
        let (text, rest) = texts.split_first().unwrap();
        Link { text, source: (!rest.is_empty()).then(|| Box::new(chain(rest))) }
    }

    #[test]
    fn every_cause_once() {
        let error = chain(&["cannot open `a`", "no answer: broken pipe", "broken pipe", "os error 32"]);
        let expected = "error: cannot open `a`\n  caused by: no answer: broken pipe\n  \
                        caused by: os error 32\nhint: plug it in\n";
        let failure = Failure::of(&error, &[], Some("plug it in"), Exit::Failed);
        assert_eq!(failure.to_text(), expected);
    }

    #[test]
    fn no_query_of_a_url_and_no_control_character() {
        let text = "error for url (`https://s/b/k?X-Amz-Signature=abc`) and http://h/p?q now\u{1b}[31m";
        let error = chain(&[Box::leak(text.to_owned().into_boxed_str())]);
        let expected =
            "error: error for url (`https://s/b/k?…`) and http://h/p?… now [31m\n  name: no where\n";
        let failure = Failure::of(&error, &["name: no\nwhere".to_owned()], None, Exit::Failed);
        assert_eq!(failure.to_text(), expected);
    }
}
