//! What the commands and scripts of a Redis work on.

use bytes::Bytes;

use super::store::Store;

/// What a Redis refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Refuses {
    /// Nothing.
    #[default]
    Nothing,
    /// What needs space: its memory is full.
    Growth,
    /// Every write: it is a replica.
    Writes,
}

/// What commands work on.
pub(super) struct State {
    pub(super) store: Store,
    pub(super) now_micros: u64,
    pub(super) refuses: Refuses,
    /// A script has written already, so that it is not stopped any more.
    pub(super) has_written: bool,
    /// What was published: channel and payload.
    pub(super) published: Vec<(Bytes, Bytes)>,
}

impl State {
    pub(super) fn begin(&mut self, refuses: Refuses) {
        self.refuses = refuses;
        self.has_written = false;
        self.store.set_time(self.now_micros / 1000);
    }
}
