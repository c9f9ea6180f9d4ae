//! What a connection counts for the account of memory.

use super::{ConnIo, counted};
use crate::pool::{
    blocked::{Blocked, NOT_READING_MS},
    pauses::PauseReasons,
    worker_cx::WorkerCtx,
};

impl ConnIo {
    /// Counts what waits for the client and was not taken by the kernel.
    pub(super) fn count_outbox(&mut self, bytes: usize, cx: &mut WorkerCtx) {
        let before = std::mem::replace(&mut self.counted.outbox, counted(bytes));
        let held = &mut cx.held;
        held.outboxes = held.outboxes - before as usize + self.counted.outbox as usize;
        let (waited, waits) = (before > 0, self.counted.outbox > 0);
        held.blocked = held.blocked - usize::from(waited) + usize::from(waits);
        if waits != waited || self.counted.blocked.is_stuck() {
            self.change_blocked(Blocked::note, cx);
        }
    }

    /// Sees whether bytes wait for the client that did when it was last looked at.
    pub(in crate::pool) fn look_whether_stuck(&mut self, cx: &mut WorkerCtx) {
        self.change_blocked(Blocked::look, cx);
    }

    /// Has `change` know whether bytes wait and whether the client is not read for it, and has the
    /// connection looked at later if it asks for that.
    fn change_blocked(&mut self, change: fn(&mut Blocked, bool, bool) -> bool, cx: &mut WorkerCtx) {
        let (waits, is_paused) = (self.counted.outbox > 0, self.pauses.has(PauseReasons::OUTBOX));
        let before = self.counted.blocked;
        if change(&mut self.counted.blocked, waits, is_paused) {
            cx.work.blocked.push_back((cx.now + NOT_READING_MS, self.id));
        }
        before.recount(self.counted.blocked, &mut cx.held);
    }

    /// Counts what came and waits to be handled: the stash, `partial` bytes of a message that is
    /// not whole, and what TLS and compression keep.
    #[inline]
    pub(in crate::pool) fn count_input(&mut self, partial: usize, cx: &mut WorkerCtx) {
        let bytes = self.stash.capacity() + partial + self.stream.held_bytes();
        if bytes > 0 || self.counted.input > 0 || self.deflate.is_some() {
            let contexts = self.deflate.as_ref().map_or(0, |deflate| deflate.held_bytes());
            let before =
                std::mem::replace(&mut self.counted.input, counted(bytes + contexts)) as usize;
            cx.held.inputs = cx.held.inputs - before + self.counted.input as usize;
            cx.tell_growth();
        }
    }

    /// Returns the bytes that are counted for the client of this connection: what a close would
    /// free.
    pub(in crate::pool) fn counted_bytes(&self) -> usize {
        self.counted.outbox as usize + self.counted.input as usize
    }

    /// Counts it out, when it is over.
    pub(in crate::pool) fn count_out(&mut self, cx: &mut WorkerCtx) {
        self.count_outbox(0, cx);
        cx.held.inputs -= std::mem::take(&mut self.counted.input) as usize;
    }
}
