//! A sum of bytes that any thread changes.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A sum of bytes. A reader may see a moment between two of its changes.
#[derive(Debug, Default)]
pub(crate) struct Tally(AtomicUsize);

impl Tally {
    pub(crate) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn subtract(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Notes that something of `before` bytes has `after` now.
    pub(crate) fn change(&self, before: usize, after: usize) {
        // If the thing shrank, the difference wraps, and adding it wraps back.
        self.0.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Replaces the sum. For a tally that one thread writes.
    pub(crate) fn set(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
