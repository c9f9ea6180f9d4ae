//! The timetable of an open loop: when each message is meant to be sent, whatever the server does.

use std::time::{Duration, Instant};

/// The times at which one thread is to send. They are fixed by the rate alone, so that a server
/// that stalls cannot make the client ask less of it: that is what keeps the latencies honest.
#[derive(Clone)]
pub(crate) struct Pacer {
    began: Instant,
    /// Messages per second, once the ramp is over.
    rate: f64,
    /// How long the rate rises from nothing.
    ramp: Duration,
    /// How far this thread's times lie behind those of the first, in messages.
    offset: f64,
    /// The number of the next message.
    next: u64,
}

impl Pacer {
    pub(crate) fn new(began: Instant, rate: f64, ramp: Duration, offset: f64) -> Pacer {
        Pacer { began, rate, ramp, offset, next: 0 }
    }

    /// When the next message is meant to leave.
    pub(crate) fn next_at(&self) -> Instant {
        self.began + Duration::from_secs_f64(self.seconds(self.next as f64 + self.offset))
    }

    /// Goes on to the message after this.
    pub(crate) fn advance(&mut self) {
        self.next += 1;
    }

    /// The seconds after which `count` messages are due: during the ramp the count grows with the
    /// square of the time, thereafter in a line.
    fn seconds(&self, count: f64) -> f64 {
        let ramp = self.ramp.as_secs_f64();
        let in_ramp = self.rate * ramp / 2.0;
        if count < in_ramp {
            (2.0 * ramp * count / self.rate).sqrt()
        } else {
            ramp / 2.0 + count / self.rate
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(rate: f64, ramp: u64, count: usize) -> Vec<f64> {
        let began = Instant::now();
        let mut pacer = Pacer::new(began, rate, Duration::from_secs(ramp), 0.0);
        let mut next = || {
            let at = pacer.next_at();
            pacer.advance();
            at.duration_since(began).as_secs_f64()
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn without_a_ramp_the_times_are_evenly_spaced() {
        let times = times(100.0, 0, 201);
        assert!((times[100] - 1.0).abs() < 1e-6 && (times[200] - 2.0).abs() < 1e-6);
    }

    #[test]
    fn a_ramp_rises_to_the_rate_and_goes_on_without_a_step() {
        // 100 messages in the two seconds of the ramp, then 100 a second.
        let times = times(100.0, 2, 301);
        assert!((times[100] - 2.0).abs() < 1e-6 && (times[200] - 3.0).abs() < 1e-6);
        assert!((times[25] - 1.0).abs() < 1e-6, "a quarter in the first half");
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn threads_send_in_turn() {
        let began = Instant::now();
        let first = Pacer::new(began, 10.0, Duration::ZERO, 0.0).next_at();
        let second = Pacer::new(began, 10.0, Duration::ZERO, 0.5).next_at();
        assert_eq!(second - first, Duration::from_millis(50));
    }
}
