//! What the hub holds in bytes, by kind: an estimate that is kept as things come and go.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Tallies of what clients can make the hub hold. Usable from any thread.
#[derive(Default)]
pub(crate) struct HubBytes {
    /// Messages in the histories of all rooms.
    pub(super) histories: Tally,
    /// Direct messages in the inboxes of all sessions.
    pub(super) inboxes: Tally,
    /// Sessions, their memberships and the ids that they remember.
    pub(super) sessions: Tally,
    /// Patterns of all sessions, and their subscriptions in the directory.
    pub(super) patterns: Tally,
}

/// A sum of bytes. A reader may see a moment between two of its changes.
#[derive(Default)]
pub(super) struct Tally(AtomicUsize);

impl Tally {
    pub(super) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn subtract(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Notes that something of `before` bytes has `after` now.
    pub(super) fn change(&self, before: usize, after: usize) {
        // If the thing shrank, the difference wraps, and adding it wraps back.
        self.0.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }

    pub(super) fn value(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// [`HubBytes`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HubBytesNow {
    pub(crate) histories: usize,
    pub(crate) inboxes: usize,
    pub(crate) sessions: usize,
    pub(crate) patterns: usize,
}

impl HubBytes {
    pub(super) fn now(&self) -> HubBytesNow {
        HubBytesNow {
            histories: self.histories.value(),
            inboxes: self.inboxes.value(),
            sessions: self.sessions.value(),
            patterns: self.patterns.value(),
        }
    }
}
