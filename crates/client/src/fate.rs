//! How far a request has come, for the one who asked to see and to take back.

use std::sync::atomic::{AtomicU8, Ordering};

const WAITING: u8 = 0;
const SENT: u8 = 1;
const WITHDRAWN: u8 = 2;

/// Whether a request was sent, or is not to be sent any more. What the session's thread sends and
/// what others take back is decided in one atomic step, so nothing is taken back that was sent.
#[derive(Debug, Default)]
pub(crate) struct Fate(AtomicU8);

impl Fate {
    /// It is about to be sent, for the first time or again. `false` if it was taken back.
    pub(crate) fn send(&self) -> bool {
        self.change(WAITING, SENT) || self.was_sent()
    }

    /// Takes it back, unless it was sent.
    pub(crate) fn withdraw(&self) -> bool {
        self.change(WAITING, WITHDRAWN)
    }

    /// It is not to be sent again, whether it was sent or not.
    pub(crate) fn give_up(&self) {
        self.0.store(WITHDRAWN, Ordering::SeqCst);
    }

    /// Whether it was sent at least once, and is not given up.
    pub(crate) fn was_sent(&self) -> bool {
        self.0.load(Ordering::SeqCst) == SENT
    }

    pub(crate) fn is_withdrawn(&self) -> bool {
        self.0.load(Ordering::SeqCst) == WITHDRAWN
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_not_taken_back() {
        let fate = Fate::default();
        assert!(fate.send() && fate.send() && fate.was_sent());
        assert!(!fate.withdraw() && fate.was_sent());
        fate.give_up();
        assert!(!fate.send() && !fate.was_sent() && fate.is_withdrawn());
        let fate = Fate::default();
        assert!(fate.withdraw() && !fate.send() && !fate.was_sent());
    }
}
