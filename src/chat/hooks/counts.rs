//! Counters of questions, by hook and outcome.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::config::HOOKS;

/// What the backend is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::chat) enum Hook {
    Connect,
    Join,
    Publish,
}

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Allowed,
    Refused,
    /// The answer was improper, or the backend could not be reached.
    Failed,
    TimedOut,
    /// No thread was free, and too many questions waited for one.
    PoolFull,
    /// The backend was down, and not asked.
    CircuitOpen,
    /// The client had gone before its question was asked.
    Gone,
}

/// The names of the counters, by hook and outcome.
const NAMES: [[&str; 7]; 3] = [
    [
        "hook_connect_allowed",
        "hook_connect_refused",
        "hook_connect_failed",
        "hook_connect_timed_out",
        "hook_connect_pool_full",
        "hook_connect_circuit_open",
        "hook_connect_gone",
    ],
    [
        "hook_join_allowed",
        "hook_join_refused",
        "hook_join_failed",
        "hook_join_timed_out",
        "hook_join_pool_full",
        "hook_join_circuit_open",
        "hook_join_gone",
    ],
    [
        "hook_publish_allowed",
        "hook_publish_refused",
        "hook_publish_failed",
        "hook_publish_timed_out",
        "hook_publish_pool_full",
        "hook_publish_circuit_open",
        "hook_publish_gone",
    ],
];

/// One counter for each hook and outcome. Usable from any thread.
#[derive(Default)]
pub(super) struct Counts([[AtomicU64; 7]; 3]);

impl Hook {
    pub(super) const ALL: [Hook; 3] = [Hook::Connect, Hook::Join, Hook::Publish];

    /// Returns the name in settings, questions and logs.
    pub(super) fn name(self) -> &'static str {
        HOOKS[self as usize]
    }
}

impl Counts {
    pub(super) fn add(&self, hook: Hook, outcome: Outcome) {
        self.0[hook as usize][outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the counters, by name.
    pub(super) fn figures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let named = NAMES.as_flattened().iter().zip(self.0.as_flattened());
        named.map(|(name, count)| (*name, count.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_has_the_name_of_its_hook_and_outcome() {
        let counts = Counts::default();
        for hook in Hook::ALL {
            counts.add(hook, Outcome::CircuitOpen);
            assert!(NAMES[hook as usize].iter().all(|name| name.contains(hook.name())));
        }
        let counted: Vec<_> = counts.figures().filter(|(_, count)| *count > 0).collect();
        assert!(counted.iter().all(|(name, _)| name.ends_with("circuit_open")), "{counted:?}");
        assert_eq!((counted.len(), counts.figures().count()), (3, 21));
    }
}
