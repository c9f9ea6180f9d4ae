//! A WebSocket connection while it is served: its messages, its pings, and the end of its service.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use super::{
    access::Access,
    admission::Permit,
    blocked::NOT_READING_MS,
    closing::{Closing, Stage},
    conn_io::{ConnIo, Readiness},
    costs::{COST_PER_TURN_MAX, MESSAGES_PER_TURN_MAX, cost_of_message},
    dispatch::Dispatch,
    holds::{HOLD_MS_MAX, Holds},
    inline_conn::InlineConn,
    jobs::SerialQueue,
    outbox::Flushed,
    pauses::PauseReasons,
    room_lag::RoomLags,
    timers::Millis,
    transport::Transport,
    worker_cx::WorkerCtx,
};
use crate::{
    handler::{
        erased::{BoxState, Call, CallName},
        instance::{HandlerInstance, on_panic},
    },
    hub::{
        memberships::Match,
        notice::{Notice, NoticeFormatter},
        room::Room,
        send_status::SendStatus,
        session::Session,
        task::TaskAnswer,
    },
    ws::{close::CloseReason, decoder::Event, endpoint::Endpoint},
};

/// How long a newcomer may be silent before it is shown in presence. A client that resumes an
/// earlier session does so at once, and must not be seen to come and go under another name.
const NEWCOMER_QUIET_MS: Millis = 1000;

/// A WebSocket connection being served.
pub(crate) struct Open {
    endpoint: Endpoint,
    pub(super) session: Arc<Session>,
    pub(super) dispatch: Dispatch,
    permit: Permit,
    /// The rooms that the client is too slow for, if there are any.
    pub(super) lags: Option<Box<RoomLags>>,
    /// The senders that wait for the client to read, while it is behind with what they sent.
    holds: Option<Box<Holds>>,
    /// When a ping was last sent; 0 if none was.
    pinged: Millis,
    /// When its session is shown in presence if it has said nothing by then; 0 once that is done.
    show_at: Millis,
    /// When its handler asked to be called without a message; 0 for never.
    pub(super) wake_at: Millis,
}

/// An upgrade that its handler would take.
pub(crate) struct UpgradeRequest {
    pub(super) transport: Transport,
    /// Whose it is: not the socket's peer, if that is a trusted proxy.
    pub(super) client: SocketAddr,
    pub(super) route: usize,
    pub(super) state: BoxState,
}

/// Why an open connection is over for its handler, and what follows.
pub(super) type Ended = (CloseReason, Stage);

impl Open {
    /// Answers an upgrade that has its permit with a 101, and tells the handler. `waited_ms` is the
    /// time that the upgrade spent in line.
    pub(super) fn begin(
        permit: Permit,
        request: UpgradeRequest,
        waited_ms: Option<u64>,
        io: &mut ConnIo,
        cx: &mut WorkerCtx,
    ) -> Box<Open> {
        let UpgradeRequest { transport, client: _, route, state } = request;
        transport.begin(waited_ms, io, cx);
        io.list_dirty(&mut cx.work);
        io.is_http = false;
        io.heavy_reads = 0;
        io.access = Access::begin(io.bytes_sent, route, cx);
        // A client cannot be silent before it was let in.
        io.last_rx = cx.now;
        let shared = &cx.shared;
        shared.metrics.server.accepted_total.add_shared();
        if let Some(waited_ms) = waited_ms {
            shared.metrics.queue_wait.record(Duration::from_millis(waited_ms));
        }
        let chosen = &shared.routes[route];
        let formatter: Arc<dyn NoticeFormatter> = Arc::clone(&chosen.handler) as _;
        let resumable = chosen.handler.resumable();
        let session = shared.hub.sessions.begin(io.id, route as u16, resumable, formatter);
        log::debug!("{} {}: open", io.remote, session.client_id);
        let instance = HandlerInstance::new(&chosen.handler, state);
        let dispatch = match &chosen.jobs {
            None => Dispatch::Inline(instance),
            Some(pool) => {
                let conn = (io.id, io.remote);
                Dispatch::Queued(SerialQueue::new(pool, &shared.hub, conn, &session, instance))
            }
        };
        let mut open = Box::new(Open {
            endpoint: Endpoint::default(),
            session,
            dispatch,
            permit,
            lags: None,
            holds: None,
            pinged: 0,
            show_at: if resumable { cx.now + NEWCOMER_QUIET_MS } else { 0 },
            wake_at: 0,
        });
        open.call(&Call::Open, io, cx);
        if io.stream.is_worn() {
            // Its clients come back, with a new key.
            io.ask_close(CloseReason::GOING_AWAY, &mut cx.work);
        }
        open.watch(io, cx);
        open
    }

    /// The handler, and the connection as it reaches it.
    #[inline(always)]
    pub(super) fn parts<'a>(
        &'a mut self,
        io: &'a mut ConnIo,
        cx: &'a mut WorkerCtx,
    ) -> (&'a mut Dispatch, InlineConn<'a>) {
        let Open { session, wake_at, dispatch, .. } = self;
        (dispatch, InlineConn { io, cx, session, wake_at })
    }

    /// Makes a call of the handler. `false` asks that the connection be paused.
    #[inline]
    fn call(&mut self, call: &Call<'_>, io: &mut ConnIo, cx: &mut WorkerCtx) -> bool {
        cx.progress.begin_call(call.name().number(), self.session.route);
        // The calls in which a handler may welcome the client, and name the bound of that moment.
        if matches!(call, Call::Open) || self.session.awaits_identity() {
            let promised = cx.shared.settings.message_bytes_promised();
            io.message_bytes_promised = promised as u32;
        }
        let (dispatch, mut conn) = self.parts(io, cx);
        let goes_on = dispatch.call(&mut conn, call);
        cx.progress.end_call();
        goes_on
    }

    /// Handles messages until the input is used up, the connection is paused, or others must get a
    /// turn.
    pub(super) fn read(
        &mut self,
        rest: &mut &mut [u8],
        io: &mut ConnIo,
        cx: &mut WorkerCtx,
    ) -> io::Result<Option<Ended>> {
        io.has_backlog = true;
        let spent_max = cx.spent + COST_PER_TURN_MAX;
        for _ in 0..MESSAGES_PER_TURN_MAX {
            if rest.is_empty() {
                io.has_backlog = false;
                return Ok(None);
            }
            if cx.spent >= spent_max {
                break;
            }
            if io.pauses.is_paused() {
                return Ok(None);
            }
            if io.close_asked.is_some() {
                return Ok(None);
            }
            if cx.work.has_backpressure {
                io.park(&mut cx.work);
                return Ok(None);
            }
            match io.next_event(&mut self.endpoint, rest, cx) {
                Event::Message(received) => {
                    cx.metrics().messages_in.add(1);
                    if let Some(access) = &mut io.access {
                        access.messages_in += 1;
                    }
                    let bytes = received.message().as_bytes().len();
                    cx.spent += cost_of_message(bytes, io.deflate.is_some());
                    if !self.call(&Call::Message(received.message()), io, cx) {
                        io.pauses.set(PauseReasons::JOBS);
                    }
                }
                Event::Ping(_) | Event::Pong(_) => {}
                Event::NeedMore => {
                    io.has_backlog = false;
                    return Ok(None);
                }
                Event::Close(reason) => return Ok(Some((reason, Stage::Flush))),
                Event::Failed(reason) => return Ok(Some((reason, Stage::FlushThenLinger))),
            }
            if io.outbox.status(&cx.limits.outbox) == SendStatus::Behind {
                // A client that does not read its answers is not read either.
                self.write(io, cx)?;
            }
        }
        io.list_ready(&mut cx.work);
        Ok(None)
    }

    /// Writes what the kernel takes.
    #[inline]
    pub(super) fn write(&mut self, io: &mut ConnIo, cx: &mut WorkerCtx) -> io::Result<Flushed> {
        if self.lags.is_none() && self.holds.is_none() {
            return io.write(cx);
        }
        self.write_to_slow(io, cx)
    }

    /// Writes to a client that lags or holds its senders. Where that may have made room for what is
    /// held back, the connection is flushed once more.
    #[cold]
    #[inline(never)]
    fn write_to_slow(&mut self, io: &mut ConnIo, cx: &mut WorkerCtx) -> io::Result<Flushed> {
        let before = io.bytes_sent;
        let flushed = io.write(cx)?;
        if self.lags.is_some() && io.bytes_sent > before {
            io.list_dirty(&mut cx.work);
        }
        if io.outbox.is_nearly_empty(&cx.limits.outbox)
            && let Some(mut holds) = self.holds.take()
        {
            io.hold_record = holds.let_go(true, io.hold_record);
        }
        Ok(flushed)
    }

    /// Holds the sender of a message that was just queued for a client that the kernel takes
    /// nothing for at the moment, if much waits for the client and it has read something lately.
    #[cold]
    pub(super) fn hold(&mut self, sender: &Arc<Session>, io: &mut ConnIo, cx: &mut WorkerCtx) {
        if !io.outbox.is_filling(&cx.limits.outbox) || io.close_asked.is_some() {
            return;
        }
        if self.holds.is_none() {
            if cx.now > io.last_tx + HOLD_MS_MAX {
                return;
            }
            let holds = self.holds.insert(Box::new(Holds::new(&self.session, cx)));
            cx.timers.hasten(io.slot(), &mut io.deadline, holds.until);
        }
        if let Some(holds) = self.holds.as_mut().filter(|holds| cx.now < holds.until) {
            holds.add(sender, io.hold_record, cx);
            if io.outbox.status(&cx.limits.outbox) == SendStatus::Behind {
                holds.refuse_directs();
            }
        }
    }

    /// Goes on with another session, which a job of its handler has taken up.
    pub(super) fn attach(&mut self, session: Arc<Session>, io: &ConnIo, cx: &mut WorkerCtx) {
        cx.leave_all(io.slot());
        self.session = session;
    }

    /// Enters a room that was made and that this connection subscribed to.
    pub(super) fn on_matched(&mut self, room: &Arc<Room>, io: &mut ConnIo, cx: &mut WorkerCtx) {
        let hub = Arc::clone(&cx.shared.hub);
        let (dispatch, mut conn) = self.parts(io, cx);
        let matched = hub.matched(&mut conn, room);
        let notice = match &matched {
            Match::Joined(pattern, position) => {
                let (room, overflow, position) = (&room.name, room.overflow, *position);
                Notice::Matched { pattern, room, position, overflow }
            }
            Match::Full(pattern) => Notice::Unmatched { pattern, room: &room.name },
            Match::Stale => return,
        };
        if let Some(frame) = dispatch.notice(&mut conn, &notice) {
            io.send_prepared(&frame, cx);
        }
    }

    /// Decides anew what the client may do, and tells it which rooms it has left. Returns how many
    /// rooms it was in.
    pub(super) fn recheck_permissions(&mut self, io: &mut ConnIo, cx: &mut WorkerCtx) -> usize {
        let hub = Arc::clone(&cx.shared.hub);
        let (_, mut conn) = self.parts(io, cx);
        let (rooms, notices) = hub.recheck_permissions(&mut conn);
        for notice in notices {
            io.send_prepared(&notice, cx);
        }
        rooms
    }

    /// Reads on, now that the jobs of the handler have caught up.
    pub(super) fn on_jobs_done(&mut self, io: &mut ConnIo, cx: &mut WorkerCtx) {
        // The time it was not read is ours, not the client's silence.
        io.last_rx = cx.now;
        io.resume(PauseReasons::JOBS, &mut cx.work);
    }

    /// Whether the client has hung up before it was let in. It is not let in for a moment then, and
    /// no session waits for it.
    pub(super) fn is_given_up(&self, io: &ConnIo) -> bool {
        io.pauses.has(PauseReasons::TASK)
            && io.readiness.contains(Readiness::READ_CLOSED)
            && self.session.awaits_identity()
    }

    /// Gives the handler the answer of the task that it deferred, and reads on.
    pub(super) fn on_task_answered(
        &mut self,
        answer: Option<TaskAnswer>,
        io: &mut ConnIo,
        cx: &mut WorkerCtx,
    ) {
        if self.is_given_up(io) {
            answer.map(TaskAnswer::discard).unwrap_or_default();
            return io.ask_close(CloseReason::LOST, &mut cx.work);
        }
        io.last_rx = cx.now;
        io.pauses.clear(PauseReasons::TASK);
        match answer {
            Some(answer) => {
                cx.progress.begin_call(CallName::Answer.number(), self.session.route);
                let (dispatch, mut conn) = self.parts(io, cx);
                dispatch.answer(&mut conn, answer);
                cx.progress.end_call();
            }
            None => {
                let panics = Arc::clone(&cx.shared.metrics.server.handler_panics);
                on_panic(&mut self.parts(io, cx).1, &panics);
            }
        }
        io.list_ready(&mut cx.work);
    }

    /// Has the handler called after `wait`, as it asked for.
    pub(super) fn wake_after(&mut self, wait: Duration, io: &mut ConnIo, cx: &mut WorkerCtx) {
        self.wake_at = cx.after(wait).max(cx.now + 1);
        io.bring_forward(self.wake_at, cx);
    }

    /// Bytes of a message that is not whole.
    #[inline]
    pub(super) fn partial_bytes(&self) -> usize {
        self.endpoint.held_bytes()
    }

    /// Whether the client reads too little of what it is sent, or nothing for a while.
    pub(super) fn is_slow(&self, io: &ConnIo, cx: &WorkerCtx) -> bool {
        let is_behind = io.pauses.has(PauseReasons::OUTBOX) || self.lags.is_some();
        io.is_blocked() && (is_behind || cx.now >= io.last_tx + NOT_READING_MS)
    }

    /// Stops reading until the deliveries that the session has caused are made.
    pub(super) fn await_deliveries(&mut self, io: &mut ConnIo, cx: &mut WorkerCtx) {
        if self.session.has_too_much_in_flight() {
            io.await_deliveries(&self.session, cx);
        }
    }

    /// Reads on, now that the deliveries that the session has caused are made.
    pub(super) fn on_delivered(&mut self, io: &mut ConnIo, cx: &mut WorkerCtx) {
        io.last_rx = cx.now;
        io.resume(PauseReasons::DELIVERIES, &mut cx.work);
    }

    /// Tells the handler that the server drains; the close follows its call.
    pub(super) fn drain(&mut self, io: &mut ConnIo, cx: &mut WorkerCtx) {
        self.call(&Call::Drain, io, cx);
    }

    /// Looks after the connection when its deadline has passed, and sets the next one.
    pub(super) fn on_deadline(&mut self, io: &mut ConnIo, cx: &mut WorkerCtx) -> io::Result<()> {
        // The kernel calls a socket writable only when a good part of its buffer is free, which
        // takes a slow client long. Only a write shows whether it takes anything at all.
        if io.is_blocked() {
            self.write(io, cx)?;
        }
        self.watch(io, cx);
        Ok(())
    }

    /// Shows a new client, pings a quiet one, closes a silent one, and sets the deadline for
    /// looking again.
    fn watch(&mut self, io: &mut ConnIo, cx: &mut WorkerCtx) {
        if self.show_at > 0 && cx.now >= self.show_at {
            // A client that has been there for a while hardly resumes an earlier session. One that
            // was not let in yet may still be refused.
            let is_in = !self.session.awaits_identity();
            self.show_at = if is_in { 0 } else { cx.now + NEWCOMER_QUIET_MS };
            if cx.shared.hub.confirm(&self.session) {
                cx.on_backpressure();
            }
        }
        if self.wake_at > 0 && cx.now >= self.wake_at {
            self.wake_at = 0;
            self.call(&Call::Wake, io, cx);
        }
        let timeout = cx.config().timeout.as_millis() as Millis;
        let ping = cx.config().ping.as_millis() as Millis;
        let ours = PauseReasons::JOBS
            | PauseReasons::DELIVERIES
            | PauseReasons::TASK
            | PauseReasons::ENGINE
            | PauseReasons::MEMORY;
        if io.pauses.has(ours) || cx.work.has_backpressure {
            // It is the server that does not read; silence means nothing.
            io.last_rx = cx.now;
        }
        if cx.now - io.last_rx >= timeout {
            let is_slow = io.pauses.has(PauseReasons::OUTBOX) || self.lags.is_some();
            let reason = match (is_slow, self.pinged > io.last_rx) {
                (true, _) => CloseReason::SLOW_CONSUMER,
                (false, true) => CloseReason::NO_PONG,
                (false, false) => CloseReason::IDLE,
            };
            io.ask_close(reason, &mut cx.work);
            // The close begins in this turn and sets a deadline of its own.
            return cx.timers.clear(io.slot(), &mut io.deadline);
        }
        let mut next = io.last_rx + timeout;
        if ping > 0 {
            if cx.now >= io.last_rx.max(self.pinged) + ping {
                self.pinged = cx.now;
                // A ping without payload (RFC 6455, 5.5.2).
                io.outbox.push_own(0, &mut cx.scratch.spare, |out| out.extend([0x89, 0x00]));
                io.list_dirty(&mut cx.work);
            }
            next = next.min(io.last_rx.max(self.pinged) + ping);
        }
        for at in [self.show_at, self.wake_at] {
            if at > 0 {
                next = next.min(at);
            }
        }
        if let Some(holds) = &mut self.holds {
            if cx.now >= holds.until {
                io.hold_record = holds.let_go(false, io.hold_record);
            } else {
                next = next.min(holds.until);
            }
        }
        cx.timers.set(io.slot(), &mut io.deadline, next.max(cx.now + 1));
    }

    /// Begins the closing handshake. Returns the endpoint that awaits the peer's Close.
    pub(super) fn send_close(
        &mut self,
        reason: &CloseReason,
        io: &mut ConnIo,
        cx: &mut WorkerCtx,
    ) -> Endpoint {
        if reason.code() == CloseReason::SLOW_CONSUMER.code() {
            let dropped = io.outbox.discard_unsent(&mut cx.scratch.spare);
            cx.metrics().dropped.add(dropped as u64);
            cx.metrics().slow_consumers.add(1);
        }
        self.endpoint.close(reason, &mut cx.scratch.control, cx.limits.protocol(0).role);
        io.queue_control(cx);
        std::mem::take(&mut self.endpoint)
    }

    /// Ends the service of a connection; its last bytes may still be on their way.
    pub(super) fn end(
        mut self,
        (reason, stage): Ended,
        io: &mut ConnIo,
        cx: &mut WorkerCtx,
    ) -> Box<Closing> {
        log::debug!("{} {}: closed, {reason}", io.remote, self.session.client_id);
        cx.metrics().count_close(reason.known_code());
        if let Some(access) = &mut io.access {
            let user = self.session.identity().map(|identity| Arc::clone(&identity.user));
            access.end(self.session.client_id, user, &reason);
        }
        // What a handler sends from here on has nowhere to go.
        io.close_asked = Some(Box::new(CloseReason::NORMAL));
        self.call(&Call::Close(&reason), io, cx);
        io.close_asked = None;
        cx.leave_all(io.slot());
        // The handler's state is dropped before anything else is begun.
        let Open { permit, .. } = self;
        Closing::begin(stage, Some(permit), io, cx)
    }
}
