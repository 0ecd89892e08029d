//! A place in a text: what the readers of filters have in common.

/// Every step leaves it behind the white space that follows what was taken.
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the first thing that is no white space.
    pub(super) fn new(text: &'a str) -> Self {
        let mut cursor = Self { text, at: 0 };
        cursor.advance(0);
        cursor
    }

    /// Offset, bytes.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Behind so many bytes.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.at += bytes;
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Characters as long as they are part of it.
    pub(super) fn take(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let (taken, _) = rest.split_at(rest.find(|c| !is_part(c)).unwrap_or(rest.len()));
        self.advance(taken.len());
        taken
    }

    /// A name; empty if there is none.
    pub(super) fn word(&mut self) -> &'a str {
        self.take(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))
    }

    /// A whole word, if it is the right one.
    pub(super) fn word_if(&mut self, is_right: impl Fn(&str) -> bool) -> bool {
        let before = self.at;
        let found = is_right(self.word());
        if !found {
            self.at = before;
        }
        found
    }

    pub(super) fn symbol(&mut self, symbol: &str) -> bool {
        let found = self.rest().starts_with(symbol);
        if found {
            self.advance(symbol.len());
        }
        found
    }
}
