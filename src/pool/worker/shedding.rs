//! What a worker does when memory is short: newcomers wait, and then the costliest go.

use super::Worker;
use crate::{
    hub::mailbox::SWEEPER,
    memory::account::Level,
    metrics::Refused,
    pool::{
        blocked::NOT_READING_MS,
        connection::{Connection, Phase},
        pauses::PauseReasons,
        post::PostAnswer,
        timers::Millis,
        unfinished::UNFINISHED_BYTES_MAX,
        worker_cx::WorkerCtx,
    },
    ws::close::CloseReason,
};

/// How often memory is taken back while it is short.
const SHED_INTERVAL_MS: Millis = 100;

/// HTTP connections and slow clients that one worker ends at once for want of memory.
const SHED_HTTP_MAX: usize = 256;
const SHED_SLOW_MAX: usize = 32;

/// What a client is told that goes.
const SHED_REASON: &str = "the server is short of memory";

/// How long a message that is not whole may wait for memory before its connection is one of the
/// costliest.
const STARVED_MS: Millis = 5000;

/// How long newcomers wait for those that do not read, or do not finish what they send, and leave
/// less than newcomers need but more than would be taken back from them.
const HELD_MS_MAX: Millis = 5000;

impl Worker {
    /// Adds what the connections of this worker hold to the account, and does what the account asks
    /// for.
    pub(super) fn look_at_memory(&mut self) {
        self.look_at_blocked();
        self.cx.tell_held();
        let account = &self.cx.shared.hub.account;
        let (level, is_full) = (account.level(), account.is_full());
        if !is_full && !self.cx.work.starved.is_empty() {
            self.feed();
        }
        if level != Level::Normal || self.memory.has_held {
            self.on_memory_level(level);
        }
    }

    /// Sees which of the clients that let bytes wait do not read.
    fn look_at_blocked(&mut self) {
        while let Some((_, id)) = self.cx.work.blocked.pop_front_if(|(at, _)| *at <= self.cx.now) {
            let conn = self.conns.get_mut(id.slot as usize).filter(|conn| conn.io.id == id);
            if let Some(conn) = conn {
                conn.io.look_whether_stuck(&mut self.cx);
            }
        }
    }

    /// Reads again from the connections that there was no memory for.
    #[cold]
    fn feed(&mut self) {
        for slot in std::mem::take(&mut self.cx.work.starved) {
            if let Some(conn) = self.conns.get_mut(slot) {
                conn.io.resume(PauseReasons::MEMORY, &mut self.cx.work);
            }
        }
    }

    /// When this worker must look again, though nothing happens to it.
    pub(super) fn next_look_at_memory(&self) -> Option<Millis> {
        // Without the second, a level that has gone down between two looks at it would leave those
        // unread who wait for memory.
        let looks = self.memory.has_held || !self.cx.work.starved.is_empty();
        let shed = looks.then_some(self.cx.now + SHED_INTERVAL_MS);
        let blocked = self.cx.work.blocked.front().map(|(at, _)| *at);
        shed.into_iter().chain(blocked).min()
    }

    #[cold]
    fn on_memory_level(&mut self, level: Level) {
        let is_short = level != Level::Normal;
        self.memory.has_held = is_short;
        // Looked at in each turn, because several workers do this, and one may have seen another
        // level a moment ago.
        if self.cx.shared.admission.is_held() != is_short {
            self.cx.shared.admission.set_held(is_short);
        }
        if self.cx.now < self.memory.next_shed {
            return;
        }
        self.memory.next_shed = self.cx.now + SHED_INTERVAL_MS;
        if self.cx.worker == SWEEPER {
            // Near the ceiling a second is long.
            self.cx.shared.compare_memory();
        }
        match level {
            Level::Normal => (self.memory.shed_since, self.memory.wait_since) = (None, None),
            Level::Wait => {
                self.memory.shed_since = None;
                let since = *self.memory.wait_since.get_or_insert(self.cx.now);
                let shared = &self.cx.shared;
                let is_long = self.cx.now >= since + HELD_MS_MAX;
                if self.cx.worker == SWEEPER && is_long && shared.admission.waits_for_memory() {
                    shared.hub.account.take_back();
                }
                self.shed_hub();
            }
            Level::Shed | Level::Full => self.shed(),
        }
    }

    /// Takes memory back: idle HTTP connections go first, then clients that do not read or do not
    /// finish what they send, the costliest before others. When no worker has any left, one of them
    /// has the hub give up what nobody who is connected needs.
    fn shed(&mut self) {
        let since = *self.memory.shed_since.get_or_insert(self.cx.now);
        // Until then it is not known who does not read.
        let is_early = self.cx.now < since + 2 * NOT_READING_MS;
        let account = &self.cx.shared.hub.account;
        let (metrics, has_blocked) = (&account.metrics, account.has_blocked());
        let ended = metrics.memory_http_closed.value() + metrics.memory_slow_closed.value();
        let others_end = std::mem::replace(&mut self.memory.ended_before, ended) != ended;
        let is_enough = self.shed_http() || self.shed_slow() || (is_early && has_blocked);
        if self.cx.worker != SWEEPER {
            return;
        }
        let mailboxes = &self.cx.shared.hub.mailboxes;
        // Those that sleep have connections to end too.
        (0..mailboxes.workers()).for_each(|worker| mailboxes.wake(worker));
        if !is_enough && !others_end {
            self.shed_hub();
        }
    }

    /// Has the hub give up what nobody who is connected needs, if this worker does that for all.
    fn shed_hub(&mut self) {
        if self.cx.worker == SWEEPER && self.cx.shared.hub.shed() {
            self.cx.on_backpressure();
        }
    }

    fn shed_http(&mut self) -> bool {
        let mut closed = 0;
        for (_, conn) in &mut self.conns {
            if closed == SHED_HTTP_MAX {
                break;
            }
            closed += usize::from(conn.shed_http(&mut self.cx));
        }
        let metrics = &self.cx.shared.hub.account.metrics;
        metrics.memory_http_closed.add_many_shared(closed as u64);
        closed > 0
    }

    fn shed_slow(&mut self) -> bool {
        let costly = |(slot, conn): (usize, &Connection)| {
            let (bytes, reason) = conn.costly(&self.cx)?;
            Some((bytes, slot, reason))
        };
        let mut slow: Vec<(usize, usize, CloseReason)> =
            self.conns.iter().filter_map(costly).collect();
        slow.sort_unstable_by_key(|(bytes, ..)| std::cmp::Reverse(*bytes));
        slow.truncate(SHED_SLOW_MAX);
        for (_, slot, reason) in &slow {
            if let Some(conn) = self.conns.get_mut(*slot) {
                conn.io.ask_close(reason.because(SHED_REASON), &mut self.cx.work);
            }
        }
        let metrics = &self.cx.shared.hub.account.metrics;
        metrics.memory_slow_closed.add_many_shared(slow.len() as u64);
        !slow.is_empty()
    }
}

impl Connection {
    /// Ends it for want of memory if it is HTTP and idle or not read by its client, or if it waits
    /// in line with more than a request, or has a post that is not whole. Returns whether it did.
    fn shed_http(&mut self, cx: &mut WorkerCtx) -> bool {
        match &self.phase {
            Phase::Head(head) if head.is_idle(&self.io) => {
                self.phase = Phase::Gone;
                self.io.list_dirty(&mut cx.work);
            }
            Phase::Waiting(_) if self.io.counted_bytes() > UNFINISHED_BYTES_MAX => {
                self.refuse(Refused::Memory, cx);
            }
            // Its client sends it again.
            Phase::Posting(_) if self.unfinished_bytes() > UNFINISHED_BYTES_MAX => {
                self.answer_sent_post(&PostAnswer::busy(), cx);
            }
            _ => return false,
        }
        true
    }

    /// What a close would free, and the reason for it, of a client that does not read or does not
    /// finish what it sends.
    fn costly(&self, cx: &WorkerCtx) -> Option<(usize, CloseReason)> {
        let Phase::Open(open) = &self.phase else { return None };
        let io = &self.io;
        if io.close_asked.is_some() {
            return None;
        }
        if open.is_slow(io, cx) {
            return Some((io.outbox.bytes().max(io.counted_bytes()), CloseReason::SLOW_CONSUMER));
        }
        let unfinished = self.unfinished_bytes();
        let others = PauseReasons::all().difference(PauseReasons::MEMORY);
        // What is not read for want of memory may have been sent.
        let is_starved = io.pauses.has(PauseReasons::MEMORY);
        let patience = if is_starved { STARVED_MS } else { NOT_READING_MS };
        let is_stuck = !io.pauses.has(others) && cx.now >= io.last_rx + patience;
        (is_stuck && unfinished > UNFINISHED_BYTES_MAX)
            .then_some((unfinished, CloseReason::TRY_AGAIN))
    }
}
