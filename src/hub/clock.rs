//! The hub's clock: the machine's, or one that only tests move.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// What the ages of messages and the absences of sessions are measured with. Usable from any
/// thread.
pub(crate) enum Clock {
    /// Measures since this moment.
    Machine(Instant),
    /// Stands still at this millisecond until it is moved.
    Stepped(AtomicU64),
}

impl Clock {
    /// A clock that begins now and runs by itself.
    pub(crate) fn machine() -> Clock {
        Clock::Machine(Instant::now())
    }

    /// A clock that stands still.
    pub(crate) fn stepped() -> Clock {
        Clock::Stepped(AtomicU64::new(0))
    }

    /// Whether it runs by itself.
    pub(crate) fn is_machine(&self) -> bool {
        matches!(self, Clock::Machine(_))
    }

    /// Milliseconds since the clock was made.
    pub(super) fn now_ms(&self) -> u64 {
        match self {
            Clock::Machine(started) => started.elapsed().as_millis() as u64,
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
