//! What a worker is doing, for those who look at it from outside: turns that take too long are
//! named, and counted against the server's readiness.

use std::sync::atomic::{AtomicU64, Ordering};

/// A turn that takes so long is late: everyone on its worker has waited.
pub(crate) const LATE_TURN_MS: u64 = 100;

/// A turn that has taken so long is looked at, in case that it becomes late.
const LOOK_AT_MS: u64 = LATE_TURN_MS / 2;

/// A turn that has taken so long is logged before it ends, because it may never end.
const STUCK_TURN_MS: u64 = 1000;

/// How long a late turn counts against the server's readiness.
const DEGRADED_MS: u64 = 10_000;

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
// On cache lines of its own: its worker writes to it with each message.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Progress {
    /// When its turn began: the milliseconds since the server did, and one; 0 while it sleeps.
    began: AtomicU64,
    /// What the worker is doing: the number of a [`Doing`].
    doing: AtomicU64,
    /// What the turn was seen doing when it had taken long already; 0 if it was not looked at.
    seen: AtomicU64,
    /// When the last late turn ended; 0 if there was none.
    late_at: AtomicU64,
}

/// What a worker was doing at a moment. From its highest bits down, each number and one: that of
/// the [`Step`], that of the letter or of the phase that the step is at, and that of the handler's
/// call, if there are any; then the route of that call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Doing(u64);

const STEP_BIT: u32 = 32;
const AT_BIT: u32 = 24;
const CALL_BIT: u32 = 16;

/// No step has begun.
const BEGINNING: u64 = 1 << 63;

impl Progress {
    /// A turn begins, so many milliseconds after the server did.
    pub(super) fn begin_turn(&self, now_ms: u64) {
        self.seen.store(0, Ordering::Relaxed);
        self.doing.store(BEGINNING, Ordering::Relaxed);
        self.began.store(now_ms + 1, Ordering::Relaxed);
    }

    /// The turn is over.
    pub(super) fn end_turn(&self) {
        self.began.store(0, Ordering::Relaxed);
    }

    /// Notes that the turn was late. Returns what it was seen doing.
    pub(super) fn end_late(&self, now_ms: u64) -> Option<Doing> {
        self.late_at.store(now_ms.max(1), Ordering::Relaxed);
        Some(self.seen.load(Ordering::Relaxed)).filter(|seen| *seen > 0).map(Doing)
    }

    #[inline]
    pub(super) fn begin_step(&self, step: Step) {
        self.doing.store((step as u64 + 1) << STEP_BIT, Ordering::Relaxed);
    }

    /// Comes to a letter, or to a connection in a phase, by its number.
    #[inline]
    pub(super) fn come_to(&self, number: u8) {
        let step = self.doing.load(Ordering::Relaxed) >> STEP_BIT << STEP_BIT;
        self.doing.store(step | (u64::from(number) + 1) << AT_BIT, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn begin_call(&self, number: u8, route: u16) {
        let call = (u64::from(number) + 1) << CALL_BIT | u64::from(route);
        self.doing.store(self.doing.load(Ordering::Relaxed) | call, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn end_call(&self) {
        let at = self.doing.load(Ordering::Relaxed) >> AT_BIT << AT_BIT;
        self.doing.store(at, Ordering::Relaxed);
    }

    /// Looks at a turn that has taken long. Returns how long if it is stuck, with a number that
    /// tells it from other turns, and what it is doing.
    pub(crate) fn look(&self, now_ms: u64) -> Option<(u64, u64, Doing)> {
        let began = self.began.load(Ordering::Relaxed);
        let took_ms = (now_ms + 1).saturating_sub(began);
        if began == 0 || took_ms < LOOK_AT_MS {
            return None;
        }
        let doing = self.doing.load(Ordering::Relaxed);
        self.seen.store(doing, Ordering::Relaxed);
        (took_ms >= STUCK_TURN_MS).then_some((took_ms, began, Doing(doing)))
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
    /// Whether it is in this part of the turn.
    pub(super) fn is_in(self, step: Step) -> bool {
        self.0 >> STEP_BIT == step as u64 + 1
    }

    /// The number of the letter or of the phase.
    pub(super) fn at(self) -> Option<u8> {
        self.number(AT_BIT)
    }

    /// The number of the handler's call, and its route.
    pub(super) fn call(self) -> Option<(u8, u16)> {
        Some((self.number(CALL_BIT)?, self.0 as u16))
    }

    fn number(self, bit: u32) -> Option<u8> {
        ((self.0 >> bit) as u8).checked_sub(1)
    }
}
