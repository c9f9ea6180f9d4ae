//! The identity of one connection.

use serde::{Deserialize, Serialize};

/// The identity of one connection on one worker. Slots are reused; the generation distinguishes
/// their connections, so a late letter to an earlier one is a no-op.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ConnId {
    pub(crate) worker: u16,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl ConnId {
    /// No connection has this id.
    pub(super) const NONE: ConnId =
        ConnId { worker: u16::MAX, slot: u32::MAX, generation: u32::MAX };

    /// Packs the id into one word. A worker has fewer than 2^24 connections, and a server at most
    /// 2^8 workers.
    pub(super) fn packed(self) -> u64 {
        let ConnId { worker, slot, generation } = self;
        u64::from(generation) << 32 | u64::from(worker & 0xff) << 24 | u64::from(slot & 0xff_ffff)
    }

    /// Returns the index of the connection's worker.
    pub(crate) fn worker(self) -> usize {
        usize::from(self.worker)
    }
}
