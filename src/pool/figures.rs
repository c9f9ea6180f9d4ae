//! The figures of the server in each of their forms, made for all workers together: two requests
//! one after the other, whichever workers answer them, never get figures that go back in time.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::{metrics::Snapshot, ws::frame::PreparedFrame};

/// How often one form is made anew in [`INTERVAL_MS`]. Further requests get the latest of them, if
/// one is ready: to make one costs as much as a hundred messages.
const FRESH_MAX: u32 = 16;

/// How old figures may be.
const INTERVAL_MS: u64 = 100;

/// How old those may be that viewers are shown once a second: all workers show the same ones,
/// though not in the same moment.
const SHOWN_INTERVAL_MS: u64 = 500;

/// What is kept of the figures. Usable from any thread.
pub(crate) struct Figures {
    pub(super) snapshot: Kept<Snapshot>,
    /// The answer to `/stats`.
    pub(super) json: Kept<String>,
    /// The answer to `/metrics`, in the older format and in OpenMetrics.
    pub(super) prometheus: Kept<String>,
    pub(super) open_metrics: Kept<String>,
    /// The message that viewers are shown.
    pub(super) live: Kept<PreparedFrame>,
}

impl Default for Figures {
    fn default() -> Figures {
        Figures {
            snapshot: Kept::new(FRESH_MAX, INTERVAL_MS),
            json: Kept::new(FRESH_MAX, INTERVAL_MS),
            prometheus: Kept::new(FRESH_MAX, INTERVAL_MS),
            open_metrics: Kept::new(FRESH_MAX, INTERVAL_MS),
            live: Kept::new(1, SHOWN_INTERVAL_MS),
        }
    }
}

/// One form of the figures.
pub(super) struct Kept<T> {
    latest: Mutex<Latest<T>>,
    /// How often it is made anew in `interval_ms`.
    fresh_max: u32,
    interval_ms: u64,
}

struct Latest<T> {
    value: Option<Arc<T>>,
    /// Which making `value` came from, of those that were begun.
    made: u64,
    begun: u64,
    /// How often it may still be made anew before `until_ms`.
    fresh_left: u32,
    until_ms: u64,
}

impl<T> Kept<T> {
    fn new(fresh_max: u32, interval_ms: u64) -> Kept<T> {
        let latest = Latest { value: None, made: 0, begun: 0, fresh_left: 0, until_ms: 0 };
        Kept { latest: Mutex::new(latest), fresh_max, interval_ms }
    }

    /// What `make` makes now, if it may be made anew, or else the latest.
    pub(super) fn get<E>(
        &self,
        now_ms: u64,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let begun = {
            let mut latest = self.latest.lock();
            if now_ms >= latest.until_ms {
                (latest.fresh_left, latest.until_ms) = (self.fresh_max, now_ms + self.interval_ms);
                // Whoever comes before the first is made makes one too: the last may be hours old.
                latest.value = None;
            }
            if latest.fresh_left == 0
                && let Some(value) = &latest.value
            {
                return Ok(Arc::clone(value));
            }
            latest.fresh_left = latest.fresh_left.saturating_sub(1);
            latest.begun += 1;
            latest.begun
        };
        // Without the lock: it takes others, and asks the system.
        let value = Arc::new(make()?);
        let mut latest = self.latest.lock();
        if begun > latest.made {
            (latest.made, latest.value) = (begun, Some(Arc::clone(&value)));
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// One that was begun before another one and is done after it does not replace it.
    #[test]
    fn the_latest_is_kept_and_made_anew_so_often_only() {
        let kept = Kept::new(FRESH_MAX, INTERVAL_MS);
        let made = |value: u32| move || Ok::<_, Infallible>(value);
        let Ok(late) = kept.get(5, || {
            assert_eq!(*kept.get(5, made(2)).unwrap(), 2);
            Ok::<_, Infallible>(1)
        });
        assert_eq!(*late, 1);
        for value in 3..=FRESH_MAX {
            assert_eq!(*kept.get(5, made(value)).unwrap(), value);
        }
        assert_eq!(*kept.get(5 + INTERVAL_MS - 1, made(99)).unwrap(), FRESH_MAX);
        assert_eq!(*kept.get(5 + INTERVAL_MS, made(99)).unwrap(), 99);
    }

    #[test]
    fn who_comes_while_the_first_is_made_gets_none_of_the_past() {
        let kept = Kept::new(1, INTERVAL_MS);
        let made = |value: u32| move || Ok::<_, Infallible>(value);
        assert_eq!(*kept.get(0, made(1)).unwrap(), 1);
        let later = INTERVAL_MS * 1000;
        let Ok(_) = kept.get(later, || {
            assert_eq!(*kept.get(later, made(3)).unwrap(), 3);
            Ok::<_, Infallible>(2)
        });
        assert_eq!(*kept.get(later, made(99)).unwrap(), 3, "the one that was begun last");
    }

    #[test]
    fn what_cannot_be_made_is_not_kept() {
        let kept = Kept::new(FRESH_MAX, INTERVAL_MS);
        assert_eq!(kept.get(0, || Err::<u32, _>("no")), Err("no"));
        assert_eq!(kept.get(0, || Ok::<_, &str>(7)).as_deref(), Ok(&7));
    }
}
