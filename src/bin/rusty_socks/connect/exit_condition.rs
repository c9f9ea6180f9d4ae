//! When the program ends by itself.

use std::time::{Duration, Instant};

/// When to leave once the input has ended.
#[derive(Debug)]
pub(super) struct ExitCondition {
    wait: Option<Duration>,
    /// Messages that are still wanted.
    count: Option<u64>,
    pub(super) until: Option<Instant>,
    pub(super) has_ended: bool,
}

impl ExitCondition {
    pub(super) fn new(wait: Option<Duration>, count: Option<u64>) -> ExitCondition {
        ExitCondition { wait, count, until: None, has_ended: false }
    }

    pub(super) fn input_ended(&mut self) {
        self.has_ended = true;
        self.until = self.wait.map(|wait| Instant::now() + wait);
    }

    pub(super) fn message_came(&mut self) {
        self.count = self.count.map(|count| count.saturating_sub(1));
    }

    /// Nothing more is wanted.
    pub(super) fn is_over(&self) -> bool {
        self.has_ended
            && match (self.count, self.until) {
                (Some(0), _) => true,
                (_, Some(until)) => Instant::now() >= until,
                (Some(_), None) => false,
                (None, None) => true,
            }
    }

    /// Fewer messages came than were wanted.
    pub(super) fn is_short(&self) -> bool {
        self.count.is_some_and(|count| count > 0)
    }
}
