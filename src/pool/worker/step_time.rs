//! How long the steps of a turn may take that read and write.

use std::time::{Duration, Instant};

/// How long reading may take in one turn, and writing. As a rule the bounds of their work end them
/// earlier; but where the kernel is short of memory for sockets, or gives the core to others, the
/// same work takes many times as long.
pub(super) const STEP_TIME_MAX: Duration = Duration::from_millis(3);

/// Work after which a step looks at the clock: a tenth of a millisecond, as a rule. Each socket is
/// [`SOCKET_WORK`]; reading is what the requests cost, too, and writing is the bytes.
const WORK_PER_LOOK: usize = 128;

/// What it is in such work to read from a socket, or to write to it.
pub(super) const SOCKET_WORK: usize = 8;

/// The time of a step. Used by one thread.
#[derive(Debug)]
pub(super) struct StepTime {
    /// When the clock was first looked at in this step.
    began: Option<Instant>,
    /// What a part of a step does before it looks.
    pub(super) work_per_look: usize,
    clock: StepClock,
}

/// What says when the time of a step is over.
#[derive(Debug, Clone, Copy)]
enum StepClock {
    Machine,
    /// Never: the clock of a stepped server stands still during a turn.
    Still,
    /// At the first look, as a test of a stepped server wants it.
    Over,
}

impl StepTime {
    pub(super) fn new(is_machine: bool) -> StepTime {
        StepTime {
            began: None,
            work_per_look: WORK_PER_LOOK,
            clock: if is_machine { StepClock::Machine } else { StepClock::Still },
        }
    }

    /// Has each part of a step of a stepped server come to so many sockets at most.
    pub(super) fn limit(&mut self, sockets_max: usize) {
        let sockets_per_look = WORK_PER_LOOK / SOCKET_WORK;
        self.work_per_look = sockets_max.clamp(1, sockets_per_look) * SOCKET_WORK;
        let is_limit = sockets_max <= sockets_per_look;
        self.clock = if is_limit { StepClock::Over } else { StepClock::Still };
    }

    /// A step begins.
    pub(super) fn begin(&mut self) {
        self.began = None;
    }

    /// Looks at the clock: whether the step has taken so long since the first look.
    #[cold]
    #[inline(never)]
    pub(super) fn is_over(&mut self, time_max: Duration) -> bool {
        match self.clock {
            StepClock::Machine => {
                let now = Instant::now();
                now.duration_since(*self.began.get_or_insert(now)) >= time_max
            }
            StepClock::Still => false,
            StepClock::Over => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_over_when_its_time_is() {
        let mut time = StepTime::new(true);
        let a_moment = Duration::from_millis(1);
        time.begin();
        assert!(!time.is_over(a_moment), "it begins with the first look");
        while !time.is_over(a_moment) {}
        assert!(time.is_over(a_moment) && !time.is_over(Duration::MAX));
        time.begin();
        assert!(!time.is_over(a_moment), "the next step has its own time");
    }
}
