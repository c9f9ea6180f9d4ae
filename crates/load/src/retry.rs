//! When a refused connection comes back: after what the server asked for, but not all at once.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

/// Advice to stay away longer than this is not followed: the refusal stands.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(120);

/// The least spread of the tries after a refusal, so that "come back at once" is not taken by all
/// in the same instant.
const JITTER_MIN: Duration = Duration::from_millis(100);

/// How long to stay away: the advice and up to half as much again. `None` when it is not to be
/// followed.
pub(crate) fn after(advice: Option<Duration>) -> Option<Duration> {
    let advice = advice.filter(|advice| *advice <= RETRY_AFTER_MAX)?;
    // The standard library's hasher is seeded at random for each state: chance enough to spread a
    // few thousand tries.
    let chance = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
    Some(advice + (advice / 2).max(JITTER_MIN).mul_f64(chance))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_only_ever_adds_and_never_more_than_half() {
        let advice = Duration::from_secs(2);
        let waits: Vec<Duration> = (0..100).filter_map(|_| after(Some(advice))).collect();
        assert_eq!(waits.len(), 100);
        assert!(waits.iter().all(|wait| (advice..=advice * 3 / 2).contains(wait)), "{waits:?}");
        assert!(waits.iter().any(|wait| *wait != waits[0]), "all alike is no jitter");
        assert!(after(Some(Duration::ZERO)).is_some_and(|wait| wait <= JITTER_MIN));
    }

    #[test]
    fn no_advice_and_absurd_advice_are_not_followed() {
        assert_eq!(after(None), None);
        assert_eq!(after(Some(Duration::from_secs(3600))), None);
        assert_eq!(after(Some(Duration::MAX)), None);
    }
}
