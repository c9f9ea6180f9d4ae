//! What a link is given: where the Redis is, and who speaks to it.

use std::path::PathBuf;

use bytes::Bytes;

use super::{address::RedisAddress, order::Script};

/// What a link is given.
#[derive(Debug)]
pub(crate) struct LinkSettings {
    pub(crate) address: RedisAddress,
    /// The PEM file of the authorities that `rediss://` trusts, and no others. Without it those
    /// that browsers trust, as Mozilla lists them.
    pub(crate) ca: Option<PathBuf>,
    /// The id of this node, which `CLIENT LIST` shows.
    pub(crate) node: String,
    /// Loaded whenever a connection is made.
    pub(crate) scripts: &'static [&'static Script],
    /// Which of how many Redises this one is to all nodes; `None` if nobody asks.
    pub(crate) mark: Option<Mark>,
}

/// What a Redis keeps of the list in which it stands, so that nodes with different lists do not
/// take each other's rooms for lost.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    pub(crate) key: Bytes,
    /// Its place and the length of the list, such as `1/2`.
    pub(crate) text: Bytes,
    /// How long it holds that nobody renews, in milliseconds.
    pub(crate) kept_ms: u64,
}

impl Mark {
    /// The mark of the Redis with this index among `count`.
    pub(crate) fn new(key: Bytes, index: usize, count: usize, kept_ms: u64) -> Mark {
        Mark { key, text: format!("{}/{count}", index + 1).into(), kept_ms }
    }

    /// Says what is wrong where another one is known.
    pub(crate) fn told_other(&self, known: &[u8]) -> String {
        let of = |text: &[u8]| {
            let text = String::from_utf8_lossy(text);
            let (place, count) = text.split_once('/').unwrap_or((&text, "?"));
            format!("number {place} of {count}")
        };
        format!(
            "it is {} in redis_url, and {} for other nodes that use it: all nodes must have the \
             same list in the same order, and stop for {} s before it changes",
            of(&self.text),
            of(known),
            self.kept_ms.div_ceil(1000),
        )
    }
}
