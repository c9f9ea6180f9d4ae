//! What the threads of a run share: where the run is, and how each of them stands.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, AtomicU64, Ordering},
};
use std::time::Instant;

use super::{
    plan::{Mode, Plan},
    stats::ServerFigures,
    times::Times,
};

/// The run as all its threads see it. The coordinator sets the phase, the threads tell their
/// counts.
pub(crate) struct RunState {
    /// When the run began; all times within messages count from here.
    pub(crate) began: Instant,
    phase: Mutex<Phase>,
    counts: Vec<Mutex<ThreadCounts>>,
    /// Round trips and the like since the last look at them, of all threads.
    recent: Mutex<Times>,
    open: AtomicU64,
    open_max: AtomicU64,
    /// Subscribers in each room: what a message published there owes.
    audience: Box<[AtomicU32]>,
}

/// Where the run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Some have no answer yet, or are not ready.
    Opening,
    /// All are; what is begun from `from` to `until` is measured.
    Running { from: Instant, until: Instant },
    /// Nothing new is begun, and nothing after `ended` is measured; what is on its way may come in.
    Draining { ended: Instant },
    /// The connections are being closed.
    Closing { until: Instant },
}

/// Declares [`ThreadCounts`] with the sum of two.
macro_rules! thread_counts {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// How one thread stands, told a few times a second.
        #[derive(Debug, Clone, Copy, Default)]
        pub(crate) struct ThreadCounts {
            $($(#[$doc])* pub(crate) $name: u64),*
        }

        impl ThreadCounts {
            fn add(&mut self, other: &ThreadCounts) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

thread_counts! {
    settled,
    at_once,
    after_waiting,
    after_retry,
    refused,
    failed,
    closed,
    sent,
    received,
    /// Deliveries owed by what this thread published; a thread alone may see more than it owes.
    expected,
    answered,
}

/// What a thread says to the coordinator. Each of the first five is said once at most.
#[derive(Debug)]
pub(crate) enum ThreadEvent {
    /// All connections of this thread have their answer.
    Settled,
    /// All of them are where their work begins: in their rooms, say.
    Ready,
    /// None of them is open any more, and none will be.
    Empty,
    /// Everything that was to be sent has been, and nothing is awaited.
    Quiet,
    /// This thread's thread has ended.
    Over,
    /// The user wants an end.
    Stop,
    /// What the server says of itself, if anything.
    Figures(AskedAt, Instant, Option<ServerFigures>),
}

/// What the server was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AskedAt {
    /// One of many, to see how things go.
    Sample,
    /// The moment when all connections had their answer.
    Settled,
    /// The end of the run.
    After,
}

impl RunState {
    pub(crate) fn new(plan: &Plan) -> Arc<RunState> {
        let rooms = match &plan.mode {
            Mode::Fanout(fanout) => fanout.rooms as usize,
            Mode::Storm { .. } | Mode::Echo(_) | Mode::Idle { .. } => 0,
        };
        Arc::new(RunState {
            began: Instant::now(),
            phase: Mutex::new(Phase::Opening),
            counts: (0..plan.threads).map(|_| Mutex::default()).collect(),
            recent: Mutex::new(Times::coarse()),
            open: AtomicU64::new(0),
            open_max: AtomicU64::new(0),
            audience: (0..rooms).map(|_| AtomicU32::new(0)).collect(),
        })
    }

    pub(crate) fn phase(&self) -> Phase {
        *lock(&self.phase)
    }

    /// Sets the phase; the caller wakes the threads afterwards.
    pub(crate) fn set_phase(&self, phase: Phase) {
        *lock(&self.phase) = phase;
    }

    pub(crate) fn opened(&self) {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.open_max.fetch_max(open, Ordering::Relaxed);
    }

    pub(crate) fn ended(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    pub(crate) fn open_max(&self) -> u64 {
        self.open_max.load(Ordering::Relaxed)
    }

    /// How many subscribers a room has.
    pub(crate) fn audience(&self, room: usize) -> &AtomicU32 {
        &self.audience[room]
    }

    /// Tells how the thread stands, and hands over what it measured since it last did.
    pub(crate) fn tell(&self, thread: usize, counts: ThreadCounts, recent: &mut Times) {
        *lock(&self.counts[thread]) = counts;
        lock(&self.recent).add(recent);
        recent.reset();
    }

    /// All threads together.
    pub(crate) fn counts(&self) -> ThreadCounts {
        let mut sum = ThreadCounts::default();
        for counts in &self.counts {
            sum.add(&lock(counts));
        }
        sum
    }

    /// What was measured since the last call, by all threads.
    pub(crate) fn take_recent(&self) -> Times {
        std::mem::replace(&mut *lock(&self.recent), Times::coarse())
    }
}

/// Nothing that is held under these locks can be left half done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_most_that_were_open_at_once_is_known_over_all_threads() {
        let state = RunState::new(&Plan::typed("-c 2 --threads 2"));
        state.opened();
        state.opened();
        state.ended();
        state.opened();
        assert_eq!((state.open(), state.open_max()), (2, 2));
    }

    #[test]
    fn what_was_measured_is_taken_once() {
        let state = RunState::new(&Plan::typed("-c 1"));
        let mut recent = Times::coarse();
        recent.record(Duration::from_micros(7));
        state.tell(0, ThreadCounts { sent: 3, ..ThreadCounts::default() }, &mut recent);
        assert_eq!((recent.count(), state.counts().sent), (0, 3));
        assert_eq!(state.take_recent().count(), 1);
        assert_eq!(state.take_recent().count(), 0);
    }
}
