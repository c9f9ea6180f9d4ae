//! What a worker is doing, for those who look at it from outside: turns that take too long are
//! named, and counted against the server's readiness.

use std::{
    fmt,
    sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering},
};

use crate::{handler::erased::CALLS, hub::letters::LETTERS};

/// A turn that takes so long is late: everyone on its worker has waited.
pub(crate) const LATE_TURN_MS: u64 = 100;

/// A turn that has taken so long is looked at, in case that it becomes late.
const LOOK_AT_MS: u64 = LATE_TURN_MS / 2;

/// A turn that has taken so long is logged before it ends, because it may never end.
const STUCK_TURN_MS: u64 = 1000;

/// How long a late turn counts against the server's readiness.
const DEGRADED_MS: u64 = 10_000;

/// The phases of a connection, by their numbers.
const PHASES: [&str; 7] = ["head", "admin", "asking", "waiting", "open", "closing", "gone"];

/// The parts of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Arrivals,
    Read,
    Letters,
    Timers,
    Flush,
    Reap,
    Memory,
}

/// What one worker is doing. Written by that worker alone but for `seen`. All of it is to look at:
/// a reader may see parts of two moments.
#[derive(Default)]
pub(crate) struct Progress {
    /// When its turn began: the milliseconds since the server did, and one; 0 while it sleeps.
    began: AtomicU64,
    /// The number of a [`Step`], and one.
    step: AtomicU8,
    /// The number of the letter or of the phase that the step is at, and one.
    at: AtomicU8,
    /// The number of the handler's call, and one; 0 outside of calls.
    call: AtomicU8,
    /// The route of that call.
    route: AtomicU16,
    /// What the turn was seen doing when it had taken long already.
    seen: AtomicU64,
    /// When the last late turn ended; 0 if there was none.
    late_at: AtomicU64,
}

/// What a worker was doing at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Doing {
    step: u8,
    at: u8,
    call: u8,
    pub(crate) route: u16,
}

impl Progress {
    /// A turn begins, so many milliseconds after the server did.
    pub(super) fn begin_turn(&self, now_ms: u64) {
        self.seen.store(0, Ordering::Relaxed);
        self.began.store(now_ms + 1, Ordering::Relaxed);
    }

    /// The turn is over.
    pub(super) fn end_turn(&self) {
        self.began.store(0, Ordering::Relaxed);
    }

    /// Notes that the turn was late. Returns what it was seen doing.
    pub(super) fn end_late(&self, now_ms: u64) -> Option<Doing> {
        self.late_at.store(now_ms.max(1), Ordering::Relaxed);
        Doing::unpacked(self.seen.load(Ordering::Relaxed))
    }

    #[inline]
    pub(super) fn begin_step(&self, step: Step) {
        self.step.store(step as u8 + 1, Ordering::Relaxed);
        self.at.store(0, Ordering::Relaxed);
    }

    /// Comes to a letter, or to a connection in a phase, by its number.
    #[inline]
    pub(super) fn come_to(&self, number: u8) {
        self.at.store(number + 1, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn begin_call(&self, number: u8, route: u16) {
        self.route.store(route, Ordering::Relaxed);
        self.call.store(number + 1, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn end_call(&self) {
        self.call.store(0, Ordering::Relaxed);
    }

    /// Looks at a turn that has taken long. Returns how long if it is stuck, with a number that
    /// tells it from other turns, and what it is doing.
    pub(crate) fn look(&self, now_ms: u64) -> Option<(u64, u64, Doing)> {
        let began = self.began.load(Ordering::Relaxed);
        let took_ms = (now_ms + 1).saturating_sub(began);
        if began == 0 || took_ms < LOOK_AT_MS {
            return None;
        }
        let doing = Doing {
            step: self.step.load(Ordering::Relaxed),
            at: self.at.load(Ordering::Relaxed),
            call: self.call.load(Ordering::Relaxed),
            route: self.route.load(Ordering::Relaxed),
        };
        self.seen.store(doing.packed(), Ordering::Relaxed);
        (took_ms >= STUCK_TURN_MS).then_some((took_ms, began, doing))
    }

    /// Whether the turn is late already, or one was late a short while ago.
    pub(crate) fn is_late(&self, now_ms: u64) -> bool {
        let began = self.began.load(Ordering::Relaxed);
        let late_at = self.late_at.load(Ordering::Relaxed);
        let is_late = began > 0 && now_ms + 1 >= began + LATE_TURN_MS;
        is_late || late_at > 0 && now_ms < late_at + DEGRADED_MS
    }
}

impl Doing {
    fn packed(self) -> u64 {
        let [high, low] = self.route.to_be_bytes();
        u64::from_be_bytes([1, 0, 0, self.step, self.at, self.call, high, low])
    }

    fn unpacked(packed: u64) -> Option<Doing> {
        let [is_some, _, _, step, at, call, high, low] = packed.to_be_bytes();
        (is_some > 0).then(|| Doing { step, at, call, route: u16::from_be_bytes([high, low]) })
    }

    /// Puts it into words. `path` is that of its route.
    pub(crate) fn told<'a>(&'a self, path: &'a str) -> impl fmt::Display + 'a {
        Told { doing: self, path }
    }
}

struct Told<'a> {
    doing: &'a Doing,
    path: &'a str,
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Doing { step, at, call, route: _ } = *self.doing;
        let is = |of: Step| step == of as u8 + 1;
        let named = |names: &[&'static str], number: u8| {
            number.checked_sub(1).and_then(|at| names.get(usize::from(at)).copied())
        };
        f.write_str(match step {
            _ if is(Step::Arrivals) => "taking new sockets",
            _ if is(Step::Read) => "reading",
            _ if is(Step::Letters) => "taking letters",
            _ if is(Step::Timers) => "looking after deadlines",
            _ if is(Step::Flush) => "writing",
            _ if is(Step::Reap) => "freeing connections",
            _ if is(Step::Memory) => "looking at memory",
            _ => "beginning",
        })?;
        match (named(&LETTERS, at), named(&PHASES, at)) {
            (Some(letter), _) if is(Step::Letters) => write!(f, ", letter {letter}")?,
            (_, Some(phase)) if is(Step::Read) => write!(f, ", phase {phase}")?,
            _ => {}
        }
        match named(&CALLS, call) {
            Some(call) => write!(f, ", in {call} of {}", self.path),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_looked_at_named_and_late() {
        let progress = Progress::default();
        assert_eq!(progress.look(5), None, "it sleeps");
        progress.begin_turn(1000);
        progress.begin_step(Step::Read);
        progress.come_to(4);
        progress.begin_call(1, 2);
        assert_eq!(progress.look(1040), None, "not for long");
        assert_eq!(progress.look(1060), None, "it is seen, and not stuck");
        progress.end_call();
        progress.begin_step(Step::Flush);
        assert!(!progress.is_late(1099) && progress.is_late(1100));
        let seen = progress.end_late(1200).expect("it was seen");
        assert_eq!(seen.told("/ws").to_string(), "reading, phase open, in on_message of /ws");
        progress.end_turn();
        assert!(progress.is_late(11_199) && !progress.is_late(11_200));

        progress.begin_turn(20_000);
        progress.begin_step(Step::Letters);
        progress.come_to(0);
        let (took_ms, _, doing) = progress.look(21_000).expect("it is stuck");
        assert_eq!(
            (took_ms, doing.told("").to_string()),
            (1000, "taking letters, letter Deliver".into())
        );
        progress.begin_turn(30_000);
        assert_eq!(progress.end_late(30_100), None, "what was seen of another turn is forgotten");
    }
}
