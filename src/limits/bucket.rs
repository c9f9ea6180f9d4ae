//! Token buckets.

/// How fast a bucket fills, and how much it holds.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(crate) struct Rate {
    per_s: f64,
    size: f64,
}

/// What is missing in a bucket, as of a moment of the hub's clock. A new bucket is full.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bucket {
    missing: f64,
    at_ms: u64,
}

impl Rate {
    /// `count` in each time of `seconds`, all of which may come at once; 0 is no limit.
    pub(crate) fn new(count: u32, seconds: f64) -> Rate {
        Rate { per_s: f64::from(count) / seconds, size: f64::from(count) }
    }

    /// Lets so many times as much come at once.
    pub(crate) fn bursts(self, times: f64) -> Rate {
        Rate { size: self.size * times, ..self }
    }

    pub(crate) fn is_off(&self) -> bool {
        self.per_s == 0.0
    }

    /// A part of what a full bucket holds.
    pub(crate) fn part(&self, of: f64) -> f64 {
        self.size / of
    }
}

impl Bucket {
    /// Returns the milliseconds until the bucket has `amount`; 0 if it has it now. What is larger
    /// than the bucket passes when the bucket is full, and overdraws it.
    pub(crate) fn wait_ms(&mut self, amount: f64, rate: &Rate, now_ms: u64) -> u64 {
        if rate.is_off() {
            return 0;
        }
        self.refill(rate, now_ms);
        let lacks = self.missing + amount.min(rate.size) - rate.size;
        if lacks <= 0.0 { 0 } else { (lacks / rate.per_s * 1000.0).ceil() as u64 }
    }

    /// Takes `amount`, or gives it back if it is negative.
    pub(crate) fn take(&mut self, amount: f64, rate: &Rate) {
        if !rate.is_off() {
            self.missing = (self.missing + amount).max(0.0);
        }
    }

    /// Returns which part of a full bucket is missing.
    pub(crate) fn missing(&mut self, rate: &Rate, now_ms: u64) -> f64 {
        if rate.is_off() {
            return 0.0;
        }
        self.refill(rate, now_ms);
        self.missing / rate.size
    }

    fn refill(&mut self, rate: &Rate, now_ms: u64) {
        // Threads read the clock a little before they come here, so it may seem to go back.
        if now_ms > self.at_ms {
            let seconds = (now_ms - self.at_ms) as f64 / 1000.0;
            self.at_ms = now_ms;
            self.missing = (self.missing - seconds * rate.per_s).max(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `amount`, or returns how long that must wait.
    fn spend(bucket: &mut Bucket, amount: f64, rate: &Rate, now_ms: u64) -> Result<(), u64> {
        match bucket.wait_ms(amount, rate, now_ms) {
            0 => {
                bucket.take(amount, rate);
                Ok(())
            }
            wait_ms => Err(wait_ms),
        }
    }

    #[test]
    fn so_many_are_allowed_and_the_wait_is_told() {
        let (rate, mut bucket) = (Rate::new(2, 1.0), Bucket::default());
        assert_eq!(spend(&mut bucket, 1.0, &rate, 10), Ok(()));
        assert_eq!(spend(&mut bucket, 1.0, &rate, 10), Ok(()));
        assert_eq!(spend(&mut bucket, 1.0, &rate, 10), Err(500));
        assert_eq!(spend(&mut bucket, 1.0, &rate, 510), Ok(()));
    }

    #[test]
    fn a_large_amount_passes_and_is_paid_for() {
        let (rate, mut bucket) = (Rate::new(1000, 1.0), Bucket::default());
        assert_eq!(spend(&mut bucket, 3000.0, &rate, 0), Ok(()));
        assert_eq!(spend(&mut bucket, 500.0, &rate, 0), Err(2500));
        assert_eq!(spend(&mut bucket, 500.0, &rate, 3000), Ok(()));
    }

    #[test]
    fn a_burst_is_larger_and_no_faster() {
        let (rate, mut bucket) = (Rate::new(2, 1.0).bursts(3.0), Bucket::default());
        (0..6).for_each(|_| assert_eq!(spend(&mut bucket, 1.0, &rate, 0), Ok(())));
        assert_eq!(spend(&mut bucket, 1.0, &rate, 0), Err(500));
        assert_eq!(spend(&mut Bucket::default(), 9e9, &Rate::new(0, 1.0), 0), Ok(()), "no limit");
    }
}
