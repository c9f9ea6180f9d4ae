//! The name under which the client of an event stream posts what it has to say.

use std::{fmt, str::FromStr};

use uuid::Uuid;

use super::conn_id::ConnId;

/// Which connection of which node a post is for, and the secret that proves that it is of its
/// client.
///
/// `Display` prints hexadecimal digits, which `FromStr` reads. `Debug` hides the secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamKey {
    pub(crate) node: Uuid,
    pub(crate) conn: ConnId,
    secret: Uuid,
}

impl StreamKey {
    /// A new one.
    pub(crate) fn new(node: Uuid, conn: ConnId) -> StreamKey {
        StreamKey { node, conn, secret: Uuid::new_v4() }
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
        let (node, secret) = (self.node.simple(), self.secret.simple());
        write!(f, "{node}{worker:04x}{slot:08x}{generation:08x}{secret}")
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
        if text.len() != 84 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(NotAKey);
        }
        let number =
            |from: usize, to: usize| u128::from_str_radix(&text[from..to], 16).map_err(|_| NotAKey);
        let conn = ConnId {
            worker: number(32, 36)? as u16,
            slot: number(36, 44)? as u32,
            generation: number(44, 52)? as u32,
        };
        let (node, secret) = (number(0, 32)?, number(52, 84)?);
        Ok(StreamKey { node: Uuid::from_u128(node), conn, secret: Uuid::from_u128(secret) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_nothing_else_is() {
        let (node, conn) =
            (Uuid::new_v4(), ConnId { worker: 0xffff, slot: 7, generation: u32::MAX });
        let key = StreamKey::new(node, conn);
        let text = key.to_string();
        assert_eq!(text.parse(), Ok(key));
        assert_eq!(text.to_uppercase().parse(), Ok(key));
        let other = StreamKey::new(node, conn);
        assert!(key.has_secret_of(&key) && !key.has_secret_of(&other));
        assert!(!format!("{key:?}").contains(&text[52..]));
        for wrong in ["", &text[1..], &format!("+{}", &text[1..]), &text.replace(&text[..1], "é")]
        {
            assert_eq!(wrong.parse::<StreamKey>(), Err(NotAKey), "{wrong}");
        }
    }
}
