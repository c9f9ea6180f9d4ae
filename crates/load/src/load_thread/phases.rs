//! How a thread follows the phases of the run, and what it tells of itself.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{COUNTS_EVERY, LoadThread};
use crate::{
    connection::Stage,
    run_state::{Phase, ThreadEvent},
    ticker::Ticker,
};

impl LoadThread {
    /// Does what a new phase asks for.
    pub(crate) fn follow_phase(&mut self, now: Instant) {
        let before = self.phase;
        self.phase = self.state.phase();
        if self.phase == before {
            return;
        }
        match self.phase {
            Phase::Opening => {}
            Phase::Running { from, until } => {
                self.log.window = Some((from, until));
                self.begin_work(from - self.plan.warmup);
                if !self.plan.has_traffic() {
                    self.log.busy.stop(now);
                }
            }
            Phase::Draining { ended } => self.end_window(ended),
            Phase::Closing { .. } => {
                self.end_window(now);
                self.work.settle(&mut self.log);
                if before == Phase::Opening {
                    self.give_up_opening();
                }
                self.close_all();
            }
        }
    }

    /// The run may have been ended before its time.
    fn end_window(&mut self, ended: Instant) {
        if let Some((from, until)) = self.log.window {
            self.log.window = Some((from, until.min(ended.max(from))));
        }
        self.log.busy.stop(ended);
    }

    /// Lets the work begin, with a timetable from `at` on.
    pub(crate) fn begin_work(&mut self, at: Instant) {
        self.work.begin(at, &mut self.connections, &mut self.log);
        if self.ticker.is_none() {
            let start = |pacer| Ticker::start(pacer, Arc::clone(&self.waker));
            self.ticker = self.work.pacer().cloned().map(start);
        }
        self.note_endings();
    }

    /// Watches how busy the thread is while there is something to measure.
    pub(crate) fn watch_the_clock(&mut self, now: Instant) {
        if let Some((from, until)) = self.log.window
            && self.plan.has_traffic()
        {
            if now >= until {
                self.log.busy.stop(now);
            } else if now >= from {
                self.log.busy.start(now);
            }
        }
    }

    /// Tells the coordinator what is new.
    pub(crate) fn tell(&mut self, now: Instant) {
        let all = self.connections.len() as u64;
        if !self.reported.settled && self.log.tally.settled() == all {
            self.reported.settled = true;
            self.send_event(ThreadEvent::Settled, now);
        }
        if self.reported.settled && !self.reported.ready && self.work.is_ready() {
            self.reported.ready = true;
            self.send_event(ThreadEvent::Ready, now);
        }
        if self.reported.settled && !self.reported.empty && self.log.tally.open == 0 {
            self.reported.empty = true;
            self.send_event(ThreadEvent::Empty, now);
        }
        let works = matches!(self.phase, Phase::Running { .. } | Phase::Draining { .. });
        if works && !self.reported.quiet && self.work.is_quiet(now, &self.log) {
            self.reported.quiet = true;
            self.send_event(ThreadEvent::Quiet, now);
        }
        if now >= self.counts_due || matches!(self.phase, Phase::Draining { .. }) {
            self.tell_counts(now);
        }
    }

    fn send_event(&mut self, event: ThreadEvent, now: Instant) {
        // The counts shall be those of the moment the event is about.
        self.tell_counts(now);
        // The coordinator outlives its threads.
        let _ = self.events.send(event);
    }

    fn tell_counts(&mut self, now: Instant) {
        self.counts_due = now + COUNTS_EVERY;
        let counts = self.log.counts();
        self.state.tell(self.share.thread, counts, &mut self.log.recent);
    }

    /// Interrupted before all had their answer: those without one are given up, the others closed
    /// as usual.
    fn give_up_opening(&mut self) {
        for index in 0..self.connections.len() {
            if matches!(self.connections[index].stage, Stage::NotDialed | Stage::Asking(_)) {
                self.leave(index, Stage::Gone);
                self.log.tally.interrupted += 1;
            }
        }
    }

    fn close_all(&mut self) {
        self.log.tally.held_to_the_end = self.log.tally.open;
        for index in 0..self.connections.len() {
            if let Stage::Open(socket) = &mut self.connections[index].stage {
                socket.close();
                self.note_ending(index);
            }
        }
    }

    /// Whether every Close is answered, or the time for that is up.
    pub(crate) fn is_over(&mut self, now: Instant) -> bool {
        let Phase::Closing { until } = self.phase else { return false };
        now >= until
            || !self.connections.iter().any(|connection| matches!(connection.stage, Stage::Open(_)))
    }

    /// How long the poll may sleep: until something is due.
    pub(crate) fn time_to_sleep(&self, now: Instant) -> Duration {
        let (from, until) = match self.phase {
            Phase::Opening | Phase::Draining { .. } => (None, None),
            Phase::Running { from, until } => (Some(from), Some(until)),
            Phase::Closing { until } => (None, Some(until)),
        };
        let may_connect = self.connecting < self.connecting_max;
        let opening = self.next_opening().filter(|_| may_connect && self.phase == Phase::Opening);
        let timer = self.timers.next_at().filter(|_| !matches!(self.phase, Phase::Closing { .. }));
        let ends = [from, until].into_iter().flatten().filter(|end| *end > now);
        let soonest = ends.chain(opening).chain(timer).fold(self.counts_due, Instant::min);
        soonest.saturating_duration_since(now)
    }
}
