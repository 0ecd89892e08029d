//! Reads a filter: text in, an expression or the place where it is none out.

use image_api::{google, has_json_field};
use regex_lite::RegexBuilder;

use super::{Compare, Expr, FilterError, Test};

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

/// Every step leaves the reader behind the white space that follows what it took.
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    regexes: usize,
    has_other: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0, regexes: 0, has_other: false }
    }

    /// All of it; `None` of nothing.
    pub(super) fn read(mut self) -> Result<Option<Expr>, FilterError> {
        self.skip_space();
        if self.rest().is_empty() {
            return Ok(None);
        }
        let expr = self.expression(0)?;
        if !self.rest().is_empty() {
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
        while !self.rest().is_empty() && !self.rest().starts_with(')') {
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
        if self.keyword("NOT") || self.symbol("-") {
            return self.simple(depth).map(|expr| Expr::Not(Box::new(expr)));
        }
        self.simple(depth)
    }

    fn simple(&mut self, depth: usize) -> Result<Expr, FilterError> {
        if !self.symbol("(") {
            return self.restriction();
        }
        if depth >= DEPTH {
            return Err(FilterError::Depth);
        }
        let expr = self.expression(depth + 1)?;
        if self.symbol(")") { Ok(expr) } else { Err(self.expected(")")) }
    }

    fn restriction(&mut self) -> Result<Expr, FilterError> {
        let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        let field = self.take(is_name).to_owned();
        if field.is_empty() {
            return Err(self.expected("a field"));
        }
        let path: Vec<_> = field.split('.').map(str::to_owned).collect();
        let is_known = path.first().is_some_and(|name| has_json_field::<google::Image>(name));
        if !is_known || path.iter().any(String::is_empty) {
            return Err(FilterError::Field { field });
        }
        if let Some((_, how)) = COMPARE.into_iter().find(|(symbol, _)| self.symbol(symbol)) {
            self.has_other = true;
            let (value, quoted) = self.value()?;
            if !quoted && value.contains('*') {
                return Err(FilterError::Wildcard { value });
            }
            return Ok(Expr::Is { path, test: Test::Compare(how, value) });
        }
        if self.symbol(":") {
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
        match self.rest().chars().next() {
            Some(quote @ ('"' | '\'')) => self.string(quote).map(|text| (text, true)),
            _ => match self.take(|c| !c.is_whitespace() && !matches!(c, '(' | ')' | '"' | '\'')) {
                "" => Err(self.expected("a value")),
                word => Ok((word.to_owned(), false)),
            },
        }
    }

    /// A backslash takes the quote and itself; before all else it stays, as regular expressions have it.
    fn string(&mut self, quote: char) -> Result<String, FilterError> {
        let offset = self.at;
        let mut value = String::new();
        let mut chars = self.rest().char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            match (c, chars.peek()) {
                (c, _) if c == quote => {
                    self.at += at + c.len_utf8();
                    self.skip_space();
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

    fn take(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let (text, start) = (self.text, self.at);
        let len = self.rest().find(|c| !is_part(c)).unwrap_or(self.rest().len());
        self.at += len;
        self.skip_space();
        text.get(start..start + len).unwrap_or_default()
    }

    /// A word of the language, as a whole word.
    fn keyword(&mut self, keyword: &str) -> bool {
        let before = self.at;
        let found = self.take(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.')) == keyword;
        if !found {
            self.at = before;
        }
        found
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        let found = self.rest().starts_with(symbol);
        if found {
            self.at += symbol.len();
            self.skip_space();
        }
        found
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn expected(&self, expected: &'static str) -> FilterError {
        FilterError::Expected { expected, offset: self.at }
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
