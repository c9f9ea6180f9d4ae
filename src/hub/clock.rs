//! The hub's clock: the machine's, or one that only tests move.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Longer than any age that a setting allows: two years.
const PAST_MS: u64 = 2 * 365 * 24 * 60 * 60 * 1000;

/// What the ages of messages and the absences of sessions are measured with. Usable from any
/// thread.
pub(crate) enum Clock {
    /// Measures since this moment, which is that millisecond.
    Machine(Instant, u64),
    /// Stands still at this millisecond until it is moved.
    Stepped(AtomicU64),
}

impl Clock {
    /// A clock that begins now and runs by itself.
    pub(crate) fn machine() -> Clock {
        Clock::Machine(Instant::now(), 0)
    }

    /// A clock that stands still.
    pub(crate) fn stepped() -> Clock {
        Clock::Stepped(AtomicU64::new(0))
    }

    /// Sets the clock, which was just made, to a time long after its zero, so that what is older
    /// than the clock has a time too.
    pub(crate) fn with_past(self) -> Clock {
        match self {
            Clock::Machine(started, _) => Clock::Machine(started, PAST_MS),
            Clock::Stepped(_) => Clock::Stepped(AtomicU64::new(PAST_MS)),
        }
    }

    /// Whether it runs by itself.
    pub(crate) fn is_machine(&self) -> bool {
        matches!(self, Clock::Machine(..))
    }

    /// Milliseconds since the clock's zero.
    pub(super) fn now_ms(&self) -> u64 {
        match self {
            Clock::Machine(started, at_ms) => at_ms + started.elapsed().as_millis() as u64,
            Clock::Stepped(now_ms) => now_ms.load(Ordering::Relaxed),
        }
    }

    /// Moves a clock that stands still. One that runs by itself is not changed.
    pub(crate) fn advance(&self, by: Duration) {
        if let Clock::Stepped(now_ms) = self {
            now_ms.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
        }
    }
}
