//! How a connection ends: what is still written, what is still read, and when it is gone.

use super::{
    admission::Permit,
    bound::BoundToken,
    conn_io::ConnIo,
    costs::{COST_PER_TURN_MAX, MESSAGES_PER_TURN_MAX, cost_of_message},
    pauses::Pauses,
    worker_cx::WorkerCtx,
};
use crate::ws::{decoder::Event, endpoint::Endpoint};

/// A connection of which only the end is awaited.
pub(crate) struct Closing {
    stage: Stage,
    /// Held to the end, so that `max_conn` bounds the sockets too.
    _permit: Option<Permit>,
    _lingering: Option<BoundToken>,
}

pub(crate) enum Stage {
    /// Our Close is sent or queued; the peer's is due.
    AwaitClose(Endpoint),
    /// Write what is queued; that is all.
    Flush,
    /// Write what is queued, then end our direction and wait for the peer to end its own: closing
    /// at once with unread input would reset the connection and might destroy our last answer.
    FlushThenLinger,
    /// Our direction has ended.
    Linger,
}

/// What becomes of a connection that is closing.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Stays,
    Gone,
}

impl Closing {
    /// Begins the end of a connection. A WebSocket connection hands over its permit.
    pub(super) fn begin(
        stage: Stage,
        permit: Option<Permit>,
        io: &mut ConnIo,
        cx: &mut WorkerCtx,
    ) -> Box<Closing> {
        // A WebSocket connection is bounded by its permit; a refused one by the bound on lingering.
        let lingering = match (&permit, &stage) {
            (None, Stage::FlushThenLinger) => cx.shared.lingering.take(),
            _ => None,
        };
        let may_linger = permit.is_some() || lingering.is_some();
        let stage = match stage {
            Stage::FlushThenLinger if !may_linger => Stage::Flush,
            stage => stage,
        };
        Closing { stage, _permit: permit, _lingering: lingering }.watched(io, cx)
    }

    /// Takes over a socket that got its refusal from the acceptor.
    pub(super) fn refused(
        lingering: BoundToken,
        io: &mut ConnIo,
        cx: &mut WorkerCtx,
    ) -> Box<Closing> {
        let stage = Stage::FlushThenLinger;
        Closing { stage, _permit: None, _lingering: Some(lingering) }.watched(io, cx)
    }

    fn watched(self, io: &mut ConnIo, cx: &mut WorkerCtx) -> Box<Closing> {
        io.pauses = Pauses::NEVER;
        io.list_ready(&mut cx.work);
        io.list_dirty(&mut cx.work);
        io.set_deadline(cx.config().close_timeout, cx);
        Box::new(self)
    }

    /// Looks for the peer's Close in what still comes, and passes over everything else. Leaves in
    /// `rest` what must wait for the next turn.
    pub(super) fn read(&mut self, rest: &mut &mut [u8], io: &mut ConnIo, cx: &mut WorkerCtx) {
        io.has_backlog = false;
        let Stage::AwaitClose(endpoint) = &mut self.stage else { return *rest = &mut [] };
        // What is passed over costs as much as what is handled: it may have been inflated.
        let spent_max = cx.spent + COST_PER_TURN_MAX;
        for _ in 0..MESSAGES_PER_TURN_MAX {
            if cx.spent >= spent_max {
                break;
            }
            match io.next_event(endpoint, rest, cx) {
                Event::Message(received) => {
                    let bytes = received.message().as_bytes().len();
                    cx.spent += cost_of_message(bytes, io.deflate.is_some());
                }
                Event::Ping(_) | Event::Pong(_) => {}
                Event::NeedMore => return *rest = &mut [],
                Event::Close(_) | Event::Failed(_) => {
                    *rest = &mut [];
                    self.stage = Stage::Flush;
                    return io.list_dirty(&mut cx.work);
                }
            }
        }
        io.has_backlog = true;
        io.list_ready(&mut cx.work);
    }

    /// Bytes of a message that is not whole, behind which the peer's Close may come.
    pub(super) fn partial_bytes(&self) -> usize {
        match &self.stage {
            Stage::AwaitClose(endpoint) => endpoint.held_bytes(),
            Stage::Flush | Stage::FlushThenLinger | Stage::Linger => 0,
        }
    }

    /// The peer has ended its direction.
    pub(super) fn on_end(&mut self) -> Fate {
        match self.stage {
            Stage::Flush | Stage::FlushThenLinger => {
                self.stage = Stage::Flush;
                Fate::Stays
            }
            Stage::AwaitClose(_) | Stage::Linger => Fate::Gone,
        }
    }

    /// Everything that was queued has been written.
    pub(super) fn on_flushed(&mut self, io: &mut ConnIo, cx: &mut WorkerCtx) -> Fate {
        match self.stage {
            Stage::Flush => {
                io.stream.close_notify(&mut cx.tls);
                return Fate::Gone;
            }
            Stage::FlushThenLinger => {
                self.stage = Stage::Linger;
                if io.stream.end(&mut cx.tls).is_err() {
                    return Fate::Gone;
                }
                // What came before may be read away already, so that the peer's end is seen.
                io.list_ready(&mut cx.work);
            }
            // A slow client may have read for long in a drain; it can answer only now.
            Stage::AwaitClose(_) if cx.shared.is_draining() => {
                io.set_deadline(cx.config().close_timeout, cx);
            }
            Stage::AwaitClose(_) | Stage::Linger => {}
        }
        Fate::Stays
    }

    /// The deadline has passed.
    pub(super) fn on_deadline(&mut self, io: &mut ConnIo, cx: &mut WorkerCtx) -> Fate {
        if cx.shared.is_draining() && io.has_unsent() {
            // While the server drains, the drain's own deadline is what cuts a slow client off.
            io.set_deadline(cx.config().close_timeout, cx);
            return Fate::Stays;
        }
        Fate::Gone
    }
}
