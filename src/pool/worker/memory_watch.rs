//! What a worker remembers of the account of memory.

use crate::pool::timers::Millis;

/// What a worker knows of the account of memory.
#[derive(Default)]
pub(super) struct MemoryWatch {
    /// Whether this worker has had newcomers wait.
    pub(super) has_held: bool,
    pub(super) next_shed: Millis,
    /// When this worker first saw that newcomers wait.
    pub(super) wait_since: Option<Millis>,
    /// When this worker began to shed.
    pub(super) shed_since: Option<Millis>,
    /// Connections that all workers had ended when it last shed.
    pub(super) ended_before: u64,
}
