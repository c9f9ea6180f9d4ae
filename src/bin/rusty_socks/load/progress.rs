//! What is shown while the load runs, always on standard error: a bar on a terminal, else a plain
//! line a second.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::{
    plan::Plan,
    run_state::{RunState, ThreadCounts},
    series::quantile_of,
    words::span,
};
use crate::exit::say;

/// How often the bar is redrawn.
const BAR_EVERY: Duration = Duration::from_millis(250);

/// How often a line is printed.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Shows the counts as they grow.
pub(super) struct Progress {
    began: Instant,
    shown: Instant,
    /// `None` when standard error is no terminal.
    bar: Option<ProgressBar>,
    /// Whether messages are the matter.
    traffic: bool,
    /// What had been sent and received at the last showing.
    before: (u64, u64),
}

impl Progress {
    pub(super) fn new(plan: &Plan) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:24} {msg}");
            ProgressBar::new(u64::from(plan.connections))
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        let now = Instant::now();
        Progress { began: now, shown: now, bar, traffic: plan.has_traffic(), before: (0, 0) }
    }

    /// When the next showing is due.
    pub(super) fn due(&self) -> Instant {
        self.shown + if self.bar.is_some() { BAR_EVERY } else { LINE_EVERY }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.due()
    }

    /// Shows where things stand. `doing` says what the run is at.
    pub(super) fn show(&mut self, now: Instant, doing: &str, state: &RunState) {
        let since = now.duration_since(self.shown).as_secs_f64();
        self.shown = now;
        let pulse = state.pulse();
        let mut figures = figures(&pulse, state.open());
        if self.traffic && since > 0.0 {
            figures = format!("{}; {figures}", self.traffic(&pulse, state, since));
        }
        self.before = (pulse.sent, pulse.received);
        match &self.bar {
            Some(bar) => {
                bar.set_position(pulse.settled);
                bar.set_message(format!("{doing}: {figures}"));
            }
            None => say(&format!(
                "{:5.1} s  {doing}: {figures}",
                now.duration_since(self.began).as_secs_f64()
            )),
        }
    }

    /// Messages per second since the last showing, and how long they took.
    fn traffic(&self, pulse: &ThreadCounts, state: &RunState, since: f64) -> String {
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / since;
        let mut line = format!(
            "{:.0}/s out, {:.0}/s in",
            rate(pulse.sent, self.before.0),
            rate(pulse.received, self.before.1)
        );
        let recent = state.take_recent();
        if !recent.is_empty() {
            let quantile = |share| span(quantile_of(&recent, share));
            line += &format!(", p50 {}, p99 {}", quantile(0.5), quantile(0.99));
        }
        line
    }

    /// Leaves a line membership.
    pub(super) fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(line)),
            None => say(line),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What became of the connections, in one line.
fn figures(pulse: &ThreadCounts, open: u64) -> String {
    let mut line = format!(
        "{open} open, {} served at once, {} after waiting, {} refused, {} failed",
        pulse.at_once, pulse.after_waiting, pulse.refused, pulse.failed
    );
    for (count, what) in
        [(pulse.after_retry, "served after a retry"), (pulse.closed, "closed by the server")]
    {
        if count > 0 {
            line += &format!(", {count} {what}");
        }
    }
    line
}
