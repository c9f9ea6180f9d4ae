//! The secret by which a client takes up its session again.

use std::fmt;

use uuid::Uuid;

/// What a client shows to take up its session again: unguessable, and for that client alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionToken {
    pub(super) client_id: Uuid,
    /// Two random UUIDs: 244 bits that nobody guesses.
    pub(super) secret: [Uuid; 2],
}

impl SessionToken {
    /// Whether `shown` has the same secret.
    pub(super) fn has_secret_of(&self, shown: &SessionToken) -> bool {
        // The secret is compared in whole words, whose time tells nothing that helps to guess 244
        // bits; all of them are looked at all the same.
        let pairs = self.secret.iter().zip(&shown.secret);
        pairs.fold(0, |sum, (own, shown)| sum | (own.as_u128() ^ shown.as_u128())) == 0
    }
}

impl fmt::Display for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = &self.secret;
        write!(f, "{}{}{}", self.client_id.simple(), first.simple(), second.simple())
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It is a secret, and debug output ends up in logs.
        f.debug_struct("SessionToken").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// A text that is no session token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAToken;

impl fmt::Display for NotAToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a session token has 96 hexadecimal digits")
    }
}

impl std::error::Error for NotAToken {}

impl std::str::FromStr for SessionToken {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<SessionToken, NotAToken> {
        if text.len() != 96 || !text.is_ascii() {
            return Err(NotAToken);
        }
        let part = |at: usize| {
            let digits = u128::from_str_radix(&text[at..at + 32], 16);
            // `from_str_radix` takes a sign, which is no digit.
            let is_signed = text.as_bytes()[at] == b'+';
            digits.ok().filter(|_| !is_signed).map(Uuid::from_u128).ok_or(NotAToken)
        };
        Ok(SessionToken { client_id: part(0)?, secret: [part(32)?, part(64)?] })
    }
}
