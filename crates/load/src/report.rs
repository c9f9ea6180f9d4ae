//! Everything a run has shown: the figures that all forms of telling are made of.

use std::time::Duration;
#[cfg(test)]
use std::time::Instant;

use chrono::{DateTime, Utc};

use super::{
    busy::ThreadLoad,
    log::Traffic,
    plan::{Mode, Plan},
    series::Series,
    stats::ServerFigures,
    tally::Tally,
    times::Times,
};

/// The figures of a whole run, all threads together.
#[derive(Debug)]
pub struct Report {
    pub(crate) tally: Tally,
    pub(crate) traffic: Traffic,
    pub(crate) series: Series,
    /// What each thread did with its time.
    pub(crate) loads: Vec<ThreadLoad>,
    /// The server's own figures: before the first connection, while it lasted (by the time since
    /// the run began), and after the last message.
    pub(crate) server_before: Option<ServerFigures>,
    pub(crate) server_samples: Vec<(Duration, ServerFigures)>,
    pub(crate) server_after: Option<ServerFigures>,
    /// The measured time, as a part of the run.
    pub(crate) measured_from: Duration,
    pub(crate) measured: Duration,
    pub(crate) began: DateTime<Utc>,
    /// The user ended it before its time.
    pub(crate) stopped: bool,
}

impl Report {
    /// What the run measures: connecting, round trips, deliveries, or answers to pings.
    pub(crate) fn measured_times(&self, plan: &Plan) -> Times {
        match plan.mode {
            Mode::Storm { .. } | Mode::Idle { ping: None } => self.tally.connects(),
            Mode::Idle { .. } | Mode::Echo(_) | Mode::Fanout(_) => self.traffic.latency.clone(),
        }
    }

    /// Round trips or deliveries a second.
    pub(crate) fn rate(&self) -> f64 {
        self.traffic.arrived as f64 / self.measured.as_secs_f64().max(1e-9)
    }

    /// Messages, deliveries or pings that were owed and never came.
    pub(crate) fn lost(&self, plan: &Plan) -> u64 {
        let traffic = &self.traffic;
        match plan.mode {
            Mode::Storm { .. } | Mode::Idle { ping: None } => 0,
            Mode::Idle { .. } => traffic.unanswered(),
            Mode::Echo(_) => traffic.unanswered() + traffic.unsent(),
            Mode::Fanout(_) => traffic.undelivered() + traffic.unsent(),
        }
    }
}

#[cfg(test)]
impl Report {
    /// A run in which nothing happened, for the tests beside the code.
    pub(crate) fn none() -> Report {
        Report {
            tally: Tally::default(),
            traffic: Traffic::default(),
            series: Series::new(Instant::now()),
            loads: Vec::new(),
            server_before: None,
            server_samples: Vec::new(),
            server_after: None,
            measured_from: Duration::ZERO,
            measured: Duration::ZERO,
            began: DateTime::UNIX_EPOCH,
            stopped: false,
        }
    }
}
