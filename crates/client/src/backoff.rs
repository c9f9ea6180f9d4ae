//! When to come back after a connection has ended, and when not to: pure rules, no clock and no
//! socket.

use std::time::Duration;

/// The first delay is drawn from zero to this; each further one from twice as much.
const BASE: Duration = Duration::from_millis(250);

/// No delay is drawn from more than this.
const CAP: Duration = Duration::from_secs(30);

/// A connection that lived this long was a good one: counting begins anew.
const GOOD_AFTER: Duration = Duration::from_secs(5);

/// What a server asks for is believed up to here; a longer wait is more likely a broken clock.
pub(crate) const ASKED_MAX: Duration = Duration::from_secs(600);

/// A wait that a server asks for, in milliseconds.
pub(crate) fn asked(wait_ms: u64) -> Duration {
    Duration::from_millis(wait_ms).min(ASKED_MAX)
}

/// How a connection, or an attempt at one, ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// No connection came about.
    Unreachable,
    /// The server answered the upgrade with a status that another attempt may change, or will not.
    Refused { is_temporary: bool, retry_after: Option<Duration> },
    /// Without a close frame, or with nonsense from the server.
    Lost,
    /// With this code.
    Closed(u16),
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Coming back as one is will not help.
    Stop,
    /// Come back after this.
    Wait(Duration),
}

/// The memory of how often it has failed.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempt: u32,
}

impl Backoff {
    /// Judges an end. `lived` is how long the connection was of use, `told` what a `closing` frame
    /// has said, `random` a number from 0 to 1.
    pub(crate) fn after(
        &mut self,
        ended: &Ended,
        lived: Option<Duration>,
        told: Option<Duration>,
        random: f64,
    ) -> Verdict {
        if lived.is_some_and(|lived| lived >= GOOD_AFTER) {
            self.attempt = 0;
        }
        let Some(comeback) = comeback(ended) else { return Verdict::Stop };
        let attempt = self.attempt;
        self.attempt = self.attempt.saturating_add(1);
        let drawn = ceiling(attempt).mul_f64(random.clamp(0.0, 1.0));
        // The server spreads its clients by itself. One that sends them away as they come decides
        // nothing.
        if let Some(told) = told {
            return Verdict::Wait(if attempt == 0 { told } else { told.max(drawn) });
        }
        Verdict::Wait(match comeback {
            Comeback::AtOnce if attempt == 0 => Duration::ZERO,
            Comeback::AtOnce => drawn,
            Comeback::After(floor) => floor + drawn,
        })
    }
}

fn ceiling(attempt: u32) -> Duration {
    BASE.saturating_mul(2u32.saturating_pow(attempt.min(16))).min(CAP)
}

enum Comeback {
    AtOnce,
    After(Duration),
}

/// The rules of the protocol. `None` is never.
fn comeback(ended: &Ended) -> Option<Comeback> {
    let soon = Some(Comeback::After(Duration::ZERO));
    match ended {
        Ended::Unreachable | Ended::Lost => soon,
        Ended::Refused { is_temporary: true, retry_after } => {
            Some(Comeback::After(retry_after.unwrap_or_default().min(ASKED_MAX)))
        }
        Ended::Refused { is_temporary: false, .. } => None,
        Ended::Closed(code) => match code {
            4200..=4299 => Some(Comeback::AtOnce),
            // 1005 is a close without a code, as some proxies do; the rest of 1xxx are the server's
            // troubles.
            1001 | 1005 | 1006 | 1010..=1015 | 4100..=4199 => soon,
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(ended: Ended, random: f64) -> Vec<u64> {
        let mut backoff = Backoff::default();
        let mut next = || match backoff.after(&ended, None, None, random) {
            Verdict::Wait(wait) => wait.as_millis() as u64,
            Verdict::Stop => u64::MAX,
        };
        (0..10).map(|_| next()).collect()
    }

    #[test]
    fn the_ceiling_doubles_up_to_the_cap_and_the_jitter_is_full() {
        let ceilings = [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000];
        assert_eq!(waits(Ended::Unreachable, 1.0), ceilings);
        assert_eq!(waits(Ended::Closed(1006), 0.5)[..3], [125, 250, 500]);
        assert_eq!(waits(Ended::Lost, 0.0), [0; 10]);
    }

    #[test]
    fn retry_after_is_a_floor() {
        let ended =
            Ended::Refused { is_temporary: true, retry_after: Some(Duration::from_secs(3)) };
        assert_eq!(waits(ended.clone(), 0.0)[..2], [3000, 3000]);
        assert_eq!(waits(ended, 1.0)[..2], [3250, 3500]);
    }

    #[test]
    fn each_code_has_its_rule() {
        for code in [1000, 1002, 1003, 1007, 1008, 1009, 3000, 4000, 4001, 4010, 4099, 4300] {
            assert_eq!(waits(Ended::Closed(code), 1.0)[0], u64::MAX, "{code}");
        }
        for code in [1001, 1005, 1006, 1011, 1012, 1013, 4100, 4101, 4102, 4199] {
            assert_eq!(waits(Ended::Closed(code), 1.0)[0], 250, "{code}");
        }
        for code in [4200, 4201, 4299] {
            assert_eq!(waits(Ended::Closed(code), 1.0)[..2], [0, 500], "{code}");
        }
        for (is_temporary, wait) in [(true, 250), (false, u64::MAX)] {
            let ended = Ended::Refused { is_temporary, retry_after: None };
            assert_eq!(waits(ended, 1.0)[0], wait);
        }
    }

    #[test]
    fn what_the_server_says_replaces_one_delay_as_it_is() {
        let mut backoff = Backoff::default();
        let told = Duration::from_millis(1234);
        let ended = Ended::Closed(1001);
        assert_eq!(backoff.after(&ended, None, Some(told), 1.0), Verdict::Wait(told));
        let next = backoff.after(&Ended::Unreachable, None, None, 1.0);
        assert_eq!(next, Verdict::Wait(Duration::from_millis(500)));
        assert_eq!(backoff.after(&Ended::Closed(4010), None, Some(told), 1.0), Verdict::Stop);
    }

    #[test]
    fn a_server_that_sends_everyone_away_at_once_is_not_hammered() {
        let mut backoff = Backoff::default();
        let mut next = || backoff.after(&Ended::Closed(1001), None, Some(Duration::ZERO), 1.0);
        let ceilings = [0, 500, 1000].map(|ms| Verdict::Wait(Duration::from_millis(ms)));
        assert_eq!([next(), next(), next()], ceilings);
    }

    #[test]
    fn nobody_waits_for_years_because_a_server_said_so() {
        assert_eq!((asked(7), asked(u64::MAX)), (Duration::from_millis(7), ASKED_MAX));
        let ended = Ended::Refused { is_temporary: true, retry_after: Some(Duration::MAX) };
        assert_eq!(waits(ended, 0.0)[0], ASKED_MAX.as_millis() as u64);
    }

    #[test]
    fn a_connection_that_lived_begins_the_count_anew() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.after(&Ended::Lost, Some(Duration::from_secs(4)), None, 1.0);
        }
        let after = backoff.after(&Ended::Lost, Some(GOOD_AFTER), None, 1.0);
        assert_eq!(after, Verdict::Wait(BASE));
    }
}
