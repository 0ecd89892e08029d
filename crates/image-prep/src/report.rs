//! What goes to standard error: one error with its causes and a hint, warnings, notes.
//!
//! The chain of causes is printed here and nowhere else. Queries of URLs are cut off on the way, as a second line of defence: the
//! types that hold pre-signed URLs do not print them, but a library beneath might.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::io::Write as _;

use crate::error::Error;

/// Prints an error, its causes and what would help.
pub(crate) fn error(error: &Error) {
    print(&render(error, &error.details(), error.hint()));
}

/// An error and its causes in one line, with what [`error`] leaves out left out.
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

/// Prints what a user should know and may ignore.
pub(crate) fn warning(text: &str) {
    print(&format!("warning: {}\n", without_queries(text)));
}

/// Prints what is going on, where a user might wonder.
pub(crate) fn note(text: &str) {
    print(&format!("{}\n", without_queries(text)));
}

fn print(text: &str) {
    // Where even this fails there is nobody to tell.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

fn render(error: &dyn StdError, details: &[String], hint: Option<&str>) -> String {
    let first = one_line(&error.to_string());
    let mut text = format!("error: {first}\n");
    let mut last = first;
    let mut cause = error.source();
    while let Some(error) = cause {
        let line = one_line(&error.to_string());
        // Libraries that print their source in their own text would have it said twice.
        if !line.is_empty() && !last.contains(&line) {
            let _ = writeln!(text, "  caused by: {line}");
            last = line;
        }
        cause = error.source();
    }
    for detail in details {
        let _ = writeln!(text, "  {}", one_line(detail));
    }
    if let Some(hint) = hint {
        let _ = writeln!(text, "hint: {hint}");
    }
    text
}

/// The text as one line without control characters: file names and servers must not steer a terminal.
fn one_line(text: &str) -> String {
    let printable: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    without_queries(&printable)
}

/// The text with the query of every http URL cut off.
pub(crate) fn without_queries(text: &str) -> String {
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
        assert_eq!(render(&error, &[], Some("plug it in")), expected);
    }

    #[test]
    fn no_query_of_a_url_and_no_control_character() {
        let text = "error for url (`https://s/b/k?X-Amz-Signature=abc`) and http://h/p?q now\u{1b}[31m";
        let error = chain(&[Box::leak(text.to_owned().into_boxed_str())]);
        let expected =
            "error: error for url (`https://s/b/k?…`) and http://h/p?… now [31m\n  name: no where\n";
        assert_eq!(render(&error, &["name: no\nwhere".to_owned()], None), expected);
    }
}
