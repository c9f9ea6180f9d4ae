//! How a pool has ended.

use parking_lot::{Condvar, Mutex};

use crate::error::Error;

use super::stats::PoolStats;

/// Set once, when a pool has ended, for all who wait for that.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    state: Mutex<State>,
    over: Condvar,
}

#[derive(Debug, Default)]
struct State {
    end: Option<Result<(), Error>>,
    /// What was counted to the end.
    stats: PoolStats,
}

impl Outcome {
    pub(super) fn set(&self, end: Result<(), Error>, stats: PoolStats) {
        let mut state = self.state.lock();
        if state.end.is_none() {
            (state.end, state.stats) = (Some(end), stats);
        }
        drop(state);
        self.over.notify_all();
    }

    pub(super) fn wait(&self) -> Result<(), Error> {
        let mut state = self.state.lock();
        loop {
            if let Some(end) = &state.end {
                return end.clone();
            }
            self.over.wait(&mut state);
        }
    }

    pub(super) fn stats(&self) -> PoolStats {
        self.state.lock().stats.clone()
    }
}
