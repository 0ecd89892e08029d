//! A bearer token that cannot be printed by accident.

/// A bearer token. `Debug` and `Display` are redacted, and the buffer that a request carries is marked sensitive.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Takes a token as it stands after `Bearer `, without surrounding white space.
    ///
    /// `None` where it is empty or holds what a header cannot: only visible ASCII is a token (RFC 6750, section 2.1).
    pub fn new(token: &str) -> Option<Self> {
        let token = token.trim();
        (!token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic())).then(|| Self(token.to_owned()))
    }

    /// The secret itself, for the header.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `presented` is this token. Takes the same time wherever the first difference is.
    pub fn matches(&self, presented: &str) -> bool {
        let (ours, theirs) = (self.0.as_bytes(), presented.as_bytes());
        ours.len() == theirs.len()
            && ours.iter().zip(theirs).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(redacted)")
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(redacted)")
    }
}

/// Parses as [`Token::new`] does.
impl std::str::FromStr for Token {
    type Err = InvalidToken;

    fn from_str(token: &str) -> Result<Self, InvalidToken> {
        Self::new(token).ok_or(InvalidToken)
    }
}

/// Text that cannot be a bearer token.
#[derive(Debug, thiserror::Error)]
#[error("a token is visible ASCII without spaces, and not empty")]
pub struct InvalidToken;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_prints_itself() {
        let token = Token::new(" t0p-secret\n").unwrap();
        assert_eq!(token.expose(), "t0p-secret");
        assert!(!format!("{token:?} {token}").contains("secret"));
    }

    #[test]
    fn matches_only_itself() {
        let token = Token::new("abc").unwrap();
        assert!(token.matches("abc"));
        assert!(
            !token.matches("abd") && !token.matches("ab") && !token.matches("abcd") && !token.matches("")
        );
        assert!(Token::new("").is_none() && Token::new("a b").is_none() && Token::new("ä").is_none());
    }
}
