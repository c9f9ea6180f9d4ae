//! Why a backend gave no answer, and how that is told.

use std::{
    fmt,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// How often failures are logged, at most.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The reason why there is no answer of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(feature = "hooks"), expect(dead_code, reason = "nothing is sent"))]
pub(super) enum Failure {
    /// None came in time.
    TimedOut,
    /// The backend could not be asked.
    Unreachable(String),
    /// The backend cannot read what it was sent, and would not the next time either.
    Refused(u16),
    /// What it answered is no answer.
    Improper(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::TimedOut => f.write_str("no answer in time"),
            Failure::Refused(status) => write!(f, "status {status}"),
            Failure::Unreachable(why) | Failure::Improper(why) => f.write_str(why),
        }
    }
}

/// A log of failures: a storm of them is no storm of lines. Usable from any thread.
#[derive(Default)]
pub(super) struct FailureLog(Mutex<Silence>);

#[derive(Default)]
struct Silence {
    until: Option<Instant>,
    /// Failures since the last line.
    failures: u64,
}

impl FailureLog {
    /// Logs a failure of `what`, or counts it for the next line.
    pub(super) fn note(&self, what: &str, failure: &dyn fmt::Display) {
        let now = Instant::now();
        let others = {
            let mut silence = self.0.lock();
            if silence.until.is_some_and(|until| now < until) {
                silence.failures += 1;
                return;
            }
            silence.until = Some(now + LOG_INTERVAL);
            std::mem::take(&mut silence.failures)
        };
        match others {
            0 => log::warn!("{what}: {failure}"),
            others => log::warn!("{what}: {failure}; {others} failures before that"),
        }
    }
}
