//! The thread behind a [`Client`](super::Client): it moves what is to be sent and what comes, and
//! keeps the timeouts.
//!
//! One thread that both reads and writes when the socket is ready, rather than a lock that readers
//! and writers fight for: a client whose writes are stuck because the peer is stuck writing goes on
//! reading, so both come free. Pings are answered whether or not anybody receives.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::{
    error::{Error, ErrorKind},
    received::Received,
    shared::{End, Shared, Times},
    wire::{Incoming, Wire},
};

const SOCKET: Token = Token(0);
const WAKER: Token = Token(1);

/// Messages, or parts of them, read before writing has its turn.
const READS_PER_TURN_MAX: usize = 64;

/// Everything the thread owns.
pub(crate) struct Reactor {
    poll: Poll,
    wire: Wire,
    shared: Arc<Shared>,
    /// `None` once the end has been announced.
    incoming: Option<Sender<Received>>,
    incoming_bytes_max: usize,
    times: Times,
    /// A close was asked for; it goes out when what is queued has.
    is_closing: bool,
    /// When we sent our Close.
    closing_since: Option<Instant>,
    /// The peer broke the protocol: once it is told so, our side of the stream ends.
    must_end_output: bool,
    /// Nothing more is written or read.
    is_over: bool,
    /// Nobody received, so nothing was read.
    was_full: bool,
    /// What the peer's Close said, or what went wrong; told once our own last words are written.
    end: Option<End>,
    pinged: Instant,
    /// The first ping since something was heard.
    asked: Instant,
}

impl Reactor {
    pub(crate) fn new(
        poll: Poll,
        mut wire: Wire,
        shared: Arc<Shared>,
        incoming: Sender<Received>,
        incoming_bytes_max: usize,
    ) -> io::Result<Reactor> {
        let interests = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(wire.stream.socket_mut(), SOCKET, interests)?;
        let now = Instant::now();
        let times = shared.outgoing.lock().times;
        Ok(Reactor {
            poll,
            wire,
            shared,
            incoming: Some(incoming),
            incoming_bytes_max,
            times,
            is_closing: false,
            closing_since: None,
            must_end_output: false,
            is_over: false,
            was_full: false,
            end: None,
            pinged: now,
            asked: now,
        })
    }

    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(8);
        loop {
            if let Err(error) = self.turn() {
                self.lose(error);
            }
            self.announce();
            let Some(wait) = self.next_wait() else { break };
            match self.poll.poll(&mut events, wait) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.lose(error);
                    break;
                }
            }
            for event in &events {
                if event.token() == SOCKET {
                    self.wire.readable |= event.is_readable() || event.is_read_closed();
                    self.wire.writable |= event.is_writable() || event.is_write_closed();
                }
            }
        }
        self.wire.discard();
        self.announce();
    }

    /// One round: what is to be sent, what the socket takes, what the socket has.
    fn turn(&mut self) -> io::Result<()> {
        self.take_outgoing();
        self.wire.drain()?;
        self.read()?;
        self.wire.drain()?;
        if self.must_end_output && self.wire.waiting() == 0 {
            self.wire.end_output();
            self.must_end_output = false;
        }
        Ok(())
    }

    fn take_outgoing(&mut self) {
        let mut outgoing = self.shared.outgoing.lock();
        self.times = outgoing.times;
        self.is_closing |= outgoing.close.is_some();
        let mut has_taken = false;
        while self.wire.has_room() {
            let Some(frame) = outgoing.frames.pop_front() else {
                if let Some(reason) = &outgoing.close {
                    self.closing_since = Some(Instant::now());
                    self.wire.close(reason);
                }
                break;
            };
            outgoing.bytes -= frame.len();
            has_taken = true;
            self.wire.push(&frame);
        }
        if has_taken {
            self.shared.moved.notify_all();
        }
    }

    fn read(&mut self) -> io::Result<()> {
        for _ in 0..READS_PER_TURN_MAX {
            if !self.wire.has_input() || self.is_full() {
                return Ok(());
            }
            match self.wire.next()? {
                Incoming::Message(received) => self.deliver(received),
                Incoming::Control | Incoming::Partial => {}
                Incoming::Close(reason) => {
                    self.end.get_or_insert(End::Closed(reason));
                    self.closing_since.get_or_insert_with(Instant::now);
                }
                // What still comes is read past, so that the peer is not reset before it has read
                // our last words.
                Incoming::Fault(reason) => {
                    let reason = reason.reason().to_owned();
                    let text = "the server broke the protocol";
                    let error = Error::caused(ErrorKind::Misbehaved, text, reason);
                    self.end.get_or_insert(End::Failed(error));
                    self.closing_since = Some(Instant::now());
                    self.must_end_output = true;
                }
                Incoming::End => {
                    let text = "the connection is lost: the server ended it without a Close frame";
                    self.give_up(ErrorKind::Lost, text);
                    return Ok(());
                }
                Incoming::Nothing => return Ok(()),
            }
        }
        Ok(())
    }

    /// There is room: this thread alone fills the queue, and it has looked before it read.
    fn deliver(&self, received: Received) {
        let Some(incoming) = &self.incoming else { return };
        let bytes = received.len();
        self.shared.incoming_bytes.fetch_add(bytes, Ordering::SeqCst);
        if incoming.try_send(received).is_err() {
            // Nobody can receive any more, or a close is under way and nobody does.
            self.shared.incoming_bytes.fetch_sub(bytes, Ordering::SeqCst);
        }
    }

    /// Whether nothing more may be read until somebody receives. On the way to the end what finds
    /// no room is passed over instead, so that the peer's Close is reached.
    fn is_full(&mut self) -> bool {
        let Some(incoming) = &self.incoming else { return false };
        if self.is_closing || self.closing_since.is_some() {
            return false;
        }
        let is_full = || {
            incoming.is_full()
                || self.shared.incoming_bytes.load(Ordering::SeqCst) >= self.incoming_bytes_max
        };
        let mut full = is_full();
        if full {
            self.shared.stalled.store(true, Ordering::SeqCst);
            // Who received between the look and the flag did not know that we wait.
            full = is_full();
            self.shared.stalled.store(full, Ordering::SeqCst);
        }
        if full || self.was_full {
            // The silence was ours.
            self.wire.heard = Instant::now();
        }
        self.was_full = full;
        full
    }

    /// The operating system has ended the connection.
    fn lose(&mut self, error: io::Error) {
        let error = Error::caused(ErrorKind::Lost, "the connection is lost", error);
        self.end.get_or_insert(End::Failed(error));
        self.is_over = true;
        self.wire.discard();
    }

    /// Ends the connection without a word.
    fn give_up(&mut self, kind: ErrorKind, why: &str) {
        self.end.get_or_insert_with(|| End::Failed(Error::new(kind, why)));
        self.is_over = true;
    }

    /// Tells the handles of the end, once our answer to it is written. What has been received
    /// stays.
    fn announce(&mut self) {
        if self.wire.waiting() > 0 {
            return;
        }
        let Some(end) = &self.end else { return };
        if self.shared.end.set(end.clone()).is_ok() {
            self.shared.outgoing.lock().ended = true;
            self.shared.moved.notify_all();
            self.incoming = None;
        }
    }

    /// How long to sleep, `None` when all is over. Late duties are done on the way.
    fn next_wait(&mut self) -> Option<Option<Duration>> {
        let now = Instant::now();
        let due = self.deadline(now);
        if self.is_over {
            return None;
        }
        if self.has_work() {
            return Some(Some(Duration::ZERO));
        }
        Some(due.map(|due| due.saturating_duration_since(now)))
    }

    /// When something is late next. What is late already is dealt with.
    fn deadline(&mut self, now: Instant) -> Option<Instant> {
        let mut due = None;
        let mut is_late = |at: Instant| {
            due = Some(due.map_or(at, |due: Instant| due.min(at)));
            at <= now
        };
        if let Some(since) = self.closing_since
            && is_late(since + self.times.close)
        {
            self.give_up(ErrorKind::Timeout, "no answer to the close");
        }
        if self.wire.waiting() > 0 && is_late(self.wire.moved + self.times.write) {
            self.give_up(ErrorKind::Lost, "the server takes nothing");
        }
        let is_listening = !self.is_closing
            && self.closing_since.is_none()
            && !self.shared.stalled.load(Ordering::SeqCst);
        if !is_listening {
            return due;
        }
        if self.silent_at().is_some_and(&mut is_late) {
            self.give_up(ErrorKind::Lost, "the server is silent");
        }
        if let Some(every) = self.times.ping {
            let at = self.wire.heard.max(self.pinged) + every;
            if is_late(at) {
                self.pinged = now;
                if self.asked <= self.wire.heard {
                    self.asked = now;
                }
                self.wire.ping();
            }
        }
        due
    }

    /// When silence has lasted too long. Where pings are sent, one comes first, and has its time to
    /// be answered: it may be this thread that was away, or the whole machine asleep.
    fn silent_at(&self) -> Option<Instant> {
        let silence_max = self.times.silence_max?;
        let at = self.wire.heard + silence_max;
        match self.times.ping.and_then(|every| silence_max.checked_sub(every)) {
            Some(_) if self.asked <= self.wire.heard => None,
            Some(patience) => Some(at.max(self.asked + patience)),
            None => Some(at),
        }
    }

    /// Whether the next turn would move something without the socket's saying so.
    fn has_work(&mut self) -> bool {
        let can_write = self.wire.writable && self.wire.waiting() > 0;
        if can_write || self.wire.has_input() && !self.is_full() {
            return true;
        }
        let outgoing = self.shared.outgoing.lock();
        (!outgoing.frames.is_empty() || outgoing.close.is_some()) && self.wire.has_room()
    }
}

/// The poll and its waker, for a thread that is about to begin.
pub(crate) fn poll() -> io::Result<(Poll, Waker)> {
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), WAKER)?;
    Ok((poll, waker))
}
