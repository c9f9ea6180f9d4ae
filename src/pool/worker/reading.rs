//! What a worker reads in a turn, and who is read first.

use std::time::Duration;

use super::{
    Worker,
    step_time::{SOCKET_WORK, STEP_TIME_MAX},
};

/// What the requests of one turn may cost, as [`WorkerCtx::spent`] counts it: some milliseconds.
///
/// [`WorkerCtx::spent`]: crate::pool::worker_cx::WorkerCtx::spent
const READ_COST_PER_TURN_MAX: usize = 3072;

impl Worker {
    /// Reads from the connections that are ready, up to the bounds of a turn. Those that have asked
    /// for much lately come after the others, and half of the turn is theirs: a thousand of them
    /// wait for each other, and not everybody for all of them.
    pub(super) fn read(&mut self, buffer: &mut [u8]) {
        self.cx.begin_turn();
        self.step_time.begin();
        // While messages wait to go out, more of them only wait longer, and everybody with them.
        let has_backlog = !self.cx.fanouts.is_empty() || !self.cx.work.unwritten.is_empty();
        let cost_max = READ_COST_PER_TURN_MAX / if has_backlog { 2 } else { 1 };
        let mut ready = std::mem::take(&mut self.cx.work.ready);
        if self.cx.work.heavy.is_empty() {
            self.read_some(&mut ready, (cost_max, STEP_TIME_MAX), buffer);
        } else {
            // Taken before, so that nobody is read twice.
            let mut heavy = std::mem::take(&mut self.cx.work.heavy);
            self.read_some(&mut ready, (cost_max / 2, STEP_TIME_MAX / 2), buffer);
            self.read_some(&mut heavy, (cost_max, STEP_TIME_MAX), buffer);
            heavy.append(&mut self.cx.work.heavy);
            self.cx.work.heavy = heavy;
        }
        if !self.cx.work.ready.is_empty() {
            ready.append(&mut self.cx.work.ready);
        }
        self.cx.work.ready = ready;
    }

    /// Reads from these until the turn has cost so much or the step has taken so long, and from one
    /// at least. Leaves the others in the list: they are the first of the next turn.
    fn read_some(
        &mut self,
        slots: &mut Vec<usize>,
        (cost_max, time_max): (usize, Duration),
        buffer: &mut [u8],
    ) {
        let (mut reached, mut next_look) = (0, self.cx.spent + self.step_time.work_per_look);
        for slot in slots.iter() {
            let work = self.cx.spent + reached * SOCKET_WORK;
            if reached > 0 && (self.cx.spent >= cost_max || work >= next_look) {
                if self.cx.spent >= cost_max || self.step_time.is_over(time_max) {
                    break;
                }
                next_look = work + self.step_time.work_per_look;
            }
            reached += 1;
            if let Some(conn) = self.conns.get_mut(*slot) {
                self.cx.progress.come_to(conn.phase.number());
                conn.on_ready(&mut self.cx, buffer);
            }
        }
        if reached < slots.len() {
            slots.drain(..reached);
        } else {
            slots.clear();
        }
    }
}
