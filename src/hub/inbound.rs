//! Direct messages on their way to one session, so that a flood of them is refused before it
//! overflows the outbox of a client that reads.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How many direct messages may be on their way to one session.
#[derive(Debug, Clone, Copy)]
pub(super) struct InboundBounds {
    pub(super) messages_max: usize,
    pub(super) bytes_max: usize,
}

/// The direct messages that are posted to a session and not delivered yet.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    messages: AtomicUsize,
    bytes: AtomicUsize,
    /// Whether the client reads, and more than half of what may wait for it does.
    is_behind: AtomicBool,
}

impl Inbound {
    /// Notes whether the client is behind, so that it is spared further direct messages.
    pub(crate) fn set_behind(&self, is_behind: bool) {
        self.is_behind.store(is_behind, Ordering::Relaxed);
    }

    /// Counts a message of `bytes` in, unless it must be refused. One message is always taken,
    /// however large, unless the client is behind.
    pub(super) fn add(&self, bytes: usize, bounds: &InboundBounds) -> bool {
        if self.is_behind.load(Ordering::Relaxed) {
            return false;
        }
        let messages = self.messages.fetch_add(1, Ordering::Relaxed);
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = messages < bounds.messages_max && bytes_before + bytes <= bounds.bytes_max;
        let is_taken = fits || messages == 0;
        if !is_taken {
            self.subtract(bytes);
        }
        is_taken
    }

    pub(super) fn subtract(&self, bytes: usize) {
        self.messages.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_taken_and_one_always() {
        let (inbound, bounds) =
            (Inbound::default(), InboundBounds { messages_max: 2, bytes_max: 100 });
        assert!(inbound.add(1000, &bounds), "the first, however large");
        assert!(!inbound.add(1, &bounds), "too many bytes");
        inbound.subtract(1000);
        assert!(inbound.add(50, &bounds) && inbound.add(50, &bounds));
        assert!(!inbound.add(0, &bounds), "too many messages");
        inbound.subtract(50);
        inbound.set_behind(true);
        assert!(!inbound.add(1, &bounds), "it is behind");
        inbound.set_behind(false);
        assert!(inbound.add(50, &bounds));
    }
}
