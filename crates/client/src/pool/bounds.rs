//! How many publishes of a pool may be unanswered, and how large they may be together.

use std::{sync::Arc, time::Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, ErrorKind};

/// Two bounds that hold together. No lock is held while anything but the counts is looked at.
#[derive(Debug)]
pub(super) struct Bounds {
    taken: Mutex<Taken>,
    /// Something was given back, or nothing will be taken any more.
    changed: Condvar,
    count_max: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Taken {
    count: usize,
    bytes: usize,
    is_closed: bool,
}

/// The part of the bounds that one publish takes; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    bounds: Arc<Bounds>,
    bytes: usize,
}

impl Bounds {
    pub(super) fn new(count_max: usize, bytes_max: usize) -> Bounds {
        Bounds { taken: Mutex::default(), changed: Condvar::new(), count_max, bytes_max }
    }

    /// Waits until there is room for so many bytes, at most until `deadline`. One publish always
    /// fits, however large it is.
    pub(super) fn take(self: &Arc<Self>, bytes: usize, deadline: Instant) -> Result<Share, Error> {
        let mut taken = self.taken.lock();
        loop {
            if taken.is_closed {
                return Err(Error::new(ErrorKind::Closed, "the pool is closed"));
            }
            let fits =
                taken.count < self.count_max && taken.bytes.saturating_add(bytes) <= self.bytes_max;
            if fits || taken.count == 0 {
                taken.count += 1;
                taken.bytes += bytes;
                return Ok(Share { bounds: Arc::clone(self), bytes });
            }
            if self.changed.wait_until(&mut taken, deadline).timed_out() {
                let text = format!(
                    "{} publishes of {} bytes are unanswered, and there was no room for another in \
                     time",
                    taken.count, taken.bytes
                );
                return Err(Error::new(ErrorKind::Full, text));
            }
        }
    }

    /// Nothing is taken any more, and nobody waits.
    pub(super) fn close(&self) {
        self.taken.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// How many there are, and their bytes.
    pub(super) fn taken(&self) -> (usize, usize) {
        let taken = self.taken.lock();
        (taken.count, taken.bytes)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.bounds.taken.lock();
        taken.count -= 1;
        taken.bytes -= self.bytes;
        drop(taken);
        // Those who wait want different sizes.
        self.bounds.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(1)
    }

    #[test]
    fn both_bounds_hold_and_one_publish_always_fits() {
        let bounds = Arc::new(Bounds::new(2, 10));
        let large = bounds.take(100, soon()).expect("the only one");
        assert_eq!(
            bounds.take(0, soon()).map_err(|error| error.kind()).err(),
            Some(ErrorKind::Full)
        );
        drop(large);
        let first = bounds.take(6, soon()).expect("room");
        assert!(bounds.take(5, soon()).is_err(), "too many bytes");
        let second = bounds.take(4, soon()).expect("room");
        let error = bounds.take(0, soon()).expect_err("too many");
        assert!(error.to_string().starts_with("2 publishes of 10 bytes are unanswered"), "{error}");
        drop((first, second));
        assert_eq!(bounds.taken(), (0, 0));
    }

    #[test]
    fn whoever_waits_is_woken_by_room_and_by_the_end() {
        let bounds = Arc::new(Bounds::new(1, 10));
        let in_time = Instant::now() + Duration::from_secs(20);
        let share = bounds.take(1, in_time).expect("room");
        thread::scope(|scope| {
            let waits = scope.spawn(|| bounds.take(1, in_time));
            drop(share);
            let share = waits.join().expect("no panic").expect("room");
            let waits = scope.spawn(|| bounds.take(1, in_time).map_err(|error| error.kind()));
            bounds.close();
            assert_eq!(waits.join().expect("no panic").err(), Some(ErrorKind::Closed));
            drop(share);
        });
    }
}
