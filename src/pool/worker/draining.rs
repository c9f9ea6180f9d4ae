//! Whom a drain closes when: one after the other, so that not all come back at once.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
};

use crate::pool::timers::Millis;

/// The open connections that a drain has not closed yet, in a random order.
#[derive(Default)]
pub(super) struct Draining {
    /// Slots and generations.
    left: VecDeque<(usize, u32)>,
    began: Millis,
    /// The time from the first close to the last.
    spread_ms: Millis,
    /// Connections that there were.
    total: u64,
}

impl Draining {
    pub(super) fn new(mut conns: Vec<(usize, u32)>, began: Millis, spread_ms: Millis) -> Draining {
        // Neighbours came at the same time, often from the same place: scatter them.
        conns.sort_by_cached_key(|conn| {
            let mut hasher = DefaultHasher::new();
            conn.hash(&mut hasher);
            hasher.finish()
        });
        Draining { total: conns.len() as u64, left: conns.into(), began, spread_ms }
    }

    /// When the next one is closed.
    pub(super) fn next_at(&self) -> Option<Millis> {
        let closed = self.total - self.left.len() as u64;
        let is_left = !self.left.is_empty();
        is_left.then(|| self.began + self.spread_ms * closed / self.total)
    }

    pub(super) fn due(&mut self, now: Millis) -> Option<(usize, u32)> {
        self.next_at().filter(|at| *at <= now)?;
        self.left.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_time_within_the_spread() {
        let mut draining = Draining::new((0..100).map(|slot| (slot, 0)).collect(), 1000, 500);
        let mut order = Vec::new();
        for now in 1000..1500 {
            let before = order.len();
            order.extend(std::iter::from_fn(|| draining.due(now)).map(|(slot, _)| slot));
            assert!(order.len() - before <= 1, "two at {now}");
        }
        assert_eq!((order.len(), draining.next_at()), (100, None));
        assert!(!order.is_sorted());
        order.sort();
        assert!(order.into_iter().eq(0..100));
    }

    #[test]
    fn without_a_spread_all_go_at_once() {
        let mut draining = Draining::new(vec![(0, 0), (1, 0)], 1000, 0);
        assert_eq!(std::iter::from_fn(|| draining.due(1000)).count(), 2);
    }
}
