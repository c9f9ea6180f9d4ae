//! Whether a backend is asked at all: while it is down, nobody waits for it.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Failures in a row after which the backend counts as down.
const FAILURES_MAX: u32 = 5;

/// How long it is not asked then, before one request tries again.
const PAUSE: Duration = Duration::from_secs(1);

/// The health of a backend, as seen by its latest requests. Usable from any thread.
#[derive(Default)]
pub(super) struct Circuit(Mutex<State>);

#[derive(Default)]
struct State {
    /// Failures since the last answer.
    failures: u32,
    /// When the next request may try, while the backend counts as down.
    retry_at: Option<Instant>,
}

impl Circuit {
    /// Whether to ask now. While the backend is down, one request in each pause may.
    pub(super) fn may_ask(&self, now: Instant) -> bool {
        let mut state = self.0.lock();
        match state.retry_at {
            None => true,
            Some(at) if now < at => false,
            Some(_) => {
                state.retry_at = Some(now + PAUSE);
                true
            }
        }
    }

    /// Notes that the backend answered, whatever it said.
    pub(super) fn note_answer(&self) {
        *self.0.lock() = State::default();
    }

    /// Notes that no answer came.
    pub(super) fn note_failure(&self, now: Instant) {
        let mut state = self.0.lock();
        state.failures = state.failures.saturating_add(1);
        if state.failures >= FAILURES_MAX {
            state.retry_at = Some(now + PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_that_is_down_is_tried_once_a_pause_until_it_answers() {
        let (circuit, start) = (Circuit::default(), Instant::now());
        for _ in 1..FAILURES_MAX {
            circuit.note_failure(start);
            assert!(circuit.may_ask(start));
        }
        circuit.note_answer();
        for _ in 1..FAILURES_MAX {
            circuit.note_failure(start);
        }
        assert!(circuit.may_ask(start), "an answer came in between");
        circuit.note_failure(start);
        assert!(!circuit.may_ask(start));
        let later = start + PAUSE;
        assert!(circuit.may_ask(later) && !circuit.may_ask(later), "one request tries");
        circuit.note_failure(later);
        assert!(!circuit.may_ask(later));
        assert!(circuit.may_ask(later + PAUSE));
        circuit.note_answer();
        assert!(circuit.may_ask(later + PAUSE));
    }
}
