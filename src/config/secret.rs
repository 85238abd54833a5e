//! Text that must not reach a log, an error or an answer.

use std::fmt;

/// A secret. It has no `Display` and no `Serialize`, and `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a token: visible ASCII without blanks, as an `Authorization` header can carry it.
    pub fn token(text: &str) -> Option<Self> {
        let text = text.trim();
        let usable = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        usable.then(|| Self(text.to_owned()))
    }

    /// Takes any text that is there.
    pub fn text(text: &str) -> Option<Self> {
        Some(text.trim()).filter(|text| !text.is_empty()).map(|text| Self(text.to_owned()))
    }

    /// Takes an address: text without blanks.
    pub fn address(text: &str) -> Option<Self> {
        Self::text(text).filter(|secret| !secret.0.contains(char::is_whitespace))
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `candidate` is the secret, in a time that does not depend on how much of it is right.
    pub fn matches(&self, candidate: &str) -> bool {
        let (own, other) = (self.0.as_bytes(), candidate.as_bytes());
        let difference = own.iter().zip(other).fold(0_u8, |sum, (left, right)| sum | (left ^ right));
        difference == 0 && own.len() == other.len()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_secret_matches_and_debug_hides_it() {
        let secret = Secret::token(" tok-123\n").expect("usable");
        assert!(secret.matches("tok-123"));
        assert!(!secret.matches("tok-12"));
        assert!(!secret.matches("tok-1234"));
        assert!(!secret.matches(""));
        assert!(!format!("{secret:?}").contains("tok"));
        assert_eq!(Secret::token("two words"), None);
        assert_eq!(Secret::token("  "), None);
    }
}
