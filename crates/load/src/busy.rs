//! How busy the client itself is: a load test that is short of CPU measures itself.

use std::{
    fs,
    time::{Duration, Instant},
};

/// Watches one thread from [`start`](Busy::start) to [`stop`](Busy::stop).
#[derive(Default)]
pub(crate) struct Busy {
    since: Option<(Instant, Option<Scheduled>)>,
    slept: Duration,
    share: Option<ThreadLoad>,
}

/// What one thread did with its time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ThreadLoad {
    /// The share of the time (0 to 1) outside of `poll`: at 1 there was always something to do.
    pub(crate) busy: f64,
    /// The share of the time on a CPU, and the share spent waiting for one, where the system
    /// tells.
    pub(crate) cpu: Option<f64>,
    pub(crate) starved: Option<f64>,
}

/// What the kernel has counted for a thread so far.
#[derive(Clone, Copy)]
struct Scheduled {
    ran: Duration,
    waited: Duration,
}

impl Busy {
    pub(crate) fn start(&mut self, now: Instant) {
        if self.since.is_none() && self.share.is_none() {
            self.since = Some((now, Scheduled::of_this_thread()));
            self.slept = Duration::ZERO;
        }
    }

    /// Notes the time spent in one `poll`.
    pub(crate) fn slept(&mut self, time: Duration) {
        self.slept += time;
    }

    /// Ends the watch; later calls change nothing.
    pub(crate) fn stop(&mut self, now: Instant) {
        let Some((began, before)) = self.since.take() else { return };
        let wall = now.duration_since(began).as_secs_f64();
        if wall <= 0.0 {
            return;
        }
        let spent = before.zip(Scheduled::of_this_thread()).map(|(before, after)| {
            let share = |after: Duration, before: Duration| {
                (after.saturating_sub(before).as_secs_f64() / wall).min(1.0)
            };
            (share(after.ran, before.ran), share(after.waited, before.waited))
        });
        self.share = Some(ThreadLoad {
            busy: (1.0 - self.slept.as_secs_f64() / wall).clamp(0.0, 1.0),
            cpu: spent.map(|(cpu, _)| cpu),
            starved: spent.map(|(_, starved)| starved),
        });
    }

    pub(crate) fn load(&self) -> Option<ThreadLoad> {
        self.share
    }
}

impl Scheduled {
    /// Linux alone tells, and only if it was built to count.
    fn of_this_thread() -> Option<Scheduled> {
        Scheduled::read(&fs::read_to_string("/proc/thread-self/schedstat").ok()?)
    }

    fn read(text: &str) -> Option<Scheduled> {
        let mut nanos = text.split_whitespace().map(|field| field.parse().ok());
        let (ran, waited) = (nanos.next()??, nanos.next()??);
        (ran > 0).then(|| Scheduled {
            ran: Duration::from_nanos(ran),
            waited: Duration::from_nanos(waited),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_what_is_not_slept() {
        let now = Instant::now();
        let mut busy = Busy::default();
        busy.slept(Duration::from_secs(9));
        busy.start(now);
        busy.slept(Duration::from_millis(250));
        busy.stop(now + Duration::from_secs(1));
        busy.slept(Duration::from_secs(5));
        busy.stop(now + Duration::from_secs(9));
        let share = busy.load().map(|load| load.busy).unwrap();
        assert!((share - 0.75).abs() < 1e-9, "{share}");
    }

    #[test]
    fn the_kernels_line_is_read() {
        let scheduled = Scheduled::read("498778 82995 2\n").unwrap();
        assert_eq!((scheduled.ran.as_nanos(), scheduled.waited.as_nanos()), (498_778, 82_995));
        assert!(Scheduled::read("0 0 0").is_none(), "a kernel that does not count");
        assert!(Scheduled::read("").is_none());
    }
}
