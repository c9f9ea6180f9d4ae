//! Deliveries that a session has caused and that are not made yet.
//!
//! A message to a large room is a small request and much work. Each session may have so many
//! deliveries on their way; while it has more, its connection is not read, so the socket of the
//! sender slows down and nobody else's.

use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use super::conn_id::ConnId;

/// Deliveries that one session may have on their way before its connection is paused. One message
/// is always taken, however large its room.
const IN_FLIGHT_MAX: u32 = 8192;

/// How many deliveries a session has on their way, and which connection waits for them.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    deliveries: AtomicU32,
    /// Locked only by a connection that begins to wait, and when the deliveries have become few.
    waiting: Mutex<Option<ConnId>>,
}

impl InFlight {
    /// Whether the session has caused so many deliveries that its connection should wait.
    pub(crate) fn is_over(&self) -> bool {
        self.deliveries.load(Ordering::SeqCst) > IN_FLIGHT_MAX
    }

    /// Notes that `conn` waits until the deliveries have become few. `false` if they are few
    /// already; else `conn` is sent a [`Letter::Resume`](super::mailbox::Letter::Resume).
    pub(crate) fn begin_wait(&self, conn: ConnId) -> bool {
        let mut waiting = self.waiting.lock();
        *waiting = Some(conn);
        // Read after the note is made, and the note is looked for after the count has changed: one
        // of the two threads sees the other.
        if self.is_few() {
            *waiting = None;
        }
        waiting.is_some()
    }

    fn is_few(&self) -> bool {
        self.deliveries.load(Ordering::SeqCst) <= IN_FLIGHT_MAX / 2
    }

    pub(super) fn add(&self, deliveries: u32) {
        self.deliveries.fetch_add(deliveries, Ordering::SeqCst);
    }

    /// Counts deliveries as made. Returns the connection that waited for them, if they are few now.
    pub(super) fn subtract(&self, deliveries: u32) -> Option<ConnId> {
        self.deliveries.fetch_sub(deliveries, Ordering::SeqCst);
        if self.is_few() { self.waiting.lock().take() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONN: ConnId = ConnId { worker: 1, slot: 2, generation: 3 };

    #[test]
    fn a_connection_waits_until_the_deliveries_are_few() {
        let in_flight = InFlight::default();
        in_flight.add(IN_FLIGHT_MAX);
        assert!(!in_flight.is_over(), "so many are allowed");
        in_flight.add(1);
        assert!(in_flight.is_over() && in_flight.begin_wait(CONN));
        assert_eq!(in_flight.subtract(IN_FLIGHT_MAX / 2), None, "not few enough yet");
        assert_eq!(in_flight.subtract(1), Some(CONN));
        assert_eq!(in_flight.subtract(1), None, "it is told once");
        assert!(!in_flight.begin_wait(CONN), "nothing to wait for");
    }
}
