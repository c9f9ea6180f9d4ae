//! Wakes a thread at the times of its pacer, more finely than `poll` can.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mio::Waker;

use super::pacer::Pacer;

/// Ticks come no faster than this; at higher rates a tick stands for several messages.
const TICK_MIN: Duration = Duration::from_micros(100);

/// A thread that ticks until it is dropped. `epoll` counts in whole milliseconds, and a client that
/// is a millisecond late on a loopback would measure itself rather than the server.
pub(crate) struct Ticker {
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Begins to wake `waker` at the times of `pacer`.
    pub(crate) fn start(mut pacer: Pacer, waker: Arc<Waker>) -> Ticker {
        let stopped = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stopped);
        let thread = thread::spawn(move || {
            while !asked.load(Ordering::Acquire) {
                let now = Instant::now();
                while pacer.next_at() <= now + TICK_MIN {
                    pacer.advance();
                }
                let wait = pacer.next_at().saturating_duration_since(now);
                thread::park_timeout(wait);
                // A waker fails only when its poll is gone, and then this thread is stopped too.
                let _ = waker.wake();
            }
        });
        Ticker { stopped, thread: Some(thread) }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It cannot panic: it only waits and wakes.
            let _ = thread.join();
        }
    }
}
