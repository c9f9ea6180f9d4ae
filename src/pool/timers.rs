//! A worker's deadlines: one for each connection, moved only when it must come earlier or has
//! passed.

use std::{collections::BTreeSet, num::NonZeroU64};

/// Milliseconds since the worker began; what all its deadlines are measured in.
pub(crate) type Millis = u64;

/// The slots in the order in which they are due. Used by one thread. At most one deadline a slot,
/// so it is as large as the number of connections and no larger.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeSet<(Millis, usize)>,
}

/// When a slot is due, as its connection remembers it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Deadline(Option<NonZeroU64>);

impl Deadline {
    /// When the slot is due, if it is at all.
    pub(crate) fn at(self) -> Option<Millis> {
        self.0.map(NonZeroU64::get)
    }
}

impl Timers {
    /// Sets the one deadline of `slot`.
    pub(crate) fn set(&mut self, slot: usize, deadline: &mut Deadline, at: Millis) {
        // A worker's first millisecond is as good as its second, and without it a deadline is half
        // as large.
        let at = NonZeroU64::new(at).unwrap_or(NonZeroU64::MIN);
        if deadline.0 != Some(at) {
            self.clear(slot, deadline);
            self.due.insert((at.get(), slot));
            *deadline = Deadline(Some(at));
        }
    }

    /// Makes the deadline of `slot` come at `at`, unless it comes earlier.
    pub(crate) fn hasten(&mut self, slot: usize, deadline: &mut Deadline, at: Millis) {
        if deadline.0.is_none_or(|due| due.get() > at) {
            self.set(slot, deadline, at);
        }
    }

    pub(crate) fn clear(&mut self, slot: usize, deadline: &mut Deadline) {
        if let Some(at) = std::mem::take(deadline).0 {
            self.due.remove(&(at.get(), slot));
        }
    }

    /// The next deadline of all.
    pub(crate) fn next(&self) -> Option<Millis> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The next slot whose deadline has passed. It keeps coming until its deadline is moved or
    /// cleared.
    pub(crate) fn expired(&self, now: Millis) -> Option<usize> {
        self.due.first().filter(|(at, _)| *at <= now).map(|(_, slot)| *slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_one_deadline() {
        let mut timers = Timers::default();
        let (mut a, mut b) = (Deadline::default(), Deadline::default());
        timers.set(0, &mut a, 10);
        timers.set(1, &mut b, 10);
        timers.set(0, &mut a, 5);
        assert_eq!((timers.next(), timers.expired(4), timers.expired(5)), (Some(5), None, Some(0)));
        timers.clear(0, &mut a);
        timers.clear(0, &mut a);
        assert_eq!(timers.expired(10), Some(1));
        timers.clear(1, &mut b);
        assert_eq!(timers.next(), None);
    }
}
