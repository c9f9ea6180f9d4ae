//! One of the Redises among which rooms and sessions are spread, as far as a node knows it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    beats::Beats,
    redis_clock::RedisClock,
    sent::{Numbered, Sent},
    undone::Undone,
};
use crate::engine::link::{order::Order, settings::Mark};

/// A shard, and what is under way there.
#[derive(Default)]
pub(super) struct Shard {
    /// What is said before anything that is said of it, where there are several.
    pub(super) label: String,
    /// What it keeps of the list in which it stands.
    pub(super) mark: Option<Mark>,
    pub(super) orders: Vec<Order>,
    /// What the answers that are awaited belong to, by tag, in the order of the orders.
    pub(super) sent: BTreeMap<u64, Sent>,
    /// The id of the server's numbering, while there is a link.
    pub(super) generation: Option<Bytes>,
    /// Whether there was ever a link.
    pub(super) was_up: bool,
    /// When the link was lost, or the core began.
    pub(super) down_since_ms: u64,
    /// Whether this node hears what is said to it, and asks.
    pub(super) is_listening: bool,
    /// Whether it was told that other nodes have another list, since there was a link last.
    pub(super) is_other_list_told: bool,
    pub(super) beats: Beats,
    pub(super) redis_clock: RedisClock,
    /// Whether it refuses what it should take.
    pub(super) is_in_trouble: bool,
    pub(super) undone: Undone,
    /// Messages that are numbered and not known to be in as many replicas as is asked.
    pub(super) unconfirmed: Vec<Numbered>,
    /// Why the link is of no use though nobody has said so.
    pub(super) useless: Option<String>,
}

impl Shard {
    pub(super) fn is_up(&self) -> bool {
        self.generation.is_some()
    }

    pub(super) fn generation(&self) -> Bytes {
        self.generation.clone().unwrap_or_default()
    }
}
