//! What crosses threads: letters, and the mailbox in front of each worker.
//!
//! A mailbox has two bounds. At half of it the workers that feed it stop reading from their sockets, so
//! that the pressure reaches the senders as TCP backpressure; at the whole, `publish` is refused. Nobody
//! waits on a full mailbox, so workers cannot deadlock. Letters that carry no message (a permit granted,
//! a close, a drain) are bounded by the number of connections and are never refused.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use crossbeam_channel::{Receiver, Sender};
use mio::Waker;

use super::{
    HubError,
    rooms::{Room, RoomKey, RoomPattern},
    sessions::Session,
};
use crate::ws::{close::CloseReason, frame::PreparedFrame};

/// One connection's life on one worker. The generation tells a reused slot from the life before, so a
/// late letter to it is a no-op.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConnId {
    pub(crate) worker: u16,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl ConnId {
    /// It in one word. A worker has fewer than 2^24 connections, and a server at most 2^8 workers.
    pub(super) fn packed(self) -> u64 {
        let ConnId { worker, slot, generation } = self;
        u64::from(generation) << 32 | u64::from(worker & 0xff) << 24 | u64::from(slot & 0xff_ffff)
    }
}

/// What one thread tells a worker.
pub(crate) enum Letter {
    /// A room's message for all of this worker's members but one.
    Deliver { room: RoomKey, seq: u64, frame: PreparedFrame, except: Option<ConnId> },
    /// A message of several rooms at once: each member gets it one time, whichever of them it is in.
    DeliverMany { rooms: Arc<[(RoomKey, u64)]>, frame: PreparedFrame, except: Option<ConnId> },
    /// A message for every connection of a route.
    Announce { route: Option<u16>, frame: PreparedFrame, except: Option<ConnId> },
    /// A message for one connection.
    Send { conn: ConnId, frame: PreparedFrame },
    /// A job made this connection a member: deliver to it what comes behind `from_seq`. Posted under the
    /// room's lock, so that it comes before any such message.
    Enter { conn: ConnId, room: Arc<Room>, from_seq: u64 },
    /// A job took this connection out of a room.
    Exit { conn: ConnId, room: RoomKey },
    /// A job made this connection go on with another session; it is in no room until it enters one.
    Attach { conn: ConnId, session: Arc<Session> },
    /// A room was made that these connections wait for, each by that pattern of its own. They are counted in
    /// already. Posted before anyone can publish there.
    Matched { room: Arc<Room>, waiting: Box<[(ConnId, RoomPattern)]> },
    /// Close one connection.
    Close { conn: ConnId, reason: CloseReason },
    /// A permit was set aside for the waiting connection.
    Admitted { conn: ConnId },
    /// The connection's blocking jobs have caught up: read from it again.
    JobsDone { conn: ConnId },
    /// A mailbox that was behind is not any more: read from sockets again.
    PressureOff,
    /// Close everyone politely, and stop when nobody is left.
    Drain,
    /// The grace is over: stop now.
    Stop,
}

impl Letter {
    /// The bytes that count towards the mailbox's bound; `None` for a letter that is never refused.
    pub(super) fn weight(&self) -> Option<usize> {
        match self {
            Letter::Deliver { frame, .. }
            | Letter::DeliverMany { frame, .. }
            | Letter::Announce { frame, .. }
            | Letter::Send { frame, .. } => Some(frame.len()),
            Letter::Matched { waiting, .. } => Some(size_of_val::<[_]>(waiting)),
            Letter::Enter { .. }
            | Letter::Exit { .. }
            | Letter::Attach { .. }
            | Letter::Close { .. }
            | Letter::Admitted { .. }
            | Letter::JobsDone { .. }
            | Letter::PressureOff
            | Letter::Drain
            | Letter::Stop => None,
        }
    }
}

/// What a mailbox may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MailboxBounds {
    pub(crate) letters_max: usize,
    pub(crate) bytes_max: usize,
}

/// The sending sides of all mailboxes. Clones are the same post; usable from any thread.
#[derive(Clone)]
pub(crate) struct Post {
    mailboxes: Arc<[Mailbox]>,
    bounds: MailboxBounds,
}

struct Mailbox {
    letters: Sender<Letter>,
    waiting: AtomicUsize,
    waiting_bytes: AtomicUsize,
    /// Someone was told that this mailbox is behind, and waits to hear that it is not.
    behind: AtomicBool,
    /// Whether its worker is up, or is being woken: either way it will look before it sleeps.
    awake: AtomicBool,
    waker: Waker,
    refused: AtomicUsize,
}

/// The receiving side, owned by one worker.
pub(crate) struct Inbox {
    letters: Receiver<Letter>,
    post: Post,
    worker: usize,
}

impl Post {
    /// One mailbox for each waker, with the inboxes in the same order.
    pub(crate) fn new(wakers: Vec<Waker>, bounds: MailboxBounds) -> (Post, Vec<Inbox>) {
        let (mailboxes, receivers): (Vec<_>, Vec<_>) = wakers
            .into_iter()
            .map(|waker| {
                // The bound is kept by reservation, because a publish must know that it fits everywhere
                // before it is put anywhere.
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
        let post = Post { mailboxes: mailboxes.into(), bounds };
        let inboxes = receivers
            .into_iter()
            .enumerate()
            .map(|(worker, letters)| Inbox { letters, post: post.clone(), worker })
            .collect();
        (post, inboxes)
    }

    pub(crate) fn workers(&self) -> usize {
        self.mailboxes.len()
    }

    /// Sets a place aside for one letter of `bytes`. `None` when the mailbox is full, else whether it is
    /// behind.
    pub(crate) fn reserve(&self, worker: usize, bytes: usize) -> Option<bool> {
        let mailbox = &self.mailboxes[worker];
        let letters = mailbox.waiting.fetch_add(1, Ordering::SeqCst) + 1;
        let total = mailbox.waiting_bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
        if letters > self.bounds.letters_max || total > self.bounds.bytes_max {
            self.cancel(worker, bytes);
            mailbox.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let behind = letters > self.bounds.letters_max / 2 || total > self.bounds.bytes_max / 2;
        if behind {
            // Taking the letter that this place is for will find the flag, however fast the worker is.
            mailbox.behind.store(true, Ordering::SeqCst);
        }
        Some(behind)
    }

    /// Sets a place aside whether there is one or not: for notices that nobody can be asked to repeat,
    /// and that come of something else that is bounded. Returns whether the mailbox is behind.
    pub(crate) fn reserve_in_any_case(&self, worker: usize, bytes: usize) -> bool {
        let mailbox = &self.mailboxes[worker];
        let letters = mailbox.waiting.fetch_add(1, Ordering::SeqCst) + 1;
        let total = mailbox.waiting_bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
        let behind = letters > self.bounds.letters_max / 2 || total > self.bounds.bytes_max / 2;
        if behind {
            mailbox.behind.store(true, Ordering::SeqCst);
        }
        behind
    }

    /// Sets a place aside at each of these workers, with the bytes of its letter, or at none of them.
    pub(crate) fn reserve_all(
        &self,
        places: impl Iterator<Item = (usize, usize)> + Clone,
        deferred: &mut Deferred,
    ) -> Result<(), HubError> {
        for (nth, (worker, bytes)) in places.clone().enumerate() {
            match self.reserve(worker, bytes) {
                Some(behind) => deferred.behind |= behind,
                None => {
                    places.take(nth).for_each(|(worker, bytes)| self.cancel(worker, bytes));
                    deferred.cancelled = true;
                    return Err(HubError::Overloaded);
                }
            }
        }
        Ok(())
    }

    /// Gives a reserved place back. [`Post::settle`] must follow once no lock is held.
    pub(crate) fn cancel(&self, worker: usize, bytes: usize) {
        let mailbox = &self.mailboxes[worker];
        mailbox.waiting.fetch_sub(1, Ordering::SeqCst);
        mailbox.waiting_bytes.fetch_sub(bytes, Ordering::SeqCst);
    }

    /// Tells everyone if `worker` was behind and has caught up. A quarter is the low-water mark, so that
    /// readers are not switched on and off letter by letter.
    pub(crate) fn settle(&self, worker: usize) {
        let mailbox = &self.mailboxes[worker];
        if mailbox.behind.load(Ordering::SeqCst)
            && mailbox.waiting.load(Ordering::SeqCst) <= self.bounds.letters_max / 4
            && mailbox.waiting_bytes.load(Ordering::SeqCst) <= self.bounds.bytes_max / 4
            && mailbox.behind.swap(false, Ordering::SeqCst)
        {
            (0..self.workers()).for_each(|worker| self.tell(worker, Letter::PressureOff));
        }
    }

    /// Puts a letter whose place is reserved, or that needs none. The worker must be rung afterwards.
    pub(crate) fn put(&self, worker: usize, letter: Letter) {
        // A worker that is gone needs no letters; its connections ended with it.
        let _ = self.mailboxes[worker].letters.send(letter);
    }

    /// Wakes the workers that were sent something and sleep, at a system call for each, and makes good for
    /// places that were set aside in vain. With no lock held.
    pub(crate) fn finish(&self, deferred: &Deferred) {
        deferred.ring.iter().for_each(|worker| self.ring_one(worker));
        if deferred.cancelled {
            (0..self.workers()).for_each(|worker| self.settle(worker));
        }
    }

    pub(crate) fn ring_one(&self, worker: usize) {
        let mailbox = &self.mailboxes[worker];
        if !mailbox.awake.swap(true, Ordering::SeqCst)
            && let Err(error) = mailbox.waker.wake()
        {
            // It will look again at its next deadline; say so, because messages are late until then.
            mailbox.awake.store(false, Ordering::SeqCst);
            log::error!("cannot wake worker {worker}: {error}");
        }
    }

    /// Posts a letter that is never refused, and wakes its worker.
    pub(crate) fn tell(&self, worker: usize, letter: Letter) {
        debug_assert!(letter.weight().is_none(), "a message needs a reserved place");
        self.put(worker, letter);
        self.ring_one(worker);
    }

    /// Posts a message for one connection, if there is a place for it.
    pub(crate) fn send(&self, conn: ConnId, frame: PreparedFrame) -> bool {
        let worker = usize::from(conn.worker);
        if self.reserve(worker, frame.len()).is_none() {
            return false;
        }
        self.put(worker, Letter::Send { conn, frame });
        self.ring_one(worker);
        true
    }

    /// Letters that wait for `worker` now.
    pub(crate) fn waiting(&self, worker: usize) -> usize {
        self.mailboxes[worker].waiting.load(Ordering::Relaxed)
    }

    /// How often a full mailbox refused a letter for `worker`.
    pub(crate) fn refused(&self, worker: usize) -> usize {
        self.mailboxes[worker].refused.load(Ordering::Relaxed)
    }
}

impl Inbox {
    /// The next letter. When the mailbox has caught up after being behind, everyone is told.
    pub(crate) fn take(&self) -> Option<Letter> {
        let letter = self.letters.try_recv().ok()?;
        if let Some(bytes) = letter.weight() {
            self.post.cancel(self.worker, bytes);
            self.post.settle(self.worker);
        }
        Some(letter)
    }

    /// Whether no letter waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// Says that this worker is about to sleep. It may only if this returns `true`: a letter put before
    /// is seen here, one put after rings the bell.
    pub(crate) fn may_sleep(&self) -> bool {
        let mailbox = &self.post.mailboxes[self.worker];
        // A swap, so that a letter put before someone else's swap is seen after ours.
        mailbox.awake.swap(false, Ordering::SeqCst);
        if self.letters.is_empty() {
            return true;
        }
        mailbox.awake.store(true, Ordering::SeqCst);
        false
    }

    /// Says that this worker is up again: until it sleeps, letters need no bell.
    pub(crate) fn woke(&self) {
        self.post.mailboxes[self.worker].awake.store(true, Ordering::SeqCst);
    }
}

/// What a change under locks leaves to be done once nothing is locked, by [`Post::finish`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Deferred {
    /// Workers that were sent a letter, and may sleep.
    pub(crate) ring: WorkerSet,
    /// A mailbox was found behind: whoever feeds it should pause.
    pub(crate) behind: bool,
    /// Places were given back, which may have made a mailbox look behind.
    cancelled: bool,
}

impl Deferred {
    pub(crate) fn add(&mut self, other: &Deferred) {
        let Deferred { ring, behind, cancelled } = other;
        self.ring.0.iter_mut().zip(ring.0).for_each(|(word, other)| *word |= other);
        self.behind |= behind;
        self.cancelled |= cancelled;
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

    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        let words = self.0;
        words.into_iter().enumerate().flat_map(|(index, mut word)| {
            std::iter::from_fn(move || {
                let bit = word.trailing_zeros() as usize;
                word &= word.wrapping_sub(1);
                (bit < 64).then_some(index * 64 + bit)
            })
        })
    }
}

/// A post whose workers do not exist: what is put stays in the inboxes.
#[cfg(test)]
pub(crate) fn post_without_workers(count: usize, bounds: MailboxBounds) -> (Post, Vec<Inbox>) {
    // One waker a poll; the poll may go, and its waker then wakes nobody.
    let waker = |_| {
        let poll = mio::Poll::new().expect("a poll");
        Waker::new(poll.registry(), mio::Token(0)).expect("a waker")
    };
    Post::new((0..count).map(waker).collect(), bounds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::frame::Message;

    fn post(letters_max: usize) -> (Post, Inbox) {
        let bounds = MailboxBounds { letters_max, bytes_max: 1000 };
        let (post, mut inboxes) = post_without_workers(1, bounds);
        (post, inboxes.remove(0))
    }

    const CONN: ConnId = ConnId { worker: 0, slot: 0, generation: 0 };

    #[test]
    fn a_full_mailbox_refuses_messages_but_no_others() {
        let (post, inbox) = post(2);
        let frame = PreparedFrame::new(Message::Text("x"));
        assert!(post.send(CONN, frame.clone()));
        assert!(post.send(CONN, frame.clone()));
        assert!(!post.send(CONN, frame.clone()));
        assert_eq!((post.waiting(0), post.refused(0)), (2, 1));
        post.tell(0, Letter::Drain);
        assert!(inbox.take().is_some());
        assert!(post.send(CONN, frame));
        let large = PreparedFrame::new(Message::Binary(&[0; 2000]));
        assert!(inbox.take().is_some() && !post.send(CONN, large), "bytes are bounded too");
    }

    #[test]
    fn catching_up_is_told_once() {
        let (post, inbox) = post(8);
        let frame = PreparedFrame::new(Message::Text("x"));
        let behind: Vec<bool> =
            (0..6).map(|_| post.reserve(0, frame.len()).expect("a place")).collect();
        assert_eq!(behind, [false, false, false, false, true, true]);
        for _ in 0..6 {
            post.put(0, Letter::Send { conn: CONN, frame: frame.clone() });
        }
        let mut told = 0;
        while let Some(letter) = inbox.take() {
            told += usize::from(matches!(letter, Letter::PressureOff));
        }
        assert_eq!((told, post.waiting(0)), (1, 0));
    }

    #[test]
    fn sets_hold_every_worker() {
        let mut set = WorkerSet::default();
        for worker in [0, 63, 64, 255] {
            set.insert(worker);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 255]);
    }
}
