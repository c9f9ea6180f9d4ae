//! What a worker does when memory is short: newcomers wait, and then the costliest go.

use super::Worker;
use crate::{
    hub::mailbox::SWEEPER, memory::account::Level, pool::timers::Millis, ws::close::CloseReason,
};

/// How often memory is taken back while it is short.
const SHED_INTERVAL_MS: Millis = 100;

/// HTTP connections and slow clients that one worker ends at once for want of memory.
const SHED_HTTP_MAX: usize = 256;
const SHED_SLOW_MAX: usize = 32;

/// What a client is told that goes because it does not read.
const SHED_REASON: &str = "slow consumer: the server is short of memory";

impl Worker {
    /// Adds what the connections of this worker hold to the account, and does what the account asks
    /// for.
    pub(super) fn look_at_memory(&mut self) {
        let account = &self.cx.shared.hub.account;
        if self.memory.told != self.cx.held {
            self.memory.told = self.cx.held;
            account.set_held(self.cx.worker, &self.cx.held);
        }
        let level = account.level();
        if level != Level::Normal || self.memory.has_held {
            self.on_memory_level(level);
        }
    }

    /// When this worker must look again, though nothing happens to it.
    pub(super) fn next_look_at_memory(&self) -> Option<Millis> {
        self.memory.has_held.then_some(self.cx.now + SHED_INTERVAL_MS)
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
        if level == Level::Shed && self.cx.now >= self.memory.next_shed {
            self.memory.next_shed = self.cx.now + SHED_INTERVAL_MS;
            self.shed();
        }
    }

    /// Takes memory back: idle HTTP connections go first, then clients that do not read, the
    /// costliest before others. When no worker has any left, one of them has the hub give up what
    /// nobody who is connected needs.
    fn shed(&mut self) {
        let metrics = &self.cx.shared.hub.account.metrics;
        let ended = metrics.memory_http_closed.value() + metrics.memory_slow_closed.value();
        let others_end = std::mem::replace(&mut self.memory.ended_before, ended) != ended;
        let is_enough = self.shed_http() || self.shed_slow();
        if self.cx.worker != SWEEPER {
            return;
        }
        let mailboxes = &self.cx.shared.hub.mailboxes;
        // Those that sleep have connections to end too.
        (0..mailboxes.workers()).for_each(|worker| mailboxes.wake(worker));
        if !is_enough && !others_end && self.cx.shared.hub.shed() {
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
        let slow =
            |(slot, conn): (usize, &super::Connection)| Some((conn.slow_bytes(&self.cx)?, slot));
        let mut slow: Vec<(usize, usize)> = self.conns.iter().filter_map(slow).collect();
        slow.sort_unstable_by(|one, other| other.cmp(one));
        slow.truncate(SHED_SLOW_MAX);
        for (_, slot) in &slow {
            if let Some(conn) = self.conns.get_mut(*slot) {
                let reason = CloseReason::SLOW_CONSUMER.because(SHED_REASON);
                conn.io.ask_close(reason, &mut self.cx.work);
            }
        }
        let metrics = &self.cx.shared.hub.account.metrics;
        metrics.memory_slow_closed.add_many_shared(slow.len() as u64);
        !slow.is_empty()
    }
}
