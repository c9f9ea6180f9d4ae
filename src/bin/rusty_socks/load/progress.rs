//! What is shown while the load runs, always on standard error: a bar on a terminal, else a plain
//! line a second.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::tally::Tally;

/// How often the bar is redrawn.
const BAR_EVERY: Duration = Duration::from_millis(100);

/// How often a line is printed.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Shows the tally as it grows.
pub(super) struct Progress {
    began: Instant,
    shown: Instant,
    /// `None` when standard error is no terminal.
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(super) fn new(connections: u64) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:24} {msg}");
            ProgressBar::new(connections)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        let now = Instant::now();
        Progress { began: now, shown: now, bar }
    }

    /// When the next showing is due.
    pub(super) fn due(&self) -> Instant {
        self.shown + if self.bar.is_some() { BAR_EVERY } else { LINE_EVERY }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.due()
    }

    /// Shows where things stand. `doing` says what the run is at.
    pub(super) fn show(&mut self, now: Instant, doing: &str, tally: &Tally) {
        self.shown = now;
        let figures = figures(tally);
        match &self.bar {
            Some(bar) => {
                bar.set_position(tally.settled());
                bar.set_message(format!("{doing}: {figures}"));
            }
            None => eprintln!(
                "{:5.1} s  {doing}: {figures}",
                now.duration_since(self.began).as_secs_f64()
            ),
        }
    }

    /// Leaves a line standing.
    pub(super) fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
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

/// The counts, in one line.
fn figures(tally: &Tally) -> String {
    let mut line = format!(
        "{} open, {} served at once, {} after waiting, {} rejected, {} failed",
        tally.open,
        tally.at_once().count(),
        tally.after_waiting().count(),
        tally.rejected_total(),
        tally.failed_total()
    );
    for (count, what) in [
        (tally.after_retry.count(), "served after a retry"),
        (tally.closed_by_server_total(), "closed by the server"),
    ] {
        if count > 0 {
            line += &format!(", {count} {what}");
        }
    }
    line
}
