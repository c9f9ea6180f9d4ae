//! What crosses threads: letters, and the mailbox in front of each worker.
//!
//! A mailbox has two bounds, letters and bytes. At half of either, the workers that feed the
//! mailbox stop reading their sockets, so that senders get TCP backpressure; at the bound,
//! `publish` fails. No thread waits on a full mailbox, so workers cannot deadlock. Letters without
//! a message (a granted permit, a close, a drain) are bounded by the number of connections and are
//! never refused.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender};
use mio::Waker;

use super::{
    charge::Charge,
    conn_id::ConnId,
    error::RoomError,
    inbound_token::InboundToken,
    posted::{PostName, PostOutcome, Posted},
    question::Outcome,
    room::{Entry, Room, RoomKey},
    send_status::SendStatus,
    session::Session,
    task::TaskAnswer,
};
use crate::{
    store::Position,
    ws::{close::CloseReason, frame::PreparedFrame},
};

/// The worker that sweeps for all.
pub(crate) const SWEEPER: usize = 0;

/// A request from one thread to a worker.
pub(crate) enum Letter {
    /// Deliver a room's message to all of this worker's members except one.
    Deliver {
        room: RoomKey,
        seq: u64,
        frame: PreparedFrame,
        except: Option<ConnId>,
        charge: Option<Charge>,
    },
    /// Deliver a message of several rooms. Each member gets it once, however many of the rooms it
    /// is in.
    DeliverMany {
        rooms: Arc<[(RoomKey, u64)]>,
        frame: PreparedFrame,
        except: Option<ConnId>,
        charge: Option<Charge>,
    },
    /// Send a message to every connection of a route except one.
    Broadcast { route: u16, frame: PreparedFrame, except: ConnId, charge: Option<Charge> },
    /// Send a message to one connection. A direct message is charged for, and counted until it is
    /// delivered.
    Send {
        conn: ConnId,
        frame: PreparedFrame,
        charge: Option<Charge>,
        inbound: Option<InboundToken>,
    },
    /// A job made this connection a member: deliver the messages after `from_seq` to it. Posted
    /// under the room's lock, so that the letter precedes every such message.
    Enter { conn: ConnId, room: Arc<Room>, at: Entry },
    /// A job took this connection out of a room.
    Exit { conn: ConnId, room: RoomKey },
    /// A job attached this connection to another session. The connection is in no room until it
    /// enters one.
    Attach { conn: ConnId, session: Arc<Session> },
    /// A new room matches a pattern of each of these connections. The room already counts them as
    /// members. Posted before anyone can publish to the room.
    Matched { room: Arc<Room>, waiting: Box<[ConnId]> },
    /// Messages of a room were lost before they came here: tell its members.
    Lost { room: Arc<Room>, from: u64, to: u64, nth: u32 },
    /// A room goes on at another position, in a new epoch: tell its members, and deliver what
    /// follows.
    Restarted { room: Arc<Room>, position: Position, nth: u32 },
    /// Close one connection.
    Close { conn: ConnId, reason: CloseReason },
    /// A permit is reserved for the waiting connection.
    Admitted { conn: ConnId },
    /// The blocking handler has answered the connection's upgrade.
    UpgradeAnswered { conn: ConnId },
    /// The task that the connection waits for is done; no answer if it panicked.
    TaskAnswered { conn: ConnId, answer: Option<TaskAnswer> },
    /// A client without a WebSocket has posted what it has to say.
    Posted(Box<Posted>),
    /// What was posted on this connection is handled, or refused.
    PostAnswered { conn: ConnId, name: PostName, outcome: PostOutcome },
    /// The engine has answered what the connection's handler asked; `next` is its
    /// `Continuation`.
    EngineAnswered { conn: ConnId, next: Box<dyn Any + Send>, outcome: Outcome },
    /// The connection's blocking handler has caused many deliveries: stop reading its socket until
    /// they are made.
    Await { conn: ConnId },
    /// The deliveries that the connection caused are made: read its socket again.
    Resume { conn: ConnId },
    /// The connection's blocking handler asks for a call after this time.
    WakeAfter { conn: ConnId, wait: Duration },
    /// The connection's blocking jobs have caught up: read its socket again.
    JobsDone { conn: ConnId },
    /// A mailbox that was behind has caught up: read sockets again.
    PressureOff,
    /// Sweep soon: changes of presence were gathered for one notice.
    SweepSoon,
    /// Decide anew what each client may do.
    RecheckPermissions,
    /// Say that this worker makes turns.
    Report { to: Sender<()> },
    /// Close every connection with 1001, the open ones spread over this time, and stop when none is
    /// left.
    Drain { spread_ms: u64 },
    /// The grace is over: stop now.
    Stop,
}

impl Letter {
    /// Returns the bytes that count towards the mailbox's bound, or `None` for a letter that is
    /// never refused.
    pub(crate) fn weight(&self) -> Option<usize> {
        match self {
            Letter::Deliver { frame, .. }
            | Letter::DeliverMany { frame, .. }
            | Letter::Broadcast { frame, .. }
            | Letter::Send { frame, .. } => Some(frame.len()),
            Letter::Matched { waiting, .. } => Some(size_of_val::<[_]>(waiting)),
            Letter::Posted(posted) => Some(posted.frames.len()),
            Letter::Enter { .. }
            | Letter::Exit { .. }
            | Letter::Attach { .. }
            | Letter::Lost { .. }
            | Letter::Restarted { .. }
            | Letter::Close { .. }
            | Letter::Admitted { .. }
            | Letter::UpgradeAnswered { .. }
            | Letter::TaskAnswered { .. }
            | Letter::PostAnswered { .. }
            | Letter::EngineAnswered { .. }
            | Letter::JobsDone { .. }
            | Letter::Await { .. }
            | Letter::Resume { .. }
            | Letter::WakeAfter { .. }
            | Letter::PressureOff
            | Letter::SweepSoon
            | Letter::RecheckPermissions
            | Letter::Drain { .. }
            | Letter::Report { .. }
            | Letter::Stop => None,
        }
    }
}

/// The bounds of a mailbox.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MailboxBounds {
    pub(crate) letters_max: usize,
    pub(crate) bytes_max: usize,
}

/// The sending sides of all mailboxes. Usable from any thread; clones refer to the same mailboxes.
#[derive(Clone)]
pub(crate) struct Mailboxes {
    by_worker: Arc<[Mailbox]>,
    bounds: MailboxBounds,
}

struct Mailbox {
    letters: Sender<Letter>,
    waiting: AtomicUsize,
    waiting_bytes: AtomicUsize,
    /// Whether the mailbox was found behind and has not caught up. Workers that feed it wait for
    /// [`Letter::PressureOff`].
    behind: AtomicBool,
    /// Whether the worker is awake or being woken. Either way it checks its letters before it
    /// sleeps.
    awake: AtomicBool,
    waker: Waker,
    refused: AtomicUsize,
}

/// The receiving side, owned by one worker.
pub(crate) struct MailboxReceiver {
    letters: Receiver<Letter>,
    mailboxes: Mailboxes,
    worker: usize,
}

impl Mailboxes {
    /// Makes one mailbox for each waker. Returns the receiving sides in the same order.
    pub(crate) fn new(
        wakers: Vec<Waker>,
        bounds: MailboxBounds,
    ) -> (Mailboxes, Vec<MailboxReceiver>) {
        let (by_worker, letters): (Vec<_>, Vec<_>) = wakers
            .into_iter()
            .map(|waker| {
                // Reservations keep the bound, because a publish must fit every mailbox before it
                // is posted to any.
                let (letters, receiver) = crossbeam_channel::unbounded();
                let mailbox = Mailbox {
                    letters,
                    waiting: AtomicUsize::new(0),
                    waiting_bytes: AtomicUsize::new(0),
                    behind: AtomicBool::new(false),
                    awake: AtomicBool::new(true),
                    waker,
                    refused: AtomicUsize::new(0),
                };
                (mailbox, receiver)
            })
            .unzip();
        let mailboxes = Mailboxes { by_worker: by_worker.into(), bounds };
        let receivers = letters
            .into_iter()
            .enumerate()
            .map(|(worker, letters)| MailboxReceiver {
                letters,
                mailboxes: mailboxes.clone(),
                worker,
            })
            .collect();
        (mailboxes, receivers)
    }

    pub(crate) fn workers(&self) -> usize {
        self.by_worker.len()
    }

    /// Reserves space for one letter of `bytes`. Returns `None` if the mailbox is full, else
    /// whether it is behind.
    fn reserve(&self, worker: usize, bytes: usize) -> Option<bool> {
        let mailbox = &self.by_worker[worker];
        let (letters, total) = mailbox.occupy(bytes);
        if letters > self.bounds.letters_max || total > self.bounds.bytes_max {
            self.cancel(worker, bytes);
            mailbox.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(mailbox.note_behind(letters, total, &self.bounds))
    }

    /// Reserves space for one letter of `bytes` even beyond the bound: for notices that cannot be
    /// refused, and whose number is bounded by something else.
    pub(super) fn reserve_over_bound(&self, worker: usize, bytes: usize, deferred: &mut Deferred) {
        let mailbox = &self.by_worker[worker];
        let (letters, total) = mailbox.occupy(bytes);
        deferred.behind |= mailbox.note_behind(letters, total, &self.bounds);
    }

    /// Reserves space for one letter at each of these workers, given as worker and bytes, or at
    /// none of them.
    pub(crate) fn reserve_all(
        &self,
        letters: impl Iterator<Item = (usize, usize)> + Clone,
        deferred: &mut Deferred,
    ) -> Result<(), RoomError> {
        for (nth, (worker, bytes)) in letters.clone().enumerate() {
            match self.reserve(worker, bytes) {
                Some(behind) => deferred.behind |= behind,
                None => {
                    letters.take(nth).for_each(|(worker, bytes)| self.cancel(worker, bytes));
                    deferred.cancelled = true;
                    return Err(RoomError::Overloaded);
                }
            }
        }
        Ok(())
    }

    /// Gives reserved space back. The caller must call [`Mailboxes::check_low_water`] once no lock
    /// is held.
    fn cancel(&self, worker: usize, bytes: usize) {
        let mailbox = &self.by_worker[worker];
        mailbox.waiting.fetch_sub(1, Ordering::SeqCst);
        mailbox.waiting_bytes.fetch_sub(bytes, Ordering::SeqCst);
    }

    /// Sends `PressureOff` to every worker if `worker` was behind and has caught up. The low-water
    /// mark is a quarter of the bound, so that reading is not switched on and off with every
    /// letter.
    fn check_low_water(&self, worker: usize) {
        let mailbox = &self.by_worker[worker];
        if mailbox.behind.load(Ordering::SeqCst)
            && mailbox.waiting.load(Ordering::SeqCst) <= self.bounds.letters_max / 4
            && mailbox.waiting_bytes.load(Ordering::SeqCst) <= self.bounds.bytes_max / 4
            && mailbox.behind.swap(false, Ordering::SeqCst)
        {
            (0..self.workers()).for_each(|worker| self.send_control(worker, Letter::PressureOff));
        }
    }

    /// Posts a letter whose space is reserved, or that needs none. The caller must wake the worker
    /// afterwards.
    pub(crate) fn push(&self, worker: usize, letter: Letter) {
        // A worker that is gone needs no letters: its connections ended with it.
        let _ = self.by_worker[worker].letters.send(letter);
    }

    /// Posts a letter as [`push`](Mailboxes::push) does. [`after_unlock`](Mailboxes::after_unlock)
    /// wakes the worker.
    pub(super) fn push_reserved(&self, worker: usize, letter: Letter, deferred: &mut Deferred) {
        self.push(worker, letter);
        deferred.wake.insert(worker);
    }

    /// Wakes the sleeping workers that got letters, with one system call each, and checks the
    /// low-water marks if space was given back. Called after every lock is released.
    pub(crate) fn after_unlock(&self, deferred: &Deferred) {
        deferred.wake.for_each(|worker| self.wake(worker));
        if deferred.sweep_soon {
            self.send_control(SWEEPER, Letter::SweepSoon);
        }
        if deferred.cancelled {
            (0..self.workers()).for_each(|worker| self.check_low_water(worker));
        }
    }

    pub(crate) fn wake(&self, worker: usize) {
        let mailbox = &self.by_worker[worker];
        if !mailbox.awake.swap(true, Ordering::SeqCst)
            && let Err(error) = mailbox.waker.wake()
        {
            // The worker checks its letters at its next deadline; messages are late until then.
            mailbox.awake.store(false, Ordering::SeqCst);
            log::error!("cannot wake worker {worker}: {error}");
        }
    }

    /// Posts a letter that is never refused, and wakes its worker.
    pub(crate) fn send_control(&self, worker: usize, letter: Letter) {
        debug_assert!(letter.weight().is_none(), "a message needs reserved space");
        self.push(worker, letter);
        self.wake(worker);
    }

    /// Posts a message for one connection. Returns `Dropped` if the mailbox is full.
    pub(crate) fn send(&self, conn: ConnId, frame: PreparedFrame) -> SendStatus {
        let letter = Letter::Send { conn, frame, charge: None, inbound: None };
        match self.post(conn.worker(), letter) {
            true => SendStatus::Sent,
            false => SendStatus::Dropped,
        }
    }

    /// Posts a letter that may be refused. Returns whether the mailbox had space for it.
    pub(crate) fn post(&self, worker: usize, letter: Letter) -> bool {
        let fits = self.reserve(worker, letter.weight().unwrap_or_default()).is_some();
        if fits {
            self.push(worker, letter);
            self.wake(worker);
        }
        fits
    }

    /// Returns the number of letters that wait for `worker`.
    pub(crate) fn waiting(&self, worker: usize) -> usize {
        self.by_worker[worker].waiting.load(Ordering::Relaxed)
    }

    /// Returns how many letters for `worker` were refused because its mailbox was full.
    pub(crate) fn refused(&self, worker: usize) -> usize {
        self.by_worker[worker].refused.load(Ordering::Relaxed)
    }
}

impl Mailbox {
    /// Counts a letter in. Returns the numbers of letters and bytes that wait now.
    fn occupy(&self, bytes: usize) -> (usize, usize) {
        let letters = self.waiting.fetch_add(1, Ordering::SeqCst) + 1;
        (letters, self.waiting_bytes.fetch_add(bytes, Ordering::SeqCst) + bytes)
    }

    /// Whether the mailbox is behind with this much in it. Marks the mailbox if it is.
    fn note_behind(&self, letters: usize, bytes: usize, bounds: &MailboxBounds) -> bool {
        let behind = letters > bounds.letters_max / 2 || bytes > bounds.bytes_max / 2;
        if behind {
            // Marked before the letter is posted, so that the worker finds the mark when it takes
            // the letter.
            self.behind.store(true, Ordering::SeqCst);
        }
        behind
    }
}

impl MailboxReceiver {
    /// Takes the next letter. A letter with a weight occupies its space until it is
    /// [released](MailboxReceiver::release).
    pub(crate) fn take(&self) -> Option<Letter> {
        self.letters.try_recv().ok()
    }

    /// Frees the space of a letter whose deliveries are made, and settles what its sender was
    /// charged. If that lets the mailbox catch up, sends `PressureOff` to every worker.
    pub(crate) fn release(&self, bytes: usize, charge: Option<Charge>) {
        self.mailboxes.cancel(self.worker, bytes);
        self.mailboxes.check_low_water(self.worker);
        if let Some(conn) = charge.and_then(Charge::settle) {
            self.mailboxes.send_control(conn.worker(), Letter::Resume { conn });
        }
    }

    /// Whether no letter waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// Announces that this worker is about to sleep, and returns whether it may. A letter posted
    /// before this call is seen here; one posted after it wakes the worker.
    pub(crate) fn may_sleep(&self) -> bool {
        let mailbox = &self.mailboxes.by_worker[self.worker];
        // A swap rather than a store, so that a letter posted before another thread's swap is seen
        // here.
        mailbox.awake.swap(false, Ordering::SeqCst);
        if self.letters.is_empty() {
            return true;
        }
        mailbox.awake.store(true, Ordering::SeqCst);
        false
    }

    /// Whether this worker is up, or a letter has woken it.
    pub(crate) fn is_awake(&self) -> bool {
        self.mailboxes.by_worker[self.worker].awake.load(Ordering::SeqCst)
    }

    /// Notes that this worker is awake, so that letters need not wake it.
    pub(crate) fn woke(&self) {
        self.mailboxes.by_worker[self.worker].awake.store(true, Ordering::SeqCst);
    }
}

/// Work that a change under locks defers to [`Mailboxes::after_unlock`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Deferred {
    /// Workers that got a letter and may be asleep.
    pub(super) wake: WorkerSet,
    /// Whether a mailbox was found behind: code that feeds it should pause.
    pub(super) behind: bool,
    /// Whether reserved space was given back, which may have made a mailbox look behind.
    cancelled: bool,
    /// Something was gathered that a sweep tells.
    pub(super) sweep_soon: bool,
}

impl Deferred {
    pub(super) fn add(&mut self, other: &Deferred) {
        let Deferred { wake, behind, cancelled, sweep_soon } = other;
        self.wake.0.iter_mut().zip(wake.0).for_each(|(word, other)| *word |= other);
        self.behind |= behind;
        self.cancelled |= cancelled;
        self.sweep_soon |= sweep_soon;
    }
}

/// A set of workers, as bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct WorkerSet([u64; WorkerSet::WORKERS_MAX / 64]);

impl WorkerSet {
    /// The most workers a server can have.
    pub(crate) const WORKERS_MAX: usize = 256;

    pub(crate) fn insert(&mut self, worker: usize) {
        self.0[worker / 64] |= 1 << (worker % 64);
    }

    pub(crate) fn for_each(&self, mut with: impl FnMut(usize)) {
        for (index, word) in self.0.iter().enumerate() {
            let mut word = *word;
            while word > 0 {
                with(index * 64 + word.trailing_zeros() as usize);
                word &= word - 1;
            }
        }
    }
}

/// Makes mailboxes without workers: letters stay in the receivers.
#[cfg(test)]
pub(crate) fn mailboxes_without_workers(
    count: usize,
    bounds: MailboxBounds,
) -> (Mailboxes, Vec<MailboxReceiver>) {
    // One waker a poll; the poll may go, and its waker then wakes nobody.
    let waker = |_| {
        let poll = mio::Poll::new().expect("a poll");
        Waker::new(poll.registry(), mio::Token(0)).expect("a waker")
    };
    Mailboxes::new((0..count).map(waker).collect(), bounds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::frame::Message;
    use SendStatus::{Dropped, Sent};

    fn mailbox(letters_max: usize) -> (Mailboxes, MailboxReceiver) {
        let bounds = MailboxBounds { letters_max, bytes_max: 1000 };
        let (mailboxes, mut receivers) = mailboxes_without_workers(1, bounds);
        (mailboxes, receivers.remove(0))
    }

    const CONN: ConnId = ConnId { worker: 0, slot: 0, generation: 0 };

    fn take(receiver: &MailboxReceiver) -> Option<Letter> {
        let letter = receiver.take()?;
        if let Some(bytes) = letter.weight() {
            receiver.release(bytes, None);
        }
        Some(letter)
    }

    #[test]
    fn a_full_mailbox_refuses_messages_but_no_others() {
        let (mailboxes, receiver) = mailbox(2);
        let frame = PreparedFrame::new(Message::Text("x"));
        let send = |frame: &PreparedFrame| mailboxes.send(CONN, frame.clone());
        assert_eq!([(); 3].map(|()| send(&frame)), [Sent, Sent, Dropped]);
        assert_eq!((mailboxes.waiting(0), mailboxes.refused(0)), (2, 1));
        mailboxes.send_control(0, Letter::Drain { spread_ms: 0 });
        assert!(take(&receiver).is_some());
        assert_eq!(send(&frame), Sent);
        let large = PreparedFrame::new(Message::Binary(&[0; 2000]));
        assert!(take(&receiver).is_some());
        assert_eq!(send(&large), Dropped, "bytes are bounded too");
    }

    #[test]
    fn catching_up_is_told_once() {
        let (mailboxes, receiver) = mailbox(8);
        let frame = PreparedFrame::new(Message::Text("x"));
        let behind: Vec<bool> =
            (0..6).map(|_| mailboxes.reserve(0, frame.len()).expect("a place")).collect();
        assert_eq!(behind, [false, false, false, false, true, true]);
        for _ in 0..6 {
            let frame = frame.clone();
            mailboxes.push(0, Letter::Send { conn: CONN, frame, charge: None, inbound: None });
        }
        let mut told = 0;
        while let Some(letter) = take(&receiver) {
            told += usize::from(matches!(letter, Letter::PressureOff));
        }
        assert_eq!((told, mailboxes.waiting(0)), (1, 0));
    }

    #[test]
    fn sets_hold_every_worker() {
        let mut set = WorkerSet::default();
        for worker in [0, 63, 64, 255] {
            set.insert(worker);
        }
        let mut found = Vec::new();
        set.for_each(|worker| found.push(worker));
        assert_eq!(found, [0, 63, 64, 255]);
    }
}
