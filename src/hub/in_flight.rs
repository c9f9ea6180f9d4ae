//! What a session has sent and the server has not passed on yet.
//!
//! A message to a large room is a small request and much work, and a message that its receivers
//! cannot take as fast as it comes fills their outboxes. Each session may have so much on its way;
//! while it has more, its connection is not read, so the socket of the sender slows down and nobody
//! else's.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::conn_id::ConnId;

/// Price of what one session may have on its way before its connection is paused. One message is
/// always taken, however large it or its room.
const IN_FLIGHT_MAX: u32 = 8192;

/// Price of one letter with a message of less than a KiB, and of each further KiB: 128 of them may
/// be on their way, an eighth of what may wait for one client by default, so that several senders
/// at once leave it the time to be held for.
const KIB_PRICE: u32 = IN_FLIGHT_MAX / 128;

/// KiB that a session must have sent since it was last held before a client can hold it. However
/// slow its receivers are, a sender passes so much between two holds; and who says a word now and
/// then is not held for the flood of another.
const HOLDABLE_KIB_MIN: u32 = 64;

/// What a session has on its way, and which connection waits for it to be less.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    price: AtomicU32,
    /// Clients that are behind with what the session sent, and hold it.
    holds: AtomicU32,
    /// What the session has sent since it was last held. Only an estimate: two threads may count at
    /// once.
    kib_unheld: AtomicU32,
    /// Locked only by a connection that begins to wait, and when little is on its way.
    waiting: Mutex<Option<ConnId>>,
    /// Wakes a job thread that waits itself.
    is_little_now: Condvar,
}

/// Returns the KiB for which a message of `bytes` counts, one at least.
fn kib(bytes: usize) -> u32 {
    1 + (bytes / 1024) as u32
}

/// Returns the price of a letter with a message of `bytes` and so many deliveries that are counted.
pub(super) fn price(bytes: usize, deliveries: u32) -> u32 {
    kib(bytes).saturating_mul(KIB_PRICE).saturating_add(deliveries)
}

impl InFlight {
    /// Whether the session has so much on its way that its connection should wait.
    pub(crate) fn is_over(&self) -> bool {
        self.price.load(Ordering::SeqCst) > IN_FLIGHT_MAX || self.is_held()
    }

    /// Notes that `conn` waits until little is on its way. `false` if it is little already; else
    /// `conn` is sent a [`Letter::Resume`](super::mailbox::Letter::Resume).
    pub(crate) fn begin_wait(&self, conn: ConnId) -> bool {
        let mut waiting = self.waiting.lock();
        *waiting = Some(conn);
        // Read after the note is made, and the note is looked for after the count has changed: one
        // of the two threads sees the other.
        if self.is_little() {
            *waiting = None;
        }
        waiting.is_some()
    }

    /// Waits until little is on its way, or for `wait_max`. Blocks, so no worker calls it.
    pub(crate) fn wait(&self, wait_max: Duration) {
        let until = Instant::now() + wait_max;
        let mut waiting = self.waiting.lock();
        while !self.is_little() {
            if self.is_little_now.wait_until(&mut waiting, until).timed_out() {
                return;
            }
        }
    }

    fn is_little(&self) -> bool {
        self.price.load(Ordering::SeqCst) <= IN_FLIGHT_MAX / 2 && !self.is_held()
    }

    fn is_held(&self) -> bool {
        self.holds.load(Ordering::SeqCst) > 0
    }

    /// Counts a message of `bytes` towards what the session has sent.
    pub(super) fn note_sent(&self, bytes: usize) {
        let sent = self.kib_unheld.load(Ordering::Relaxed);
        self.kib_unheld.store(sent.saturating_add(kib(bytes)), Ordering::Relaxed);
    }

    pub(super) fn add(&self, price: u32) {
        self.price.fetch_add(price, Ordering::SeqCst);
    }

    /// Counts a letter as delivered. Returns the connection that waited for it, if little is on its
    /// way now.
    pub(super) fn subtract(&self, price: u32) -> Option<ConnId> {
        self.price.fetch_sub(price, Ordering::SeqCst);
        self.take_waiting()
    }

    /// Holds the session until [`end_hold`](InFlight::end_hold), unless it sends too little to be
    /// the one that its receivers cannot keep up with. Returns whether it is held.
    pub(crate) fn hold(&self) -> bool {
        let may_be_held =
            self.is_held() || self.kib_unheld.load(Ordering::Relaxed) >= HOLDABLE_KIB_MIN;
        if may_be_held {
            self.holds.fetch_add(1, Ordering::SeqCst);
        }
        may_be_held
    }

    /// Ends one hold. Returns the connection that waited for it, if nothing else keeps it waiting.
    pub(crate) fn end_hold(&self) -> Option<ConnId> {
        self.kib_unheld.store(0, Ordering::Relaxed);
        self.holds.fetch_sub(1, Ordering::SeqCst);
        self.take_waiting()
    }

    fn take_waiting(&self) -> Option<ConnId> {
        if !self.is_little() {
            return None;
        }
        // Taken in any case, so that a thread that is about to wait has either seen that it need
        // not or is woken.
        let conn = self.waiting.lock().take();
        self.is_little_now.notify_all();
        conn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONN: ConnId = ConnId { worker: 1, slot: 2, generation: 3 };

    #[test]
    fn a_connection_waits_until_little_is_on_its_way() {
        let in_flight = InFlight::default();
        in_flight.add(IN_FLIGHT_MAX);
        assert!(!in_flight.is_over(), "so much is allowed");
        in_flight.add(1);
        assert!(in_flight.is_over() && in_flight.begin_wait(CONN));
        assert_eq!(in_flight.subtract(IN_FLIGHT_MAX / 2), None, "not little enough yet");
        assert_eq!(in_flight.subtract(1), Some(CONN));
        assert_eq!(in_flight.subtract(1), None, "it is told once");
        assert!(!in_flight.begin_wait(CONN), "nothing to wait for");
    }

    #[test]
    fn who_sends_much_is_held_and_who_sends_little_is_not() {
        let in_flight = InFlight::default();
        in_flight.note_sent((HOLDABLE_KIB_MIN as usize - 2) * 1024);
        assert!(!in_flight.hold() && !in_flight.is_over(), "too little");
        in_flight.note_sent(10);
        assert!(in_flight.hold() && in_flight.hold(), "by two clients");
        assert!(in_flight.is_over() && in_flight.begin_wait(CONN));
        assert_eq!(in_flight.end_hold(), None, "the other one is behind");
        assert_eq!(in_flight.end_hold(), Some(CONN));
        assert!(!in_flight.is_over() && !in_flight.hold(), "it begins anew");
    }
}
