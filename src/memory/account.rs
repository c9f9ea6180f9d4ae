//! The account of what the server holds in memory, and what follows when it nears the ceiling.
//!
//! Whatever a client can make grow is counted as it grows and shrinks: messages by themselves (each
//! counts itself out when its last copy is gone, wherever that was), the rest by who holds it. A
//! worker counts for its own connections, and adds the sum to the account once a turn.
//!
//! The account is an estimate: it knows neither what the allocator rounds up nor what it fragments.
//! So once a second it is compared with what the system says is resident, and what a byte of the
//! account really takes is learnt from that. It is learnt only while the account is near its peak,
//! because after that much of what is resident may be memory that the allocator keeps for the next
//! growth, which does not take it twice. The peak is forgotten in a minute or two: what is resident
//! then will stay. If more is resident than there may be, newcomers wait whatever the account says,
//! and a little above that nothing may grow.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
};

use parking_lot::Mutex;

use super::{resident, tally::Tally};
use crate::{config::Config, metrics::MemoryMetrics};

/// Percent of the ceiling at which newcomers wait, and below which they are served again.
const WAIT_PERCENT: usize = 85;
const SERVE_PERCENT: usize = 80;

/// Percent of the ceiling at which nothing may grow, and below which it may again. At the first,
/// memory begins to be taken back, until newcomers can be served: somebody who holds a little less
/// would keep them out.
const FULL_PERCENT: usize = 95;
const GROW_PERCENT: usize = 92;

/// The ceiling and one part in so many of it: nothing may grow while more is really there. Between
/// this and the ceiling is what the allocator gives back in a second.
const BEYOND_PART: usize = 20;

/// Estimated bytes of an open connection, beside its session and whatever waits for it.
const CONN_BYTES: usize = 640;

/// Estimated bytes that the kernel takes for an open socket, beside its buffers.
const KERNEL_SOCKET_BYTES: usize = 3 << 10;

/// What the kernel keeps at most for a client of what it was sent, and of what it has sent, in
/// bytes: the buffers are set to this, and the kernel takes as much again for its own records.
pub(crate) const SOCKET_SEND_BUFFER: usize = 256 << 10;
pub(crate) const SOCKET_RECEIVE_BUFFER: usize = 128 << 10;

/// What the kernel takes for a client beyond what is on the wire, where that can be limited: more
/// than this is not held for a client that reads nothing, because its own kernel has the rest.
pub(crate) const SOCKET_UNSENT_MAX: usize = 128 << 10;

/// One part in so many of the ceiling is left to histories, however short memory is for others.
const HISTORIES_PART: usize = 4;

/// Messages are weighed again whenever they have grown or shrunk by so many bytes.
const WEIGH_STEP_BITS: u32 = 20;

/// What a byte of the account takes, in thousandths: at least itself, at most twice that. Where it
/// will be measured, that of a burst is assumed until then: buffers that grow leave smaller ones
/// behind, and the allocator keeps what was just freed for a second.
const COST_MIN: usize = 1000;
const COST_OF_BURST: usize = 1250;
const COST_MAX: usize = 2000;

/// By how much less a byte can be found to take at once.
const COST_STEP: usize = 5;

/// The peak comes down once a second, by one part in so many of what it is above the present.
const PEAK_PART: usize = 32;
const PEAK_INTERVAL_MS: u64 = 1000;

/// All tallies of one server. Usable from any thread.
pub(crate) struct Account {
    /// Messages that are encoded for several readers, wherever they wait: in histories, inboxes,
    /// mailboxes or outboxes. Those of all these places together, each once.
    pub(crate) frames: Arc<AtomicUsize>,
    /// Of `frames`: those in the histories of rooms, each as often as it is kept.
    pub(crate) histories: Tally,
    /// Of `frames`: those in the inboxes of sessions.
    pub(crate) inboxes: Tally,
    /// Sessions, their memberships and the ids that they remember.
    pub(crate) sessions: Tally,
    /// Patterns of all sessions, and their subscriptions in the directory.
    pub(crate) patterns: Tally,
    /// Rooms, without their messages.
    pub(crate) rooms: Tally,
    /// Calls that wait for the threads of blocking handlers.
    pub(crate) calls: Tally,
    workers: Box<[WorkerTallies]>,
    /// `usize::MAX` if there is none.
    bytes_max: AtomicUsize,
    level: AtomicU8,
    /// More was really there than there may be, when it was last compared.
    is_beyond: AtomicBool,
    /// `frames` when it was last weighed.
    frames_weighed: AtomicUsize,
    /// What was resident before anything was counted.
    base: usize,
    /// What a byte of the account takes, in thousandths.
    cost: AtomicUsize,
    /// What was last resident; 0 if the system does not say.
    resident: AtomicUsize,
    peak: Mutex<Peak>,
    pub(crate) metrics: MemoryMetrics,
}

// On cache lines of their own: each worker writes its own with every turn.
#[derive(Default)]
#[repr(align(128))]
struct WorkerTallies {
    conns: Tally,
    outboxes: Tally,
    inputs: Tally,
    blocked: Tally,
    stuck: Tally,
    stuck_paused: Tally,
}

/// What the connections of one worker hold.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// Open sockets.
    pub(crate) conns: usize,
    /// Bytes in outboxes, without the messages that others are sent as well.
    pub(crate) outboxes: usize,
    /// Bytes of input that cannot be handled yet, and of the contexts of compression.
    pub(crate) inputs: usize,
    /// Connections whose outbox the kernel does not take.
    pub(crate) blocked: usize,
    /// Of these: those that have been so for a while, and are read.
    pub(crate) stuck: usize,
    /// Of the blocked ones: those that have been so for a while, and are not read meanwhile.
    pub(crate) stuck_paused: usize,
}

/// How near the ceiling is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Nothing needs to be done.
    Normal,
    /// Newcomers wait.
    Wait,
    /// Newcomers wait, and memory is taken back.
    Shed,
    /// Memory is taken back, and nothing may grow.
    Full,
}

/// The most that was in use lately.
#[derive(Default)]
struct Peak {
    counted: usize,
    resident: usize,
    /// When it last came down.
    lowered_at: u64,
}

/// The account at one moment, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Balance {
    pub(crate) frames: usize,
    pub(crate) histories: usize,
    pub(crate) inboxes: usize,
    pub(crate) sessions: usize,
    pub(crate) patterns: usize,
    pub(crate) rooms: usize,
    pub(crate) calls: usize,
    pub(crate) outboxes: usize,
    pub(crate) inputs: usize,
    /// Open sockets, what the kernel takes for them included.
    pub(crate) sockets: usize,
    /// What was last resident; 0 if the system does not say.
    pub(crate) resident: usize,
    /// What is held against the ceiling.
    pub(crate) used: usize,
    /// 0 if there is no ceiling.
    pub(crate) used_max: usize,
}

impl Account {
    /// An account with nothing in it, of a server with so many workers. `bytes_max` is the ceiling;
    /// `base` is what is resident already.
    pub(crate) fn new(workers: usize, bytes_max: Option<usize>, base: usize) -> Account {
        Account {
            frames: Arc::default(),
            histories: Tally::default(),
            inboxes: Tally::default(),
            sessions: Tally::default(),
            patterns: Tally::default(),
            rooms: Tally::default(),
            calls: Tally::default(),
            workers: (0..workers).map(|_| WorkerTallies::default()).collect(),
            bytes_max: AtomicUsize::new(bytes_max.unwrap_or(usize::MAX)),
            level: AtomicU8::new(Level::Normal as u8),
            is_beyond: AtomicBool::new(false),
            frames_weighed: AtomicUsize::new(0),
            base,
            cost: AtomicUsize::new(COST_MIN),
            resident: AtomicUsize::new(base),
            peak: Mutex::default(),
            metrics: MemoryMetrics::default(),
        }
    }

    /// An account of a server with so many workers, and the ceiling of `config`. Without `measures`
    /// nothing depends on the machine: there is a ceiling only if it is a number of bytes.
    pub(crate) fn of_server(config: &Config, workers: usize, measures: bool) -> Account {
        if !measures {
            return Account::new(workers, config.memory_max.bytes_alone(), 0);
        }
        let base = resident::bytes().unwrap_or_default();
        let account = Account::new(workers, config.memory_max.bytes(), base);
        account.cost.store(COST_OF_BURST, Ordering::Relaxed);
        account
    }

    /// The ceiling; `usize::MAX` for none.
    #[inline]
    fn bytes_max(&self) -> usize {
        self.bytes_max.load(Ordering::Relaxed)
    }

    /// Changes the ceiling, or takes it away.
    pub(crate) fn set_bytes_max(&self, bytes_max: Option<usize>) {
        self.bytes_max.store(bytes_max.unwrap_or(usize::MAX), Ordering::Relaxed);
        if bytes_max.is_none() {
            self.level.store(Level::Normal as u8, Ordering::Relaxed);
            self.is_beyond.store(false, Ordering::Relaxed);
        }
        self.weigh();
    }

    /// How near the ceiling was when it was last weighed.
    #[inline]
    pub(crate) fn level(&self) -> Level {
        match self.level.load(Ordering::Relaxed) {
            0 => Level::Normal,
            1 => Level::Wait,
            2 => Level::Shed,
            _ => Level::Full,
        }
    }

    /// Whether more may be kept. Called before anything is that may be refused.
    #[inline]
    pub(crate) fn may_grow(&self) -> bool {
        let frames = self.frames.load(Ordering::Relaxed);
        let weighed = self.frames_weighed.load(Ordering::Relaxed);
        if frames >> WEIGH_STEP_BITS != weighed >> WEIGH_STEP_BITS {
            self.frames_weighed.store(frames, Ordering::Relaxed);
            self.weigh();
        }
        !self.is_full()
    }

    /// Whether nothing might grow when it was last weighed.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.level() == Level::Full || self.is_beyond.load(Ordering::Relaxed)
    }

    /// Whether histories should make space: memory is short, and they take a good part of it.
    #[inline]
    pub(crate) fn wants_histories(&self) -> bool {
        // As much as they really take: where that is much more than their bytes, sparing the bytes
        // would keep newcomers out for ever.
        self.level() != Level::Normal
            && self.really(self.histories.value()) > self.bytes_max() / HISTORIES_PART
    }

    /// Replaces what the connections of one worker hold. Called by that worker alone.
    pub(crate) fn set_held(&self, worker: usize, held: &Held) {
        let tallies = &self.workers[worker];
        tallies.conns.set(held.conns);
        tallies.outboxes.set(held.outboxes);
        tallies.inputs.set(held.inputs);
        tallies.blocked.set(held.blocked);
        tallies.stuck.set(held.stuck);
        tallies.stuck_paused.set(held.stuck_paused);
        self.weigh();
    }

    /// Finds out how near the ceiling is.
    pub(crate) fn weigh(&self) -> Level {
        let bytes_max = self.bytes_max();
        if bytes_max == usize::MAX {
            return Level::Normal;
        }
        let (used, before) = (self.used(), self.level());
        let is_above = |percent| used >= bytes_max / 100 * percent;
        let level = match before {
            _ if is_above(FULL_PERCENT) => Level::Full,
            Level::Full if is_above(GROW_PERCENT) => Level::Full,
            Level::Full | Level::Shed if is_above(SERVE_PERCENT) => Level::Shed,
            Level::Wait if is_above(SERVE_PERCENT) => Level::Wait,
            _ if is_above(WAIT_PERCENT) || self.is_over() => Level::Wait,
            _ => Level::Normal,
        };
        if level != before {
            self.level.store(level as u8, Ordering::Relaxed);
        }
        level
    }

    /// Has memory taken back until newcomers can be served, if they wait for what the account knows
    /// of.
    pub(crate) fn take_back(&self) {
        let serve_below = self.bytes_max() / 100 * SERVE_PERCENT;
        if self.level() == Level::Wait && self.used() >= serve_below {
            self.level.store(Level::Shed as u8, Ordering::Relaxed);
        }
    }

    /// What is held against the ceiling, in bytes.
    fn used(&self) -> usize {
        let counted = self.really(self.counted());
        self.base.saturating_add(counted).saturating_add(self.in_kernel())
    }

    /// What so many bytes of the account take.
    fn really(&self, counted: usize) -> usize {
        counted.saturating_mul(self.cost.load(Ordering::Relaxed)) / COST_MIN
    }

    /// Whether what is really there has reached the ceiling, known of or not.
    fn is_over(&self) -> bool {
        self.really_there() >= self.bytes_max()
    }

    /// What is resident and what the kernel holds, in bytes.
    fn really_there(&self) -> usize {
        self.resident.load(Ordering::Relaxed).saturating_add(self.in_kernel())
    }

    /// What this process holds and has counted.
    fn counted(&self) -> usize {
        let kinds = [&self.sessions, &self.patterns, &self.rooms, &self.calls];
        let of_workers = self.workers.iter().flat_map(|worker| [&worker.outboxes, &worker.inputs]);
        let tallies: usize = kinds.into_iter().chain(of_workers).map(Tally::value).sum();
        tallies + self.frames.load(Ordering::Relaxed) + self.conns() * CONN_BYTES
    }

    /// What the kernel holds for the sockets.
    fn in_kernel(&self) -> usize {
        let of_buffers = |worker: &WorkerTallies| {
            let (stuck, stuck_paused) = (worker.stuck.value(), worker.stuck_paused.value());
            stuck * SOCKET_UNSENT_MAX + stuck_paused * (SOCKET_UNSENT_MAX + SOCKET_RECEIVE_BUFFER)
        };
        let of_buffers: usize = self.workers.iter().map(of_buffers).sum();
        self.conns() * KERNEL_SOCKET_BYTES + of_buffers
    }

    /// Whether a client has not read all that it was sent.
    pub(crate) fn has_blocked(&self) -> bool {
        self.workers.iter().any(|worker| worker.blocked.value() > 0)
    }

    /// Open sockets.
    fn conns(&self) -> usize {
        self.workers.iter().map(|worker| worker.conns.value()).sum()
    }

    /// Compares the account with what the system says is resident, and learns what a byte of it
    /// takes. `now` is in milliseconds.
    pub(crate) fn compare(&self, resident: usize, now: u64) {
        self.resident.store(resident, Ordering::Relaxed);
        let bytes_max = self.bytes_max();
        let beyond = bytes_max.saturating_add(bytes_max / BEYOND_PART);
        self.is_beyond.store(self.really_there() >= beyond, Ordering::Relaxed);
        let counted = self.counted();
        let mut peak = self.peak.lock();
        if now >= peak.lowered_at + PEAK_INTERVAL_MS {
            peak.lowered_at = now;
            peak.counted -= peak.counted.saturating_sub(counted).div_ceil(PEAK_PART);
            peak.resident -= peak.resident.saturating_sub(resident).div_ceil(PEAK_PART);
        }
        // Below this, whatever it takes is far from the ceiling.
        let matters = counted >= self.bytes_max() / 8;
        let is_near_peak = counted >= peak.counted / 10 * 9;
        let is_beyond = resident > peak.resident && counted >= peak.counted / 2;
        if matters && (is_near_peak || is_beyond) {
            let of_account = resident.saturating_sub(self.base) as u128;
            let cost = of_account * COST_MIN as u128 / counted as u128;
            let cost = usize::try_from(cost).unwrap_or(COST_MAX).clamp(COST_MIN, COST_MAX);
            // Memory that was counted may not have been written to yet.
            let least = self.cost.load(Ordering::Relaxed) - COST_STEP;
            let cost = cost.max(least);
            self.cost.store(cost, Ordering::Relaxed);
        }
        peak.counted = peak.counted.max(counted);
        peak.resident = peak.resident.max(resident);
    }

    /// Returns every sum.
    pub(crate) fn balance(&self) -> Balance {
        let of_workers = |kind: fn(&WorkerTallies) -> &Tally| -> usize {
            self.workers.iter().map(|worker| kind(worker).value()).sum()
        };
        Balance {
            frames: self.frames.load(Ordering::Relaxed),
            histories: self.histories.value(),
            inboxes: self.inboxes.value(),
            sessions: self.sessions.value(),
            patterns: self.patterns.value(),
            rooms: self.rooms.value(),
            calls: self.calls.value(),
            outboxes: of_workers(|worker| &worker.outboxes),
            inputs: of_workers(|worker| &worker.inputs),
            sockets: self.conns() * CONN_BYTES + self.in_kernel(),
            resident: self.resident.load(Ordering::Relaxed),
            used: self.used(),
            used_max: Some(self.bytes_max()).filter(|max| *max != usize::MAX).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn account(base: usize) -> Account {
        Account::new(2, Some(100 * MIB), base)
    }

    #[test]
    fn newcomers_wait_before_anything_is_taken_back() {
        let account = account(0);
        let level_at = |mib: usize| {
            account.sessions.change(account.sessions.value(), mib * MIB);
            account.weigh()
        };
        assert_eq!(level_at(84), Level::Normal);
        assert_eq!(level_at(85), Level::Wait);
        assert_eq!(level_at(81), Level::Wait, "it does not go up and down with every byte");
        assert_eq!(level_at(79), Level::Normal);
        assert_eq!(level_at(95), Level::Full);
        assert!(!account.may_grow());
        assert_eq!(level_at(93), Level::Full);
        assert_eq!(level_at(91), Level::Shed);
        assert!(account.may_grow());
        assert_eq!(level_at(81), Level::Shed, "until newcomers can be served");
        assert_eq!(level_at(79), Level::Normal);
        assert_eq!(level_at(96), Level::Full);
        assert_eq!(level_at(0), Level::Normal);
    }

    #[test]
    fn what_keeps_newcomers_out_can_be_taken_back_before_all_is_full() {
        let account = account(0);
        let level_at = |mib: usize| {
            account.sessions.change(account.sessions.value(), mib * MIB);
            account.weigh()
        };
        level_at(70);
        account.take_back();
        assert_eq!(level_at(86), Level::Wait, "nobody waits below that");
        account.take_back();
        assert_eq!(level_at(81), Level::Shed, "until newcomers can be served");
        assert_eq!(level_at(79), Level::Normal);
        account.compare(104 * MIB, 0);
        assert_eq!(level_at(1), Level::Wait);
        account.take_back();
        assert_eq!(account.level(), Level::Wait, "no more is taken back than the account has");
    }

    #[test]
    fn histories_are_spared_by_what_they_really_take() {
        let account = account(0);
        account.histories.add(24 * MIB);
        account.frames.fetch_add(90 * MIB, Ordering::Relaxed);
        assert_eq!((account.weigh(), account.wants_histories()), (Level::Wait, false));
        account.compare(99 * MIB, 0);
        assert!(account.wants_histories());
    }

    #[test]
    fn every_kind_counts() {
        let account = account(7);
        account.frames.fetch_add(1, Ordering::Relaxed);
        let tallies = [&account.sessions, &account.patterns, &account.rooms, &account.calls];
        tallies.into_iter().for_each(|tally| tally.add(1));
        let one = Held { outboxes: 1, inputs: 1, ..Held::default() };
        account.set_held(0, &one);
        account.set_held(1, &Held { conns: 1, blocked: 1, ..one });
        let of_socket = CONN_BYTES + KERNEL_SOCKET_BYTES;
        let balance = account.balance();
        assert_eq!(balance.used, 7 + 1 + 4 + 4 + of_socket);
        assert_eq!((balance.outboxes, balance.inputs, balance.sockets), (2, 2, of_socket));
        account.set_held(1, &Held { conns: 1, blocked: 2, stuck: 1, stuck_paused: 1, ..one });
        let of_buffers = 2 * SOCKET_UNSENT_MAX + SOCKET_RECEIVE_BUFFER;
        assert_eq!(account.balance().sockets, of_socket + of_buffers, "of those that do not read");
        account.set_held(1, &Held::default());
        assert_eq!(account.balance().outboxes, 1);
    }

    #[test]
    fn messages_are_weighed_as_they_come() {
        let account = account(0);
        assert!(account.may_grow());
        account.frames.fetch_add(96 * MIB, Ordering::Relaxed);
        assert!(!account.may_grow(), "nobody else has looked");
        account.frames.fetch_sub(96 * MIB, Ordering::Relaxed);
        assert!(account.may_grow());
    }

    #[test]
    fn what_a_byte_takes_is_learnt_near_the_peak_alone() {
        let account = account(5 * MIB);
        let used = |counted: usize, resident: usize| {
            account.sessions.change(account.sessions.value(), counted * MIB);
            account.compare(resident * MIB, 0);
            account.used() / MIB
        };
        let used_after_a_while = |counted: usize, resident: usize| {
            (0..COST_MAX / COST_STEP).fold(None, |_, _| Some(used(counted, resident)))
        };
        assert_eq!(used(10, 50), 15, "too little to learn from");
        assert_eq!(used(40, 65), 65, "half as much again");
        assert_eq!(used(20, 65), 35, "the rest is the allocator's, for the next growth");
        assert_eq!(used(50, 55), 79, "less is believed slowly");
        assert_eq!(used_after_a_while(50, 55), Some(55), "and that did not take it twice");
        assert_eq!(used_after_a_while(50, 5), Some(55), "a byte takes itself");
        assert_eq!(used(50, 500), 105, "what the account does not know of has a bound");
    }

    #[test]
    fn an_old_peak_is_forgotten() {
        let account = account(0);
        let used_at = |second: u64, counted: usize, resident: usize| {
            account.sessions.change(account.sessions.value(), counted * MIB);
            account.compare(resident * MIB, second * 1000);
            account.used() / MIB
        };
        assert_eq!(used_at(0, 80, 80), 80);
        assert_eq!(used_at(1, 40, 72), 40, "the allocator may keep it for the next growth");
        assert_eq!(used_at(1, 40, 72), 40, "however often it is looked at in a second");
        assert_eq!((2..10).map(|second| used_at(second, 40, 72)).max(), Some(40));
        assert_eq!((10..120).map(|second| used_at(second, 40, 72)).max(), Some(72), "it stayed");
        used_at(120, 80, 80);
        (121..300).for_each(|second| assert!(used_at(second, 5, 72) < 10, "far from the ceiling"));
        assert_eq!(used_at(300, 40, 72), 72, "it is forgotten there too");
    }

    #[test]
    fn newcomers_wait_while_more_is_resident_than_may_be() {
        let account = account(0);
        let level_at = |resident: usize| {
            account.compare(resident * MIB, 0);
            account.weigh()
        };
        account.sessions.add(MIB);
        assert_eq!(level_at(99), Level::Normal, "too little is counted to learn from");
        assert_eq!(level_at(104), Level::Wait);
        assert!(account.may_grow(), "the allocator gives that back in a moment");
        assert_eq!(level_at(105), Level::Wait, "no more is taken back than the account has");
        assert!(!account.may_grow());
        assert_eq!(level_at(100), Level::Wait);
        assert!(account.may_grow());
        assert_eq!(level_at(99), Level::Normal);
        // The kernel's part is not resident, but it is in the same container.
        account.set_held(0, &Held { conns: 1, blocked: 8, stuck: 8, ..Held::default() });
        assert_eq!(account.weigh(), Level::Wait);
    }

    #[test]
    fn without_a_ceiling_everything_may_grow() {
        let account = Account::new(1, None, 0);
        account.frames.fetch_add(usize::MAX / 4, Ordering::Relaxed);
        assert!(account.may_grow());
        assert_eq!((account.weigh(), account.balance().used_max), (Level::Normal, 0));
    }
}
