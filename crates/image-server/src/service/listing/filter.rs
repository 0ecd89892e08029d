//! The filter expression of a List.

use crate::catalog::{Column, Condition};
use crate::service::cursor::Cursor;

/// Why a filter cannot be read. Offsets are bytes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FilterError {
    #[error("expected {expected} at offset {offset}")]
    Expected { expected: &'static str, offset: usize },
    #[error("the string at offset {offset} does not end, or has an unknown escape")]
    String { offset: usize },
}

/// Conditions that all must hold; none for an empty filter.
pub(super) fn parse(text: &str) -> Result<Vec<Condition>, FilterError> {
    let mut reader = Reader { text: Cursor::new(text) };
    let mut conditions = Vec::new();
    if reader.text.rest().is_empty() {
        return Ok(conditions);
    }
    loop {
        conditions.push(reader.condition()?);
        if reader.text.rest().is_empty() {
            return Ok(conditions);
        }
        reader.keyword("AND").then_some(()).ok_or_else(|| reader.expected("AND"))?;
    }
}

struct Reader<'a> {
    text: Cursor<'a>,
}

impl Reader<'_> {
    fn condition(&mut self) -> Result<Condition, FilterError> {
        let offset = self.text.at();
        let column = match self.text.word() {
            "id" => Column::Id,
            "name" => Column::Name,
            "family" => Column::Family,
            "status" => Column::Status,
            _ => return Err(FilterError::Expected { expected: "id, name, family or status", offset }),
        };
        if self.text.symbol("=") {
            return Ok(Condition { column, negated: false, values: vec![self.value()?] });
        }
        if self.text.symbol("!=") {
            return Ok(Condition { column, negated: true, values: vec![self.value()?] });
        }
        let negated = self.keyword("NOT");
        if !self.keyword("IN") {
            return Err(self.expected("=, !=, IN or NOT IN"));
        }
        Ok(Condition { column, negated, values: self.values()? })
    }

    fn values(&mut self) -> Result<Vec<String>, FilterError> {
        if !self.text.symbol("(") {
            return Err(self.expected("("));
        }
        let mut values = vec![self.value()?];
        while self.text.symbol(",") {
            values.push(self.value()?);
        }
        if self.text.symbol(")") { Ok(values) } else { Err(self.expected(", or )")) }
    }

    fn value(&mut self) -> Result<String, FilterError> {
        match self.text.rest().chars().next() {
            Some(quote @ ('"' | '\'')) => self.string(quote),
            _ => match self.text.word() {
                "" => Err(self.expected("a value")),
                word => Ok(word.to_owned()),
            },
        }
    }

    fn string(&mut self, quote: char) -> Result<String, FilterError> {
        let offset = self.text.at();
        let unreadable = || FilterError::String { offset };
        let mut value = String::new();
        let mut chars = self.text.rest().char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.text.advance(at + c.len_utf8());
                    return Ok(value);
                }
                '\\' => value.push(match chars.next().ok_or_else(unreadable)?.1 {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    same @ ('\\' | '\'' | '"') => same,
                    _ => return Err(unreadable()),
                }),
                c => value.push(c),
            }
        }
        Err(unreadable())
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        self.text.word_if(|word| word.eq_ignore_ascii_case(keyword))
    }

    fn expected(&self, expected: &'static str) -> FilterError {
        FilterError::Expected { expected, offset: self.text.at() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(column: Column, negated: bool, values: &[&str]) -> Condition {
        Condition { column, negated, values: values.iter().map(|value| (*value).to_owned()).collect() }
    }

    #[test]
    fn what_it_reads() {
        assert_eq!(parse("  "), Ok(vec![]));
        assert_eq!(parse("name=web"), Ok(vec![condition(Column::Name, false, &["web"])]));
        assert_eq!(
            parse(r#"name != "a \"b\" \\ AND" AND status IN (READY, 'CREATING') and family not in ('x')"#),
            Ok(vec![
                condition(Column::Name, true, &[r#"a "b" \ AND"#]),
                condition(Column::Status, false, &["READY", "CREATING"]),
                condition(Column::Family, true, &["x"]),
            ])
        );
    }

    #[test]
    fn what_it_refuses() {
        for (text, offset) in [
            ("size = 1", 0),
            ("name", 4),
            ("name = ", 7),
            ("name ~ x", 5),
            ("name = a b", 9),
            ("name = a AND", 12),
            ("name IN a", 8),
            ("name IN ()", 9),
            ("name IN (a", 10),
            ("name NOT a", 9),
            ("name = a; DROP TABLE images", 8),
        ] {
            assert!(
                matches!(parse(text), Err(FilterError::Expected { offset: found, .. }) if found == offset),
                "{text}: {:?}",
                parse(text)
            );
        }
        assert_eq!(parse("name = 'a"), Err(FilterError::String { offset: 7 }));
        assert_eq!(parse(r"name = '\q'"), Err(FilterError::String { offset: 7 }));
        assert_eq!(parse(r"name = '\"), Err(FilterError::String { offset: 7 }));
    }
}
