//! What a worker reads in a turn.

use super::Worker;

/// What the requests of one turn may cost, as [`WorkerCtx::spent`] counts it: some milliseconds.
///
/// [`WorkerCtx::spent`]: crate::pool::worker_cx::WorkerCtx::spent
const READ_COST_PER_TURN_MAX: usize = 3072;

impl Worker {
    pub(super) fn read(&mut self, buffer: &mut [u8]) {
        self.cx.begin_turn();
        let mut ready = std::mem::take(&mut self.cx.work.ready);
        let mut reached = 0;
        // While messages wait to go out, more of them only wait longer, and everybody with them.
        let has_backlog = !self.cx.fanouts.is_empty() || !self.cx.work.unwritten.is_empty();
        let cost_max = READ_COST_PER_TURN_MAX / if has_backlog { 2 } else { 1 };
        for slot in &ready {
            if self.cx.spent >= cost_max {
                break;
            }
            reached += 1;
            if let Some(conn) = self.conns.get_mut(*slot) {
                self.cx.progress.come_to(conn.phase.number());
                conn.on_ready(&mut self.cx, buffer);
            }
        }
        // Connections that were not reached are the first of the next turn.
        if reached < ready.len() {
            ready.drain(..reached);
        } else {
            ready.clear();
        }
        if !self.cx.work.ready.is_empty() {
            ready.append(&mut self.cx.work.ready);
        }
        self.cx.work.ready = ready;
    }
}
