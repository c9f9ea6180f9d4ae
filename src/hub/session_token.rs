//! The secret that lets a client resume its session.

use std::fmt;

use uuid::Uuid;

/// The secret with which a client resumes its session. Unguessable; give it to that client only.
///
/// `Display` prints 96 hexadecimal digits, which `FromStr` reads. `Debug` hides the secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionToken {
    pub(super) client_id: Uuid,
    /// Two random UUIDs: 244 random bits.
    pub(super) secret: [Uuid; 2],
}

impl SessionToken {
    /// The id of the client.
    pub(crate) fn client_id(&self) -> Uuid {
        self.client_id
    }

    /// The secret, of which others are told a hash at most.
    pub(crate) fn secret_bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(self.secret[0].as_bytes());
        bytes[16..].copy_from_slice(self.secret[1].as_bytes());
        bytes
    }

    /// Whether `shown` has the same secret.
    pub(super) fn has_secret_of(&self, shown: &SessionToken) -> bool {
        // Constant time: both words are always compared.
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
        // Debug output ends up in logs, so it hides the secret.
        f.debug_struct("SessionToken").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// The error for a text that is not a session token.
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
            // `from_str_radix` accepts a sign, which a token must not have.
            let is_signed = text.as_bytes()[at] == b'+';
            digits.ok().filter(|_| !is_signed).map(Uuid::from_u128).ok_or(NotAToken)
        };
        Ok(SessionToken { client_id: part(0)?, secret: [part(32)?, part(64)?] })
    }
}
