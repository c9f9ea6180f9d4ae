//! Rate limits: how many messages and bytes a second one connection may send.

use std::time::Instant;

/// The limits, equal for all connections. 0 is no limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    messages: f64,
    bytes: f64,
}

/// A token bucket for each limit of one connection. A full bucket holds a second's worth.
#[derive(Debug)]
pub(super) struct Allowance {
    messages: f64,
    bytes: f64,
    at: Instant,
}

impl Rate {
    pub(super) fn new(messages: u32, bytes: u32) -> Rate {
        Rate { messages: messages.into(), bytes: bytes.into() }
    }

    /// Spends one message of `bytes`, or returns for how many milliseconds the limits do not allow
    /// it.
    ///
    /// A message larger than a second's bytes passes if the bucket is full, and overdraws it.
    pub(super) fn spend(
        &self,
        allowance: &mut Option<Box<Allowance>>,
        bytes: usize,
    ) -> Result<(), u64> {
        if self.messages == 0.0 && self.bytes == 0.0 {
            return Ok(());
        }
        self.spend_at(allowance, bytes as f64, Instant::now())
    }

    fn spend_at(
        &self,
        allowance: &mut Option<Box<Allowance>>,
        bytes: f64,
        now: Instant,
    ) -> Result<(), u64> {
        let full = || Box::new(Allowance { messages: self.messages, bytes: self.bytes, at: now });
        let allowance = allowance.get_or_insert_with(full);
        let seconds = now.saturating_duration_since(allowance.at).as_secs_f64();
        allowance.at = now;
        allowance.messages = (allowance.messages + seconds * self.messages).min(self.messages);
        allowance.bytes = (allowance.bytes + seconds * self.bytes).min(self.bytes);
        let wait = wait_s(self.messages, 1.0 - allowance.messages)
            .max(wait_s(self.bytes, bytes.min(self.bytes) - allowance.bytes));
        if wait > 0.0 {
            return Err((wait * 1000.0).ceil() as u64);
        }
        allowance.messages -= 1.0;
        allowance.bytes -= bytes;
        Ok(())
    }
}

/// Returns the seconds that a bucket takes to fill by `missing` at `rate`.
fn wait_s(rate: f64, missing: f64) -> f64 {
    if rate == 0.0 || missing <= 0.0 { 0.0 } else { missing / rate }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn messages_are_limited_and_the_wait_is_told() {
        let rate = Rate::new(2, 0);
        let (mut allowance, start) = (None, Instant::now());
        assert_eq!(rate.spend_at(&mut allowance, 9e9, start), Ok(()));
        assert_eq!(rate.spend_at(&mut allowance, 0.0, start), Ok(()));
        assert_eq!(rate.spend_at(&mut allowance, 0.0, start), Err(500));
        let later = start + Duration::from_millis(500);
        assert_eq!(rate.spend_at(&mut allowance, 0.0, later), Ok(()));
    }

    #[test]
    fn a_large_message_passes_and_is_paid_for() {
        let rate = Rate::new(0, 1000);
        let (mut allowance, start) = (None, Instant::now());
        assert_eq!(rate.spend_at(&mut allowance, 3000.0, start), Ok(()));
        assert_eq!(rate.spend_at(&mut allowance, 500.0, start), Err(2500));
        let later = start + Duration::from_secs(3);
        assert_eq!(rate.spend_at(&mut allowance, 500.0, later), Ok(()));
    }

    #[test]
    fn without_limits_nothing_is_remembered() {
        let mut allowance = None;
        assert_eq!(Rate::new(0, 0).spend(&mut allowance, 1), Ok(()));
        assert!(allowance.is_none());
    }
}
