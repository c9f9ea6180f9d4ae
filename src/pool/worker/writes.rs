//! What a worker writes in a turn, and who waits for the next.

use super::Worker;
use crate::{hub::conn_id::ConnId, pool::worker_cx::WorkLists};

/// Sockets written to in one turn: some milliseconds. The others are written to in the next one,
/// with whatever has come for them until then.
pub(super) const WRITES_PER_TURN_MAX: usize = 256;

/// Of these, sockets with output of this turn. The rest is for those that wait already, so that
/// answers of the others do not hold them up for ever.
const FRESH_WRITES_PER_TURN_MAX: usize = WRITES_PER_TURN_MAX / 2;

/// Bytes written in one turn, and one write at least: another bound of some milliseconds, where
/// much is written to each socket.
const WRITTEN_BYTES_PER_TURN_MAX: u64 = 8 << 20;

/// Rounds of the flush: a close that begins in one is written in the next.
const FLUSH_ROUNDS_MAX: usize = 4;

impl Worker {
    /// One write for each socket that has something to send, up to the bounds of a turn.
    pub(super) fn flush(&mut self) {
        if self.cx.work.dirty.len() > FRESH_WRITES_PER_TURN_MAX
            || !self.cx.work.unwritten.is_empty()
        {
            return self.flush_shared();
        }
        for _ in 0..FLUSH_ROUNDS_MAX {
            if self.cx.work.dirty.is_empty() {
                return;
            }
            let mut dirty = std::mem::take(&mut self.cx.work.dirty);
            self.flush_some(&dirty, u64::MAX);
            dirty.clear();
            if self.cx.work.dirty.is_empty() {
                self.cx.work.dirty = dirty;
            }
        }
    }

    /// Shares the writes of a turn between those with output of this turn and those that wait.
    #[cold]
    #[inline(never)]
    fn flush_shared(&mut self) {
        let mut fresh = self.share_writes();
        let bytes_out = self.cx.metrics().bytes_out.value();
        for _ in 0..FLUSH_ROUNDS_MAX {
            let dirty = std::mem::take(&mut self.cx.work.dirty);
            // Half of the bytes are for those that wait already, as half of the writes are.
            let (new, waiting) = dirty.split_at(std::mem::take(&mut fresh));
            let put_off = self.flush_some(new, bytes_out + WRITTEN_BYTES_PER_TURN_MAX / 2);
            let put_off = self.ids_of(put_off);
            self.cx.work.unwritten.extend(put_off);
            let put_off = self.flush_some(waiting, bytes_out + WRITTEN_BYTES_PER_TURN_MAX);
            for id in self.ids_of(put_off).into_iter().rev() {
                self.cx.work.unwritten.push_front(id);
            }
            if self.cx.work.dirty.is_empty() {
                return;
            }
        }
    }

    /// Writes to these until so many bytes have gone out. Returns the others.
    fn flush_some<'s>(&mut self, slots: &'s [usize], bytes_out_max: u64) -> &'s [usize] {
        for (nth, slot) in slots.iter().enumerate() {
            if self.cx.metrics().bytes_out.value() >= bytes_out_max {
                return &slots[nth..];
            }
            if let Some(conn) = self.conns.get_mut(*slot) {
                conn.flush(&mut self.cx);
            }
        }
        &[]
    }

    /// Leaves in the list of dirty slots those that are written to in this turn, and first those
    /// with output of this turn. Returns how many these are.
    fn share_writes(&mut self) -> usize {
        let WorkLists { dirty, unwritten, .. } = &mut self.cx.work;
        let fresh = dirty.len().min(FRESH_WRITES_PER_TURN_MAX);
        let id_of = |slot| self.conns.get(slot).map(|conn| conn.io.id);
        unwritten.extend(dirty.drain(fresh..).filter_map(id_of));
        while dirty.len() < WRITES_PER_TURN_MAX
            && let Some(id) = unwritten.pop_front()
        {
            let slot = id.slot as usize;
            dirty.extend((id_of(slot) == Some(id)).then_some(slot));
        }
        fresh
    }

    /// The connections that have these slots now.
    fn ids_of(&self, slots: &[usize]) -> Vec<ConnId> {
        slots.iter().filter_map(|slot| Some(self.conns.get(*slot)?.io.id)).collect()
    }
}
