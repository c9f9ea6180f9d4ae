//! What a worker writes in a turn, and who waits for the next.

use std::time::Duration;

use super::{
    Worker,
    step_time::{SOCKET_WORK, STEP_TIME_MAX},
};
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

/// Bytes whose writing takes as long as other work of one, as [`SOCKET_WORK`] counts it.
const WRITTEN_PER_WORK: usize = 1024;

/// Rounds of the flush: a close that begins in one is written in the next.
const FLUSH_ROUNDS_MAX: usize = 4;

impl Worker {
    /// One write for each socket that has something to send, up to the bounds of a turn.
    pub(super) fn flush(&mut self) {
        self.step_time.begin();
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
            let put_off = self.flush_some(&dirty, (u64::MAX, STEP_TIME_MAX));
            if !put_off.is_empty() {
                self.put_off(put_off);
            }
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
            let (new, waiting) = dirty.split_at(std::mem::take(&mut fresh));
            // Half of the bytes and of the time are for those that wait already, as half of the
            // writes are.
            let half = (bytes_out + WRITTEN_BYTES_PER_TURN_MAX / 2, STEP_TIME_MAX / 2);
            let whole = (bytes_out + WRITTEN_BYTES_PER_TURN_MAX, STEP_TIME_MAX);
            let put_off = self.flush_some(new, if waiting.is_empty() { whole } else { half });
            self.put_off(put_off);
            let put_off = self.flush_some(waiting, whole);
            for id in self.ids_of(put_off).into_iter().rev() {
                self.cx.work.unwritten.push_front(id);
            }
            if self.cx.work.dirty.is_empty() {
                return;
            }
        }
    }

    /// Writes to these until so many bytes have gone out or the step has taken so long. Returns the
    /// others.
    fn flush_some<'s>(
        &mut self,
        slots: &'s [usize],
        (bytes_out_max, time_max): (u64, Duration),
    ) -> &'s [usize] {
        let bytes_before = self.cx.metrics().bytes_out.value();
        let mut next_look = self.step_time.work_per_look;
        for (nth, slot) in slots.iter().enumerate() {
            let bytes_out = self.cx.metrics().bytes_out.value();
            let work = nth * SOCKET_WORK + (bytes_out - bytes_before) as usize / WRITTEN_PER_WORK;
            let is_enough = bytes_out >= bytes_out_max;
            if is_enough || work >= next_look {
                if is_enough || self.step_time.is_over(time_max) {
                    return &slots[nth..];
                }
                next_look = work + self.step_time.work_per_look;
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

    /// Leaves these to the next turn, behind those that wait already.
    #[cold]
    #[inline(never)]
    fn put_off(&mut self, slots: &[usize]) {
        let ids = self.ids_of(slots);
        self.cx.work.unwritten.extend(ids);
    }

    /// The connections that have these slots now.
    fn ids_of(&self, slots: &[usize]) -> Vec<ConnId> {
        slots.iter().filter_map(|slot| Some(self.conns.get(*slot)?.io.id)).collect()
    }
}
