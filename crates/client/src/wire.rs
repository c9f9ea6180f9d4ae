//! The thread behind a [`Client`](super::Client): it owns the socket and the protocol machine.
//!
//! One thread that both reads and writes when the socket is ready, rather than a lock that readers
//! and writers fight for: a client whose writes are stuck because the peer is stuck writing goes on
//! reading, so both come free. Pings are answered whether or not anybody receives.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;
use mio::{Events, Interest, Poll, Token, Waker};
use tungstenite::{
    Error as Fault, Message as Frame,
    error::ProtocolError,
    protocol::{CloseFrame, WebSocketContext, frame::coding::CloseCode},
};

use crate::CloseReason;

use super::{
    error::{Error, ErrorKind},
    shared::{End, Shared, Times, close_frame},
    socket::Received,
};

const SOCKET: Token = Token(0);
const WAKER: Token = Token(1);

/// Frames are encoded ahead of the socket until this many bytes wait there.
const ENCODED_BYTES_MAX: usize = 64 << 10;

/// Pongs that may wait for a peer that pings and does not read, in bytes. Beyond it nothing is
/// read.
const OWED_BYTES_MAX: usize = 16 << 10;

/// Messages read before writing has its turn.
const MESSAGES_PER_TURN_MAX: usize = 64;

/// The socket as the protocol machine sees it: reads come from it, writes go to memory and never
/// block.
struct Wire {
    socket: mio::net::TcpStream,
    readable: bool,
    writable: bool,
    /// Encoded and not yet written, from `written` on.
    encoded: Vec<u8>,
    written: usize,
    /// Bytes of it that the machine wrote by itself: pongs.
    owed: usize,
    is_reading: bool,
    heard: Instant,
    /// When the socket last took something of what waits, or it began to wait.
    moved: Instant,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.socket.read(buffer) {
                Ok(n) => {
                    self.heard = Instant::now();
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.readable &= error.kind() != io::ErrorKind::WouldBlock;
                    return Err(error);
                }
            }
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.waiting() == 0 {
            self.moved = Instant::now();
        }
        self.encoded.extend_from_slice(bytes);
        if self.is_reading {
            self.owed += bytes.len();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Wire {
    fn waiting(&self) -> usize {
        self.encoded.len() - self.written
    }

    /// Writes what the socket takes.
    fn drain(&mut self) -> io::Result<()> {
        while self.writable && self.waiting() > 0 {
            match self.socket.write(&self.encoded[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.written += n;
                    self.moved = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Err(error),
            }
        }
        if self.waiting() == 0 {
            self.encoded.clear();
            self.encoded.shrink_to(ENCODED_BYTES_MAX);
            self.written = 0;
            self.owed = 0;
        }
        Ok(())
    }
}

/// Everything the thread owns.
pub(crate) struct Reactor {
    poll: Poll,
    wire: Wire,
    context: WebSocketContext,
    shared: Arc<Shared>,
    /// `None` once the end has been announced.
    incoming: Option<Sender<Received>>,
    incoming_bytes_max: usize,
    times: Times,
    /// A close was asked for; it goes out when what is queued has.
    is_closing: bool,
    /// When we sent our Close.
    closing_since: Option<Instant>,
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
        mut socket: mio::net::TcpStream,
        context: WebSocketContext,
        shared: Arc<Shared>,
        incoming: Sender<Received>,
        incoming_bytes_max: usize,
    ) -> io::Result<Reactor> {
        let interests = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut socket, SOCKET, interests)?;
        let now = Instant::now();
        let wire = Wire {
            socket,
            readable: true,
            writable: true,
            encoded: Vec::new(),
            written: 0,
            owed: 0,
            is_reading: false,
            heard: now,
            moved: now,
        };
        let times = shared.outgoing.lock().times;
        Ok(Reactor {
            poll,
            wire,
            context,
            shared,
            incoming: Some(incoming),
            incoming_bytes_max,
            times,
            is_closing: false,
            closing_since: None,
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
            let turn = self.turn();
            if let Err(fault) = turn {
                self.fail(fault);
            }
            self.announce();
            let Some(wait) = self.next_wait() else { break };
            match self.poll.poll(&mut events, wait) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.end.get_or_insert(End::Failed(Error::io("the connection is lost", error)));
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
        self.stop();
        self.announce();
    }

    /// One round: what is to be sent, what the socket takes, what the socket has.
    fn turn(&mut self) -> Result<(), Fault> {
        self.take_orders()?;
        self.wire.drain()?;
        self.read()?;
        self.wire.drain()?;
        Ok(())
    }

    fn take_orders(&mut self) -> Result<(), Fault> {
        let mut outgoing = self.shared.outgoing.lock();
        self.times = outgoing.times;
        self.is_closing |= outgoing.close.is_some();
        while self.context.can_write() && self.wire.waiting() < ENCODED_BYTES_MAX {
            let Some(frame) = outgoing.queue.pop_front() else {
                if let Some(reason) = &outgoing.close {
                    self.closing_since = Some(Instant::now());
                    self.context.close(&mut self.wire, close_frame(reason))?;
                }
                break;
            };
            outgoing.bytes -= frame.len();
            self.shared.moved.notify_all();
            self.context.write(&mut self.wire, frame)?;
            self.context.flush(&mut self.wire)?;
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), Fault> {
        for _ in 0..MESSAGES_PER_TURN_MAX {
            if !self.wire.readable || self.wire.owed > OWED_BYTES_MAX || self.is_full() {
                return Ok(());
            }
            self.wire.is_reading = true;
            let outcome = self.context.read(&mut self.wire);
            self.wire.is_reading = false;
            let received = match outcome {
                Ok(Frame::Text(text)) => Received::Text(text.as_str().to_owned()),
                Ok(Frame::Binary(bytes)) => Received::Binary(bytes.to_vec()),
                Ok(Frame::Close(frame)) => {
                    self.context.flush(&mut self.wire)?;
                    let (code, text) = match frame {
                        Some(frame) => (frame.code.into(), frame.reason.as_str().to_owned()),
                        None => (CloseReason::NO_STATUS.code(), String::new()),
                    };
                    self.end.get_or_insert(End::Closed(CloseReason::received(code, text)));
                    self.closing_since.get_or_insert_with(Instant::now);
                    continue;
                }
                Ok(Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_)) => continue,
                Err(Fault::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(fault) => return Err(fault),
            };
            self.deliver(received);
        }
        Ok(())
    }

    /// There is room: this thread alone fills the queue, and it has looked before it read.
    fn deliver(&self, received: Received) {
        let Some(incoming) = &self.incoming else { return };
        let bytes = received.as_message().as_bytes().len();
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

    /// Keeps the end for the handles, and says the close code that goes with a peer's fault.
    fn fail(&mut self, fault: Fault) {
        let code = match &fault {
            Fault::Protocol(
                ProtocolError::ResetWithoutClosingHandshake
                | ProtocolError::ReceivedAfterClosing
                | ProtocolError::SendAfterClosing,
            ) => None,
            Fault::Protocol(_) => Some(CloseCode::Protocol),
            Fault::Utf8(_) => Some(CloseCode::Invalid),
            Fault::Capacity(_) => Some(CloseCode::Size),
            _ => None,
        };
        let Some(code) = code else {
            let lost = "the connection is lost";
            let error = match fault {
                Fault::Io(error) => Error::caused(ErrorKind::Lost, lost, error),
                Fault::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                    let text = "the connection is lost: the server ended it without a Close frame";
                    Error::new(ErrorKind::Lost, text)
                }
                fault => Error::caused(ErrorKind::Lost, lost, fault),
            };
            self.end.get_or_insert(End::Failed(error));
            self.stop();
            return;
        };
        if self.end.is_none() {
            let close = CloseFrame { code, reason: "".into() };
            let _ = self.context.close(&mut self.wire, Some(close));
            let _ = self.wire.drain();
            let _ = self.wire.socket.shutdown(Shutdown::Write);
            let error =
                Error::caused(ErrorKind::Misbehaved, "the server broke the protocol", fault);
            self.end = Some(End::Failed(error));
        }
        self.linger();
    }

    /// Reads past what still comes, so that the peer is not reset before it has read our last
    /// words.
    fn linger(&mut self) {
        let until = Instant::now() + self.times.close;
        self.announce();
        let mut events = Events::with_capacity(8);
        let mut buffer = [0; 4096];
        loop {
            match self.wire.socket.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let _ = self.poll.poll(&mut events, Some(super::target::left(until)));
                }
                Err(_) => break,
            }
            if Instant::now() >= until {
                break;
            }
        }
        self.stop();
    }

    fn stop(&mut self) {
        self.wire.encoded.clear();
        self.wire.written = 0;
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
        if self.is_over {
            return None;
        }
        let now = Instant::now();
        if let Some(since) = self.closing_since {
            let due = since + self.times.close;
            if now >= due {
                let late = "no answer to the close";
                let error = Error::new(ErrorKind::Timeout, late);
                self.end.get_or_insert(End::Failed(error));
                return None;
            }
        }
        let mut due = self.closing_since.map(|since| since + self.times.close);
        let mut by = |at: Instant| due = Some(due.map_or(at, |due| due.min(at)));
        if self.wire.waiting() > 0 {
            let at = self.wire.moved + self.times.write;
            if now >= at {
                return self.give_up("the server takes nothing");
            }
            by(at);
        }
        if !self.is_closing
            && self.closing_since.is_none()
            && !self.shared.stalled.load(Ordering::SeqCst)
        {
            if let Some(at) = self.silent_at() {
                if now >= at {
                    return self.give_up("the server is silent");
                }
                by(at);
            }
            if let Some(every) = self.times.ping {
                let mut at = self.wire.heard.max(self.pinged) + every;
                if now >= at {
                    self.pinged = now;
                    if self.asked <= self.wire.heard {
                        self.asked = now;
                    }
                    self.shared.outgoing.lock().queue.push_back(Frame::Ping(Default::default()));
                    at = now;
                }
                by(at);
            }
        }
        if self.has_work() {
            return Some(Some(Duration::ZERO));
        }
        Some(due.map(|due| due.saturating_duration_since(Instant::now())))
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

    fn give_up<T>(&mut self, why: &str) -> Option<T> {
        self.end.get_or_insert(End::Failed(Error::new(ErrorKind::Lost, why)));
        None
    }

    /// Whether the next turn would move something without the socket's saying so.
    fn has_work(&mut self) -> bool {
        let can_write = self.wire.writable && self.wire.waiting() > 0;
        let can_read = self.wire.readable && self.wire.owed <= OWED_BYTES_MAX && !self.is_full();
        let outgoing = self.shared.outgoing.lock();
        let has_orders = !outgoing.queue.is_empty() || outgoing.close.is_some();
        let can_encode = self.context.can_write() && self.wire.waiting() < ENCODED_BYTES_MAX;
        can_write || can_read || has_orders && can_encode
    }
}

/// The poll and its waker, for a thread that is about to begin.
pub(crate) fn poll() -> io::Result<(Poll, Waker)> {
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), WAKER)?;
    Ok((poll, waker))
}
