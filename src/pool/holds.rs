//! The senders that are not read until a client that is behind has read what they sent.
//!
//! A client that reads, but slower than one sender publishes, would be closed as too slow for what
//! that sender does. Instead it holds the sender: from the moment when a quarter of its outbox is
//! full until all but an eighth has gone, and for a second at most. A client that takes longer does
//! not read steadily, and holds nobody any more until it has caught up; and whom it held is immune
//! to its like for as long. So no number of clients can stop a room.

use std::sync::Arc;

use super::{timers::Millis, worker_cx::WorkerCtx};
use crate::hub::{Hub, mailbox::Letter, session::Session};

/// How long a client may hold its senders, and how long ago it must have read something to do so.
pub(super) const HOLD_MS_MAX: Millis = 1000;

/// Senders that one client may hold at once. What others send it is not held up.
const SENDERS_MAX: usize = 64;

/// What a client that held senders has shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum HoldRecord {
    /// It has held nobody yet.
    None,
    /// It has caught up each time.
    Steady,
    /// It was given up, once at least.
    GivenUp,
}

/// The senders that one client holds. Owned by its connection; a drop lets them go, as of one that
/// was given up.
pub(super) struct Holds {
    receiver: Arc<Session>,
    senders: Vec<Arc<Session>>,
    hub: Arc<Hub>,
    /// When the senders are let go at the latest.
    pub(super) until: Millis,
}

impl Holds {
    pub(super) fn new(receiver: &Arc<Session>, cx: &WorkerCtx) -> Holds {
        Holds {
            receiver: Arc::clone(receiver),
            senders: Vec::new(),
            hub: Arc::clone(&cx.shared.hub),
            until: cx.now + HOLD_MS_MAX,
        }
    }

    /// Holds a sender, unless it is held here already, sends little or is immune.
    pub(super) fn add(&mut self, sender: &Arc<Session>, record: HoldRecord, cx: &WorkerCtx) {
        let is_held = self.senders.iter().any(|held| Arc::ptr_eq(held, sender));
        if is_held || self.senders.len() >= SENDERS_MAX {
            return;
        }
        if sender.traffic().in_flight.hold(record == HoldRecord::Steady, self.hub.now_ms()) {
            self.senders.push(Arc::clone(sender));
            cx.metrics().sender_holds.add(1);
        }
    }

    /// Spares the client further direct messages, until it has caught up or is given up.
    pub(super) fn refuse_directs(&self) {
        self.receiver.traffic().inbound.set_behind(true);
    }

    /// Lets all senders go. Returns the client's record, which was `record` before.
    pub(super) fn let_go(&mut self, caught_up: bool, record: HoldRecord) -> HoldRecord {
        self.receiver.traffic().inbound.set_behind(false);
        if self.senders.is_empty() {
            return record;
        }
        for sender in self.senders.drain(..) {
            if let Some(conn) = sender.traffic().in_flight.end_hold(caught_up, self.hub.now_ms()) {
                self.hub.mailboxes.send_control(conn.worker(), Letter::Resume { conn });
            }
        }
        match record {
            HoldRecord::None | HoldRecord::Steady if caught_up => HoldRecord::Steady,
            _ => HoldRecord::GivenUp,
        }
    }
}

impl Drop for Holds {
    fn drop(&mut self) {
        self.let_go(false, HoldRecord::None);
    }
}
