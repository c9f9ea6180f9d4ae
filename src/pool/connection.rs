//! A connection's life, one step for each readiness: Head, Waiting, Open, Closing, gone.

use std::{
    io::{self, Read},
    sync::Arc,
};

use super::{
    admission::{Permit, Ticket},
    bound::Slot,
    closing::{Closing, Stage, await_close},
    core::Core,
    desk::Desk,
    inline_conn::InlineConn,
    platform,
    service::Service,
    timers::Millis,
};
use crate::{
    handler::erased::BoxState,
    hub::{
        memberships::Match, names::RoomPattern, notice::Notice, room::Room,
        send_status::SendStatus, session::Session,
    },
    metrics::Refused,
    ws::{
        close::CloseReason, decoder::Event, deflate::Inflater, endpoint::Endpoint,
        frame::PreparedFrame, handshake::Upgrade,
    },
};

/// Messages handled for one connection before the others get their turn.
const MESSAGES_PER_TURN_MAX: usize = 256;

/// One socket, from the hand-off until it is reaped. Owned by one worker.
pub(crate) struct Connection {
    pub(super) core: Core,
    pub(super) phase: Phase,
}

pub(crate) enum Phase {
    /// HTTP: a request head is due.
    Head {
        _slot: Slot,
        /// Whether a request was answered on this connection.
        answered: bool,
        /// Whether it ends when what waits is written: what else it asks is not looked at.
        last: bool,
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
    pub(super) endpoint: Endpoint,
    pub(super) session: Arc<Session>,
    /// No message was handled yet.
    pub(super) is_fresh: bool,
    pub(super) service: Service,
    pub(super) permit: Permit,
    /// When a ping was last sent; 0 if none was since bytes last came.
    pub(super) pinged: Millis,
    /// When its session is shown in presence if it has said nothing by then; 0 once that is done.
    pub(super) show_at: Millis,
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

    /// Its peer, which is memory, may have written or read something.
    pub(super) fn on_touched(&mut self, desk: &mut Desk) {
        self.core.readable = true;
        self.core.list_ready(desk);
        if !self.core.outbox.is_empty() {
            self.core.list_dirty(desk);
        }
    }

    /// Reads once and handles what came. `buffer` is the worker's, lent for this call.
    pub(super) fn on_ready(&mut self, desk: &mut Desk, buffer: &mut [u8]) {
        self.core.listed_ready = false;
        match self.phase {
            Phase::Waiting(_) | Phase::Gone => return,
            Phase::Open(_) | Phase::Head { .. } if self.core.is_paused() => return,
            Phase::Open(_) if desk.pressured => return self.park(desk),
            Phase::Open(_) | Phase::Head { .. } | Phase::Closing(_) => {}
        }
        if std::mem::take(&mut self.core.backlog) {
            let stash = std::mem::take(&mut self.core.stash);
            self.consume_stash(stash, desk);
            // One round of messages a turn, whether they were read now or before.
            return self.core.list_ready(desk);
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
                    let used = self.advance(&mut buffer[..n], desk);
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
        let used = self.advance(&mut stash, desk);
        if used < stash.len() {
            stash.drain(..used);
            self.core.stash = stash;
        }
    }

    /// Handles input as far as it goes now. Returns how many bytes of it were used.
    pub(super) fn advance(&mut self, input: &mut [u8], desk: &mut Desk) -> usize {
        let len = input.len();
        let mut rest = input;
        loop {
            match &mut self.phase {
                Phase::Head { last: true, .. } => return len,
                Phase::Head { .. } if !self.core.outbox.fits(0, &desk.outbox_bounds) => {
                    // Who pipelines requests must read the answers before there are more.
                    self.core.backlog = true;
                    self.core.list_dirty(desk);
                    break;
                }
                Phase::Head { .. } => match self.head_step(rest, desk) {
                    Some(used) => rest = &mut rest[used..],
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
                    if let Stage::AwaitClose(endpoint) = &mut closing.stage {
                        let deflate = self.core.deflate.as_deref_mut();
                        let ended = await_close(endpoint, deflate, &mut rest, desk);
                        self.core.queue_control(desk);
                        if ended {
                            closing.stage = Stage::Flush;
                            self.core.list_dirty(desk);
                        }
                    }
                    self.core.backlog = false;
                    return len;
                }
                Phase::Gone => return len,
            }
        }
        len - rest.len()
    }

    /// Handles messages until the input is used up, the connection is paused, or others must get a
    /// turn.
    fn messages_step(&mut self, rest: &mut &mut [u8], desk: &mut Desk) {
        self.core.backlog = true;
        for _ in 0..MESSAGES_PER_TURN_MAX {
            let Phase::Open(open) = &mut self.phase else { return };
            if self.core.close_asked.is_some() {
                return;
            }
            if desk.pressured {
                return self.park(desk);
            }
            let Desk { control, protocol, deflaters, .. } = desk;
            let deflate = self.core.deflate.as_deref_mut();
            let inflater = deflate.map(|deflate| Inflater { deflate, deflaters });
            let event = open.endpoint.next(rest, control, protocol, inflater);
            self.core.queue_control(desk);
            match event {
                Event::Message(received) => {
                    desk.metrics().messages_in.add(1);
                    let session = &mut open.session;
                    let conn = InlineConn { core: &mut self.core, desk, session };
                    if !open.service.message(conn, received.message()) {
                        self.core.paused_by_jobs = true;
                    }
                    // Jobs see to it themselves, when the message has had its turn.
                    let is_inline = matches!(open.service, Service::Inline { .. });
                    if std::mem::take(&mut open.is_fresh) && is_inline {
                        open.session.set_begun();
                        open.show_at = 0;
                        if desk.shared.hub.confirm(&open.session) {
                            desk.on_backpressure();
                        }
                    }
                }
                Event::Ping(_) | Event::Pong(_) => {}
                Event::NeedMore => {
                    self.core.backlog = false;
                    return;
                }
                Event::Close(reason) => return self.end(reason, Stage::Flush, desk),
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
    fn park(&mut self, desk: &mut Desk) {
        if !std::mem::replace(&mut self.core.listed_ready, true) {
            desk.parked.push(self.core.slot());
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
    pub(super) fn on_lost(&mut self, error: &io::Error, desk: &mut Desk) {
        log::debug!("{}: {error}", self.core.remote);
        if matches!(self.phase, Phase::Open(_)) {
            self.end(CloseReason::LOST, Stage::Flush, desk);
        }
        self.phase = Phase::Gone;
        self.core.list_dirty(desk);
    }

    /// Queues a message to this one client. Returns whether it was queued.
    pub(super) fn send(&mut self, frame: &PreparedFrame, desk: &mut Desk) -> bool {
        if !matches!(self.phase, Phase::Open(_)) || !self.core.may_queue(frame.len(), desk) {
            return false;
        }
        self.core.queue_prepared(frame, desk);
        self.core.list_dirty(desk);
        true
    }

    /// Whether it is in the HTTP phase, and so need not be waited for when the server drains.
    pub(super) fn is_http(&self) -> bool {
        matches!(self.phase, Phase::Head { .. }) && self.core.outbox.is_empty()
    }

    /// The route of the handler that is being served here.
    pub(super) fn route(&self) -> Option<u16> {
        match &self.phase {
            Phase::Open(open) => Some(open.session.route),
            _ => None,
        }
    }

    /// Whether a handler is being served here.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// A job has taken up another session for it.
    pub(super) fn on_attach(&mut self, session: Arc<Session>, desk: &mut Desk) {
        if let Phase::Open(open) = &mut self.phase {
            desk.leave_all(self.core.slot());
            open.session = session;
        }
    }

    /// A room was made that this connection subscribed to.
    pub(super) fn on_matched(&mut self, room: &Arc<Room>, pattern: &RoomPattern, desk: &mut Desk) {
        let Phase::Open(open) = &mut self.phase else {
            return desk.shared.hub.uncount(room, desk.worker);
        };
        let hub = Arc::clone(&desk.shared.hub);
        let session = &mut open.session;
        let mut conn = InlineConn { core: &mut self.core, desk, session };
        let notice = match hub.matched(&mut conn, room, pattern) {
            Match::Joined(position) => {
                let (room, overflow) = (&room.name, room.overflow);
                Notice::Matched { pattern, room, position, overflow }
            }
            Match::Full => Notice::Unmatched { pattern, room: &room.name },
            Match::Stale => return,
        };
        if let Some(frame) = open.service.notice(conn, &notice)
            && self.send(&frame, desk)
        {
            desk.metrics().messages_out.add(1);
        }
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
            // Whoever watches the server over a connection of its own sees it drain.
            Phase::Head { .. } => {}
            Phase::Waiting(_) => self.refuse_waiting(Refused::Draining, desk),
            Phase::Open(open) => {
                let session = &mut open.session;
                if open.service.drain(InlineConn { core: &mut self.core, desk, session }) {
                    self.core.ask_close(CloseReason::GOING_AWAY, desk);
                }
            }
            Phase::Closing(_) | Phase::Gone => {}
        }
        self.core.list_dirty(desk);
    }

    /// The deadline has passed. Sets the next one, or ends the phase.
    pub(super) fn on_deadline(&mut self, desk: &mut Desk) {
        match &mut self.phase {
            Phase::Head { .. } if self.core.is_reading(desk) => {
                let at = desk.after(desk.config().handshake_timeout);
                desk.timers.set(self.core.slot(), &mut self.core.deadline, at);
            }
            Phase::Head { answered, .. } => {
                let idle = *answered && self.core.stash.is_empty();
                self.head_timeout(idle, desk);
            }
            Phase::Waiting(_) => {
                self.refuse_waiting(Refused::QueueTimeout, desk);
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

    /// Shows a new client, pings a quiet one, closes a silent one, and sets the deadline for
    /// looking again.
    pub(super) fn watch(&mut self, desk: &mut Desk) {
        // The kernel calls a socket writable only when a good part of its buffer is free, which
        // takes a slow client long. Whether it takes anything at all is found out by
        // trying.
        if self.core.blocked
            && self.is_open()
            && let Err(error) = self.core.write(desk)
        {
            return self.on_lost(&error, desk);
        }
        let Phase::Open(open) = &mut self.phase else { return };
        if open.show_at > 0 && desk.now >= open.show_at {
            // It has been there for a while without a word: it will hardly resume an earlier
            // session.
            open.show_at = 0;
            if desk.shared.hub.confirm(&open.session) {
                desk.on_backpressure();
            }
        }
        let timeout = desk.config().timeout.as_millis() as Millis;
        let ping = desk.config().ping.as_millis() as Millis;
        if self.core.paused_by_jobs || desk.pressured {
            // It is we who do not read; silence means nothing.
            self.core.last_rx = desk.now;
        }
        let quiet = desk.now - self.core.last_rx;
        if quiet >= timeout {
            let is_slow = self.core.paused_by_outbox || self.core.lag.is_some();
            let reason = match (is_slow, open.pinged > self.core.last_rx) {
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
        if open.show_at > 0 {
            next = next.min(open.show_at);
        }
        desk.timers.set(self.core.slot(), &mut self.core.deadline, next.max(desk.now + 1));
    }
}
