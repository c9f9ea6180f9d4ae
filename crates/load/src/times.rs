//! Times measured, all of them, and what share of them was below what: the one wrapper of a
//! histogram.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Every time recorded, to so many significant digits; the longest exactly.
#[derive(Debug, Clone)]
pub struct Times {
    nanos: Histogram<u64>,
    max: Duration,
}

impl Times {
    /// No times yet, to three significant digits.
    pub fn new() -> Times {
        Times::with_digits(3)
    }

    /// No times yet, to two significant digits: for where there are many histograms, and as much as
    /// a plot shows.
    pub(crate) fn coarse() -> Times {
        Times::with_digits(2)
    }

    fn with_digits(digits: u8) -> Times {
        let nanos = Histogram::new(digits).expect("a histogram has up to five significant digits");
        Times { nanos, max: Duration::ZERO }
    }

    /// Records a time.
    pub fn record(&mut self, took: Duration) {
        self.record_n(took, 1);
    }

    /// Records a time that `count` things took.
    pub fn record_n(&mut self, took: Duration, count: u64) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.record_n(nanos, count).expect("an auto-resizing histogram grows to any value");
        self.max = self.max.max(took);
    }

    /// Forgets all, and keeps the memory.
    pub fn reset(&mut self) {
        self.nanos.reset();
        self.max = Duration::ZERO;
    }

    /// Takes in what was recorded elsewhere.
    pub fn add(&mut self, other: &Times) {
        self.nanos
            .add(&other.nanos)
            .expect("an auto-resizing histogram takes any other of its kind");
        self.max = self.max.max(other.max);
    }

    pub(crate) fn with(&self, other: &Times) -> Times {
        let mut both = self.clone();
        both.add(other);
        both
    }

    /// How many times were recorded.
    pub fn count(&self) -> u64 {
        self.nanos.len()
    }

    /// The mean of all.
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.nanos.mean() as u64)
    }

    /// The time below which this share (0 to 1) of all lie; the longest for 1.
    pub fn quantile(&self, share: f64) -> Duration {
        // The histogram answers with the upper end of a bucket, which may lie above anything
        // measured.
        Duration::from_nanos(self.nanos.value_at_quantile(share)).min(self.max)
    }

    /// Shares and their times, for a plot whose axis gives each further nine the same room. It ends
    /// where another step would tell of less than one measured time.
    pub(crate) fn curve(&self) -> Vec<(f64, Duration)> {
        let mut points = vec![(0.0, self.quantile(0.0))];
        // `rest` is the share above the point: 1, then less by a tenth of a decade each step.
        for step in 1..=60 {
            let rest = 10f64.powf(-f64::from(step) / 10.0);
            if rest * (self.count() as f64) < 1.0 {
                break;
            }
            points.push((1.0 - rest, self.quantile(1.0 - rest)));
        }
        if self.count() > 1 {
            let last = 1.0 - 1.0 / self.count() as f64;
            points.push((last, self.max));
        }
        points
    }
}

impl Default for Times {
    fn default() -> Times {
        Times::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_never_exceed_what_was_measured() {
        let mut times = Times::new();
        for millis in 1..=100 {
            times.record(Duration::from_millis(millis));
        }
        let off = |share: f64, millis: u64| {
            times.quantile(share).as_secs_f64() / (millis as f64 / 1e3) - 1.0
        };
        assert!(off(0.5, 50).abs() < 0.001 && off(0.99, 99).abs() < 0.001);
        assert_eq!(times.quantile(1.0), Duration::from_millis(100));
    }

    #[test]
    fn the_curve_rises_and_ends_at_the_longest() {
        let mut times = Times::new();
        for micros in 1..=5000 {
            times.record(Duration::from_micros(micros));
        }
        let curve = times.curve();
        assert!(curve.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 <= pair[1].1));
        assert_eq!(curve.last().map(|(_, time)| *time), Some(Duration::from_millis(5)));
        assert_eq!(Times::new().curve().len(), 1, "nothing measured, nothing to show");
    }
}
