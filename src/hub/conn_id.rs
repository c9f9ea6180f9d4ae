//! The name of one connection's life.

/// One connection's life on one worker. The generation tells a reused slot from the life before, so
/// a late letter to it is a no-op.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConnId {
    pub(crate) worker: u16,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl ConnId {
    /// Packs it into one word. A worker has fewer than 2^24 connections, and a server at most 2^8
    /// workers.
    pub(super) fn packed(self) -> u64 {
        let ConnId { worker, slot, generation } = self;
        u64::from(generation) << 32 | u64::from(worker & 0xff) << 24 | u64::from(slot & 0xff_ffff)
    }

    /// The index of its worker.
    pub(crate) fn worker(self) -> usize {
        usize::from(self.worker)
    }
}
