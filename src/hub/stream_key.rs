//! The name under which the client of an event stream posts what it has to say.

use std::{fmt, str::FromStr};

use uuid::Uuid;

use super::conn_id::ConnId;

/// Which connection a post is for, and the secret that proves that it comes from its client.
///
/// `Display` prints hexadecimal digits, which `FromStr` reads. `Debug` hides the secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamKey {
    pub(crate) conn: ConnId,
    secret: Uuid,
}

impl StreamKey {
    /// A new one.
    pub(crate) fn new(conn: ConnId) -> StreamKey {
        StreamKey { conn, secret: Uuid::new_v4() }
    }

    /// Whether `shown` has the same secret.
    pub(crate) fn has_secret_of(&self, shown: &StreamKey) -> bool {
        // In constant time: numbers of one width are compared at once.
        self.secret.as_u128() ^ shown.secret.as_u128() == 0
    }
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConnId { worker, slot, generation } = self.conn;
        write!(f, "{worker:04x}{slot:08x}{generation:08x}{}", self.secret.simple())
    }
}

impl fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamKey").field("conn", &self.conn).finish_non_exhaustive()
    }
}

/// A text that is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAKey;

impl FromStr for StreamKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<StreamKey, NotAKey> {
        // `from_str_radix` accepts a sign.
        if text.len() != 52 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(NotAKey);
        }
        let number =
            |from: usize, to: usize| u128::from_str_radix(&text[from..to], 16).map_err(|_| NotAKey);
        let conn = ConnId {
            worker: number(0, 4)? as u16,
            slot: number(4, 12)? as u32,
            generation: number(12, 20)? as u32,
        };
        Ok(StreamKey { conn, secret: Uuid::from_u128(number(20, 52)?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_nothing_else_is() {
        let conn = ConnId { worker: 0xffff, slot: 7, generation: u32::MAX };
        let key = StreamKey::new(conn);
        let text = key.to_string();
        assert_eq!(text.parse(), Ok(key));
        assert_eq!(text.to_uppercase().parse(), Ok(key));
        let other = StreamKey::new(conn);
        assert!(key.has_secret_of(&key) && !key.has_secret_of(&other));
        assert!(!format!("{key:?}").contains(&text[20..]));
        for wrong in ["", &text[1..], &format!("+{}", &text[1..]), &text.replace(&text[..1], "é")]
        {
            assert_eq!(wrong.parse::<StreamKey>(), Err(NotAKey), "{wrong}");
        }
    }
}
