//! What a session has sent and the server has not passed on yet.
//!
//! A message to a large room is a small request and much work, and a message that its receivers
//! cannot take as fast as it comes fills their outboxes. Each session may have so much on its way;
//! while it has more, its connection is not read, so the socket of the sender slows down and nobody
//! else's.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::{conn_id::ConnId, room::RoomKey};

/// Price of what one session may have on its way before its connection is paused. One message is
/// always taken, however large it or its room.
const IN_FLIGHT_MAX: u32 = 8192;

/// Price of a message of less than a KiB, and of each further KiB: 128 of them may be on their way,
/// an eighth of what may wait for one client by default, so that several senders at once leave it
/// the time to be held for. Divided among the letters of a message.
const KIB_PRICE: u32 = IN_FLIGHT_MAX / 128;

/// The most that its members add to the price of one message: two messages to large rooms may be on
/// their way, however large the rooms are.
const MEMBERS_PRICE_MAX: u32 = IN_FLIGHT_MAX / 2;

/// The same for a message that goes to its members together with the one before it, in one write:
/// nine of them fit behind the first one to a large room.
const MEMBERS_PRICE_TOGETHER_MAX: u32 = 6 * KIB_PRICE;

/// KiB that a session must have sent since it was last held before a client can hold it. However
/// slow its receivers are, a sender passes so much between two holds; and who says a word now and
/// then is not held for the flood of another.
const HOLDABLE_KIB_MIN: u32 = 64;

/// What a session has on its way, and which connection waits for it to be less.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    price: AtomicU32,
    /// Clients that are behind with what the session sent, and hold it.
    holds: AtomicU32,
    /// What the session has sent since it was last held. Only an estimate: two threads may count at
    /// once.
    kib_unheld: AtomicU32,
    /// The room of its last message, plus 1; 0 for a message to no room, or to several. Only an
    /// estimate, too.
    last_room: AtomicU64,
    /// Locked only where a hold begins or ends.
    times: Mutex<HoldTimes>,
    /// Whether somebody may wait, so that most letters need not lock `waiting`.
    may_wait: AtomicBool,
    /// The connection that waits.
    waiting: Mutex<Option<ConnId>>,
    /// Wakes a job thread that waits itself.
    is_cheap_now: Condvar,
}

/// When a session was held and may be again, by the hub's clock.
#[derive(Debug, Default)]
struct HoldTimes {
    since_ms: u64,
    /// Whether one of those who hold it, or held it since then, did not catch up.
    was_given_up: bool,
    /// Only clients that have shown that they read steadily can hold the session before then.
    immune_until_ms: u64,
}

/// What a connection learns that is to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wait {
    /// Whether there is something to wait for.
    pub(crate) is_needed: bool,
    /// Another connection that waited, and is not told of the end any more: it must not wait on.
    pub(crate) replaced: Option<ConnId>,
}

/// Returns the KiB for which a message of `bytes` counts, one at least.
fn kib(bytes: usize) -> u32 {
    1 + (bytes / 1024) as u32
}

/// Returns the price of a letter that carries a message of `bytes` to `here` of its `total`
/// receivers. The letters of a message cost as much as one letter to all would.
pub(super) fn price(bytes: usize, here: u32, total: usize) -> u32 {
    let whole = u64::from(kib(bytes).saturating_mul(KIB_PRICE));
    let part = (whole * u64::from(here)).div_ceil(total.max(1) as u64);
    u32::try_from(part).unwrap_or(u32::MAX).max(1)
}

/// Returns what a letter to `here` of a message's `total` receivers costs beside its bytes: 1 for
/// each, up to a bound for all of them. That is lower if the message `goes_along` with another one.
pub(super) fn members_price(here: u32, total: usize, goes_along: bool) -> u32 {
    let max = if goes_along { MEMBERS_PRICE_TOGETHER_MAX } else { MEMBERS_PRICE_MAX };
    let part = (u64::from(max) * u64::from(here)).div_ceil(total.max(1) as u64);
    u32::try_from(part).unwrap_or(u32::MAX).min(here)
}

impl InFlight {
    /// Whether the session has so much on its way that its connection should wait.
    pub(crate) fn is_over(&self) -> bool {
        self.price.load(Ordering::SeqCst) > IN_FLIGHT_MAX || self.is_held()
    }

    /// Whether a connection waits.
    pub(crate) fn has_waiting(&self) -> bool {
        self.waiting.lock().is_some()
    }

    /// Notes that `conn` waits until little is on its way, unless it is little already. `conn` is
    /// then sent a [`Letter::Resume`](super::mailbox::Letter::Resume).
    ///
    /// Two connections want to wait where one has taken the session over from the other, which does
    /// not know it yet. The caller must send the letter to the one that is replaced: whichever that
    /// is, it may be the one that goes on.
    pub(crate) fn begin_wait(&self, conn: ConnId) -> Wait {
        let mut waiting = self.waiting.lock();
        let replaced = waiting.replace(conn).filter(|earlier| *earlier != conn);
        // No wake is lost, because all of these are sequentially consistent: this thread sets the
        // flag and then reads the counts, and the other one changes a count and then reads the
        // flag. So either this thread sees the change, or the other one sees the flag; and then it
        // takes the lock, and finds the note that was made under it.
        self.may_wait.store(true, Ordering::SeqCst);
        if self.is_cheap() && !self.is_held() {
            *waiting = None;
        }
        Wait { is_needed: waiting.is_some(), replaced }
    }

    /// Waits until little is on its way, or for `wait_max`, whether or not the session is held: a
    /// thread that others need as well must not stand still for one slow receiver. Blocks, so no
    /// worker calls it.
    pub(crate) fn wait(&self, wait_max: Duration) {
        let until = Instant::now() + wait_max;
        let mut waiting = self.waiting.lock();
        loop {
            // As in `begin_wait`; the lock is given up only within the wait.
            self.may_wait.store(true, Ordering::SeqCst);
            if self.is_cheap() || self.is_cheap_now.wait_until(&mut waiting, until).timed_out() {
                return;
            }
        }
    }

    fn is_cheap(&self) -> bool {
        self.price.load(Ordering::SeqCst) <= IN_FLIGHT_MAX / 2
    }

    fn is_held(&self) -> bool {
        self.holds.load(Ordering::SeqCst) > 0
    }

    /// Counts a message of `bytes` towards what the session has sent.
    pub(super) fn note_sent(&self, bytes: usize) {
        let sent = self.kib_unheld.load(Ordering::Relaxed);
        self.kib_unheld.store(sent.saturating_add(kib(bytes)), Ordering::Relaxed);
    }

    /// Notes that the next message is to `room` alone. Returns whether it goes along with the one
    /// before it, which is then to the same room and still on its way.
    pub(super) fn goes_along(&self, room: Option<RoomKey>) -> bool {
        let room = room.map_or(0, |room| room.wrapping_add(1));
        let before = self.last_room.load(Ordering::Relaxed);
        self.last_room.store(room, Ordering::Relaxed);
        room != 0 && room == before && self.price.load(Ordering::SeqCst) > 0
    }

    pub(super) fn add(&self, price: u32) {
        self.price.fetch_add(price, Ordering::SeqCst);
    }

    /// Counts a letter as delivered. Returns the connection that waited for it, if little is on its
    /// way now.
    pub(super) fn subtract(&self, price: u32) -> Option<ConnId> {
        self.price.fetch_sub(price, Ordering::SeqCst);
        self.wake()
    }

    /// Holds the session until [`end_hold`](InFlight::end_hold), unless it sends too little to be
    /// the one that its receivers cannot keep up with, or is immune. Only a client that has shown
    /// that it `is_steady` can hold an immune session. Returns whether it is held.
    pub(crate) fn hold(&self, is_steady: bool, now_ms: u64) -> bool {
        let mut times = self.times.lock();
        let is_held = self.is_held();
        let sends_much = self.kib_unheld.load(Ordering::Relaxed) >= HOLDABLE_KIB_MIN;
        if !is_held && !sends_much || !is_steady && now_ms < times.immune_until_ms {
            return false;
        }
        if !is_held {
            (times.since_ms, times.was_given_up) = (now_ms, false);
        }
        self.holds.fetch_add(1, Ordering::SeqCst);
        true
    }

    /// Ends one hold of a client that has `caught_up` or was given up. In the second case the
    /// session is immune for as long as it was held, beyond what is left of an earlier immunity:
    /// however many clients take turns, they cost it half of its time. Returns the connection that
    /// waited for it, if nothing else keeps it waiting.
    pub(crate) fn end_hold(&self, caught_up: bool, now_ms: u64) -> Option<ConnId> {
        self.kib_unheld.store(0, Ordering::Relaxed);
        let mut times = self.times.lock();
        times.was_given_up |= !caught_up;
        if self.holds.fetch_sub(1, Ordering::SeqCst) == 1 && times.was_given_up {
            let held_ms = now_ms.saturating_sub(times.since_ms);
            times.immune_until_ms = times.immune_until_ms.max(now_ms) + held_ms;
        }
        drop(times);
        self.wake()
    }

    /// Wakes those who waited for what has just changed. Returns the connection among them.
    fn wake(&self) -> Option<ConnId> {
        if !self.may_wait.load(Ordering::SeqCst) || !self.is_cheap() {
            return None;
        }
        let mut waiting = self.waiting.lock();
        self.is_cheap_now.notify_all();
        if self.is_held() {
            return None;
        }
        self.may_wait.store(false, Ordering::SeqCst);
        waiting.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONN: ConnId = ConnId { worker: 1, slot: 2, generation: 3 };

    #[test]
    fn a_connection_waits_until_little_is_on_its_way() {
        let in_flight = InFlight::default();
        in_flight.add(IN_FLIGHT_MAX);
        assert!(!in_flight.is_over(), "so much is allowed");
        in_flight.add(1);
        assert!(in_flight.is_over() && in_flight.begin_wait(CONN).is_needed);
        assert_eq!(in_flight.subtract(IN_FLIGHT_MAX / 2), None, "not little enough yet");
        assert_eq!(in_flight.subtract(1), Some(CONN));
        assert_eq!(in_flight.subtract(1), None, "it is told once");
        assert!(!in_flight.begin_wait(CONN).is_needed, "nothing to wait for");
    }

    #[test]
    fn a_connection_whose_place_another_takes_is_named() {
        let in_flight = InFlight::default();
        let other = ConnId { worker: 0, ..CONN };
        let waits = |replaced| Wait { is_needed: true, replaced };
        in_flight.add(IN_FLIGHT_MAX + 1);
        assert_eq!(in_flight.begin_wait(CONN), waits(None));
        assert_eq!(in_flight.begin_wait(CONN), waits(None), "it waits already");
        assert_eq!(in_flight.begin_wait(other), waits(Some(CONN)));
        assert_eq!(in_flight.subtract(IN_FLIGHT_MAX + 1), Some(other));
        in_flight.add(IN_FLIGHT_MAX + 1);
        assert_eq!(in_flight.begin_wait(CONN), waits(None));
        // As where the last letter is delivered at this very moment.
        in_flight.price.store(0, Ordering::SeqCst);
        let wait = Wait { is_needed: false, replaced: Some(CONN) };
        assert_eq!(in_flight.begin_wait(other), wait);
    }

    #[test]
    fn who_sends_much_is_held_and_who_sends_little_is_not() {
        let in_flight = InFlight::default();
        in_flight.note_sent((HOLDABLE_KIB_MIN as usize - 2) * 1024);
        assert!(!in_flight.hold(false, 0) && !in_flight.is_over(), "too little");
        in_flight.note_sent(10);
        assert!(in_flight.hold(false, 0) && in_flight.hold(false, 0), "by two clients");
        assert!(in_flight.is_over() && in_flight.begin_wait(CONN).is_needed);
        assert_eq!(in_flight.end_hold(true, 9), None, "the other one is behind");
        assert_eq!(in_flight.end_hold(true, 9), Some(CONN));
        assert!(!in_flight.is_over() && !in_flight.hold(false, 9), "it begins anew");
    }

    #[test]
    fn who_was_held_in_vain_is_immune_for_as_long() {
        let in_flight = InFlight::default();
        let hold = |is_steady, now_ms| {
            in_flight.note_sent(HOLDABLE_KIB_MIN as usize * 1024);
            in_flight.hold(is_steady, now_ms)
        };
        assert!(hold(false, 100) && hold(false, 200), "two at once count once");
        in_flight.end_hold(false, 1100);
        in_flight.end_hold(true, 1200);
        assert!(!hold(false, 2299) && hold(true, 2000), "but by one that reads steadily");
        in_flight.end_hold(false, 2200);
        assert!(!hold(false, 2499) && hold(false, 2500), "immunities add up");
        in_flight.end_hold(true, 2900);
        assert!(hold(false, 2900), "one that caught up was worth the time");
    }

    #[test]
    fn a_thread_waits_for_what_is_on_its_way_and_not_for_a_hold() {
        let in_flight = InFlight::default();
        in_flight.note_sent(HOLDABLE_KIB_MIN as usize * 1024);
        assert!(in_flight.hold(false, 0));
        let began = Instant::now();
        in_flight.wait(Duration::from_secs(60));
        assert!(began.elapsed() < Duration::from_secs(30), "nothing is on its way");
        in_flight.add(IN_FLIGHT_MAX);
        assert!(in_flight.begin_wait(CONN).is_needed);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| in_flight.wait(Duration::from_secs(60)));
            assert_eq!(in_flight.subtract(IN_FLIGHT_MAX), None, "the connection is held");
            assert!(waiter.join().is_ok());
        });
        assert!(began.elapsed() < Duration::from_secs(30));
        assert_eq!(in_flight.end_hold(true, 0), Some(CONN));
        assert!(!in_flight.has_waiting() && !in_flight.may_wait.load(Ordering::SeqCst));
    }

    #[test]
    fn a_message_costs_the_same_in_one_letter_and_in_many() {
        assert_eq!(price(10, 3, 3), KIB_PRICE);
        assert_eq!((0..16).map(|_| price(10, 2, 32)).sum::<u32>(), KIB_PRICE);
        assert_eq!(price(10, 0, 32), 1, "no letter is free");
        assert!(price(u32::MAX as usize, 1, 1) > IN_FLIGHT_MAX);
    }

    #[test]
    fn only_what_goes_along_with_the_message_before_it_costs_less_than_its_members() {
        let in_flight = InFlight::default();
        assert!(!in_flight.goes_along(Some(0)) && !in_flight.goes_along(Some(0)), "nothing waits");
        in_flight.add(1);
        assert!(in_flight.goes_along(Some(0)) && !in_flight.goes_along(Some(1)));
        assert!(!in_flight.goes_along(Some(0)), "another room's came between");
        assert!(!in_flight.goes_along(None) && !in_flight.goes_along(None), "it is to several");
        assert!(!in_flight.goes_along(Some(0)) && in_flight.goes_along(Some(0)));
        in_flight.subtract(1);
        assert!(!in_flight.goes_along(Some(0)), "it is delivered");

        assert_eq!(members_price(1000, 1000, false), 1000);
        assert_eq!(members_price(1000, 1000, true), MEMBERS_PRICE_TOGETHER_MAX);
        assert_eq!([false, true].map(|goes_along| members_price(9, 9, goes_along)), [9, 9]);
        let parts = (0..4).map(|_| members_price(5000, 20_000, false)).sum::<u32>();
        assert_eq!(parts, MEMBERS_PRICE_MAX, "as much in four letters as in one");
        let (one, more) = (KIB_PRICE + MEMBERS_PRICE_MAX, KIB_PRICE + MEMBERS_PRICE_TOGETHER_MAX);
        assert!(one <= IN_FLIGHT_MAX && 2 * one > IN_FLIGHT_MAX, "two to large rooms");
        assert!(9 * more <= IN_FLIGHT_MAX / 2, "others behind the first are taken before it ends");
    }
}
