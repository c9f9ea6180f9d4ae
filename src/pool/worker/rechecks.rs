//! What clients may do is checked anew, for some in each turn, when a reload has changed it.

use super::Worker;

/// Slots that are looked at in a turn.
const SLOTS_PER_TURN_MAX: usize = 4096;

/// Rooms of clients whose permissions are checked in a turn: each may be held against all rules.
const ROOMS_PER_TURN_MAX: usize = 256;

impl Worker {
    /// Checks the permissions of the next clients.
    pub(super) fn recheck_permissions(&mut self) {
        let Some(from) = self.rechecking else { return };
        let (mut slot, mut rooms) = (from, 0);
        let until = self.conns.capacity();
        while slot < until && slot < from + SLOTS_PER_TURN_MAX && rooms < ROOMS_PER_TURN_MAX {
            if let Some((open, io)) = self.conns.get_mut(slot).and_then(|conn| conn.open_mut()) {
                rooms += open.recheck_permissions(io, &mut self.cx);
            }
            slot += 1;
        }
        self.rechecking = (slot < until).then_some(slot);
    }
}
