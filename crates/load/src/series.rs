//! What happened when: the run cut into intervals of one width.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{failure::Cause, times::Times, websocket::Ending};

/// The width a run begins with.
const WIDTH: Duration = Duration::from_millis(250);

/// More intervals than this are merged in pairs: a plot has no more room, and a day no more memory.
const INTERVALS_MAX: usize = 256;

/// The intervals from the beginning of the run.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    began: Instant,
    width: Duration,
    intervals: Vec<Interval>,
}

/// What was counted in one interval.
#[derive(Debug, Default, Clone)]
pub(crate) struct Interval {
    /// Messages the client sent and received.
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// What became of connections.
    pub(crate) outcomes: BTreeMap<Outcome, u64>,
    /// What the run measures: connect times, round trips, deliveries.
    latency: Option<Times>,
}

/// What can become of a connection, at one moment of its life.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    Opened,
    Refused(u16),
    Failed(Cause),
    /// Ended by the server.
    Closed(Ending),
}

impl Series {
    pub(crate) fn new(began: Instant) -> Series {
        Series { began, width: WIDTH, intervals: Vec::new() }
    }

    /// The interval in which `at` lies.
    pub(crate) fn at(&mut self, at: Instant) -> &mut Interval {
        let since = at.saturating_duration_since(self.began);
        let index = loop {
            let index = (since.as_nanos() / self.width.as_nanos()) as usize;
            if index < INTERVALS_MAX {
                break index;
            }
            self.widen();
        };
        if self.intervals.len() <= index {
            self.intervals.resize_with(index + 1, Interval::default);
        }
        &mut self.intervals[index]
    }

    pub(crate) fn width(&self) -> Duration {
        self.width
    }

    pub(crate) fn intervals(&self) -> &[Interval] {
        &self.intervals
    }

    /// Takes in the intervals of another thread of the same run.
    pub(crate) fn add(&mut self, mut other: Series) {
        while self.width < other.width {
            self.widen();
        }
        while other.width < self.width {
            other.widen();
        }
        let wanted = self.intervals.len().max(other.intervals.len());
        self.intervals.resize_with(wanted, Interval::default);
        for (ours, theirs) in self.intervals.iter_mut().zip(other.intervals) {
            ours.add(theirs);
        }
    }

    /// Doubles the width: each pair becomes one.
    fn widen(&mut self) {
        self.width *= 2;
        let mut old = std::mem::take(&mut self.intervals).into_iter();
        while let Some(mut first) = old.next() {
            if let Some(second) = old.next() {
                first.add(second);
            }
            self.intervals.push(first);
        }
    }
}

impl Interval {
    pub(crate) fn count(&mut self, outcome: Outcome) {
        *self.outcomes.entry(outcome).or_default() += 1;
    }

    pub(crate) fn record(&mut self, took: Duration) {
        self.latency.get_or_insert_with(Times::coarse).record(took);
    }

    /// The time below which this share lies, where anything was measured.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        self.latency.as_ref().map(|latency| latency.quantile(share))
    }

    fn add(&mut self, other: Interval) {
        self.sent += other.sent;
        self.received += other.received;
        for (outcome, count) in other.outcomes {
            *self.outcomes.entry(outcome).or_default() += count;
        }
        match (&mut self.latency, other.latency) {
            (_, None) => {}
            (ours @ None, theirs @ Some(_)) => *ours = theirs,
            (Some(ours), Some(theirs)) => ours.add(&theirs),
        }
    }
}

impl Outcome {
    /// How a legend calls it.
    pub(crate) fn label(&self) -> String {
        match self {
            Outcome::Opened => "opened".to_owned(),
            Outcome::Refused(status) => format!("refused with {status}"),
            Outcome::Failed(cause) => cause.meaning().to_owned(),
            Outcome::Closed(Ending::BrokeProtocol(_)) => "closed: broke the protocol".to_owned(),
            Outcome::Closed(ending) => format!("closed: {}", ending.meaning()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(series: &Series) -> u64 {
        series.intervals().iter().map(|interval| interval.sent).sum()
    }

    #[test]
    fn a_long_run_has_wider_intervals_and_loses_nothing() {
        let began = Instant::now();
        let mut series = Series::new(began);
        for second in 0..3600 {
            let interval = series.at(began + Duration::from_secs(second));
            interval.sent += 1;
            interval.record(Duration::from_millis(second));
        }
        assert!(series.intervals().len() <= INTERVALS_MAX);
        assert_eq!(series.width(), Duration::from_secs(16));
        assert_eq!(sent(&series), 3600);
        let first = series.intervals()[0].quantile(1.0).unwrap();
        assert!((Duration::from_millis(15)..Duration::from_millis(17)).contains(&first));
    }

    #[test]
    fn threads_with_other_widths_are_added_interval_by_interval() {
        let began = Instant::now();
        let (mut long, mut short) = (Series::new(began), Series::new(began));
        long.at(began + Duration::from_secs(100)).sent += 1;
        for outcome in [Outcome::Opened, Outcome::Opened, Outcome::Refused(503)] {
            short.at(began + Duration::from_millis(300)).count(outcome);
        }
        short.at(began + Duration::from_secs(1)).sent += 2;
        let mut both = short.clone();
        both.add(long.clone());
        assert_eq!((both.width(), sent(&both)), (long.width(), 3));
        assert_eq!(both.intervals()[0].outcomes[&Outcome::Opened], 2);
        long.add(short);
        assert_eq!(long.intervals().len(), both.intervals().len());
    }
}
