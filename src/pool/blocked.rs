//! How long a client has let bytes wait: a socket that is full for a moment is no sign of anything,
//! but for one that stays so the kernel holds all that it may.

use super::timers::Millis;
use crate::memory::account::Held;

/// A client that lets bytes wait for so long does not read.
pub(super) const NOT_READING_MS: Millis = 1000;

/// What is known of a client for which bytes may wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Blocked {
    /// None wait.
    #[default]
    No,
    /// Some began to wait less than [`NOT_READING_MS`] ago.
    Watched,
    /// Some began to wait less than [`NOT_READING_MS`] ago, and it has taken all of them since.
    /// Others may wait again.
    Emptied,
    /// Some have waited ever since it was looked at. It is read.
    Stuck,
    /// Some have waited ever since it was looked at. It is not read meanwhile.
    StuckPaused,
}

impl Blocked {
    /// Notes whether bytes wait, and whether the client is read. Returns whether to look at it
    /// after [`NOT_READING_MS`].
    pub(super) fn note(&mut self, waits: bool, is_paused: bool) -> bool {
        let before = *self;
        *self = match (before, waits) {
            (Blocked::No, true) => Blocked::Watched,
            (Blocked::Watched, false) => Blocked::Emptied,
            (Blocked::Stuck | Blocked::StuckPaused, false) => Blocked::No,
            (Blocked::Stuck | Blocked::StuckPaused, true) => Blocked::stuck(is_paused),
            _ => before,
        };
        before == Blocked::No && waits
    }

    /// Looks at it after [`NOT_READING_MS`]. Returns whether to do that again.
    pub(super) fn look(&mut self, waits: bool, is_paused: bool) -> bool {
        let before = *self;
        *self = match (before, waits) {
            (Blocked::Watched, true) => Blocked::stuck(is_paused),
            (Blocked::Emptied, true) => Blocked::Watched,
            (Blocked::Watched | Blocked::Emptied, false) => Blocked::No,
            _ => before,
        };
        *self == Blocked::Watched
    }

    /// Whether bytes have waited for long.
    #[inline]
    pub(super) fn is_stuck(self) -> bool {
        matches!(self, Blocked::Stuck | Blocked::StuckPaused)
    }

    fn stuck(is_paused: bool) -> Blocked {
        if is_paused { Blocked::StuckPaused } else { Blocked::Stuck }
    }

    /// Counts a client that was as `self` as one that is as `after`.
    pub(super) fn recount(self, after: Blocked, held: &mut Held) {
        let one_if = |holds| usize::from(holds);
        held.stuck += one_if(after == Blocked::Stuck);
        held.stuck -= one_if(self == Blocked::Stuck);
        held.stuck_paused += one_if(after == Blocked::StuckPaused);
        held.stuck_paused -= one_if(self == Blocked::StuckPaused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_stuck_only_if_bytes_waited_all_the_time() {
        let mut blocked = Blocked::default();
        assert!(blocked.note(true, true), "from now on");
        assert!(!blocked.note(true, true), "once is enough");
        assert_eq!(blocked, Blocked::Watched);
        blocked.note(false, false);
        assert!(!blocked.note(true, true), "it is watched already");
        assert!(blocked.look(true, true), "these are others");
        assert_eq!(blocked, Blocked::Watched);
        assert!(!blocked.look(true, true));
        assert_eq!(blocked, Blocked::StuckPaused);
        blocked.note(true, false);
        assert_eq!(blocked, Blocked::Stuck);
        blocked.note(false, false);
        assert_eq!(blocked, Blocked::No);
    }

    #[test]
    fn a_client_that_reads_is_forgotten() {
        let mut blocked = Blocked::default();
        assert!(!blocked.note(false, false));
        blocked.note(true, false);
        blocked.note(false, false);
        assert!(!blocked.look(false, false));
        assert_eq!(blocked, Blocked::No);
    }

    #[test]
    fn each_state_is_counted_once() {
        let mut held = Held::default();
        Blocked::Watched.recount(Blocked::Stuck, &mut held);
        assert_eq!((held.stuck, held.stuck_paused), (1, 0));
        Blocked::Stuck.recount(Blocked::StuckPaused, &mut held);
        assert_eq!((held.stuck, held.stuck_paused), (0, 1));
        Blocked::StuckPaused.recount(Blocked::No, &mut held);
        assert_eq!(held, Held::default());
    }
}
