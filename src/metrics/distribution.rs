//! Distributions of durations, and their quantiles.

use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;

/// The longest time that a histogram distinguishes: an hour, in microseconds.
const TIMED_US_MAX: u64 = 3_600_000_000;

/// A distribution of durations.
#[derive(Debug)]
pub(crate) struct Timing(Mutex<Histogram<u64>>);

impl Default for Timing {
    fn default() -> Timing {
        let histogram = Histogram::new_with_bounds(1, TIMED_US_MAX, 2);
        Timing(Mutex::new(histogram.expect("the bounds are constants and legal")))
    }
}

impl Timing {
    pub(crate) fn record(&self, took: Duration) {
        self.0.lock().saturating_record(took.as_micros() as u64);
    }

    /// Returns a copy of it, in microseconds.
    pub(super) fn histogram(&self) -> Histogram<u64> {
        self.0.lock().clone()
    }

    /// Makes an empty sum that [`add_to`](Timing::add_to) adds to.
    pub(super) fn empty_sum() -> Histogram<u64> {
        Histogram::new_from(&*Timing::default().0.lock())
    }

    pub(super) fn add_to(&self, sum: &mut Histogram<u64>) {
        // Both have equal bounds, so adding cannot fail.
        let _ = sum.add(&*self.0.lock());
    }

    pub(super) fn quantiles_ms(&self) -> Quantiles {
        Quantiles::of(&self.0.lock(), 1000.0)
    }
}

/// Distributions of times, in microseconds.
pub(crate) struct Times {
    /// Durations of the turns of each worker.
    pub(crate) turns: Vec<Histogram<u64>>,
    /// From the publish of a message of many to the end of its deliveries on a worker.
    pub(crate) fanout_lag: Histogram<u64>,
    /// Waits in line.
    pub(crate) queue_wait: Histogram<u64>,
}

/// Quantiles of a distribution, to two significant digits.
#[derive(Debug, Clone, Copy, Serialize)]
#[non_exhaustive]
pub struct Quantiles {
    /// Number of measured values.
    pub count: u64,
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Maximum.
    pub max: f64,
}

impl Quantiles {
    pub(super) fn of(histogram: &Histogram<u64>, divisor: f64) -> Quantiles {
        Quantiles {
            count: histogram.len(),
            p50: histogram.value_at_quantile(0.5) as f64 / divisor,
            p99: histogram.value_at_quantile(0.99) as f64 / divisor,
            max: histogram.max() as f64 / divisor,
        }
    }
}
