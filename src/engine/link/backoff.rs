//! How long the link waits before it tries again.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// The wait before the second attempt to connect. Each further one is twice as long.
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// The longest wait.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// How long the link waits before it tries again.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    random: RandomState,
}

impl Backoff {
    pub(super) fn new() -> Backoff {
        Backoff { next: BACKOFF_MIN, random: RandomState::new() }
    }

    /// Returns a wait of half the time to all of it, so that many nodes do not come at once.
    pub(super) fn wait(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(BACKOFF_MAX);
        // Each hasher of the standard library has keys at random.
        self.random = RandomState::new();
        let share = (self.random.hash_one(whole) >> 32) as u32;
        whole / 2 + whole.mul_f64(f64::from(share) / f64::from(u32::MAX) / 2.0)
    }

    pub(super) fn reset(&mut self) {
        self.next = BACKOFF_MIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_begin_anew() {
        let mut backoff = Backoff::new();
        let mut whole = BACKOFF_MIN;
        for _ in 0..20 {
            let wait = backoff.wait();
            assert!(wait >= whole / 2 && wait <= whole, "{wait:?} of {whole:?}");
            whole = (whole * 2).min(BACKOFF_MAX);
        }
        assert_eq!(whole, BACKOFF_MAX);
        backoff.reset();
        assert!(backoff.wait() <= BACKOFF_MIN);
    }
}
