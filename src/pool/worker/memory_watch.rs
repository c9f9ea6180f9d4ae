//! What a worker remembers of the account of memory.

use crate::{memory::account::Held, pool::timers::Millis};

/// What a worker knows of the account of memory.
#[derive(Default)]
pub(super) struct MemoryWatch {
    /// What the connections of this worker held when it was last told.
    pub(super) told: Held,
    /// Whether this worker has had newcomers wait.
    pub(super) has_held: bool,
    pub(super) next_shed: Millis,
    /// Connections that all workers had ended when it last shed.
    pub(super) ended_before: u64,
}
