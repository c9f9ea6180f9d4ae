//! A connection's life, one step for each readiness: Head, Waiting, Open, Closing, gone.

use std::{
    io::{self, Read},
    net::{Shutdown, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use mio::net::TcpStream;
use tungstenite::Message as WireMessage;

use super::{
    admission::{Permit, Ticket},
    bound::{IpSlot, Slot},
    desk::Desk,
    jobs::Lane,
    link::WorkerLink,
    outbox::{Flushed, Outbox},
    platform,
    timers::{Deadline, Millis},
};
use crate::{
    handler::{BoxState, Calls, Link, SendStatus},
    hub::{mailbox::ConnId, sessions::Session},
    ws::{
        close::CloseReason,
        codec::{Codec, Event},
        frame::{Message, PreparedFrame},
        handshake::Upgrade,
    },
};

/// Messages handled for one connection before the others get their turn.
const MESSAGES_PER_TURN_MAX: usize = 256;

/// One socket, from the hand-off until it is reaped. Owned by one worker.
pub(crate) struct Connection {
    pub(super) core: Core,
    pub(super) phase: Phase,
}

/// What a connection has in every phase.
pub(crate) struct Core {
    pub(super) id: ConnId,
    pub(super) stream: TcpStream,
    pub(super) remote: SocketAddr,
    pub(super) outbox: Outbox,
    pub(super) deadline: Deadline,
    /// Input that was read and not used yet: half a head, or what came while this connection was paused.
    pub(super) stash: Vec<u8>,
    /// When bytes last came.
    last_rx: Millis,
    /// Someone asked for this close; it begins at the end of the turn. The first one counts.
    close_asked: Option<Box<CloseReason>>,
    /// The socket may have something to read.
    readable: bool,
    /// The peer has ended its direction; that is read last, and raises no event of its own.
    peer_ended: bool,
    /// The protocol machine may hold messages that were not handled yet.
    backlog: bool,
    /// It is in the worker's list of connections to read.
    pub(super) listed_ready: bool,
    /// It is in the worker's list of connections to flush.
    listed_dirty: bool,
    /// Not read, because the client does not read what it is sent.
    paused_by_outbox: bool,
    /// Not read, because its handler's jobs are behind.
    paused_by_jobs: bool,
    pub(super) _ip_slot: Option<IpSlot>,
}

pub(crate) enum Phase {
    /// HTTP: a request head is due.
    Head {
        _slot: Slot,
        /// Whether a request was answered on this connection.
        answered: bool,
    },
    /// An upgrade in the line of those that wait for a permit.
    Waiting(Box<Waiting>),
    /// A WebSocket connection being served.
    Open(Box<Open>),
    /// The last bytes are on their way; nothing new begins.
    Closing(Closing),
    Gone,
}

pub(crate) struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) upgrade: Upgrade,
    pub(super) route: usize,
    pub(super) state: BoxState,
    pub(super) since: Millis,
}

pub(crate) struct Open {
    pub(super) codec: Codec,
    pub(super) session: Session,
    pub(super) service: Service,
    pub(super) permit: Permit,
    /// When a ping was last sent; 0 if none was since bytes last came.
    pub(super) pinged: Millis,
}

/// Where a connection's handler runs.
pub(crate) enum Service {
    /// On this worker.
    Inline { calls: Arc<dyn Calls>, state: BoxState },
    /// On the threads of a blocking handler.
    Jobs(Arc<Lane>),
}

pub(crate) struct Closing {
    pub(super) stage: Stage,
    /// Held to the end, so that `max_conn` bounds the sockets too.
    pub(super) _permit: Option<Permit>,
    pub(super) _lingering: Option<Slot>,
}

pub(crate) enum Stage {
    /// Our Close is sent or queued; the peer's is due.
    AwaitClose(Box<Codec>),
    /// Write what is queued; that is all.
    Flush,
    /// Write what is queued, then end our direction and wait for the peer to end its own: closing at once
    /// with unread input would reset the connection and might destroy our last answer.
    FlushThenLinger,
    /// Our direction has ended.
    Linger,
}

impl Core {
    pub(super) fn new(
        id: ConnId,
        stream: TcpStream,
        remote: SocketAddr,
        ip_slot: Option<IpSlot>,
        now: Millis,
    ) -> Core {
        Core {
            id,
            stream,
            remote,
            outbox: Outbox::default(),
            deadline: Deadline::default(),
            stash: Vec::new(),
            last_rx: now,
            close_asked: None,
            readable: false,
            peer_ended: false,
            backlog: false,
            listed_ready: false,
            listed_dirty: false,
            paused_by_outbox: false,
            paused_by_jobs: false,
            _ip_slot: ip_slot,
        }
    }

    pub(super) fn slot(&self) -> usize {
        self.id.slot as usize
    }

    /// Asks for a close at the end of the turn. Until then nothing more is queued.
    pub(super) fn ask_close(&mut self, reason: CloseReason, desk: &mut Desk) {
        if self.close_asked.is_none() {
            self.close_asked = Some(Box::new(reason));
            self.list_dirty(desk);
        }
    }

    /// Whether a message of `bytes` may be queued. A client that is too far behind is closed for it: here
    /// is the one place where a message is refused to a slow client.
    pub(super) fn may_queue(&mut self, bytes: usize, desk: &mut Desk) -> bool {
        if self.close_asked.is_some() {
            return false;
        }
        if self.outbox.fits(bytes, &desk.outbox_bounds) {
            return true;
        }
        // It may only look slow because this turn has not flushed yet.
        let failed = self.write(desk).is_err();
        if !failed && self.outbox.fits(bytes, &desk.outbox_bounds) {
            return true;
        }
        desk.metrics().dropped.add(1);
        self.ask_close(CloseReason::SLOW_CONSUMER, desk);
        false
    }

    /// Counts a message that was just queued.
    pub(super) fn sent(&mut self, desk: &mut Desk) -> SendStatus {
        desk.metrics().messages_out.add(1);
        self.list_dirty(desk);
        self.outbox.status(&desk.outbox_bounds)
    }

    pub(super) fn list_dirty(&mut self, desk: &mut Desk) {
        if !std::mem::replace(&mut self.listed_dirty, true) {
            desk.dirty.push(self.slot());
        }
    }

    /// Puts this connection on the list of those to read, unless it is paused.
    pub(super) fn list_ready(&mut self, desk: &mut Desk) {
        if !self.is_paused() && !std::mem::replace(&mut self.listed_ready, true) {
            desk.ready.push(self.slot());
        }
    }

    fn is_paused(&self) -> bool {
        self.paused_by_outbox || self.paused_by_jobs
    }

    /// Queues what the protocol machine wants sent. Control frames know no overflow.
    fn queue_control(&mut self, desk: &mut Desk) {
        if !desk.control.is_empty() {
            let Desk { control, spare, .. } = desk;
            self.outbox.push_own(0, spare, |out| out.append(control));
            self.list_dirty(desk);
        }
    }

    /// Gives the kernel what it takes, and pauses or resumes reading accordingly.
    fn write(&mut self, desk: &mut Desk) -> io::Result<Flushed> {
        let (flushed, sent) = self.outbox.flush(&mut self.stream, &mut desk.spare)?;
        desk.metrics().bytes_out.add(sent as u64);
        if self.paused_by_outbox {
            if self.outbox.is_low(&desk.outbox_bounds) {
                self.paused_by_outbox = false;
                self.list_ready(desk);
            }
        } else if self.outbox.status(&desk.outbox_bounds) == SendStatus::Behind {
            self.paused_by_outbox = true;
            desk.metrics().read_pauses.add(1);
        }
        Ok(flushed)
    }
}

impl Connection {
    /// Notes what the poll said.
    pub(super) fn on_event(&mut self, event: &mio::event::Event, desk: &mut Desk) {
        let hung_up = event.is_read_closed() || event.is_error();
        self.core.peer_ended |= hung_up;
        if event.is_readable() || hung_up {
            self.core.readable = true;
            self.core.list_ready(desk);
        }
        if event.is_writable() && !self.core.outbox.is_empty() {
            self.core.list_dirty(desk);
        }
        if hung_up && matches!(self.phase, Phase::Waiting(_)) {
            // Who hangs up leaves the line. Its socket is not read while it waits.
            self.phase = Phase::Gone;
            self.core.list_dirty(desk);
        }
    }

    /// Reads once and handles what came. `buffer` is the worker's, lent for this call.
    pub(super) fn on_ready(&mut self, desk: &mut Desk, buffer: &mut [u8]) {
        self.core.listed_ready = false;
        match self.phase {
            Phase::Waiting(_) | Phase::Gone => return,
            Phase::Open(_) | Phase::Head { .. } if self.core.is_paused() => return,
            Phase::Open(_) if desk.pressured => return self.hold(desk),
            Phase::Open(_) | Phase::Head { .. } | Phase::Closing(_) => {}
        }
        if std::mem::take(&mut self.core.backlog) {
            let stash = std::mem::take(&mut self.core.stash);
            self.consume_stash(stash, desk);
            if self.core.backlog {
                return;
            }
        }
        if self.core.readable {
            self.read(desk, buffer);
        }
    }

    fn read(&mut self, desk: &mut Desk, buffer: &mut [u8]) {
        match self.core.stream.read(buffer) {
            Ok(0) => self.on_end(desk),
            Ok(n) => {
                self.core.last_rx = desk.now;
                let emptied = n < buffer.len() && platform::SHORT_READ_EMPTIES;
                self.core.readable = !emptied || self.core.peer_ended;
                desk.metrics().bytes_in.add(n as u64);
                if self.core.stash.is_empty() {
                    let used = self.advance(&buffer[..n], desk);
                    self.core.stash.extend_from_slice(&buffer[used..n]);
                } else {
                    let mut stash = std::mem::take(&mut self.core.stash);
                    stash.extend_from_slice(&buffer[..n]);
                    self.consume_stash(stash, desk);
                }
                if self.core.readable {
                    self.core.list_ready(desk);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.core.readable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.core.list_ready(desk),
            Err(error) => self.on_lost(&error, desk),
        }
    }

    fn consume_stash(&mut self, mut stash: Vec<u8>, desk: &mut Desk) {
        let used = self.advance(&stash, desk);
        if used < stash.len() {
            stash.drain(..used);
            self.core.stash = stash;
        }
    }

    /// Handles input as far as it goes now. Returns how many bytes of it were used.
    pub(super) fn advance(&mut self, input: &[u8], desk: &mut Desk) -> usize {
        let mut rest = input;
        loop {
            match &mut self.phase {
                Phase::Head { .. } if !self.core.outbox.fits(0, &desk.outbox_bounds) => {
                    // Who pipelines requests must read the answers before there are more.
                    self.core.backlog = true;
                    break;
                }
                Phase::Head { .. } => match self.head_step(rest, desk) {
                    Some(used) => rest = &rest[used..],
                    None => break,
                },
                Phase::Waiting(_) => break,
                Phase::Open(_) => {
                    self.messages_step(&mut rest, desk);
                    if matches!(self.phase, Phase::Open(_)) {
                        break;
                    }
                }
                Phase::Closing(closing) => {
                    if let Stage::AwaitClose(codec) = &mut closing.stage {
                        let ended = await_close(codec, &mut rest, desk);
                        self.core.queue_control(desk);
                        if ended {
                            closing.stage = Stage::Flush;
                            self.core.list_dirty(desk);
                        }
                    }
                    self.core.backlog = false;
                    return input.len();
                }
                Phase::Gone => return input.len(),
            }
        }
        input.len() - rest.len()
    }

    /// Handles messages until the input is used up, the connection is paused, or others must get a turn.
    fn messages_step(&mut self, rest: &mut &[u8], desk: &mut Desk) {
        self.core.backlog = true;
        for _ in 0..MESSAGES_PER_TURN_MAX {
            let Phase::Open(open) = &mut self.phase else { return };
            if self.core.close_asked.is_some() {
                return;
            }
            if desk.pressured {
                return self.hold(desk);
            }
            let event = open.codec.next(rest, &mut desk.control, &mut desk.contexts);
            self.core.queue_control(desk);
            match event {
                Event::Message(message) => {
                    let message = match &message {
                        WireMessage::Text(text) => Message::Text(text.as_str()),
                        other => Message::Binary(other_bytes(other)),
                    };
                    desk.metrics().messages_in.add(1);
                    if !open.message(&mut self.core, desk, message) {
                        self.core.paused_by_jobs = true;
                    }
                }
                Event::NeedMore => {
                    self.core.backlog = false;
                    return;
                }
                Event::Closed(reason) => return self.end(reason, Stage::Flush, desk),
                Event::Failed(reason) => return self.end(reason, Stage::FlushThenLinger, desk),
            }
            if self.core.outbox.status(&desk.outbox_bounds) == SendStatus::Behind {
                // A client that does not read its answers is not read either.
                if let Err(error) = self.core.write(desk) {
                    return self.on_lost(&error, desk);
                }
            }
            if self.core.is_paused() {
                return;
            }
        }
        self.core.list_ready(desk);
    }

    /// Leaves this connection unread until the pressure is off.
    fn hold(&mut self, desk: &mut Desk) {
        if !std::mem::replace(&mut self.core.listed_ready, true) {
            desk.held.push(self.core.slot());
        }
    }

    /// The peer has ended its direction.
    fn on_end(&mut self, desk: &mut Desk) {
        self.core.readable = false;
        match &mut self.phase {
            Phase::Open(_) => self.end(CloseReason::LOST, Stage::Flush, desk),
            Phase::Head { .. } => self.begin_closing(Stage::Flush, None, desk),
            Phase::Closing(closing) => match closing.stage {
                Stage::Flush | Stage::FlushThenLinger => closing.stage = Stage::Flush,
                Stage::AwaitClose(_) | Stage::Linger => self.phase = Phase::Gone,
            },
            Phase::Waiting(_) | Phase::Gone => self.phase = Phase::Gone,
        }
        self.core.list_dirty(desk);
    }

    /// The socket failed: nothing can be read or written any more.
    fn on_lost(&mut self, error: &io::Error, desk: &mut Desk) {
        log::debug!("{}: {error}", self.core.remote);
        if matches!(self.phase, Phase::Open(_)) {
            self.end(CloseReason::LOST, Stage::Flush, desk);
        }
        self.phase = Phase::Gone;
        self.core.list_dirty(desk);
    }

    /// Queues a room's message. Returns whether it was queued.
    pub(super) fn deliver(&mut self, frame: &PreparedFrame, desk: &mut Desk) -> bool {
        if !matches!(self.phase, Phase::Open(_)) || !self.core.may_queue(frame.len(), desk) {
            return false;
        }
        self.core.outbox.push_shared(frame, &mut desk.spare);
        self.core.list_dirty(desk);
        true
    }

    /// Whether a handler is being served here.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// The jobs of its handler have caught up.
    pub(super) fn on_jobs_done(&mut self, desk: &mut Desk) {
        self.core.paused_by_jobs = false;
        // The time it was not read is ours, not the client's silence.
        self.core.last_rx = desk.now;
        self.core.list_ready(desk);
    }

    /// Asks for a close, if there is a WebSocket to close.
    pub(super) fn ask_close(&mut self, reason: CloseReason, desk: &mut Desk) {
        if matches!(self.phase, Phase::Open(_)) {
            self.core.ask_close(reason, desk);
        }
    }

    /// The server drains.
    pub(super) fn on_drain(&mut self, desk: &mut Desk) {
        match &mut self.phase {
            Phase::Head { .. } => self.begin_closing(Stage::Flush, None, desk),
            Phase::Waiting(_) => self.refuse_waiting(crate::metrics::Refused::Draining, desk),
            Phase::Open(open) => {
                if open.drain(&mut self.core, desk) {
                    self.core.ask_close(CloseReason::GOING_AWAY, desk);
                }
            }
            Phase::Closing(_) | Phase::Gone => {}
        }
        self.core.list_dirty(desk);
    }

    /// The grace is over: whatever is not written is lost.
    pub(super) fn stop(&mut self, desk: &mut Desk) {
        if matches!(self.phase, Phase::Open(_)) {
            self.end(CloseReason::GOING_AWAY, Stage::Flush, desk);
        }
        self.phase = Phase::Gone;
        self.core.list_dirty(desk);
    }

    /// The deadline has passed. Sets the next one, or ends the phase.
    pub(super) fn on_deadline(&mut self, desk: &mut Desk) {
        match &mut self.phase {
            Phase::Head { answered, .. } => {
                let idle = *answered && self.core.stash.is_empty();
                self.head_timeout(idle, desk);
            }
            Phase::Waiting(_) => {
                self.refuse_waiting(crate::metrics::Refused::QueueTimeout, desk);
            }
            Phase::Open(_) => self.watch(desk),
            Phase::Closing(_) if desk.shared.is_draining() && !self.core.outbox.is_empty() => {
                // While the server drains, the drain's own deadline is what cuts a slow client off.
                let at = desk.after(desk.config().close_timeout);
                desk.timers.set(self.core.slot(), &mut self.core.deadline, at);
            }
            Phase::Closing(_) | Phase::Gone => {
                self.phase = Phase::Gone;
                desk.timers.clear(self.core.slot(), &mut self.core.deadline);
            }
        }
        self.core.list_dirty(desk);
    }

    /// Pings a quiet client, closes a silent one, and sets the deadline for looking again.
    pub(super) fn watch(&mut self, desk: &mut Desk) {
        let Phase::Open(open) = &mut self.phase else { return };
        let timeout = desk.config().timeout.as_millis() as Millis;
        let ping = desk.config().ping.as_millis() as Millis;
        if self.core.paused_by_jobs || desk.pressured {
            // It is we who do not read; silence means nothing.
            self.core.last_rx = desk.now;
        }
        let quiet = desk.now - self.core.last_rx;
        if quiet >= timeout {
            let reason = match (self.core.paused_by_outbox, open.pinged > self.core.last_rx) {
                (true, _) => CloseReason::SLOW_CONSUMER,
                (false, true) => CloseReason::NO_PONG,
                (false, false) => CloseReason::IDLE,
            };
            self.core.ask_close(reason, desk);
            // The close begins in this turn and sets a deadline of its own.
            desk.timers.clear(self.core.slot(), &mut self.core.deadline);
            return;
        }
        let mut next = self.core.last_rx + timeout;
        if ping > 0 {
            if desk.now >= self.core.last_rx.max(open.pinged) + ping {
                open.pinged = desk.now;
                self.core.outbox.push_own(0, &mut desk.spare, |out| {
                    // A ping without payload (RFC 6455, 5.5.2).
                    out.extend_from_slice(&[0x89, 0x00]);
                });
                self.core.list_dirty(desk);
            }
            next = next.min(self.core.last_rx.max(open.pinged) + ping);
        }
        desk.timers.set(self.core.slot(), &mut self.core.deadline, next.max(desk.now + 1));
    }

    /// The end of the turn: begins a close that was asked for, writes, and moves a closing connection on.
    pub(super) fn settle(&mut self, desk: &mut Desk) {
        self.core.listed_dirty = false;
        if let Some(reason) = self.core.close_asked.take() {
            self.begin_close(*reason, desk);
        }
        if !matches!(self.phase, Phase::Gone) {
            match self.core.write(desk) {
                Ok(Flushed::Empty) => self.on_flushed(desk),
                Ok(Flushed::Blocked) => {}
                Err(error) => self.on_lost(&error, desk),
            }
        }
        if matches!(self.phase, Phase::Gone) {
            desk.gone.push(self.core.slot());
        }
    }

    fn on_flushed(&mut self, desk: &mut Desk) {
        let Phase::Closing(closing) = &mut self.phase else { return };
        match closing.stage {
            Stage::Flush => self.phase = Phase::Gone,
            Stage::FlushThenLinger => {
                closing.stage = Stage::Linger;
                match self.core.stream.shutdown(Shutdown::Write) {
                    // What came before may be read away already, so that the peer's end is seen.
                    Ok(()) => self.core.list_ready(desk),
                    Err(_) => self.phase = Phase::Gone,
                }
            }
            Stage::AwaitClose(_) | Stage::Linger => {}
        }
    }

    /// Our side closes an open connection.
    fn begin_close(&mut self, reason: CloseReason, desk: &mut Desk) {
        let Phase::Open(open) = &mut self.phase else { return };
        if reason == CloseReason::SLOW_CONSUMER {
            let dropped = self.core.outbox.discard_unsent(&mut desk.spare);
            desk.metrics().dropped.add(dropped as u64);
        }
        open.codec.close(&reason, &mut desk.control, &mut desk.contexts);
        self.core.queue_control(desk);
        let codec = Box::new(std::mem::take(&mut open.codec));
        self.end(reason, Stage::AwaitClose(codec), desk);
        // What was read and not handled may hold the peer's Close.
        let stash = std::mem::take(&mut self.core.stash);
        self.advance(&stash, desk);
    }

    /// An open connection is over for its handler; its last bytes may still be on their way.
    fn end(&mut self, reason: CloseReason, stage: Stage, desk: &mut Desk) {
        let Phase::Open(open) = std::mem::replace(&mut self.phase, Phase::Gone) else { return };
        let Open { session, service, permit, .. } = *open;
        log::debug!("{} {}: closed, {reason}", self.core.remote, session.client_id());
        desk.metrics().count_close(reason.code());
        // What a handler sends from here on has nowhere to go.
        self.core.close_asked = Some(Box::new(CloseReason::NORMAL));
        match service {
            Service::Inline { calls, mut state } => {
                let core = &mut self.core;
                let mut link = WorkerLink { core, desk, client_id: session.client_id() };
                guard(&mut link, |link| calls.close(&mut state, link, &reason));
                // A state may do work when it is dropped, and that is the handler's code as well.
                guard(&mut link, |_| drop(state));
            }
            Service::Jobs(lane) => lane.close(reason),
        }
        self.core.close_asked = None;
        desk.leave_all(self.core.slot());
        drop(session);
        self.begin_closing(stage, Some(permit), desk);
    }

    /// Nothing new begins from here on.
    pub(super) fn begin_closing(&mut self, stage: Stage, permit: Option<Permit>, desk: &mut Desk) {
        // A WebSocket connection is bounded by its permit; a refused one by the bound on lingering.
        let lingering = match (&permit, &stage) {
            (None, Stage::FlushThenLinger) => desk.shared.lingering.take(),
            _ => None,
        };
        let may_linger = permit.is_some() || lingering.is_some();
        let stage = match stage {
            Stage::FlushThenLinger if !may_linger => Stage::Flush,
            stage => stage,
        };
        self.phase = Phase::Closing(Closing { stage, _permit: permit, _lingering: lingering });
        self.core.paused_by_outbox = false;
        self.core.paused_by_jobs = false;
        self.core.list_ready(desk);
        self.core.list_dirty(desk);
        let at = desk.after(desk.config().close_timeout);
        desk.timers.set(self.core.slot(), &mut self.core.deadline, at);
    }
}

impl Open {
    /// Gives the handler a message. `false` asks the caller to pause reading.
    fn message(&mut self, core: &mut Core, desk: &mut Desk, message: Message<'_>) -> bool {
        match &mut self.service {
            Service::Inline { calls, state } => {
                let mut link = WorkerLink { core, desk, client_id: self.session.client_id() };
                guard(&mut link, |link| calls.message(state, link, message));
                true
            }
            Service::Jobs(lane) => lane.message(message),
        }
    }

    /// Tells the handler that its connection is open.
    pub(super) fn open(&mut self, core: &mut Core, desk: &mut Desk) {
        match &mut self.service {
            Service::Inline { calls, state } => {
                let mut link = WorkerLink { core, desk, client_id: self.session.client_id() };
                guard(&mut link, |link| calls.open(state, link));
            }
            Service::Jobs(lane) => lane.open(),
        }
    }

    /// Tells the handler that the server drains. `false` when the handler's jobs will ask for the close.
    fn drain(&mut self, core: &mut Core, desk: &mut Desk) -> bool {
        match &mut self.service {
            Service::Inline { calls, state } => {
                let mut link = WorkerLink { core, desk, client_id: self.session.client_id() };
                guard(&mut link, |link| calls.drain(state, link));
                true
            }
            Service::Jobs(lane) => {
                lane.drain();
                false
            }
        }
    }
}

/// Runs handler code. A panic in it costs this one connection and nothing else.
fn guard(link: &mut WorkerLink<'_>, call: impl FnOnce(&mut dyn Link)) {
    if catch_unwind(AssertUnwindSafe(|| call(link))).is_err() {
        log::error!("{} {}: the handler panicked", link.core.remote, link.client_id);
        link.desk.metrics().handler_panics.add_shared();
        link.close(CloseReason::INTERNAL);
    }
}

/// Looks for the peer's Close in what still comes. `true` when the closing handshake is over.
fn await_close(codec: &mut Codec, rest: &mut &[u8], desk: &mut Desk) -> bool {
    loop {
        match codec.next(rest, &mut desk.control, &mut desk.contexts) {
            Event::Message(_) => {}
            Event::NeedMore => return false,
            Event::Closed(_) | Event::Failed(_) => return true,
        }
    }
}

fn other_bytes(message: &WireMessage) -> &[u8] {
    match message {
        WireMessage::Binary(bytes) => bytes,
        // The codec gives out text and binary messages only.
        _ => &[],
    }
}
