//! How a run stands while it lasts: one line of counts, told at even intervals.

use std::time::{Duration, Instant};

use super::{
    plan::Plan,
    run_state::{RunState, ThreadCounts},
    words::span,
};

/// Something to show while a run lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The counts so far.
    Counts {
        /// The time since the run began.
        elapsed: Duration,
        /// How many connections have their answer.
        settled: u64,
        /// What the run is doing and the counts, in words.
        line: String,
    },
    /// A line to be kept.
    Note(String),
}

/// The counts at even intervals, and what grew in between.
pub(crate) struct LiveLine {
    every: Duration,
    began: Instant,
    shown: Instant,
    /// Whether messages are the matter.
    traffic: bool,
    /// What had been sent and received at the last showing.
    before: (u64, u64),
}

impl LiveLine {
    pub(crate) fn new(plan: &Plan, every: Duration) -> LiveLine {
        let now = Instant::now();
        LiveLine { every, began: now, shown: now, traffic: plan.has_traffic(), before: (0, 0) }
    }

    /// When the next showing is due.
    pub(crate) fn due(&self) -> Instant {
        self.shown + self.every
    }

    /// Where things stand. `doing` says what the run is at.
    pub(crate) fn show(&mut self, now: Instant, doing: &str, state: &RunState) -> Progress {
        let since = now.duration_since(self.shown).as_secs_f64();
        self.shown = now;
        let counts = state.counts();
        let mut figures = connections(&counts, state.open());
        if self.traffic && since > 0.0 {
            figures = format!("{}; {figures}", self.messages(&counts, state, since));
        }
        self.before = (counts.sent, counts.received);
        Progress::Counts {
            elapsed: now.duration_since(self.began),
            settled: counts.settled,
            line: format!("{doing}: {figures}"),
        }
    }

    /// Messages per second since the last showing, and how long they took.
    fn messages(&self, counts: &ThreadCounts, state: &RunState, since: f64) -> String {
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / since;
        let mut line = format!(
            "{:.0}/s out, {:.0}/s in",
            rate(counts.sent, self.before.0),
            rate(counts.received, self.before.1)
        );
        let recent = state.take_recent();
        if recent.count() > 0 {
            let quantile = |share| span(recent.quantile(share));
            line += &format!(", p50 {}, p99 {}", quantile(0.5), quantile(0.99));
        }
        line
    }
}

/// What became of the connections, in one line.
fn connections(counts: &ThreadCounts, open: u64) -> String {
    let mut line = format!(
        "{open} open, {} served at once, {} after waiting, {} refused, {} failed",
        counts.at_once, counts.after_waiting, counts.refused, counts.failed
    );
    for (count, what) in
        [(counts.after_retry, "served after a retry"), (counts.closed, "closed by the server")]
    {
        if count > 0 {
            line += &format!(", {count} {what}");
        }
    }
    line
}
