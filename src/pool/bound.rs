//! A count with a bound, held by tokens that give themselves back.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// How many of something there may be at once. Usable from any thread.
#[derive(Debug)]
pub(crate) struct Bound {
    used: AtomicUsize,
    max: usize,
}

/// One of a [`Bound`]; gives itself back when dropped.
#[derive(Debug)]
pub(crate) struct BoundToken(Arc<Bound>);

impl Bound {
    pub(crate) fn new(max: usize) -> Arc<Bound> {
        Arc::new(Bound { used: AtomicUsize::new(0), max })
    }

    pub(crate) fn take(self: &Arc<Bound>) -> Option<BoundToken> {
        if self.used.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.used.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(BoundToken(Arc::clone(self)))
    }

    /// Whether three quarters are taken.
    pub(crate) fn is_scarce(&self) -> bool {
        self.used() >= self.max - self.max / 4
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
        assert!(bound.take().is_some());
    }
}
