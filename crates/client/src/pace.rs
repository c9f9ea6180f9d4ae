//! How fast a session may send: what the server's `welcome` allows, and a little less.

use std::time::{Duration, Instant};

use super::backoff::ASKED_MAX;

/// The part of a limit that is used. What is sent evenly arrives in bursts, and what arrives too
/// early is refused.
const SHARE: f64 = 0.9;

/// What one connection may still send: a bucket for messages and one for bytes, as the server has
/// them. Each holds one second's worth and fills at its rate. Pure: the clock is the caller's.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    messages: Bucket,
    bytes: Bucket,
}

#[derive(Debug, Default)]
struct Bucket {
    /// What flows back in a second; `None` without a limit.
    rate: Option<f64>,
    /// What is missing, as of `at`.
    missing: f64,
    at: Option<Instant>,
}

impl Pace {
    /// Sets the limits a second, which the server has told. What was sent before counts.
    pub(crate) fn limit(&mut self, messages: Option<f64>, bytes: Option<f64>) {
        self.messages.limit(messages);
        self.bytes.limit(bytes);
    }

    /// Fills both buckets: the server counts each connection by itself.
    pub(crate) fn begin_anew(&mut self) {
        self.messages.missing = 0.0;
        self.bytes.missing = 0.0;
    }

    /// When a message of `bytes` may be sent; `None` is now.
    pub(crate) fn due(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        let wait = self.messages.wait_s(1.0, now).max(self.bytes.wait_s(bytes as f64, now));
        (wait > 0.0).then(|| now + Duration::from_secs_f64(wait).max(Duration::from_millis(1)))
    }

    /// Counts a message that is sent, whether or not it was due.
    pub(crate) fn spend(&mut self, bytes: usize, now: Instant) {
        self.messages.spend(1.0, now);
        self.bytes.spend(bytes as f64, now);
    }
}

impl Bucket {
    fn limit(&mut self, rate: Option<f64>) {
        // A limit of nothing is none, and one of next to nothing would stop the session for good.
        let least = 1.0 / ASKED_MAX.as_secs_f64();
        self.rate = rate.filter(|rate| *rate > 0.0).map(|rate| (rate * SHARE).max(least));
    }

    /// What it holds when it is full: one message always passes.
    fn size(rate: f64) -> f64 {
        rate.max(1.0)
    }

    fn refill(&mut self, now: Instant) {
        let since = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.at = Some(now);
        let back = self.rate.unwrap_or(0.0) * since.as_secs_f64();
        self.missing = (self.missing - back).max(0.0);
    }

    /// Seconds until there is room for `amount`. What is larger than the bucket passes when it is
    /// full, and is paid for afterwards.
    fn wait_s(&mut self, amount: f64, now: Instant) -> f64 {
        let Some(rate) = self.rate else { return 0.0 };
        self.refill(now);
        let size = Bucket::size(rate);
        let wait = (self.missing + amount.min(size) - size) / rate;
        wait.min(ASKED_MAX.as_secs_f64())
    }

    fn spend(&mut self, amount: f64, now: Instant) {
        self.refill(now);
        self.missing += amount;
        if let Some(rate) = self.rate {
            // Nobody waits for longer than for what a server asks.
            let most = Bucket::size(rate).max(rate * ASKED_MAX.as_secs_f64());
            self.missing = self.missing.min(most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends messages of `bytes` as soon as they are due, and tells when each was.
    fn sent(pace: &mut Pace, bytes: &[usize]) -> Vec<u64> {
        let start = Instant::now();
        let mut now = start;
        let mut times = Vec::new();
        for &bytes in bytes {
            while let Some(due) = pace.due(bytes, now) {
                assert!(due > now, "a wait that does not end");
                now = due;
            }
            pace.spend(bytes, now);
            times.push((now - start).as_millis() as u64);
        }
        times
    }

    #[test]
    fn a_second_s_worth_goes_at_once_and_the_rest_evenly() {
        let mut pace = Pace::default();
        pace.limit(Some(10.0), None);
        let times = sent(&mut pace, &[1; 30]);
        assert_eq!(times.iter().filter(|at| **at == 0).count(), 9);
        // 21 more at 9 a second.
        assert!((2330..2400).contains(times.last().unwrap()), "{times:?}");
        let in_any_second =
            |begin: u64| times.iter().filter(|at| (begin..begin + 1000).contains(*at)).count();
        assert!((1000..2000).all(|begin| in_any_second(begin) <= 10), "{times:?}");
    }

    #[test]
    fn a_message_larger_than_the_bucket_passes_and_is_paid_for() {
        let mut pace = Pace::default();
        pace.limit(None, Some(1000.0));
        let times = sent(&mut pace, &[2700, 900, 10]);
        assert_eq!(times[0], 0);
        assert!((2990..3020).contains(&times[1]), "{times:?}");
        assert!((3000..3050).contains(&times[2]), "{times:?}");
    }

    #[test]
    fn what_was_sent_before_the_limit_was_known_counts_and_a_new_connection_is_free() {
        let mut pace = Pace::default();
        let now = Instant::now();
        pace.spend(10, now);
        pace.limit(Some(1.0), None);
        assert!(pace.due(10, now).is_some());
        pace.begin_anew();
        assert_eq!(pace.due(10, now), None);
        for nothing in [None, Some(0.0), Some(-1.0)] {
            pace.limit(nothing, nothing);
            assert_eq!(sent(&mut pace, &[1 << 20; 100]), [0; 100]);
        }
    }

    #[test]
    fn nobody_waits_for_years_because_a_server_said_so() {
        let mut pace = Pace::default();
        pace.limit(Some(1e-300), Some(1e-300));
        let times = sent(&mut pace, &[1 << 30, 1 << 30, 1]);
        assert!(times[1] <= 600_001 && times[2] <= 1_200_002, "{times:?}");
        let mut huge = Pace::default();
        huge.limit(Some(f64::MAX), Some(f64::MAX));
        assert_eq!(sent(&mut huge, &[usize::MAX; 9]), [0; 9]);
    }
}
