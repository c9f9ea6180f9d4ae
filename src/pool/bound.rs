//! A count with a bound, held by tokens that give themselves back.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// How many of something there may be at once. Usable from any thread.
#[derive(Debug)]
pub(crate) struct Bound {
    used: AtomicUsize,
    max: AtomicUsize,
}

/// One of a [`Bound`]; gives itself back when dropped.
#[derive(Debug)]
pub(crate) struct BoundToken(Arc<Bound>);

impl Bound {
    pub(crate) fn new(max: usize) -> Arc<Bound> {
        Arc::new(Bound { used: AtomicUsize::new(0), max: AtomicUsize::new(max) })
    }

    /// Changes the bound. What is taken beyond it stays taken.
    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    pub(crate) fn take(self: &Arc<Bound>) -> Option<BoundToken> {
        if self.used.fetch_add(1, Ordering::Relaxed) >= self.max.load(Ordering::Relaxed) {
            self.used.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(BoundToken(Arc::clone(self)))
    }

    /// Whether three quarters are taken.
    pub(crate) fn is_scarce(&self) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        self.used() >= max - max / 4
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Drop for BoundToken {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        let bound = Bound::new(1);
        let token = bound.take();
        assert!(token.is_some() && bound.take().is_none());
        drop(token);
        assert_eq!(bound.used(), 0);
        let tokens = [bound.take(), {
            bound.set_max(2);
            bound.take()
        }];
        assert!(tokens.iter().all(Option::is_some) && bound.take().is_none());
        bound.set_max(1);
        drop(tokens);
        assert_eq!(bound.used(), 0);
        assert!(bound.take().is_some());
    }
}
