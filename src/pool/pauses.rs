//! Why a connection is not read at the moment.

use bitflags::bitflags;

bitflags! {
    /// Reasons not to read from a connection. It is read again when none is left.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub(super) struct PauseReasons: u8 {
        /// The client does not read what it is sent.
        const OUTBOX = 1;
        /// The jobs of its handler are behind.
        const JOBS = 1 << 1;
        /// A mailbox that its worker feeds is behind.
        const MAILBOX = 1 << 2;
        /// Many deliveries that it has caused are not made yet.
        const DELIVERIES = 1 << 3;
        /// The answer of a task that its handler deferred is awaited.
        const TASK = 1 << 4;
        /// It is in the middle of a message, and there is no memory for the rest.
        const MEMORY = 1 << 5;
        /// The engine has not answered yet what its handler asked.
        const ENGINE = 1 << 6;
    }
}

/// The reasons that hold for one connection now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pauses {
    reasons: PauseReasons,
    /// Whether there may be no reason any more.
    is_over: bool,
}

impl Pauses {
    /// No reason yet.
    pub(super) const NONE: Pauses = Pauses { reasons: PauseReasons::empty(), is_over: false };
    /// No reason now or later: a connection of which only the end is awaited is read whatever waits
    /// to be written.
    pub(super) const NEVER: Pauses = Pauses { reasons: PauseReasons::empty(), is_over: true };

    pub(super) fn is_paused(self) -> bool {
        !self.reasons.is_empty()
    }

    /// Whether one of `reasons` holds.
    pub(super) fn has(self, reasons: PauseReasons) -> bool {
        self.reasons.intersects(reasons)
    }

    /// Adds a reason. Returns whether it is new.
    pub(super) fn set(&mut self, reason: PauseReasons) -> bool {
        let is_new = !self.is_over && !self.has(reason);
        if is_new {
            self.reasons.insert(reason);
        }
        is_new
    }

    /// Takes a reason away. Returns whether it held.
    pub(super) fn clear(&mut self, reason: PauseReasons) -> bool {
        let held = self.has(reason);
        self.reasons.remove(reason);
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_read_again_when_no_reason_is_left() {
        let mut pauses = Pauses::NONE;
        assert!(!pauses.is_paused() && !pauses.clear(PauseReasons::JOBS));
        assert!(pauses.set(PauseReasons::OUTBOX) && pauses.set(PauseReasons::JOBS));
        assert!(!pauses.set(PauseReasons::OUTBOX), "it holds already");
        assert!(pauses.clear(PauseReasons::OUTBOX) && pauses.is_paused());
        assert!(pauses.clear(PauseReasons::JOBS) && !pauses.is_paused());
        let mut pauses = Pauses::NEVER;
        assert!(!pauses.set(PauseReasons::OUTBOX) && !pauses.is_paused());
    }
}
