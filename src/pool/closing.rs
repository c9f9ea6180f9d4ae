//! How a connection ends: what is still written, what is still read, and when it is gone.

use super::{
    admission::Permit,
    bound::Slot,
    connection::{Connection, Open, Phase},
    desk::Desk,
    inline_conn::InlineConn,
    outbox::Flushed,
};
use crate::ws::{
    close::CloseReason,
    decoder::Event,
    deflate::{Deflate, Inflater},
    endpoint::Endpoint,
};

pub(crate) struct Closing {
    pub(super) stage: Stage,
    /// Held to the end, so that `max_conn` bounds the sockets too.
    pub(super) _permit: Option<Permit>,
    pub(super) _lingering: Option<Slot>,
}

pub(crate) enum Stage {
    /// Our Close is sent or queued; the peer's is due.
    AwaitClose(Box<Endpoint>),
    /// Write what is queued; that is all.
    Flush,
    /// Write what is queued, then end our direction and wait for the peer to end its own: closing
    /// at once with unread input would reset the connection and might destroy our last answer.
    FlushThenLinger,
    /// Our direction has ended.
    Linger,
}

impl Connection {
    /// The grace is over: whatever is not written is lost.
    pub(super) fn stop(&mut self, desk: &mut Desk) {
        if matches!(self.phase, Phase::Open(_)) {
            self.end(CloseReason::GOING_AWAY, Stage::Flush, desk);
        }
        self.phase = Phase::Gone;
        self.core.list_dirty(desk);
    }

    /// The end of the turn: begins a close that was asked for, writes, and moves a closing
    /// connection on.
    pub(super) fn settle(&mut self, desk: &mut Desk) {
        self.core.listed_dirty = false;
        if let Some(reason) = self.core.close_asked.take() {
            self.begin_close(*reason, desk);
        }
        self.catch_up(desk);
        if !matches!(self.phase, Phase::Gone) {
            match self.core.write(desk) {
                Ok(Flushed::Empty) => self.on_flushed(desk),
                Ok(Flushed::Blocked) => {}
                Err(error) => self.on_lost(&error, desk),
            }
        }
        if self.core.backlog {
            // What could not be answered before earlier answers were written.
            self.core.list_ready(desk);
        }
        if matches!(self.phase, Phase::Gone) {
            desk.gone.push(self.core.slot());
        }
    }

    fn on_flushed(&mut self, desk: &mut Desk) {
        if matches!(self.phase, Phase::Head { last: true, .. }) {
            return self.begin_closing(Stage::FlushThenLinger, None, desk);
        }
        let Phase::Closing(closing) = &mut self.phase else { return };
        match closing.stage {
            Stage::Flush => self.phase = Phase::Gone,
            Stage::FlushThenLinger => {
                closing.stage = Stage::Linger;
                match self.core.stream.end() {
                    // What came before may be read away already, so that the peer's end is seen.
                    Ok(()) => self.core.list_ready(desk),
                    Err(_) => self.phase = Phase::Gone,
                }
            }
            // A slow client may have read for long in a drain; it can answer only now.
            Stage::AwaitClose(_) if desk.shared.is_draining() => {
                let at = desk.after(desk.config().close_timeout);
                desk.timers.set(self.core.slot(), &mut self.core.deadline, at);
            }
            Stage::AwaitClose(_) | Stage::Linger => {}
        }
    }

    /// Our side closes an open connection.
    fn begin_close(&mut self, reason: CloseReason, desk: &mut Desk) {
        let Phase::Open(open) = &mut self.phase else { return };
        if reason == CloseReason::LOST {
            // There is nobody to tell.
            self.end(reason, Stage::Flush, desk);
            self.phase = Phase::Gone;
            return;
        }
        if reason == CloseReason::SLOW_CONSUMER {
            let dropped = self.core.outbox.discard_unsent(&mut desk.spare);
            desk.metrics().dropped.add(dropped as u64);
            desk.metrics().slow_consumers.add(1);
        }
        open.endpoint.close(&reason, &mut desk.control, desk.protocol.role);
        self.core.queue_control(desk);
        let endpoint = Box::new(std::mem::take(&mut open.endpoint));
        self.end(reason, Stage::AwaitClose(endpoint), desk);
        // What was read and not handled may hold the peer's Close.
        let mut stash = std::mem::take(&mut self.core.stash);
        self.advance(&mut stash, desk);
    }

    /// An open connection is over for its handler; its last bytes may still be on their way.
    pub(super) fn end(&mut self, reason: CloseReason, stage: Stage, desk: &mut Desk) {
        let open = match std::mem::replace(&mut self.phase, Phase::Gone) {
            Phase::Open(open) => open,
            other => {
                self.phase = other;
                return;
            }
        };
        let Open { mut session, service, permit, .. } = *open;
        log::debug!("{} {}: closed, {reason}", self.core.remote, session.client_id);
        desk.metrics().count_close(reason.known_code());
        // What a handler sends from here on has nowhere to go.
        self.core.close_asked = Some(Box::new(CloseReason::NORMAL));
        let session = &mut session;
        service.close(InlineConn { core: &mut self.core, desk, session }, reason);
        self.core.close_asked = None;
        desk.leave_all(self.core.slot());
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
        self.core.closing = true;
        self.core.paused_by_outbox = false;
        self.core.paused_by_jobs = false;
        self.core.list_ready(desk);
        self.core.list_dirty(desk);
        let at = desk.after(desk.config().close_timeout);
        desk.timers.set(self.core.slot(), &mut self.core.deadline, at);
    }
}

/// Looks for the peer's Close in what still comes. `true` when the closing handshake is over.
pub(super) fn await_close(
    endpoint: &mut Endpoint,
    mut deflate: Option<&mut Deflate>,
    rest: &mut &mut [u8],
    desk: &mut Desk,
) -> bool {
    loop {
        let Desk { control, protocol, deflaters, .. } = desk;
        let deflate = deflate.as_deref_mut();
        let inflater = deflate.map(|deflate| Inflater { deflate, deflaters });
        match endpoint.next(rest, control, protocol, inflater) {
            Event::Message(_) | Event::Ping(_) | Event::Pong(_) => {}
            Event::NeedMore => return false,
            Event::Close(_) | Event::Failed(_) => return true,
        }
    }
}
