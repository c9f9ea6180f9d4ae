//! What is said to Redis and what it says, as bytes.

use bytes::Bytes;
use uuid::Uuid;

use crate::{engine::link::order::Value, hub::mirror::remote::ShownAs, store::Epoch};

/// An epoch that no room has had.
pub(super) fn new_epoch() -> Bytes {
    format!("{:016x}", Uuid::new_v4().as_u64_pair().0 | 1).into()
}

pub(super) fn number(number: impl std::fmt::Display) -> Bytes {
    number.to_string().into()
}

pub(super) fn flag(flag: bool) -> Bytes {
    Bytes::from_static(if flag { b"1" } else { b"0" })
}

pub(super) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

impl Value {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Value::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            Value::Nil | Value::Int(_) | Value::List(_) => None,
        }
    }

    pub(super) fn int(&self) -> Option<i64> {
        match self {
            Value::Int(int) => Some(*int),
            Value::Bytes(_) => self.text()?.parse().ok(),
            Value::Nil | Value::List(_) => None,
        }
    }

    pub(super) fn u64(&self) -> Option<u64> {
        u64::try_from(self.int()?).ok()
    }

    pub(super) fn list(&self) -> Option<&[Value]> {
        match self {
            Value::List(list) => Some(list),
            Value::Nil | Value::Int(_) | Value::Bytes(_) => None,
        }
    }

    pub(super) fn bytes(&self) -> Option<&Bytes> {
        match self {
            Value::Bytes(bytes) => Some(bytes),
            Value::Nil | Value::Int(_) | Value::List(_) => None,
        }
    }
}

/// The epochs and numbers of a message, in the order of its rooms.
pub(super) fn numbered(text: &str) -> Option<Vec<(Epoch, u64)>> {
    let pair = |text: &str| {
        let (epoch, seq) = text.split_once(':')?;
        Some((epoch.parse().ok()?, seq.parse().ok()?))
    };
    text.split(',').map(pair).collect()
}

/// The numbers alone.
pub(super) fn seqs(text: &str) -> Option<Vec<u64>> {
    Some(numbered(text)?.into_iter().map(|(_, seq)| seq).collect())
}

/// The part behind `n` spaces.
pub(super) fn nth_part(bytes: &[u8], n: usize) -> Option<&[u8]> {
    bytes.splitn(n + 1, |byte| *byte == b' ').nth(n)
}

/// Reads how a client is shown.
pub(super) fn shown_as(bytes: &[u8]) -> Option<ShownAs> {
    let (name, user) = serde_json::from_slice(bytes).ok()?;
    Some(ShownAs { name, user })
}

/// Writes it.
pub(super) fn shown_text(shown: &ShownAs) -> Bytes {
    serde_json::to_vec(&(&shown.name, &shown.user)).unwrap_or_default().into()
}

/// Reads direct messages with their numbers, which are above 0.
pub(super) fn read_inbox(messages: &Value) -> Option<Vec<(u64, Bytes)>> {
    let mut directs = Vec::new();
    for message in messages.list()? {
        let [id, fields] = message.list()? else { return None };
        let seq: u64 = id.text()?.split_once('-')?.0.parse().ok()?;
        let [_, body] = fields.list()? else { return None };
        if seq > 0 {
            directs.push((seq, body.bytes()?.clone()));
        }
    }
    Some(directs)
}
