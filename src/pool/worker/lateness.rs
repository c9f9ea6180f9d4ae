//! What a worker does about time in which it was late: its clock stands still then, and what it was
//! doing is told.

use std::time::Duration;

use super::{REPORT_INTERVAL_MS, Worker};
use crate::pool::{
    describe::describe,
    progress::{LATE_TURN_MS, Step},
    timers::Millis,
};

/// A worker that runs so much later than it meant to was stopped or starved.
const PAUSE_MIN_MS: Millis = LATE_TURN_MS;

impl Worker {
    /// Notes which part of the turn follows.
    pub(super) fn begin_step(&mut self, step: Step) -> &mut Worker {
        self.cx.progress.begin_step(step);
        self
    }

    /// Sets the clock back to `latest` if the poll returned much later than that. A client must not
    /// be closed for a time in which the server was stopped and neither read nor pinged.
    pub(super) fn forget_pause(&mut self, latest: Millis) {
        let pause = self.cx.now.saturating_sub(latest);
        if pause >= PAUSE_MIN_MS {
            self.cx.now -= pause - PAUSE_MIN_MS;
            self.forget(pause, "it was stopped or starved");
        }
    }

    /// Sets the clock back by a turn that took long.
    pub(super) fn forget_turn(&mut self, took: Duration) {
        let took = took.as_millis() as Millis;
        if took >= LATE_TURN_MS {
            self.cx.metrics().late_turns.add(1);
            let shared = &self.cx.shared;
            let seen = self.cx.progress.end_late(shared.uptime_ms());
            let seen = seen.map(|doing| format!(", {}", describe(doing, shared)));
            self.forget(took, &format!("a turn took that long{}", seen.unwrap_or_default()));
        }
    }

    /// The clock goes on by [`PAUSE_MIN_MS`] all the same, so that a worker whose turns are always
    /// slow still closes silent clients, late.
    fn forget(&mut self, pause: Millis, why: &str) {
        self.paused_ms += pause - PAUSE_MIN_MS;
        self.cx.metrics().stalls.add(1);
        if self.cx.now >= self.next_stall_report {
            log::warn!("worker {} is late by {pause} ms: {why}", self.cx.worker);
            self.next_stall_report = self.cx.now + REPORT_INTERVAL_MS;
        }
    }
}
