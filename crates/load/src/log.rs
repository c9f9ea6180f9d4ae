//! What one thread writes down: the tally of its connections, its traffic, and when it all
//! happened.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    busy::{Busy, ThreadLoad},
    failure::Failure,
    pacer::Pacer,
    run_state::{RunState, ThreadCounts},
    series::{Outcome, Series},
    tally::Tally,
    times::Times,
    websocket::Ending,
};

/// Belongs to one thread; those of all threads are added up at the end.
pub(crate) struct Log {
    pub(crate) tally: Tally,
    pub(crate) traffic: Traffic,
    pub(crate) series: Series,
    pub(crate) busy: Busy,
    state: Arc<RunState>,
    /// What is begun in this time is measured; `None` until that is known.
    pub(crate) window: Option<(Instant, Instant)>,
    /// Measured since the live line was last told.
    pub(crate) recent: Times,
    /// Connections whose end was met with while sending.
    pub(crate) ended: Vec<usize>,
}

/// The messages of the measured time. What is begun in it counts, even if its answer comes later;
/// what was begun before does not.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// From when a message was meant to leave to its answer or delivery; for pings likewise.
    pub(crate) latency: Times,
    /// How long after their time messages were sent, in an open loop.
    pub(crate) lag: Times,
    /// Messages that were to be sent by the timetable, and those that were.
    pub(crate) due: u64,
    pub(crate) sent: u64,
    /// Round trips completed, or deliveries of what was sent.
    pub(crate) answered: u64,
    /// Answers or deliveries that came in within the measured time: the throughput.
    pub(crate) arrived: u64,
    pub(crate) arrived_bytes: u64,
    /// Answers that came before those of earlier messages.
    pub(crate) out_of_order: u64,
    /// Messages nobody waits for: an answer that is no echo, say; and the first of them.
    pub(crate) unexpected: u64,
    pub(crate) unexpected_example: Option<String>,
    /// Sends that had to wait because too much lay unsent or unanswered already.
    pub(crate) held_back: u64,
    /// Deliveries that were owed, and what was seen of the order in the rooms.
    pub(crate) expected: u64,
    pub(crate) to_publishers: u64,
    pub(crate) holes: u64,
    pub(crate) repeated: u64,
    /// What the server answered instead, by its code.
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) not_joined: u64,
}

impl Log {
    pub(crate) fn new(state: Arc<RunState>) -> Log {
        Log {
            tally: Tally::default(),
            traffic: Traffic::default(),
            series: Series::new(state.began),
            busy: Busy::default(),
            state,
            window: None,
            recent: Times::coarse(),
            ended: Vec::new(),
        }
    }

    // Connections.

    pub(crate) fn count_served(
        &mut self,
        took: Duration,
        retried: bool,
        marked: bool,
        after: Duration,
    ) {
        if retried {
            self.tally.count_served_after_retry(took);
        } else {
            self.tally.count_served(took, marked, after);
        }
        self.state.opened();
        self.series.at(Instant::now()).count(Outcome::Opened);
    }

    pub(crate) fn count_refused(&mut self, status: u16, advice: Option<Duration>) {
        self.series.at(Instant::now()).count(Outcome::Refused(status));
        self.tally.count_refused(status, advice);
    }

    pub(crate) fn count_failed(&mut self, failure: Failure) {
        self.series.at(Instant::now()).count(Outcome::Failed(failure.cause));
        self.tally.count_failed(failure);
    }

    pub(crate) fn count_closed_by_server(&mut self, ending: Ending) {
        self.state.ended();
        self.series.at(Instant::now()).count(Outcome::Closed(ending.clone()));
        self.tally.count_closed_by_server(ending);
    }

    pub(crate) fn count_closed_by_us(&mut self, ending: &Ending) {
        self.state.ended();
        self.tally.count_closed_by_us(ending);
    }

    // Messages.

    /// Whether what is meant for `at` is measured.
    pub(crate) fn measures(&self, at: Instant) -> bool {
        self.window.is_some_and(|(from, until)| (from..until).contains(&at))
    }

    /// Whether the measured time is over at `at`.
    pub(crate) fn is_past(&self, at: Instant) -> bool {
        self.window.is_some_and(|(_, until)| at >= until)
    }

    /// Counts what the timetable still has for the measured time, and nobody will send any more.
    pub(crate) fn count_due(&mut self, pacer: &Pacer) {
        let Some((_, until)) = self.window else { return };
        let mut rest = pacer.clone();
        while rest.next_at() < until {
            self.traffic.due += u64::from(self.measures(rest.next_at()));
            rest.advance();
        }
    }

    /// Counts a message that left at `now` and was meant to at `intended`.
    pub(crate) fn count_sent(&mut self, intended: Instant, now: Instant) {
        self.tally.messages_sent += 1;
        self.series.at(now).sent += 1;
        if self.measures(intended) {
            self.traffic.sent += 1;
        }
    }

    /// Counts a ping, which is no message.
    pub(crate) fn count_ping(&mut self, now: Instant) {
        self.traffic.sent += u64::from(self.measures(now));
    }

    /// Counts any message that came.
    pub(crate) fn count_received(&mut self, now: Instant) {
        self.tally.messages_received += 1;
        self.series.at(now).received += 1;
    }

    /// Counts the answer to, or the delivery of, a message meant for `intended`.
    pub(crate) fn count_answered(&mut self, intended: Instant, now: Instant, bytes: usize) {
        let took = now.saturating_duration_since(intended);
        self.note_latency(took, now);
        if self.measures(now) {
            self.traffic.arrived += 1;
            self.traffic.arrived_bytes += bytes as u64;
        }
        if self.measures(intended) {
            self.traffic.answered += 1;
            self.traffic.latency.record(took);
        }
    }

    /// Puts a time into what is shown over time, and into the live line.
    pub(crate) fn note_latency(&mut self, took: Duration, now: Instant) {
        self.series.at(now).record(took);
        self.recent.record(took);
    }

    pub(crate) fn count_unexpected(&mut self, what: &str) {
        self.traffic.unexpected += 1;
        if self.traffic.unexpected_example.is_none() {
            self.traffic.unexpected_example = Some(what.chars().take(80).collect());
        }
    }

    // Telling.

    pub(crate) fn counts(&self) -> ThreadCounts {
        let tally = &self.tally;
        ThreadCounts {
            settled: tally.settled(),
            at_once: tally.at_once_total(),
            after_waiting: tally.after_waiting_total(),
            after_retry: tally.after_retry.count(),
            refused: tally.refused_total(),
            failed: tally.failed_total(),
            closed: tally.closed_by_server_total(),
            sent: tally.messages_sent,
            received: tally.messages_received,
            expected: self.traffic.expected,
            answered: self.traffic.answered,
        }
    }

    /// Takes in what another thread wrote down; its load goes to `loads`.
    pub(crate) fn add(&mut self, other: Log, loads: &mut Vec<ThreadLoad>) {
        loads.extend(other.busy.load());
        self.tally.add(other.tally);
        self.traffic.add(other.traffic);
        self.series.add(other.series);
    }
}

impl Traffic {
    fn add(&mut self, other: Traffic) {
        self.latency.add(&other.latency);
        self.lag.add(&other.lag);
        for (ours, theirs) in [
            (&mut self.due, other.due),
            (&mut self.sent, other.sent),
            (&mut self.answered, other.answered),
            (&mut self.arrived, other.arrived),
            (&mut self.arrived_bytes, other.arrived_bytes),
            (&mut self.out_of_order, other.out_of_order),
            (&mut self.unexpected, other.unexpected),
            (&mut self.held_back, other.held_back),
            (&mut self.expected, other.expected),
            (&mut self.to_publishers, other.to_publishers),
            (&mut self.holes, other.holes),
            (&mut self.repeated, other.repeated),
            (&mut self.not_joined, other.not_joined),
        ] {
            *ours += theirs;
        }
        for (code, count) in other.errors {
            *self.errors.entry(code).or_default() += count;
        }
        if self.unexpected_example.is_none() {
            self.unexpected_example = other.unexpected_example;
        }
    }

    /// Messages of the measured time without an answer.
    pub(crate) fn unanswered(&self) -> u64 {
        self.sent.saturating_sub(self.answered)
    }

    /// Messages that were due and never left.
    pub(crate) fn unsent(&self) -> u64 {
        self.due.saturating_sub(self.sent)
    }

    /// Deliveries that were owed and never came.
    pub(crate) fn undelivered(&self) -> u64 {
        self.expected.saturating_sub(self.answered)
    }
}
