//! `Retry-After` (RFC 9110, 10.2.3): how it is read, and when a refused connection that heeds it
//! comes back.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

use chrono::{DateTime, Utc};

/// Advice to stay away longer than this is not followed: the refusal stands.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(120);

/// The least spread of the tries after a refusal, so that "come back at once" is not taken by all
/// in the same instant.
const JITTER_MIN: Duration = Duration::from_millis(100);

/// Reads both forms of the header: seconds, or a date (in the past it means now).
pub(crate) fn parse(value: &str, now: DateTime<Utc>) -> Option<Duration> {
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(value).ok()?;
    Some(date.signed_duration_since(now).to_std().unwrap_or_default())
}

/// How long to stay away: the advice and up to half as much again. `None` when the advice is not to
/// be followed.
pub(crate) fn wait(advice: Option<Duration>) -> Option<Duration> {
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
    fn retry_after_may_be_a_date() {
        let now = DateTime::parse_from_rfc3339("1994-11-06T08:49:30Z").unwrap().to_utc();
        assert_eq!(parse("2", now), Some(Duration::from_secs(2)));
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(7)));
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:07 GMT", now), Some(Duration::ZERO));
        assert_eq!(parse("later", now), None);
    }

    #[test]
    fn jitter_only_ever_adds_and_never_more_than_half() {
        let advice = Duration::from_secs(2);
        let waits: Vec<Duration> = (0..100).filter_map(|_| wait(Some(advice))).collect();
        assert_eq!(waits.len(), 100);
        assert!(waits.iter().all(|wait| (advice..=advice * 3 / 2).contains(wait)), "{waits:?}");
        assert!(waits.iter().any(|wait| *wait != waits[0]), "all alike is no jitter");
        assert!(wait(Some(Duration::ZERO)).is_some_and(|wait| wait <= JITTER_MIN));
    }

    #[test]
    fn no_advice_and_absurd_advice_are_not_followed() {
        assert_eq!(wait(None), None);
        assert_eq!(wait(Some(Duration::from_secs(3600))), None);
        assert_eq!(wait(Some(Duration::MAX)), None);
    }
}
