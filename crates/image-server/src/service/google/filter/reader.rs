//! Reads a filter: text in, an expression or the place where it is none out.

use image_api::{google, has_json_field};
use regex_lite::RegexBuilder;

use super::{Compare, Expr, FilterError, Test};
use crate::service::cursor::Cursor;

/// Parentheses in each other: more than anybody writes, and nothing for the stack.
pub(super) const DEPTH: usize = 16;
/// Memory of one compiled regular expression, bytes.
const REGEX_SIZE: usize = 8 << 10;
/// Regular expressions of one filter.
pub(super) const REGEXES: usize = 8;

/// Operators, the longer ones first.
const COMPARE: [(&str, Compare); 6] = [
    ("<=", Compare::LessOrEqual),
    (">=", Compare::GreaterOrEqual),
    ("!=", Compare::Unequal),
    ("=", Compare::Equal),
    ("<", Compare::Less),
    (">", Compare::Greater),
];

pub(super) struct Reader<'a> {
    text: Cursor<'a>,
    regexes: usize,
    has_other: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text: Cursor::new(text), regexes: 0, has_other: false }
    }

    /// All of it; `None` of nothing.
    pub(super) fn read(mut self) -> Result<Option<Expr>, FilterError> {
        if self.text.rest().is_empty() {
            return Ok(None);
        }
        let expr = self.expression(0)?;
        if !self.text.rest().is_empty() {
            return Err(self.expected("the end"));
        }
        match self.regexes > 0 && self.has_other {
            true => Err(FilterError::Mixed),
            false => Ok(Some(expr)),
        }
    }

    /// Factors, one after the other or with AND between.
    fn expression(&mut self, depth: usize) -> Result<Expr, FilterError> {
        let mut all = vec![self.any_of(depth)?];
        while !self.text.rest().is_empty() && !self.text.rest().starts_with(')') {
            self.keyword("AND");
            all.push(self.any_of(depth)?);
        }
        Ok(one_or(all, Expr::All))
    }

    fn any_of(&mut self, depth: usize) -> Result<Expr, FilterError> {
        let mut any = vec![self.term(depth)?];
        while self.keyword("OR") {
            any.push(self.term(depth)?);
        }
        Ok(one_or(any, Expr::Any))
    }

    fn term(&mut self, depth: usize) -> Result<Expr, FilterError> {
        if self.keyword("NOT") || self.text.symbol("-") {
            return self.simple(depth).map(|expr| Expr::Not(Box::new(expr)));
        }
        self.simple(depth)
    }

    fn simple(&mut self, depth: usize) -> Result<Expr, FilterError> {
        if !self.text.symbol("(") {
            return self.restriction();
        }
        if depth >= DEPTH {
            return Err(FilterError::Depth);
        }
        let expr = self.expression(depth + 1)?;
        if self.text.symbol(")") { Ok(expr) } else { Err(self.expected(")")) }
    }

    fn restriction(&mut self) -> Result<Expr, FilterError> {
        let field = self.text.word().to_owned();
        if field.is_empty() {
            return Err(self.expected("a field"));
        }
        let path: Vec<_> = field.split('.').map(str::to_owned).collect();
        let is_known = path.first().is_some_and(|name| has_json_field::<google::Image>(name));
        if !is_known || path.iter().any(String::is_empty) {
            return Err(FilterError::Field { field });
        }
        if let Some((_, how)) = COMPARE.into_iter().find(|(symbol, _)| self.text.symbol(symbol)) {
            self.has_other = true;
            let (value, quoted) = self.value()?;
            if !quoted && value.contains('*') {
                return Err(FilterError::Wildcard { value });
            }
            return Ok(Expr::Is { path, test: Test::Compare(how, value) });
        }
        if self.text.symbol(":") {
            self.has_other = true;
            let test = match self.value()? {
                (value, false) if value == "*" => Test::Has(None),
                (value, false) if value.contains('*') => return Err(FilterError::Wildcard { value }),
                (value, _) => Test::Has(Some(value)),
            };
            return Ok(Expr::Is { path, test });
        }
        let negated = self.keyword("ne");
        if !negated && !self.keyword("eq") {
            return Err(self.expected("=, !=, <, <=, >, >=, :, eq or ne"));
        }
        let (pattern, _) = self.value()?;
        self.regexes += 1;
        if self.regexes > REGEXES {
            return Err(FilterError::Regexes);
        }
        let whole = format!("^(?:{pattern})$");
        match RegexBuilder::new(&whole).size_limit(REGEX_SIZE).build() {
            Ok(regex) => Ok(Expr::Is { path, test: Test::Matches(regex, negated) }),
            Err(_) => Err(FilterError::Regex { pattern }),
        }
    }

    /// A value, and whether it stood in quotes.
    fn value(&mut self) -> Result<(String, bool), FilterError> {
        match self.text.rest().chars().next() {
            Some(quote @ ('"' | '\'')) => self.string(quote).map(|text| (text, true)),
            _ => match self.text.take(|c| !c.is_whitespace() && !matches!(c, '(' | ')' | '"' | '\'')) {
                "" => Err(self.expected("a value")),
                word => Ok((word.to_owned(), false)),
            },
        }
    }

    /// A backslash takes the quote and itself; before all else it stays, as regular expressions have it.
    fn string(&mut self, quote: char) -> Result<String, FilterError> {
        let offset = self.text.at();
        let mut value = String::new();
        let mut chars = self.text.rest().char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            match (c, chars.peek()) {
                (c, _) if c == quote => {
                    self.text.advance(at + c.len_utf8());
                    return Ok(value);
                }
                ('\\', Some((_, next))) if *next == quote || *next == '\\' => {
                    value.push(*next);
                    chars.next();
                }
                (c, _) => value.push(c),
            }
        }
        Err(FilterError::String { offset })
    }

    /// A word of the language, as it is written here.
    fn keyword(&mut self, keyword: &str) -> bool {
        self.text.word_if(|word| word == keyword)
    }

    fn expected(&self, expected: &'static str) -> FilterError {
        FilterError::Expected { expected, offset: self.text.at() }
    }
}

/// The only one, or all together.
fn one_or(mut exprs: Vec<Expr>, together: impl Fn(Vec<Expr>) -> Expr) -> Expr {
    match (exprs.len(), exprs.pop()) {
        (1, Some(one)) => one,
        (_, last) => {
            exprs.extend(last);
            together(exprs)
        }
    }
}
