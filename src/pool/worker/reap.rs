//! What becomes of connections that are over.

use std::sync::atomic::Ordering;

use super::Worker;

/// Connections freed in one turn: as many as are taken on, so that a storm of arrivals is never
/// ahead of what it leaves.
const REAPED_PER_TURN_MAX: usize = super::ARRIVALS_PER_TURN_MAX;

/// Bytes freed with connections in one turn, and one connection at least: some milliseconds. What a
/// client has not read, and what is kept to compress for it, is in pages that go back one by one.
const FREED_BYTES_PER_TURN_MAX: usize = 16 << 20;

impl Worker {
    /// Frees what is over, now that nothing refers to it any more, up to the bounds of a turn.
    pub(super) fn reap(&mut self) {
        if self.cx.work.gone.is_empty() && !self.stopped {
            return;
        }
        if self.stopped {
            // There is no next turn, and each of them has a line in the access log.
            self.cx.work.gone = self.conns.iter().map(|(slot, _)| slot).collect();
        }
        let mut gone = std::mem::take(&mut self.cx.work.gone);
        let (mut reached, mut reaped, mut freed_bytes) = (0, 0, 0);
        for slot in &gone {
            let is_enough =
                reaped >= REAPED_PER_TURN_MAX || freed_bytes >= FREED_BYTES_PER_TURN_MAX;
            if is_enough && !self.stopped {
                break;
            }
            reached += 1;
            if let Some(bytes) = self.free(*slot) {
                reaped += 1;
                freed_bytes += bytes;
            }
        }
        gone.drain(..reached);
        // A slot that is listed twice may be somebody else's in the next turn.
        gone.retain(|slot| self.conns.contains(*slot));
        self.cx.work.gone = gone;
    }

    /// Frees the connection of this slot. Returns the bytes that were counted for it, or nothing if
    /// it was freed before.
    fn free(&mut self, slot: usize) -> Option<usize> {
        let mut conn = self.conns.try_remove(slot)?;
        self.cx.timers.clear(slot, &mut conn.io.deadline);
        self.cx.leave_all(slot);
        let bytes = conn.io.counted_bytes();
        conn.io.count_out(&mut self.cx);
        self.cx.held.conns -= 1;
        if let Some(access) = &conn.io.access {
            access.log(conn.io.remote, conn.io.bytes_sent, self.cx.now);
        }
        // Its permit goes to the next in line, and its other tokens count it out.
        drop(conn);
        self.cx.shared.sockets[self.cx.worker].fetch_sub(1, Ordering::Relaxed);
        Some(bytes)
    }
}
