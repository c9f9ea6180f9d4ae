//! What is due for which connection, and when.

use std::{cmp::Reverse, collections::BinaryHeap, time::Instant};

/// Everything set and not yet fired. Nothing is ever looked for to be removed: a timer whose dial
/// is past is void, and whoever fires it sees that.
#[derive(Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<Timer>>,
}

/// Something to do for a connection at a time. Ordered by the time.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timer {
    pub(crate) at: Instant,
    /// The connection.
    pub(crate) index: usize,
    /// Which of its dials it was set for.
    pub(crate) dial: u32,
    pub(crate) due: Due,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// No answer for `--waited-after`: it waits in the server's line and no longer counts against
    /// `--connecting`.
    InLine,
    /// No answer for `--timeout`.
    Overdue,
    /// The wait after a refusal is over.
    Return,
    /// The message is to be sent again.
    Say,
}

impl Timers {
    pub(crate) fn set(&mut self, timer: Timer) {
        self.heap.push(Reverse(timer));
    }

    /// Takes out the earliest timer whose time has come.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Timer> {
        self.next_at().filter(|at| *at <= now)?;
        self.heap.pop().map(|Reverse(timer)| timer)
    }

    /// When the next one is due.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(timer)| timer.at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn timers_fire_in_the_order_of_their_time_and_not_before() {
        let start = Instant::now();
        let later = |seconds: u64| start + Duration::from_secs(seconds);
        let mut timers = Timers::default();
        for (index, seconds) in [3, 1, 2].into_iter().enumerate() {
            timers.set(Timer { at: later(seconds), index, dial: 1, due: Due::Overdue });
        }
        assert_eq!(timers.next_at(), Some(later(1)));
        assert_eq!(timers.take_due(start), None);
        let mut fired = || timers.take_due(later(2)).map(|timer| timer.index);
        assert_eq!([fired(), fired(), fired()], [Some(1), Some(2), None]);
    }
}
