//! The server's clock: the machine's, or one that only tests move.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Longer than any age that a setting allows: two years.
const PAST_MS: u64 = 2 * 365 * 24 * 60 * 60 * 1000;

/// What the ages of messages, the absences of sessions and the ends of tokens are measured with.
/// Usable from any thread.
#[derive(Debug)]
pub(crate) enum Clock {
    /// Measures since this moment, which is that millisecond.
    Machine(Instant, u64),
    /// Stands still until it is moved.
    Stepped {
        /// Where it stands.
        now_ms: AtomicU64,
        /// The time since 1970 at its zero.
        zero: Duration,
        /// Where what is counted begins, so that one server does not repeat what one before it has
        /// counted.
        first_number: u64,
    },
}

impl Clock {
    /// A clock that begins now and runs by itself.
    pub(crate) fn machine() -> Clock {
        Clock::Machine(Instant::now(), 0)
    }

    /// A clock that stands still, at the machine's time of day.
    pub(crate) fn stepped() -> Clock {
        let zero = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock::Stepped { now_ms: AtomicU64::new(0), zero, first_number: 0 }
    }

    /// A clock that stands still at this time of day.
    pub(crate) fn stepped_at(time: SystemTime) -> Clock {
        let zero = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let first_number = (zero.as_millis() as u64) << 20;
        Clock::Stepped { now_ms: AtomicU64::new(0), zero, first_number }
    }

    /// Where a stepped server begins to count; `None` for another one.
    pub(crate) fn first_number(&self) -> Option<u64> {
        match self {
            Clock::Machine(..) => None,
            Clock::Stepped { first_number, .. } => Some(*first_number),
        }
    }

    /// Sets the clock, which was just made, to a time long after its zero, so that what is older
    /// than the clock has a time too.
    pub(crate) fn with_past(self) -> Clock {
        match self {
            Clock::Machine(started, _) => Clock::Machine(started, PAST_MS),
            Clock::Stepped { zero, first_number, .. } => Clock::Stepped {
                now_ms: AtomicU64::new(PAST_MS),
                zero: zero.saturating_sub(Duration::from_millis(PAST_MS)),
                first_number,
            },
        }
    }

    /// Whether it runs by itself.
    pub(crate) fn is_machine(&self) -> bool {
        matches!(self, Clock::Machine(..))
    }

    /// Milliseconds since the clock's zero.
    pub(crate) fn now_ms(&self) -> u64 {
        match self {
            Clock::Machine(started, at_ms) => at_ms + started.elapsed().as_millis() as u64,
            Clock::Stepped { now_ms, .. } => now_ms.load(Ordering::Relaxed),
        }
    }

    /// The time since 1970. That of the machine may be set back.
    pub(crate) fn since_1970(&self) -> Duration {
        match self {
            Clock::Machine(..) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            Clock::Stepped { zero, .. } => *zero + Duration::from_millis(self.now_ms()),
        }
    }

    /// Moves a clock that stands still. One that runs by itself is not changed.
    pub(crate) fn advance(&self, by: Duration) {
        if let Clock::Stepped { now_ms, .. } = self {
            now_ms.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
        }
    }
}
