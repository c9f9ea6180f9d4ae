//! How another thread reaches the run, which otherwise hears of nothing but its sockets.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use mio::Waker;

/// Ends a run early, or only wakes it up. Any thread may hold one.
#[derive(Clone)]
pub(super) struct Stopper {
    stopped: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl Stopper {
    pub(super) fn new(waker: Waker) -> Stopper {
        Stopper { stopped: Arc::new(AtomicBool::new(false)), waker: Arc::new(waker) }
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Makes the run look around for what is new.
    pub(super) fn wake(&self) {
        // A waker fails only when the poll is gone, and then nobody is left to be woken.
        let _ = self.waker.wake();
    }
}
