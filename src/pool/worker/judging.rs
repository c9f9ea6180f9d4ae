//! Clients are judged anew, some in each turn, when a reload has changed what they may do.

use super::Worker;

/// Slots that are looked at in a turn.
const SLOTS_PER_TURN_MAX: usize = 4096;

/// Rooms of clients that are judged in a turn: each may be held against all rules.
const ROOMS_PER_TURN_MAX: usize = 256;

impl Worker {
    /// Judges the next clients.
    pub(super) fn judge(&mut self) {
        let Some(from) = self.judging else { return };
        let (mut slot, mut judged) = (from, 0);
        let until = self.conns.capacity();
        while slot < until && slot < from + SLOTS_PER_TURN_MAX && judged < ROOMS_PER_TURN_MAX {
            if let Some((open, io)) = self.conns.get_mut(slot).and_then(|conn| conn.open_mut()) {
                judged += open.judge(io, &mut self.cx);
            }
            slot += 1;
        }
        self.judging = (slot < until).then_some(slot);
    }
}
