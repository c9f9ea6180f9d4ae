//! What the clock of Redis shows, as far as a node can know.

/// By how much the clock of Redis is ahead of this node's. It is never taken for later than it is,
/// so that what may be done until a time is not done after it.
#[derive(Default)]
pub(super) struct RedisClock {
    ahead_ms: i64,
}

impl RedisClock {
    /// Begins anew with a time that Redis told before `now_ms`.
    pub(super) fn begin(&mut self, told_ms: u64, now_ms: u64) {
        self.ahead_ms = between(now_ms, told_ms);
    }

    /// Takes a time that Redis told after `asked_ms` and before `now_ms`.
    pub(super) fn correct(&mut self, told_ms: u64, asked_ms: u64, now_ms: u64) {
        let (at_least, at_most) = (between(now_ms, told_ms), between(asked_ms, told_ms));
        // The quickest answer says most, unless the clock was set back since.
        self.ahead_ms =
            if self.ahead_ms > at_most { at_least } else { self.ahead_ms.max(at_least) };
    }

    /// What it shows at `now_ms`, or somewhat later.
    pub(super) fn at(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add_signed(self.ahead_ms)
    }
}

fn between(from_ms: u64, to_ms: u64) -> i64 {
    to_ms.wrapping_sub(from_ms).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quickest_answer_says_what_redis_shows() {
        let mut clock = RedisClock::default();
        // It is 1,000 ahead; the first answer took 300 ms.
        clock.begin(1000, 300);
        assert_eq!(clock.at(300), 1000);
        clock.correct(1500, 490, 510);
        assert_eq!(clock.at(510), 1500);
        clock.correct(2500, 1400, 2300);
        assert_eq!(clock.at(2300), 3290, "a slow answer takes nothing away");
        // Set forward, and back.
        clock.correct(9000, 3000, 3010);
        assert_eq!(clock.at(3010), 9000);
        clock.correct(500, 4000, 4010);
        assert_eq!(clock.at(4010), 500);
    }
}
