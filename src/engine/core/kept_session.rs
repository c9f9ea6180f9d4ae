//! One session of a node, as far as Redis knows it.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use crate::hub::{mirror::remote::ShownAs, names::RoomName, session::Session};

/// A session of this node, as far as Redis knows it.
pub(super) struct KeptSession {
    pub(super) session: Arc<Session>,
    pub(super) fence: u64,
    /// The rooms in which it is shown.
    pub(super) rooms: BTreeSet<RoomName>,
    pub(super) shown: ShownAs,
    /// The shards that may know it, and what was written there last.
    pub(super) written: Vec<(usize, Option<Bytes>)>,
    pub(super) renewed_ms: u64,
    /// The rooms of this node in which Redis does not list the client, or lists it by another node,
    /// which may have taken the session up.
    pub(super) contested: BTreeSet<RoomName>,
}

impl KeptSession {
    /// Whether a shard may know it.
    pub(super) fn is_known_to(&self, shard: usize) -> bool {
        self.written.iter().any(|(of, _)| *of == shard)
    }

    /// What was written last in a shard that may know it from now on.
    pub(super) fn written_in(&mut self, shard: usize) -> &mut Option<Bytes> {
        let at = match self.written.iter().position(|(of, _)| *of == shard) {
            Some(at) => at,
            None => {
                // One shard knows most sessions.
                self.written.reserve_exact(1);
                self.written.push((shard, None));
                self.written.len() - 1
            }
        };
        &mut self.written[at].1
    }

    /// The shards that may know it.
    pub(super) fn known_to(&self) -> impl Iterator<Item = usize> {
        self.written.iter().map(|(shard, _)| *shard)
    }
}
