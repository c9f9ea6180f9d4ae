//! One counter.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count that only grows. One thread writes it; any thread may read it.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Cheap, because only one thread writes the counter and no addition can be lost.
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Adds one, from any thread.
    pub(crate) fn add_shared(&self) {
        self.add_many_shared(1);
    }

    /// Adds `n`, from whichever thread.
    pub(crate) fn add_many_shared(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
